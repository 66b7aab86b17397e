"""Finding messages of one mailbox: by what they say, when they came, where they are, and which session had them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import OperationalError, connection, transaction
from django.db.models import Q

from accounts.models import Mailbox
from mailstore.models import MaildropSession, Message, MessageQuerySet, OwnCopy

LONGEST: Final = "5s"
"""How long the database looks."""


class TooBroad(Exception):
    """It takes too long to find."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for. What is left empty does not matter."""

    words: str = ""
    """A part of subject or From, in letters of any size, or the whole Message-ID, with angle brackets or without."""
    where: str = ""
    """`maildrop`, `fetched` (there, and fetched) or `removed`."""
    since: datetime | None = None
    """Delivered then or later."""
    until: datetime | None = None
    """Delivered before."""
    session: MaildropSession | None = None
    """First fetched or removed in it, also before a restore, or from its device's own copy only."""


def find(mailbox: Mailbox, wanted: Wanted) -> MessageQuerySet:
    """Messages of a mailbox: newest first, or of those that are removed the last removed.

    The indexes by mailbox give them in that order, so that a page of them costs a look at as many as it takes to fill
    it; only words that next to none has are looked for in all of the mailbox.
    """
    found: MessageQuerySet = Message.objects.filter(mailbox=mailbox)
    order: tuple[str, ...] = ("-uid",)
    match wanted.where:
        case "maildrop":
            found = found.in_maildrop()
        case "fetched":
            found = found.in_maildrop().exclude(first_fetched_at=None)
        case "removed":
            found, order = found.expunged(), ("-expunged_at", "-uid")
    if wanted.session:
        key = wanted.session.pk
        before = Q(earlier__contains=[{"fetched_in": str(key)}]) | Q(earlier__contains=[{"removed_in": str(key)}])
        own = Q()
        if wanted.session.own_copy:
            copies = OwnCopy.objects.filter(Q(fetched_in=key) | Q(removed_in=key), app_password=wanted.session.view)
            own = Q(pk__in=copies.values("message"))
        found = found.filter(Q(first_fetched_in=key) | Q(expunged_in=key) | before | own)
    if wanted.since:
        found = found.filter(delivered_at__gte=wanted.since)
    if wanted.until:
        found = found.filter(delivered_at__lt=wanted.until)
    if words := wanted.words.strip():
        bare = words.removeprefix("<").removesuffix(">")
        of_header = Q(subject__icontains=words) | Q(sender__icontains=words)
        found = found.filter(of_header | Q(message_id__in=(bare, f"<{bare}>")))
    return found.order_by(*order)


@contextmanager
def bounded() -> Iterator[None]:
    """Within, a statement that takes too long raises `TooBroad`, and what was done within is undone."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('statement_timeout'), set_config('statement_timeout', %s, true)", (LONGEST,)
            )
            before, _ = cursor.fetchone()
            yield
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", (before,))
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) == "57014":  # query_canceled
            raise TooBroad from None
        raise
