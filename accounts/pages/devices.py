"""The pages with which an owner gives each device a password of its own, and takes it back."""

from datetime import timedelta
from typing import Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from accounts import app_passwords
from accounts.models import AppPassword
from accounts.pages import visits
from accounts.pages.visits import Owner
from accounts.provisioning import Refused

_LIVES: Final = {"": None, "30": timedelta(days=30), "90": timedelta(days=90), "365": timedelta(days=365)}


@require_http_methods(["GET", "HEAD", "POST"])
@visits.for_owner()
def devices(request: HttpRequest, owner: Owner) -> HttpResponseBase:
    """The devices; and one more, whose password is shown in the answer and never again."""
    error, wrong, made, text = "", "", None, ""
    if request.method == "POST":
        life = _LIVES.get(request.POST.get("life", ""))
        try:
            made, text = app_passwords.create(
                owner.mailbox,
                name=request.POST.get("name", ""),
                scopes=request.POST.getlist("scopes"),
                expires_at=timezone.now() + life if life else None,
                own_copy="own_copy" in request.POST,
            )
        except Refused as refused:
            error, wrong = str(refused), getattr(refused, "field", "")
    own = AppPassword.objects.visible_to(owner.principal).filter(revoked_at=None).order_by("-pk")
    context = {
        "error": error,
        "wrong": wrong,
        "made": made,
        "text": text,
        "devices": own,
        "typed": request.POST if error else {},
        "now": timezone.now(),
    }
    return visits.page(request, owner, "devices", status=422 if error else 200, **context)


@require_POST
@visits.for_owner()
def own_copy(request: HttpRequest, owner: Owner, id: int) -> HttpResponseBase:
    """Give a device its own copy of the mail, or let it share everybody's again."""
    device = _device(owner, id)
    wanted = "on" in request.POST
    try:
        app_passwords.change(device, own_copy=wanted)
    except Refused as refused:
        messages.error(request, f"{str(refused)[:1].upper()}{str(refused)[1:]}.")
    else:
        text = (
            _("%(device)s has its own copy: what it removes is gone for that device only.")
            if wanted
            else _("%(device)s has no own copy any more: what it removes is gone for all devices.")
        )
        messages.success(request, text % {"device": device.name})
    return redirect("owner-devices")


@require_POST
@visits.for_owner()
def revoke(request: HttpRequest, owner: Owner, id: int) -> HttpResponseBase:
    """Take a device's password back."""
    device = _device(owner, id)
    app_passwords.revoke(device)
    messages.success(request, _("%(device)s cannot sign in any more.") % {"device": device.name})
    return redirect("owner-devices")


def _device(owner: Owner, id: int) -> AppPassword:
    device: AppPassword | None = AppPassword.objects.visible_to(owner.principal).filter(pk=id).first()
    if device is None:
        raise Http404
    return device
