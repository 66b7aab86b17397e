"""Mail from a folder of any IMAP server (RFC 9051, RFC 3501). It is opened to be read only."""

import base64
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Final, NamedTuple, Self

from django.utils.translation import gettext_noop as noop

from mailstore.importing import unique_ids
from mailstore.importing.sentences import Sentence
from mailstore.importing.source import Item, Lost, Refused, Unreadable, Write
from mailstore.importing.wire import LINE_OCTETS, MOST_MESSAGES, Pace, Target, Wire

PORTS: Final = {"tls": 993, "starttls": 143, "none": 143}

_LISTING_SECONDS: Final = 120.0
_ITEM_SECONDS: Final = 300.0
_LITERAL = re.compile(rb"\{([0-9]{1,10})\+?\}\Z")
_UID = re.compile(rb"\bUID ([0-9]{1,10})", re.IGNORECASE)
_DATE = re.compile(rb'\bINTERNALDATE "([^"]{1,40})"', re.IGNORECASE)
_FETCH = re.compile(rb"\* [0-9]+ FETCH ", re.IGNORECASE)
_BODY = re.compile(rb"BODY\[\] (?:\{([0-9]{1,10})\}|NIL|\"([^\"\\]*)\")", re.IGNORECASE)
_VALIDITY = re.compile(rb"\[UIDVALIDITY ([0-9]{1,10})\]", re.IGNORECASE)
_EXISTS = re.compile(rb"\* ([0-9]{1,10}) EXISTS", re.IGNORECASE)


class _Listed(NamedTuple):
    uid: int
    date: datetime | None


class Imap:
    """A folder on another server.

    IMAP does not tell what that server's POP3 shows as unique-ids; `uidl_format` does (`unique_ids.FORMATS`), and None
    keeps none.
    """

    def __init__(self, target: Target, *, folder: str = "INBOX", uidl_format: str | None = unique_ids.DOVECOT) -> None:
        """Raises `Refused` for a folder that can be none, or a format that IMAP cannot follow."""
        if uidl_format and unique_ids.needs_file(uidl_format):
            raise Refused(noop("IMAP does not show the files that this format of unique-ids is made from"))
        if not folder.isprintable():
            raise Refused(noop("a folder's name has no control characters"))
        self._target = target
        self._folder = _quoted(_utf7(folder or "INBOX"))
        self._format = uidl_format
        self._wire: Wire | None = None
        self._tag = 0
        self._validity = 0
        self._messages: list[_Listed] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wire:
            with suppress(Lost, _No):
                if kind is None:
                    self._told(self._wire, b"LOGOUT")
            self._wire.close()

    def open(self) -> int:
        """Sign in and list. Raises `Lost`, `Refused`."""
        if self._wire:
            self._wire.close()
        wire = self._wire = Wire(self._target)
        try:
            self._sign_in(wire)
            exists = self._examine(wire)
            if self._messages is None:
                self._messages = sorted(self._list(wire)) if exists else []
        except BaseException:
            wire.close()
            raise
        return len(self._messages)

    def items(self) -> Iterator[Item]:
        """The messages, in the order of their UIDs."""
        for uid, date in self._messages or ():
            unique_id = None
            if self._format:
                unique_id = unique_ids.formatted(self._format, uid=uid, validity=self._validity)
            yield Item(
                name=Sentence(noop("message with UID %(uid)s"), {"uid": uid}),
                unique_id=unique_id,
                date=date,
                read=partial(self._read, uid),
            )

    def _sign_in(self, wire: Wire) -> None:
        if not wire.line().upper().startswith((b"* OK", b"* PREAUTH")):
            raise Lost(noop("the server does not greet as an IMAP server does"))
        if self._target.security == "starttls":
            try:
                self._told(wire, b"STARTTLS")
            except _No:
                raise Refused(noop("the server does not offer STARTTLS")) from None
            wire.secure()
        offers = {
            word for line in self._told(wire, b"CAPABILITY") if line.upper().startswith(b"* CAPABILITY")
            for word in line.upper().split()[2:]
        }  # fmt: skip
        login, password = self._target.login.encode(), self._target.password.encode()
        try:
            if b"AUTH=PLAIN" in offers:
                token = base64.b64encode(b"\0" + login + b"\0" + password)
                self._told(wire, b"AUTHENTICATE PLAIN", token)
            elif b"LOGINDISABLED" in offers:
                raise Refused(noop("the server takes no passwords this way"))
            else:
                self._told(wire, b"LOGIN {%d}" % len(login), login + b" {%d}" % len(password), password)
        except _No as refusal:
            if b"[UNAVAILABLE]" in refusal.line.upper() or b"[INUSE]" in refusal.line.upper():  # RFC 5530
                raise Lost(noop("the server refuses the login for the moment")) from None
            raise Refused(noop("the server refuses the login")) from None

    def _examine(self, wire: Wire) -> int:
        """Open the folder; how many messages it has."""
        try:
            lines = self._told(wire, b"EXAMINE " + self._folder)
        except _No:
            raise Refused(noop("there is no such folder")) from None
        validity = next((int(found[1]) for line in lines if (found := _VALIDITY.search(line))), 0)
        if self._messages is not None and validity != self._validity:
            raise Refused(noop("the server has numbered its messages anew"))
        self._validity = validity
        return next((int(found[1]) for line in lines if (found := _EXISTS.match(line))), 0)

    def _list(self, wire: Wire) -> Iterator[_Listed]:
        pace = Pace(_LISTING_SECONDS)
        tag = self._send(wire, b"UID FETCH 1:* (UID INTERNALDATE)")
        for _line in range(2 * MOST_MESSAGES):
            line = self._line(wire)
            if line.startswith(tag):
                if not line[len(tag) :].upper().startswith(b"OK"):
                    raise Lost(noop("the server does not list its messages"))
                return
            pace.check()
            if _FETCH.match(line) and (uid := _UID.search(line)):
                date = _DATE.search(line)
                yield _Listed(int(uid[1]), _parsed(date[1]) if date else None)
        raise Refused(noop("the server lists more messages than can be"))

    def _read(self, uid: int, write: Write) -> None:
        wire = self._wire
        if wire is None:
            raise Lost(noop("the connection to the server was lost"))
        pace = Pace(_ITEM_SECONDS)
        found = False
        try:
            tag = self._send(wire, b"UID FETCH %d (UID BODY.PEEK[])" % uid)
            while not (line := wire.line()).startswith(tag):
                pace.check()
                body = _BODY.search(line) if _FETCH.match(line) and not found else None
                if body is None:
                    self._skip_literals(wire, line)
                    continue
                found = True
                if body[1] is not None:
                    wire.pass_on(int(body[1]), write)
                    self._skip_literals(wire, wire.line())
                else:
                    write(body[2] or b"")
        except BaseException:
            wire.close()
            raise
        if not found or not line[len(tag) :].upper().startswith(b"OK"):
            raise Unreadable(noop("the server does not hand it out"))

    def _line(self, wire: Wire) -> bytes:
        """A line, its literals included. Raises `Lost` if that is too long to be one."""
        line = wire.line()
        while found := _LITERAL.search(line):
            octets = int(found[1])
            if len(line) + octets > LINE_OCTETS:
                raise Lost(noop("the server sent a line that is too long"))
            pieces: list[bytes] = []
            wire.pass_on(octets, pieces.append)
            line += b"".join(pieces) + wire.line()
        return line

    def _skip_literals(self, wire: Wire, line: bytes) -> None:
        while found := _LITERAL.search(line):
            wire.pass_on(int(found[1]), lambda octets: None)
            line = wire.line()

    def _send(self, wire: Wire, command: bytes) -> bytes:
        self._tag += 1
        tag = b"A%d " % self._tag
        wire.send(tag + command + b"\r\n")
        return tag

    def _told(self, wire: Wire, command: bytes, *more: bytes) -> list[bytes]:
        """Send a command, and its further lines each when asked for; the untagged replies. Raises `_No`."""
        pace = Pace(_LISTING_SECONDS)
        tag = self._send(wire, command)
        rest = list(more)
        told: list[bytes] = []
        while not (line := self._line(wire)).startswith(tag):
            pace.check()
            if line.startswith(b"+"):
                wire.send((rest.pop(0) if rest else b"*") + b"\r\n")
            elif len(told) < 1000:
                told.append(line)
        if not line[len(tag) :].upper().startswith(b"OK"):
            raise _No(line)
        return [*told, line]


class _No(Exception):
    def __init__(self, line: bytes) -> None:
        super().__init__()
        self.line = line


def _parsed(text: bytes) -> datetime | None:
    try:
        return datetime.strptime(text.decode("ascii", "replace").strip(), "%d-%b-%Y %H:%M:%S %z")
    except ValueError:
        return None


def _quoted(name: bytes) -> bytes:
    return b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _utf7(name: str) -> bytes:
    """A folder's name as it is sent (RFC 3501 section 5.1.3)."""

    def encoded(run: re.Match[str]) -> str:
        text = base64.b64encode(run[0].encode("utf-16-be"), b"+,").decode().rstrip("=")
        return f"&{text}-"

    return re.sub(r"[^\x20-\x7e]+", encoded, name.replace("&", "&-")).encode("ascii")
