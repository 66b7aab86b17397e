"""Pages beside the form of a login, for who looks after others: taking a lost second step away, ending sessions."""

from typing import Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts import web_sessions
from accounts.models import User
from accounts.provisioning import REFUSALS, NotAllowed
from accounts.provisioning.logins import refuse_out_of_reach
from accounts.scoped import RowPage, Scoped
from accounts.two_factor import factors


def _reset(page: Scoped, request: HttpRequest, user: User) -> HttpResponseBase:
    """Say what goes; take it away."""
    _check_reach(user)
    if request.method == "POST":
        try:
            factors.reset(user)
        except REFUSALS as refusal:
            page.message_user(request, f"{refusal}.", messages.ERROR)
        else:
            page.message_user(request, _("%(login)s signs in with the password alone now.") % {"login": user})
        return page.to_row(user)
    found = factors.of(user)
    facts = [
        (_("Authenticator app"), _("yes") if found.app else _("no")),
        (_("Passkeys"), len(found.passkeys)),
        (_("Recovery codes"), found.recovery_codes),
    ]
    return page.asking(
        request,
        user,
        _("Reset the second step of %(login)s") % {"login": user},
        meaning=_(
            "For somebody who has lost it all. Make sure that it is he who asks: after this the password alone lets him"
            " in. All of these are removed, and he is signed out everywhere."
        ),
        facts=facts,
        button=_("Reset it"),
    )


def _sessions(page: Scoped, request: HttpRequest, user: User) -> HttpResponseBase:
    """Show where somebody is signed in; end it."""
    _check_reach(user)
    if request.method == "POST":
        ended = web_sessions.end(web_sessions.of(user), user)
        text = ngettext("%(number)d session is ended.", "%(number)d sessions are ended.", ended)
        page.message_user(request, text % {"number": ended}, messages.SUCCESS)
        return page.to_row(user)
    facts = [
        (
            formats.date_format(timezone.localtime(row.last_seen_at), "DATETIME_FORMAT"),
            " · ".join(filter(None, (row.browser_name, row.client_address))),
        )
        for row in web_sessions.of(user)
    ]
    title = _("Where %(login)s is signed in") % {"login": user}
    return page.asking(request, user, title, facts=facts, button=_("End all sessions"))


def _check_reach(user: User) -> None:
    try:
        refuse_out_of_reach(user)
    except NotAllowed as refusal:
        raise PermissionDenied from refusal


OF_LOGINS: Final = [
    RowPage(
        "reset-two-factor",
        gettext_lazy("Reset the second step"),
        "logins",
        "password",
        _reset,
        lambda user: factors.of(user).any,
    ),
    RowPage(
        "web-sessions",
        gettext_lazy("Where he is signed in"),
        "logins",
        "password",
        _sessions,
        lambda user: web_sessions.of(user).exists(),
    ),
]
