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
    error, made, text = "", None, ""
    if request.method == "POST":
        life = _LIVES.get(request.POST.get("life", ""))
        try:
            made, text = app_passwords.create(
                owner.mailbox,
                name=request.POST.get("name", ""),
                scopes=request.POST.getlist("scopes"),
                expires_at=timezone.now() + life if life else None,
            )
        except Refused as refused:
            error = str(refused)
    own = AppPassword.objects.visible_to(owner.principal).filter(revoked_at=None).order_by("-pk")
    context = {
        "error": error,
        "made": made,
        "text": text,
        "devices": own,
        "typed": request.POST.get("name", "") if error else "",
        "now": timezone.now(),
    }
    return visits.page(request, owner, "devices", status=422 if error else 200, **context)


@require_POST
@visits.for_owner()
def revoke(request: HttpRequest, owner: Owner, id: int) -> HttpResponseBase:
    """Take a device's password back."""
    device = AppPassword.objects.visible_to(owner.principal).filter(pk=id).first()
    if device is None:
        raise Http404
    app_passwords.revoke(device)
    messages.success(request, _("%(device)s cannot sign in any more.") % {"device": device.name})
    return redirect("owner-devices")
