"""Telling the listeners at once that something about a mailbox has changed: NOTIFY, in the transaction of the change.

A notice says where to look; what is true they ask the database. Each listener process looks at its open sessions of
that mailbox, and ends those that could not begin now: because of the password or app password they began with, the
mailbox's state, its networks, its address, or because somebody has ended them. A notice too many does no harm; one
that is lost with a connection is made up for when that is back.
"""

from collections.abc import Iterable
from typing import Final

from django.db import connection

CHANNEL: Final = "mailhost_mailbox"
"""Of PostgreSQL. The payload is a mailbox's id, or `EVERY`."""
EVERY: Final = "*"
"""Payload: look at all sessions."""

_MOST: Final = 1000  # mailboxes that are named one by one


def all_changed() -> None:
    """Have all open sessions looked at, and what listeners remember of tenants: their keep-times.

    After a change of one of these.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", (CHANNEL, EVERY))


def mailboxes_changed(mailbox_ids: Iterable[int]) -> None:
    """Have the open sessions of these mailboxes looked at as soon as the transaction commits, and not if it does not.

    After every change of password, state, POP3, networks, address or tenant, and when a mailbox is closed or erased.
    """
    payloads = [str(mailbox_id) for mailbox_id in dict.fromkeys(mailbox_ids)]
    if len(payloads) > _MOST:
        payloads = [EVERY]
    if payloads:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(pg_notify(%s, payload)) FROM unnest(%s::text[]) payload", (CHANNEL, payloads))
