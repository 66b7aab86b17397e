"""POP3 sessions on the line server: what a session needs, done with the message store."""

import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from accounts.throttle import TooManyFailures
from mailhost.lineserver import Application, Dialogue, End, Reply, Step, Then, Wire
from mailstore.database import Unavailable
from mailstore.maildrop import Copy, InUse, LockLost, Maildrop, Maildrops, Suspended, WrongPassword
from mailstore.maildrop import Refused as NotOpened
from pop3 import framing, replies
from pop3.session import (
    Config,
    Expunge,
    Expunged,
    Fetch,
    Found,
    LogIn,
    LongReply,
    Opened,
    Refused,
    Session,
    StartTLS,
)

log = logging.getLogger(__name__)

PlaintextPolicy = Literal["never", "loopback", "always"]

_UNAVAILABLE = Refused("SYS/TEMP", "the server has a problem, try again later")
_LOGIN_REFUSALS: dict[type[Exception], Refused] = {
    WrongPassword: Refused("AUTH", "wrong name or password"),
    TooManyFailures: Refused("AUTH", "too many failed logins, try again later"),
    InUse: Refused("IN-USE", "the maildrop is in use by another session"),
    Suspended: Refused("SYS/PERM", "this mailbox cannot be used over POP3"),
    Unavailable: _UNAVAILABLE,
}
_QUIT_REFUSALS: dict[type[Exception], Refused] = {
    LockLost: Refused("SYS/TEMP", "the session was ended, nothing is removed"),
    Suspended: Refused("SYS/PERM", "nothing is removed, since this mailbox cannot be used any more"),
    WrongPassword: Refused("AUTH", "the password is not valid any more, nothing is removed"),
    Unavailable: Refused("SYS/TEMP", "the server has a problem, nothing is removed"),
}
_FAREWELLS = {
    End.DRAIN: replies.error("the server is shutting down, nothing is removed", "SYS/TEMP"),
    End.IDLE: b"",  # RFC 1939 section 3: closed without a response
    End.TOO_MANY: replies.error("too many connections, try again later", "SYS/TEMP"),
    End.OVERLONG: replies.error("line too long"),
    End.FAULT: replies.error("the server has a problem, try again later", "SYS/TEMP"),
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What all sessions of a listener have in common."""

    session: Config
    plaintext: PlaintextPolicy
    idle_seconds: float


class Server(Application):
    """One worker process of the POP3 listener."""

    def __init__(self, terms: Terms, maildrops: Maildrops) -> None:
        self._terms = terms
        self._maildrops = maildrops

    async def start(self) -> None:
        await self._maildrops.start()

    async def stop(self) -> None:
        await self._maildrops.stop()

    def dialogue(self, wire: Wire) -> Dialogue:
        return Conversation(self._terms, self._maildrops, wire)


class Conversation(Dialogue):
    """One connection: a session and the maildrop it opened."""

    __slots__ = ("_maildrop", "_maildrops", "_session", "_wire", "established", "idle_limit", "line_limit")

    def __init__(self, terms: Terms, maildrops: Maildrops, wire: Wire) -> None:
        self._maildrops = maildrops
        self._wire = wire
        self._maildrop: Maildrop | None = None
        self._session = Session(
            terms.session,
            secure=wire.peer.secure,
            plaintext_allowed=_plaintext_allowed(terms.plaintext, wire.peer.address),
        )
        self.idle_limit = terms.idle_seconds
        self.line_limit = self._session.line_limit
        self.established = False

    def greet(self) -> Step:
        return Reply(self._session.greet())

    def receive(self, line: bytes) -> Step:
        answer = self._session.receive(line)
        self.line_limit = self._session.line_limit
        match answer:
            case bytes():
                return self._reply(answer)
            case LogIn(name, password):
                return self._log_in(name, password)
            case Fetch(number, lines):
                return self._fetch(number, lines)
            case Expunge(numbers):
                return self._quit(numbers)
            case LongReply():
                return self._tell(answer)
            case StartTLS(reply):
                return Reply(reply, Then.START_TLS)

    def overlong(self) -> Step:
        answer = self._session.overlong()
        self.line_limit = self._session.line_limit
        return self._reply(answer)

    def secured(self) -> None:
        self._session.secured()

    def farewell(self, why: End) -> bytes:
        return _FAREWELLS[why]

    def closed(self) -> Awaitable[None] | None:
        return self._leave() if self._maildrop else None

    def _reply(self, octets: bytes) -> Reply:
        return Reply(octets, Then.CLOSE if self._session.over else Then.GO_ON)

    async def _log_in(self, name: str, password: str) -> Reply:
        peer = self._wire.peer
        try:
            self._maildrop = await self._maildrops.open(name, password, client=peer.address, secure=peer.secure)
        except tuple(_LOGIN_REFUSALS) as refusal:
            return self._reply(self._session.resume(_told(_LOGIN_REFUSALS, refusal)))
        self._maildrop.on_end = self._ended
        self.established = True
        return self._reply(self._session.resume(Opened(self._maildrop.listing, _expire(self._maildrop.keep_time))))

    def _fetch(self, number: int, lines: int | None) -> Step:
        assert self._maildrop
        copy = self._maildrop.ready(number)
        if copy and copy.body is not None:
            return self._whole(number, lines, copy, copy.body)
        return self._fetch_stored(number, lines)

    async def _fetch_stored(self, number: int, lines: int | None) -> Reply:
        assert self._maildrop
        try:
            copy = await self._maildrop.read(number)
        except Unavailable:
            return self._reply(self._session.resume(_UNAVAILABLE))
        if copy is None:
            return self._reply(self._session.resume(Refused(None, "the message is gone")))
        if copy.body is not None:
            return self._whole(number, lines, copy, copy.body)
        return await self._stream(number, lines, copy)

    def _whole(self, number: int, lines: int | None, copy: Copy, body: bytes) -> Reply:
        """The reply with a message that is in memory. Most are sent as they are stored."""
        first = self._session.resume(Found())
        if lines is not None:
            top, stuffer = framing.Top(lines), framing.Stuffer()
            return Reply(first + stuffer.feed(top.feed(copy.trace) + top.feed(body)) + replies.END)
        self._note_fetched(number)
        if copy.has_dot_lines:
            body = framing.Stuffer().feed(body)
        return Reply(b"".join((first, copy.trace, body, replies.END)))

    async def _stream(self, number: int, lines: int | None, copy: Copy) -> Reply:
        """The reply with a message that lies in chunks: one at a time, as fast as the client reads."""
        assert self._maildrop
        top = framing.Top(lines) if lines is not None else None
        stuffer = framing.Stuffer() if copy.has_dot_lines else None
        await self._wire.send(self._session.resume(Found()) + (top.feed(copy.trace) if top else copy.trace))
        try:
            async for octets in self._maildrop.chunks(copy):
                if top:
                    octets = top.feed(octets)
                await self._wire.send(stuffer.feed(octets) if stuffer else octets)
                if top and top.done:
                    break
        except Unavailable:
            return Reply(b"", Then.CLOSE)  # there is no word for it within a message; its end is missing
        if lines is None:
            self._note_fetched(number)
        return Reply(replies.END)

    def _note_fetched(self, number: int) -> None:
        assert self._maildrop
        self._maildrop.fetched(number)

    async def _tell(self, answer: LongReply) -> Reply:
        for piece in answer.pieces:
            await self._wire.send(piece)
        return self._reply(b"")

    async def _quit(self, numbers: frozenset[int]) -> Reply:
        assert self._maildrop
        maildrop, self._maildrop = self._maildrop, None
        try:
            await maildrop.close(expunge=numbers, quit=True)
        except tuple(_QUIT_REFUSALS) as refusal:
            return self._reply(self._session.resume(_told(_QUIT_REFUSALS, refusal)))
        return self._reply(self._session.resume(Expunged()))

    def _ended(self, why: NotOpened | LockLost) -> None:
        """The session was ended from outside: so is the connection."""
        told = _told(_QUIT_REFUSALS, why)
        self._wire.end(replies.error(told.text, told.code))

    async def _leave(self) -> None:
        """The connection is gone without QUIT: nothing is removed."""
        assert self._maildrop
        maildrop, self._maildrop = self._maildrop, None
        try:
            await maildrop.close()
        except (NotOpened, LockLost, Unavailable):
            if not maildrop.ended:
                log.info("a maildrop could not be closed; its lock goes with this listener or is given up later")


def _told(refusals: Mapping[type[Exception], Refused], refusal: Exception) -> Refused:
    """What a client is told; for its mailbox's state with the reason that its owner was given."""
    told = refusals[type(refusal)]
    if isinstance(refusal, Suspended) and refusal.reason:
        return Refused(told.code, f"{told.text}: {replies.plain(refusal.reason)}")
    return told


def _expire(keep_time: timedelta | None) -> str:
    """How long a message may stay in the maildrop, in whole days (RFC 2449 section 6.7)."""
    return "NEVER" if keep_time is None else str(keep_time.days)


def _plaintext_allowed(policy: PlaintextPolicy, client: IPv4Address | IPv6Address | None) -> bool:
    """Whether a client there may send its password in clear. Who cannot be named is not taken for local."""
    return policy == "always" or (policy == "loopback" and client is not None and client.is_loopback)
