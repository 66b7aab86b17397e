"""Devices with an own copy of the maildrop: once each of them has removed a message, it leaves the maildrop.

Such a device (`AppPassword.own_copy`) opens a view of its own, which lacks what it has removed itself. Neither the main
password nor another app password knows of that: what they remove is gone for everybody.
"""

from typing import Any, Final

from django.db import connection

from accounts import audit
from accounts.models import AppPassword, Mailbox
from mailstore.models import Message, OwnCopy

IN_USE: Final = "(app.own_copy AND app.revoked_at IS NULL AND (app.expires_at IS NULL OR app.expires_at > now()))"
"""SQL: whether the app password `app` has an own copy, and its device is waited for."""


def expunging(chosen: str) -> str:
    """SQL: expunge those messages of `%(mailbox)s` that every device with an own copy has removed, `%(most)s` at most.

    `chosen` says which `message` is looked at. Expunged are they in the session that removed them last. One row: how
    many, and their octets. The mailbox is to be held, by a statement before: of two devices that remove the same
    message, who comes second must see what the first one did.
    """
    return f"""
WITH device AS MATERIALIZED (
    SELECT app.id FROM accounts_apppassword app WHERE app.mailbox_id = %(mailbox)s AND {IN_USE}
), due AS MATERIALIZED (
    SELECT message.id, (
        SELECT copy.removed_in_id FROM mailstore_owncopy copy JOIN device ON device.id = copy.app_password_id
        WHERE copy.message_id = message.id ORDER BY copy.removed_at DESC LIMIT 1
    ) AS session_id
    FROM mailstore_message message
    WHERE message.mailbox_id = %(mailbox)s AND message.expunged_at IS NULL AND {chosen}
        AND EXISTS (SELECT FROM device)
        AND NOT EXISTS (
            SELECT FROM device WHERE NOT EXISTS (
                SELECT FROM mailstore_owncopy copy
                WHERE copy.app_password_id = device.id AND copy.message_id = message.id AND copy.removed_at IS NOT NULL
            )
        )
    LIMIT %(most)s
), gone AS (
    UPDATE mailstore_message message SET expunged_at = now(), expunged_in_id = due.session_id
    FROM due WHERE message.id = due.id AND message.expunged_at IS NULL
    RETURNING message.octets
), sums AS (
    SELECT count(*) AS messages, coalesce(sum(octets), 0)::bigint AS octets FROM gone
), refunded AS (
    UPDATE accounts_mailbox mailbox
    SET used_octets = used_octets - sums.octets, message_count = message_count - sums.messages
    FROM sums WHERE mailbox.id = %(mailbox)s AND sums.messages > 0
)
SELECT messages, octets FROM sums
"""


# All of them have removed it, so any one of them has.
_EXPUNGE: Final = expunging("""message.id IN (
    SELECT message_id FROM mailstore_owncopy
    WHERE app_password_id = (SELECT min(id) FROM device) AND removed_at IS NOT NULL
)""")


def expunge_removed_by_all(mailbox: Mailbox, *, most: int | None = None) -> int:
    """Expunge what every device with an own copy has removed from a mailbox that is held. Returns how many, `most`.

    With no such device left nothing is expunged: the rest is in the maildrop as it is in any other.
    """
    with connection.cursor() as cursor:
        cursor.execute(_EXPUNGE, {"mailbox": mailbox.pk, "most": most})
        [(messages, octets)] = cursor.fetchall()
    if messages:
        detail = {"messages": messages, "octets": octets, "because": "own-copies"}
        audit.record("mailbox.messages_expunged", mailbox, detail=detail)
    return int(messages)


def settle(sender: Any, *, app_password: AppPassword, **signal: Any) -> None:
    """Follow `accounts.app_passwords.view_changed`: a view begins with all, and ends as if it had removed all.

    Of what has left the maildrop stays what became of it.
    """
    if app_password.own_copy and app_password.revoked_at is None:
        there = Message.objects.filter(mailbox=app_password.mailbox_id).in_maildrop()
        own = OwnCopy.objects.filter(app_password=app_password, message__in=there.values("pk"))
        own.exclude(removed_at=None).update(removed_at=None, removed_in=None)
    elif mailbox := Mailbox.objects.open().filter(pk=app_password.mailbox_id).first():
        expunge_removed_by_all(mailbox)
