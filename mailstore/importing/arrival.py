"""Putting what came along into the store: each message once, also if it was removed and purged meanwhile."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.utils import timezone

from accounts import limits
from accounts.models import Mailbox
from mailstore import headers, quota
from mailstore.delivery import CHUNK_OCTETS
from mailstore.importing.unique_ids import can_be_kept
from mailstore.models import Content, ContentChunk, ImportedItem, Message, Store
from mailstore.quota import QuotaExceeded
from mailstore.spool import Spool

_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Gone(Exception):
    """The mailbox was closed."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message that has been read: its octets, its unique-id there, and when it came there, if that is known."""

    spool: Spool
    unique_id: str | None
    date: datetime | None

    @property
    def large(self) -> bool:
        """Whether it lies in chunks, and is stored alone."""
        return self.spool.octets > CHUNK_OCTETS


class Stored(NamedTuple):
    """What became of messages: how many came along, how many had before, and whether there was room for all."""

    imported: int
    skipped: int
    full: bool


class Claims(NamedTuple):
    """What is remembered of a message that came along, and which of it, found, says that it came along before.

    Who has a unique-id is the same message as one of that unique-id, or one with the same octets that had none. Who has
    none is the same as any with its octets.
    """

    known_by: frozenset[bytes]
    made: frozenset[bytes]


def claims(unique_id: str | None, octets_digest: bytes) -> Claims:
    """The claims of a message, as digests."""
    octets, nameless = _digest(b"octets", octets_digest), _digest(b"nameless", octets_digest)
    if unique_id is None:
        return Claims(frozenset({octets}), frozenset({octets, nameless}))
    named = _digest(b"unique-id", unique_id.encode(errors="surrogateescape"))
    return Claims(frozenset({named, nameless}), frozenset({named, octets}))


def known(mailbox: Mailbox, unique_ids: Collection[str]) -> set[str]:
    """Those of these unique-ids that came along before."""
    by_digest = {_digest(b"unique-id", one.encode(errors="surrogateescape")): one for one in unique_ids}
    return {by_digest[digest] for digest in _known(mailbox, by_digest)}


def store(
    mailbox: Mailbox, arrived: Sequence[Arrived], *, then: Callable[[Stored], object] = lambda stored: None
) -> Stored:
    """Store messages in one transaction, in their order; those after the first that there is no room for, not.

    Several must be small ones. `then` is called in the transaction, which it undoes by raising. Raises `Gone`.
    """
    while True:
        try:
            with transaction.atomic():
                return _stored(mailbox, arrived, then)
        except _Moved as moved:
            mailbox = moved.mailbox


class _Moved(Exception):
    """The mailbox is another tenant's meanwhile."""

    def __init__(self, mailbox: Mailbox) -> None:
        super().__init__()
        self.mailbox = mailbox


def _stored(mailbox: Mailbox, arrived: Sequence[Arrived], then: Callable[[Stored], object]) -> Stored:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = on")
    # What takes long, before the mailbox is locked.
    contents = [_large_content(mailbox, one) for one in arrived if one.large]
    locked = Mailbox.objects.open().select_for_update(no_key=True).filter(pk=mailbox.pk).first()
    if locked is None:
        raise Gone
    if contents and locked.tenant_id != mailbox.tenant_id:
        raise _Moved(locked)
    stored = _store(locked, arrived, contents)
    then(stored)
    return stored


def _store(mailbox: Mailbox, arrived: Sequence[Arrived], contents: list[Content]) -> Stored:
    each = [claims(one.unique_id, one.spool.digest) for one in arrived]
    seen = _known(mailbox, frozenset().union(*(claim.known_by | claim.made for claim in each)))
    there = set(seen)
    fresh: list[Arrived] = []
    decided: list[tuple[bool, frozenset[bytes]]] = []  # by message: whether it is new, and its claims that are
    for one, claim in zip(arrived, each, strict=True):
        is_new = not claim.known_by & seen
        decided.append((is_new, claim.made - seen))
        seen |= claim.made
        if is_new:
            fresh.append(one)
    room = _charge(mailbox, fresh)
    full = room < len(fresh)
    kept: list[bytes] = []
    left = room
    done = 0
    for is_new, made in decided:
        if is_new and not left:
            break
        left -= is_new
        done += 1
        kept += made
    ImportedItem.objects.bulk_create(
        ImportedItem(tenant_id=mailbox.tenant_id, mailbox=mailbox, digest=digest)
        for digest in kept
        if digest not in there
    )
    _insert(mailbox, fresh[:room], contents)
    return Stored(room, done - room, full)


def _known(mailbox: Mailbox, digests: Collection[bytes]) -> set[bytes]:
    found = ImportedItem.objects.filter(mailbox=mailbox, digest__in=list(digests)).values_list("digest", flat=True)
    return {bytes(digest) for digest in found}


def _digest(kind: bytes, what: bytes) -> bytes:
    return hashlib.sha256(kind + b"\0" + what).digest()


def _charge(mailbox: Mailbox, fresh: Sequence[Arrived]) -> int:
    """Charge the mailbox for as many of these as it has room for, from the first on; how many that are."""
    if not fresh or _charged(mailbox, fresh):
        return len(fresh)
    for number, one in enumerate(fresh):
        if not _charged(mailbox, [one]):
            return number
    return len(fresh)  # somebody made room meanwhile


def _charged(mailbox: Mailbox, fresh: Sequence[Arrived]) -> bool:
    try:
        with transaction.atomic():
            quota.charge(mailbox, octets=sum(one.spool.octets for one in fresh), messages=len(fresh))
    except QuotaExceeded:
        return False
    except DatabaseError as error:
        if not limits.is_over_quota(error):
            raise
        return False
    return True


def _insert(mailbox: Mailbox, fresh: Sequence[Arrived], contents: list[Content]) -> None:
    """Store the messages and what they consist of; of a large one the content is there."""
    if not fresh:
        ContentChunk.objects.filter(content__in=contents).delete()
        Content.objects.filter(pk__in=[content.pk for content in contents]).delete()
        return
    if not contents:
        contents = Content.objects.bulk_create(
            _content(mailbox, one.spool, b"".join(one.spool.chunks(CHUNK_OCTETS))) for one in fresh
        )
    store = Store.objects.first()
    epoch = store.epoch if store else 1
    now = timezone.now()
    messages = []
    for number, (one, content) in enumerate(zip(fresh, contents, strict=True)):
        look = headers.look(one.spool.head)
        date = one.date or look.date or now
        keeps = one.unique_id is not None and can_be_kept(one.unique_id, mailbox_id=mailbox.pk)
        messages.append(
            Message(
                tenant_id=mailbox.tenant_id,
                mailbox=mailbox,
                content=content,
                uid=mailbox.next_uid + number,
                epoch=epoch,
                kept_unique_id=one.unique_id if keeps else None,
                trace=b"",
                octets=one.spool.octets,
                subject=look.subject,
                sender=look.sender,
                message_id=look.message_id,
                date=look.date,
                delivered_at=date if _EARLIEST <= date <= now else now,
                kept_since=now,
            )
        )
    Message.objects.bulk_create(messages)
    Mailbox.objects.filter(pk=mailbox.pk).update(next_uid=F("next_uid") + len(messages))


def _content(mailbox: Mailbox, spool: Spool, body: bytes | None) -> Content:
    return Content(
        tenant_id=mailbox.tenant_id,
        octets=spool.octets,
        header_octets=spool.header_octets,
        has_dot_lines=spool.has_dot_lines,
        body=body,
    )


_HOLD = "SELECT * FROM accounts_mailbox WHERE id = %s FOR KEY SHARE"
_COPY_CHUNKS = "COPY mailstore_contentchunk (tenant_id, content_id, number, octets) FROM STDIN (FORMAT binary)"


def _large_content(mailbox: Mailbox, one: Arrived) -> Content:
    content = _content(mailbox, one.spool, None)
    content.save(force_insert=True)
    with connection.cursor() as cursor, cursor.copy(_COPY_CHUNKS) as copy:
        copy.set_types(["int8", "int8", "int4", "bytea"])
        for number, chunk in enumerate(one.spool.chunks(CHUNK_OCTETS)):
            copy.write_row((mailbox.tenant_id, content.pk, number, chunk))
    return content
