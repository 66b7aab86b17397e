"""LMTP sessions on the line server: what a session needs, done with the message store."""

import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from ipaddress import IPv6Address
from typing import Final, cast

from lmtp import replies
from lmtp.session import (
    Accepted,
    Answer,
    Config,
    ReadData,
    Received,
    Refused,
    Session,
    Store,
    Stored,
    Verify,
)
from mailhost.lineserver import Application, Dialogue, End, Peer, Reply, Step, Then, Wire
from mailstore import delivery
from mailstore.database import Unavailable
from mailstore.delivery import Deliveries, Outcome, Recipient
from mailstore.presence import Presence
from mailstore.spool import Room, Spool, SpoolFull, TooLarge

log = logging.getLogger(__name__)

SPOOLED_MEMORY: Final = 64 * 1024 * 1024
"""Octets of small messages that a worker holds in memory; more of them go to files."""
SPOOLED_FILES: Final = 32
"""So many messages of the largest size a worker holds in files; more of them are asked to come again."""
PREFETCH: Final = 100
"""Recipients that are looked up at once."""
DRIP_OCTETS: Final = 1024
"""Octets a second below which a client only keeps a message from ending."""

# As MTAs write it; whatever else there is waits for its turn.
_RCPT = re.compile(rb"RCPT TO:<([!-;=?-~]+)>[^\r\n]*\r\n", re.IGNORECASE)

_FAREWELLS: Final = {
    End.DRAIN: replies.SHUTTING_DOWN,
    End.IDLE: replies.IDLE,
    End.TOO_MANY: replies.TOO_MANY_CONNECTIONS,
    End.OVERLONG: replies.LINE_TOO_LONG,
    End.FAULT: replies.FAULT,
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What all sessions of a listener have in common."""

    session: Config
    suspended: replies.Reply = replies.SUSPENDED
    over_quota: replies.Reply = replies.OVER_QUOTA
    spool_directory: str | None = None
    """Where large messages wait until they are stored; None: the system's place for temporary files."""
    idle_seconds: float = 300
    """RFC 5321 section 4.5.3.2.7. MTAs keep connections open for the next message."""
    patience_seconds: float = 600
    """How long a message may drip in."""


class Server(Application):
    """One worker process of the LMTP listener."""

    def __init__(self, terms: Terms, deliveries: Deliveries, presence: Presence) -> None:
        self.terms = terms
        self.deliveries = deliveries
        self.room = Room(memory=SPOOLED_MEMORY, files=SPOOLED_FILES * terms.session.message_limit)
        self.told = _told(terms)
        self._presence = presence

    async def start(self) -> None:
        await self.deliveries.start()
        await self._presence.start()

    async def stop(self) -> None:
        await self._presence.stop()
        await self.deliveries.stop()

    def dialogue(self, wire: Wire) -> Dialogue:
        return Conversation(self, wire)


def _told(terms: Terms) -> Mapping[Outcome | type[Exception], replies.Reply]:
    """What a client is told of each recipient."""
    return {
        Outcome.STORED: replies.DELIVERED,
        Outcome.ALREADY: replies.ALREADY_DELIVERED,
        Outcome.GONE: replies.UNKNOWN_MAILBOX,
        Outcome.SUSPENDED: terms.suspended,
        Outcome.OVER_QUOTA: terms.over_quota,
        Outcome.DEFERRED: replies.NOT_NOW,
        Outcome.LOOP: replies.LOOP,
        Outcome.NO_SPACE: replies.NO_SPACE,
        Outcome.FAILED: replies.TEMPORARY,
        delivery.UnknownDomain: replies.UNKNOWN_DOMAIN,
        delivery.UnverifiedDomain: replies.UNVERIFIED,
        delivery.Deferred: replies.NOT_NOW,
        delivery.UnknownMailbox: replies.UNKNOWN_MAILBOX,
        delivery.Suspended: terms.suspended,
        delivery.OverQuota: terms.over_quota,
        TooLarge: replies.TOO_LARGE,
        SpoolFull: replies.NO_SPACE,
    }


class Conversation(Dialogue):
    """One connection: a session, and the message it is receiving."""

    __slots__ = (
        "_began",
        "_failure",
        "_found",
        "_reading",
        "_reverse_path",
        "_server",
        "_session",
        "_spool",
        "_taken",
        "_wire",
        "established",
        "idle_limit",
        "line_limit",
    )

    def __init__(self, server: Server, wire: Wire) -> None:
        self._server = server
        self._wire = wire
        self._session = Session(server.terms.session)
        self._found: dict[str, Recipient | delivery.Refused] = {}  # what is known of this transaction's recipients
        self._reverse_path = ""
        self._reading: ReadData | None = None
        self._began = 0.0  # reading, by the monotonic clock
        self._taken = 0  # octets since then
        self._spool: Spool | None = None
        self._failure: replies.Reply | None = None  # why the octets being read are not kept
        self.idle_limit = server.terms.idle_seconds
        self.line_limit = self._session.line_limit
        self.established = True  # who can reach this listener is an MTA, and keeps its connections

    def greet(self) -> Step:
        return Reply(self._session.greet())

    def receive(self, line: bytes) -> Step:
        return self._do(self._session.receive(line))

    def overlong(self) -> Step:
        return self._reply(self._session.overlong())

    def take(self, octets: bytes) -> tuple[int, Step | None]:
        reading = self._reading
        assert reading
        consumed, decoded, complete = reading.reader.feed(octets)
        if reading.keep and decoded:
            self._keep(decoded)
        if complete:
            self._reading = None
            return consumed, self._do(self._session.resume(Refused(self._failure) if self._failure else Received()))
        self._taken += consumed
        waited = time.monotonic() - self._began
        if waited > self._server.terms.patience_seconds and self._taken < waited * DRIP_OCTETS:
            return consumed, Reply(replies.IDLE.octets, Then.CLOSE)
        return consumed, None

    def farewell(self, why: End) -> bytes:
        return _FAREWELLS[why].octets

    def closed(self) -> None:
        self._drop()

    def _do(self, answer: Answer) -> Step:
        match answer:
            case bytes():
                return self._reply(answer)
            case Verify(address):
                found = self._found.get(address)
                return self._answer_recipient(found) if found else self._verify(answer)
            case ReadData(reply):
                self._reading = answer
                self._failure = None
                self._began = time.monotonic()
                self._taken = 0
                return Reply(reply, Then.READ_DATA)
            case Store():
                return self._store(answer)

    def _reply(self, octets: bytes) -> Reply:
        if not self._session.in_transaction:
            self._drop()
        return Reply(octets, Then.CLOSE if self._session.over else Then.GO_ON)

    async def _verify(self, need: Verify) -> Reply:
        """Look the recipient up, and with it those that the client has already named behind it."""
        self._reverse_path = need.reverse_path
        asked = [need.address]
        ahead, at = self._wire.ahead, 0
        while len(asked) < PREFETCH and (rcpt := _RCPT.match(ahead, at)):
            asked.append(rcpt[1].decode())
            at = rcpt.end()
        try:
            found = await self._server.deliveries.find_all(asked, reverse_path=need.reverse_path, octets=need.size)
        except Unavailable:
            return self._finish(Refused(replies.TEMPORARY))
        self._found.update(zip(asked, found, strict=True))
        return self._answer_recipient(found[0])

    def _answer_recipient(self, found: Recipient | delivery.Refused) -> Reply:
        if isinstance(found, Recipient):
            return self._finish(Accepted(found))
        return self._finish(Refused(self._server.told[type(found)]))

    def _keep(self, octets: bytes) -> None:
        try:
            self._opened().write(octets)
        except (TooLarge, SpoolFull) as failure:
            if isinstance(failure, TooLarge) and self._failure is None:
                recipients = [each for each in self._found.values() if isinstance(each, Recipient)]
                self._server.deliveries.note_too_large(recipients, self._reverse_path)
            self._failure = self._server.told[type(failure)]
        except OSError:
            log.exception("a message could not be spooled")
            self._failure = replies.TEMPORARY

    async def _store(self, need: Store) -> Reply:
        return self._finish(Stored(await self._deliver(need)))

    async def _deliver(self, need: Store) -> tuple[replies.Reply, ...]:
        spool = self._opened()  # of no octets, if nothing was read
        try:
            spool.finish()
        except (TooLarge, SpoolFull) as failure:
            return (self._server.told[type(failure)],) * len(need.recipients)
        except OSError:
            log.exception("a message could not be spooled")
            return (replies.TEMPORARY,) * len(need.recipients)
        outcomes = await self._server.deliveries.deliver(
            spool,
            reverse_path=need.reverse_path,
            recipients=cast(tuple[Recipient, ...], need.recipients),
            received=received(need, peer=self._wire.peer, host=self._server.terms.session.host),
        )
        return tuple(self._server.told[outcome] for outcome in outcomes)

    def _finish(self, outcome: Accepted | Refused | Stored) -> Reply:
        octets = self._session.resume(outcome)
        assert isinstance(octets, bytes)
        return self._reply(octets)

    def _opened(self) -> Spool:
        if self._spool is None:
            terms = self._server.terms
            self._spool = Spool(
                limit=terms.session.message_limit, directory=terms.spool_directory, room=self._server.room
            )
        return self._spool

    def _drop(self) -> None:
        """Forget what belonged to the transaction."""
        if self._found:
            self._found = {}
        if self._spool:
            self._spool.close()
            self._spool = None


def received(message: Store, *, peer: Peer, host: str) -> bytes:
    """The trace field of this hop (RFC 5321 section 4.4).

    Nothing in it can begin another line: of the client's own words there is only its name, a domain or an address
    literal.
    """
    literal = ""
    if peer.address is not None:
        kind = "IPv6:" if isinstance(peer.address, IPv6Address) else ""
        literal = f" ([{kind}{peer.address}])"
    protocol = "UTF8LMTP" if message.smtputf8 else "LMTP"  # RFC 3848, RFC 6531 section 4.3
    date = format_datetime(datetime.now(UTC))
    return (
        f"Received: from {message.client}{literal}\r\n"
        f"\tby {host} with {protocol} id {secrets.token_hex(8)};\r\n"
        f"\t{date}\r\n"
    ).encode()
