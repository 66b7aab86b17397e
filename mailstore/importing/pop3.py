"""Mail from any POP3 server (RFC 1939). Nothing is ever removed there."""

import base64
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import Final, Self

from django.utils.translation import gettext_noop as noop

from mailstore.importing.sentences import Sentence
from mailstore.importing.source import Item, Lost, Refused, Unreadable, Write
from mailstore.importing.wire import MOST_MESSAGES, Pace, Target, Wire

PORTS: Final = {"tls": 995, "starttls": 110, "none": 110}

_TEMPORARY: Final = (b"[IN-USE]", b"[SYS/TEMP]", b"[LOGIN-DELAY]")  # RFC 2449 section 8.1, RFC 3206
_LISTING_SECONDS: Final = 120.0


class Pop3:
    """A maildrop on another server, with its unique-ids, if that server shows any."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._wire: Wire | None = None
        self._numbers: list[int] = []
        self._names: list[str] | None = None  # unique-ids; of a server without UIDL, none
        self._sizes: list[bytes] = []  # by which a server without UIDL is known to list the same

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wire:
            try:
                if kind is None:
                    self._told(self._wire, b"QUIT")
            except (Lost, _No):
                pass
            finally:
                self._wire.close()

    def open(self) -> int:
        """Sign in and list. Raises `Lost`, `Refused`."""
        if self._wire:
            self._wire.close()
        wire = self._wire = Wire(self._target)
        try:
            self._sign_in(wire)
            self._list(wire)
        except BaseException:
            wire.close()
            raise
        return len(self._numbers)

    def items(self) -> Iterator[Item]:
        """The messages, as they were listed at first."""
        numbers, names = self._numbers, self._names
        for index, number in enumerate(numbers):
            unique_id = names[index] if names else None
            yield Item(
                name=Sentence(noop("message %(number)s"), {"number": number}),
                unique_id=unique_id,
                read=partial(self._read, index, unique_id),
            )

    def _sign_in(self, wire: Wire) -> None:
        if not wire.line().startswith(b"+OK"):
            raise Lost(noop("the server does not greet as a POP3 server does"))
        if self._target.security == "starttls":
            try:
                self._told(wire, b"STLS")  # RFC 2595 section 4
            except _No:
                raise Refused(noop("the server does not offer STLS")) from None
            wire.secure()
        offers = self._offers(wire)
        login, password = self._target.login.encode(), self._target.password.encode()
        try:
            if b"USER" not in offers and b"PLAIN" in offers.get(b"SASL", ()):
                token = base64.b64encode(b"\0" + login + b"\0" + password)
                self._told(wire, b"AUTH PLAIN", goes_on=True)
                self._told(wire, token)
            else:
                self._told(wire, b"USER " + login)
                self._told(wire, b"PASS " + password)
        except _No as refusal:
            if refusal.line[5:].upper().startswith(_TEMPORARY):
                raise Lost(noop("the server refuses the login for the moment")) from None
            raise Refused(noop("the server refuses the login")) from None

    def _offers(self, wire: Wire) -> dict[bytes, list[bytes]]:
        try:
            self._told(wire, b"CAPA")
        except _No:
            return {b"USER": []}
        words = (line.upper().split() for line in self._lines(wire))
        return {first: rest for first, *rest in words if first}

    def _list(self, wire: Wire) -> None:
        numbers, names = self._numbers, self._names
        first = not numbers
        try:
            self._told(wire, b"UIDL")
            pairs = [_pair(line) for line in self._lines(wire)]
            listed: list[str] | None = [name.decode("ascii", "surrogateescape") for _number, name in pairs]
        except _No:
            if names is not None:
                raise Lost(noop("the server does not list its messages")) from None
            listed = None
            try:
                self._told(wire, b"LIST")
            except _No:
                raise Lost(noop("the server does not list its messages")) from None
            pairs = [_pair(line) for line in self._lines(wire)]
            sizes = [size for _number, size in pairs]
            if first:
                self._sizes = sizes
            elif sizes[: len(self._sizes)] != self._sizes:
                raise Refused(noop("the server has no unique-ids, and its messages are others now")) from None
        if first or listed is None:
            self._numbers, self._names = [number for number, _rest in pairs][: len(numbers) or None], listed
            return
        now = dict(zip(listed, (number for number, _rest in pairs), strict=True))
        self._numbers = [now.get(name, 0) for name in names or ()]  # 0: it is gone

    def _read(self, index: int, unique_id: str | None, write: Write) -> None:
        wire = self._wire
        number = self._numbers[index]
        if not number:
            raise Unreadable(noop("it is not there any more"))
        if wire is None:
            raise Lost(noop("the connection to the server was lost"))
        try:
            self._told(wire, b"RETR %d" % number)
            wire.stuffed(write)
        except _No:
            raise Unreadable(noop("the server does not hand it out")) from None
        except BaseException:
            wire.close()
            raise

    def _told(self, wire: Wire, command: bytes, *, goes_on: bool = False) -> bytes:
        """Send a command. Raises `_No` unless the reply is positive."""
        wire.send(command + b"\r\n")
        reply = wire.line()
        if not reply.startswith(b"+" if goes_on else b"+OK"):
            raise _No(reply)
        return reply

    def _lines(self, wire: Wire) -> Iterator[bytes]:
        pace = Pace(_LISTING_SECONDS)
        for _line in range(MOST_MESSAGES):
            line = wire.line()
            if line == b".":
                return
            pace.check()
            yield line.removeprefix(b".")
        raise Refused(noop("the server lists more messages than can be"))


class _No(Exception):
    def __init__(self, line: bytes) -> None:
        super().__init__()
        self.line = line


def _pair(line: bytes) -> tuple[int, bytes]:
    number, _space, rest = line.strip().partition(b" ")
    if not number.isdigit() or len(number) > 9:
        raise Lost(noop("the server's listing is none"))
    return int(number), rest.strip()[:255]
