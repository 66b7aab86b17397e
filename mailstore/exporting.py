"""Handing a mailbox's mail out: as an mbox, as a Maildir, as files; a piece at a time, however much it is.

Nothing is held open meanwhile: each look at the database is a short transaction, entered as `principal` if there is
one. What is removed for good while it is handed out is left out.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from django.db import transaction

from accounts import scope
from accounts.models import Mailbox
from accounts.principals import Principal
from mailstore.models import ContentChunk, Message, unique_id
from mailstore.zipping import Zip

_LISTED: Final = 500  # messages that are looked up at once
_AT_ONCE: Final = 1024 * 1024  # octets of contents that are looked up at once
_LINE: Final = 64 * 1024  # octets of a line without end that are held
_FROM = re.compile(rb"^(>*From )", re.MULTILINE)


class Broken(Exception):
    """A message was removed for good in the middle of being handed out: what came so far is not whole."""


class _Copy(NamedTuple):
    """A message, and what it consists of."""

    uid: int
    unique_id: str
    octets: int
    reverse_path: str
    delivered_at: datetime
    trace: bytes
    content_id: int
    body: bytes | None
    fetched: bool

    @property
    def name(self) -> str:
        """Its file's name in a Maildir, without flags."""
        return f"{int(self.delivered_at.timestamp())}.U{self.uid}.mailhost,S={self.octets}"


def mbox(mailbox: Mailbox, *, removed: bool = False, principal: Principal | None = None) -> Iterator[bytes]:
    """An mbox file (RFC 4155) in the form called mboxrd: LF ends its lines, and `>` is put before any `From `.

    `removed` adds the messages that can still be restored.
    """
    reader = _Reader(mailbox, removed, principal)
    for copy in reader.copies():
        sender = copy.reverse_path if re.fullmatch(r"[!-~]+", copy.reverse_path) else "MAILER-DAEMON"
        yield f"From {sender} {copy.delivered_at.astimezone(UTC):%a %b %e %H:%M:%S %Y}\n".encode()
        yield from _quoted(reader.octets(copy))
        yield b"\n"


def eml_zip(mailbox: Mailbox, *, removed: bool = False, principal: Principal | None = None) -> Iterator[bytes]:
    """A zip with a file for each message, which holds exactly its octets."""
    reader = _Reader(mailbox, removed, principal)
    with Zip() as archive:
        for copy in reader.copies():
            name = f"{copy.delivered_at.astimezone(UTC):%Y-%m-%d}-{copy.uid:08}.eml"
            yield from archive.file(name, copy.delivered_at, reader.octets(copy))
        yield from archive.end()


def maildir_zip(mailbox: Mailbox, *, removed: bool = False, principal: Principal | None = None) -> Iterator[bytes]:
    """A zip with a Maildir, and in it a `dovecot-uidlist`: Dovecot's POP3 shows the same unique-ids as we do."""
    reader = _Reader(mailbox, removed, principal)
    with Zip() as archive:
        for folder in ("new", "cur", "tmp"):
            yield from archive.folder(f"Maildir/{folder}/")
        last = 0
        for copy in reader.copies():
            place = f"cur/{copy.name}:2,S" if copy.fetched else f"new/{copy.name}"
            yield from archive.file(f"Maildir/{place}", copy.delivered_at, reader.octets(copy))
            last = copy.uid
        yield from archive.file("Maildir/dovecot-uidlist", datetime.now(UTC), reader.uid_list(last))
        yield from archive.end()


def octets_of(message: Message, *, principal: Principal | None = None) -> Iterator[bytes]:
    """One message as RETR hands it out. Raises `Broken`."""
    reader = _Reader(message.mailbox, True, principal)
    copies = reader.copies_of([message.uid])
    if not copies:
        raise Broken
    yield from reader.octets(copies[0])


FORMATS: Final[dict[str, Callable[..., Iterator[bytes]]]] = {"mbox": mbox, "maildir": maildir_zip, "eml": eml_zip}
MEDIA_TYPES: Final = {"mbox": "application/mbox", "maildir": "application/zip", "eml": "application/zip"}
EXTENSIONS: Final = {"mbox": "mbox", "maildir": "maildir.zip", "eml": "zip"}


class _Reader:
    def __init__(self, mailbox: Mailbox, removed: bool, principal: Principal | None) -> None:
        self._mailbox = mailbox
        self._removed = removed
        self._principal = principal

    def copies(self) -> Iterator[_Copy]:
        """The messages in the order of their uids, each with its content if that is small."""
        listed: list[tuple[int, int]] = []
        after = 0
        while True:
            if not listed:
                with self._transaction():
                    found = self._messages().filter(uid__gt=after).order_by("uid").values_list("uid", "octets")
                    listed = list(found[:_LISTED])
                if not listed:
                    return
            uids: list[int] = []
            octets = 0
            while listed and (not uids or octets + listed[0][1] <= _AT_ONCE):
                uid, size = listed.pop(0)
                uids.append(uid)
                octets += size
            after = uids[-1]
            yield from self.copies_of(uids)

    def copies_of(self, uids: list[int]) -> list[_Copy]:
        """Those of these messages that are still there, in the order of their uids."""
        with self._transaction():
            rows = list(
                self._messages()
                .filter(uid__in=uids)
                .order_by("uid")
                .values_list(
                    "uid", "epoch", "kept_unique_id", "octets", "reverse_path", "delivered_at", "trace",
                    "content_id", "content__body", "first_fetched_at",
                )
            )  # fmt: skip
        return [
            _Copy(
                uid=uid,
                unique_id=kept or unique_id(self._mailbox.pk, epoch, uid),
                octets=size,
                reverse_path=reverse_path,
                delivered_at=at,
                trace=bytes(trace),
                content_id=content,
                body=None if body is None else bytes(body),
                fetched=fetched is not None,
            )
            for uid, epoch, kept, size, reverse_path, at, trace, content, body, fetched in rows
        ]

    def octets(self, copy: _Copy) -> Iterator[bytes]:
        """A message as RETR hands it out. Raises `Broken`."""
        yield copy.trace
        if copy.body is not None:
            yield copy.body
            return
        left = copy.octets - len(copy.trace)
        number = 0
        while left > 0:
            with self._transaction():
                chunks = ContentChunk.objects.filter(content=copy.content_id, number=number)
                chunk = chunks.values_list("octets", flat=True).first()
            if chunk is None:
                raise Broken
            yield bytes(chunk)
            left -= len(chunk)
            number += 1

    def uid_list(self, last: int) -> Iterator[bytes]:
        """Dovecot's record of the messages up to the uid `last`, with their unique-ids."""
        validity = int(self._mailbox.created_at.timestamp())
        yield f"3 V{validity} N{last + 1}\n".encode()
        after = 0
        while True:
            with self._transaction():
                found = self._messages().filter(uid__gt=after, uid__lte=last).order_by("uid")
                rows = list(found.values_list("uid", "epoch", "kept_unique_id", "octets", "delivered_at")[:_LISTED])
            if not rows:
                return
            for uid, epoch, kept, octets, at in rows:
                shown = kept or unique_id(self._mailbox.pk, epoch, uid)
                copy = _Copy(uid, shown, octets, "", at, b"", 0, None, fetched=False)
                yield f"{uid} P{shown} :{copy.name}\n".encode()
            after = rows[-1][0]

    def _messages(self) -> Any:
        messages = Message.objects.filter(mailbox=self._mailbox)
        return messages if self._removed else messages.in_maildrop()

    def _transaction(self) -> AbstractContextManager[None]:
        return scope.entered(self._principal) if self._principal else transaction.atomic()


def _quoted(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A message as it stands in an mbox."""
    held, begins = b"", True  # whether a line begins with what is held
    for piece in pieces:
        octets = held + piece
        end = octets.rfind(b"\n") + 1
        if not end and len(octets) < _LINE:
            held = octets
            continue
        if not end:
            end = len(octets) - 1  # of a line without end; its last octet may be half of a CRLF
        yield _of_mbox(octets[:end], begins)
        begins = octets[end - 1 : end] == b"\n"
        held = octets[end:]
    if held:
        yield _of_mbox(held, begins)


def _of_mbox(octets: bytes, begins: bool) -> bytes:
    quoted = _FROM.sub(rb">\1", octets if begins else b"x" + octets)
    return quoted.replace(b"\r\n", b"\n") if begins else quoted.replace(b"\r\n", b"\n")[1:]
