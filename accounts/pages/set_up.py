"""The pages that help an owner to set up a mail program: the steps, an Apple profile, a link to it for a telephone."""

from typing import Final

import segno
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import app_passwords, mail_programs, scope
from accounts.models import Mailbox
from accounts.pages import links, visits
from accounts.pages.visits import Owner
from accounts.provisioning import Refused

_PROFILE: Final = "application/x-apple-aspen-config"


@require_safe
@visits.for_owner()
def steps(request: HttpRequest, owner: Owner) -> HttpResponseBase:
    """The steps for each program, with the values of this mailbox."""
    return visits.page(request, owner, "set-up", servers=mail_programs.servers())


@require_POST
@visits.for_owner()
def profile(request: HttpRequest, owner: Owner) -> HttpResponseBase:
    """An Apple profile with a fresh device password, for the device that asks."""
    try:
        return _profile(owner.mailbox)
    except Refused as refused:
        messages.error(request, str(refused))
        return redirect("owner-set-up")


@require_POST
@visits.for_owner()
def link(request: HttpRequest, owner: Owner) -> HttpResponseBase:
    """A code to be scanned with a telephone, where it leads to a profile, once."""
    try:
        token = links.make(owner)
    except links.Away:
        messages.error(request, _("No link can be made right now. Try again in a moment."))
        return redirect("owner-set-up")
    path = reverse("owner-profile-linked", args=[token])
    address = (
        f"{settings.MAILHOST_PUBLIC_URL}{path}" if settings.MAILHOST_PUBLIC_URL else request.build_absolute_uri(path)
    )
    code = segno.make(address, error="m")
    # White around it, also where the page is dark.
    image = code.svg_data_uri(scale=6, border=4, light="#fff", xmldecl=False, svgns=True)
    return visits.page(request, owner, "link", link=address, image=image, minutes=links.LASTS // 60)


@require_http_methods(["GET", "HEAD", "POST"])
def linked(request: HttpRequest, token: str) -> HttpResponseBase:
    """Where the code leads to. Asking again first: what only looks at links must not use them up."""
    taking = request.method == "POST"
    try:
        mailbox = links.mailbox_of(token, take=taking)
        if mailbox is not None and taking:
            with scope.entered(visits.principal_of(mailbox, visits.client_of(request))):
                return _profile(mailbox)
    except (links.Away, Refused):
        return render(request, "owner/linked.html", {"away": True}, status=503)
    return render(request, "owner/linked.html", {"mailbox": mailbox}, status=200 if mailbox else 404)


def _profile(mailbox: Mailbox) -> HttpResponse:
    _made, text = app_passwords.create(mailbox, name="Apple Mail")
    octets = mail_programs.apple_profile(
        mail_programs.servers(), address=mailbox.address, name=mailbox.name, password=text
    )
    headers = {"Content-Disposition": 'attachment; filename="mail.mobileconfig"'}
    return HttpResponse(octets, content_type=_PROFILE, headers=headers)
