"""The pages with which an owner signs in and out."""

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from accounts import addresses, failed_logins, signing_in
from accounts.authentication import Busy
from accounts.clients import Address
from accounts.models import AppPassword, FailedLogin
from accounts.pages import visits
from accounts.pages.visits import NoMailbox, Shut
from accounts.signing_in import WrongPassword
from accounts.throttle import TooManyFailures


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponseBase:
    """Ask for address and password."""
    name = request.POST.get("address", "")
    next_page = request.POST.get("next", request.GET.get("next", ""))
    error, status = "", 200
    if request.method == "POST":
        try:
            visits.begin(request, _signed_in(request, name))
            return redirect(next_page if next_page.startswith(reverse("owner-overview")) else "owner-overview")
        except WrongPassword:
            error, status = _("That is not the password of this address."), 403
        except TooManyFailures:
            error, status = _("Too many sign-ins have failed. Wait a quarter of an hour, then try again."), 429
        except Busy:
            error, status = _("Many people are signing in right now. Try again in a moment."), 503
        except NoMailbox:
            error, status = _("This login has no mailbox. It is for the administration."), 403
        except Shut as shut:
            _keep(shut, visits.client_of(request))
            return visits.refusal(request, shut)
    context = {"address": name, "error": error, "next": next_page}
    return render(request, "owner/sign-in.html", context, status=status)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponseBase:
    """End the visit."""
    visits.end(request)
    return redirect("owner-sign-in")


def _keep(shut: Shut, client: Address | None) -> None:
    """That the password was right, and did not help."""
    failed = failed_logins.failure(
        shut.mailbox.address,
        mailbox_id=shut.mailbox.pk,
        reason=FailedLogin.Reason.STATE,
        through=FailedLogin.Through.PAGES,
        client=client,
        typed_whole=True,
    )
    failed_logins.write(failed, client)


def _signed_in(request: HttpRequest, name: str) -> signing_in.SignedIn:
    try:
        address = addresses.login(name.strip(), default_domain=settings.MAILHOST_DEFAULT_DOMAIN)
    except addresses.BadAddress:
        address = ""
    password = request.POST.get("password", "")
    return signing_in.verify(
        address,
        password,
        client=visits.client_of(request),
        app_scope=AppPassword.Scope.SELF,
        typed_whole="@" in name,
    )
