"""App passwords: one for each device or program of a mailbox's owner, which can be taken back by itself."""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, TypedDict, Unpack

from django.db import transaction
from django.db.models.functions import Now
from django.dispatch import Signal
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import audit, notices, passwords
from accounts.models import AppPassword, Mailbox
from accounts.provisioning import values
from accounts.provisioning.logins import refuse_stronger
from accounts.provisioning.lookups import lock_open
from accounts.provisioning.refusals import BadValue, Refused

MOST: Final = 100
"""Of a mailbox, not counting those that were revoked; of these as many are kept for who asks what has become of it."""


view_changed: Final = Signal()
"""A device began to have an own copy of the maildrop, or has none any more: its row is `app_password`.

Sent in the transaction of the change, which holds the mailbox.
"""


class TooMany(Refused):
    """The mailbox has as many as it may."""


class NotInUse(Refused):
    """It was revoked."""


class AppPasswordValues(TypedDict, total=False):
    """What of an app password can be chosen."""

    name: str  # of the device
    scopes: Iterable[str]
    expires_at: datetime | None  # with its time zone
    allowed_networks: Iterable[str]
    own_copy: bool  # of the maildrop


def create(
    mailbox: Mailbox,
    *,
    name: str,
    scopes: Iterable[str] = (AppPassword.Scope.POP3,),
    expires_at: datetime | None = None,
    allowed_networks: Iterable[str] = (),
    own_copy: bool = False,
) -> tuple[AppPassword, str]:
    """Make an app password for an open mailbox; without networks it is good from anywhere.

    With an own copy of the maildrop, the device sees all that is there now and comes later, but for what it removes
    itself. Returns it with its text, which nobody can be told again. Raises `UnknownMailbox`, `TooMany`, `BadValue`,
    and `NotAllowed` as a change of its owner's password.
    """
    refuse_stronger(mailbox.user)
    given = {"name": name, "scopes": scopes, "expires_at": expires_at, "allowed_networks": allowed_networks}
    wanted = _checked(given | {"own_copy": own_copy})
    _check_end(expires_at)
    _check_copy(own_copy, wanted["scopes"])
    text = passwords.generated()
    with transaction.atomic():
        lock_open(mailbox)
        own = AppPassword.objects.filter(mailbox=mailbox)
        if own.filter(revoked_at=None).count() >= MOST:
            raise TooMany(
                _("%(mailbox)s has %(most)s app passwords: revoke one that is not used any more")
                % {"mailbox": mailbox, "most": MOST}
            )
        revoked = own.exclude(revoked_at=None).order_by("-revoked_at")
        own.filter(pk__in=list(revoked.values_list("pk", flat=True)[MOST:])).delete()
        made = AppPassword.objects.create(tenant_id=mailbox.tenant_id, mailbox=mailbox, digest=digest(text), **wanted)
        audit.record("app-password.created", made, {field: (None, value) for field, value in wanted.items()})
    return made, text


def change(app_password: AppPassword, **given: Unpack[AppPasswordValues]) -> bool:
    """Give it these values; whether any is new. Sessions that could not begin with them end.

    An own copy begins with all that is in the maildrop. When it ends, what all others with one have removed leaves the
    maildrop. Raises `NotInUse`, `BadValue`.
    """
    wanted = _checked(dict(given))
    with transaction.atomic():
        _lock_mailbox(app_password)
        row = AppPassword.objects.select_for_update().filter(pk=app_password.pk, revoked_at=None).first()
        if row is None:
            raise NotInUse(_("the app password was revoked"))
        if changes := values.changed(row, wanted):
            if "expires_at" in changes:
                _check_end(wanted["expires_at"])
            _check_copy(wanted.get("own_copy", row.own_copy), wanted.get("scopes", row.scopes))
            values.write(AppPassword.objects.filter(pk=row.pk), changes)
            audit.record("app-password.changed", row, changes)
            if "own_copy" in changes:
                row.own_copy = wanted["own_copy"]
                view_changed.send(AppPassword, app_password=row)
            notices.mailboxes_changed([row.mailbox_id])
    app_password.refresh_from_db()
    return bool(changes)


def revoke(app_password: AppPassword) -> bool:
    """Take it back for good: nobody signs in with it any more, and whoever has is out. Whether it was in use.

    If it had an own copy, what all others with one have removed leaves the maildrop.
    """
    with transaction.atomic():
        _lock_mailbox(app_password)
        used = AppPassword.objects.filter(pk=app_password.pk, revoked_at=None).update(revoked_at=Now())
        app_password.refresh_from_db()
        if used:
            audit.record("app-password.revoked", app_password)
            if app_password.own_copy:
                view_changed.send(AppPassword, app_password=app_password)
            notices.mailboxes_changed([app_password.mailbox_id])
    return bool(used)


def digest(text: str) -> bytes | None:
    """What is stored of an app password, given as somebody typed it; None for what cannot be one.

    Letters count in either case, and hyphens and blanks not at all: people copy them from a screen, one group at a
    time. SHA-256 is enough: who would have to find 99 random bits need not be slowed down.
    """
    letters = passwords.generated_letters(text)
    return hashlib.sha256(letters.encode()).digest() if letters else None


def why_not(*, scope: str, client: str) -> str:
    """SQL: why the app password `app` is not good for this scope, from the address that `client` is; null if it is."""
    return f"""CASE
        WHEN app.revoked_at IS NOT NULL THEN 'revoked'
        WHEN app.expires_at <= now() THEN 'expired'
        WHEN NOT '{scope}' = ANY (app.scopes) THEN 'not meant for {scope}'
        WHEN app.allowed_networks <> '{{}}' AND ({client} <<= ANY (app.allowed_networks::inet[])) IS NOT TRUE
            THEN 'not allowed from there'
    END"""


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    wanted = dict(given)
    if "name" in wanted:
        wanted["name"] = values.line(wanted["name"], field="name", most=100)
        if not wanted["name"]:
            raise BadValue(_("name the device that it is for"), field="name")
    if "scopes" in wanted:
        wanted["scopes"] = sorted(set(wanted["scopes"]))
        if not wanted["scopes"] or not set(wanted["scopes"]) <= set(AppPassword.Scope.values):
            raise BadValue(
                _("scopes are one or more of %(scopes)s") % {"scopes": ", ".join(AppPassword.Scope.values)},
                field="scopes",
            )
    if "allowed_networks" in wanted:
        wanted["allowed_networks"] = values.networks(wanted["allowed_networks"])
    if "own_copy" in wanted:
        wanted["own_copy"] = bool(wanted["own_copy"])
    return wanted


def _check_copy(own_copy: bool, scopes: Iterable[str]) -> None:
    if own_copy and AppPassword.Scope.POP3 not in scopes:
        raise BadValue(_("an own copy is for a device that fetches mail"), field="own_copy")


def _lock_mailbox(app_password: AppPassword) -> None:
    """Before its devices, as the end of a session does."""
    Mailbox.objects.select_for_update(no_key=True).filter(pk=app_password.mailbox_id).first()


def _check_end(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= timezone.now():
        raise BadValue(_("that is over: to end an app password, revoke it"), field="expires_at")
