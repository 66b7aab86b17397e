"""One mailbox's maildrop for one POP3 session: opened under its lock, read, and closed with what was marked."""

import logging
import sys
import uuid
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import accumulate
from typing import Any, Final, TypeVar

import psycopg

from accounts import addresses, throttle
from accounts.authentication import Busy, Passwords
from accounts.throttle import Throttle, TooManyFailures
from mailstore import presence
from mailstore.database import Connection, Pool, Unavailable
from mailstore.models import unique_id
from mailstore.presence import Presence

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = tuple[Any, ...]

READ_AHEAD: Final = 256 * 1024
"""Octets that one query fetches beyond the message asked for, for each session."""
ALL_READ_AHEAD: Final = 128 * 1024 * 1024
"""Octets that all sessions of a process hold; when they are used up, only the message asked for is fetched."""


class Refused(Exception):
    """The maildrop cannot be opened."""


class WrongPassword(Refused):
    """No such address, or not its password: which of the two is not told."""


class InUse(Refused):
    """Another session holds the maildrop."""


class Suspended(Refused):
    """The password is right, and the mailbox must not be used: suspended, or not over POP3, or not from there."""


class LockLost(Exception):
    """The session is no longer this process's to end: nothing was expunged."""


_LOOK_UP = """
SELECT mailbox.id, mailbox.tenant_id, owner.password, EXISTS (
    SELECT FROM accounts_knownnetwork known
    WHERE known.mailbox_id = mailbox.id AND known.network = %(network)s
        AND known.last_login_at > now() - interval '30 days'
)
FROM accounts_mailbox mailbox JOIN accounts_user owner ON owner.id = mailbox.user_id
WHERE mailbox.address = %(address)s AND mailbox.closed_at IS NULL
"""

_REMEMBER_NETWORK = """
INSERT INTO accounts_knownnetwork (tenant_id, mailbox_id, network, last_login_at)
VALUES (%(tenant)s, %(mailbox)s, %(network)s, now())
ON CONFLICT (mailbox_id, network) DO UPDATE SET last_login_at = now()
WHERE accounts_knownnetwork.last_login_at < now() - interval '1 day'
"""

# The lock is taken only if the stored hash is still the one that the password matched. What locks and what it logs
# need not outlive a crash of the database: QUIT asks whether the row is there (`_FINISH`).
_OPEN = """
WITH box AS (
    SELECT mailbox.id, mailbox.tenant_id,
        owner.password = %(verified)s AS verified,
        mailbox.state = 'active' AND mailbox.pop3_enabled AND (
            mailbox.allowed_networks = '{}' OR %(client)s::inet <<= ANY (mailbox.allowed_networks::inet[])
        ) AS allowed
    FROM accounts_mailbox mailbox JOIN accounts_user owner ON owner.id = mailbox.user_id
    WHERE mailbox.address = %(address)s AND mailbox.closed_at IS NULL
), locked AS (
    INSERT INTO mailstore_maildropsession (
        id, tenant_id, mailbox_id, view, listener_id, client_address, secure, "end", fetched, expunged
    )
    SELECT %(session)s, tenant_id, id, 0, %(listener)s, %(client)s, %(secure)s, '', 0, 0
    FROM box WHERE verified AND allowed
    ON CONFLICT (mailbox_id, view) WHERE ended_at IS NULL DO NOTHING
    RETURNING id
)
SELECT id, verified, allowed,
    -- The second case is ours, by an attempt whose answer was lost.
    EXISTS (SELECT FROM locked)
        OR EXISTS (SELECT FROM mailstore_maildropsession WHERE id = %(session)s AND ended_at IS NULL),
    set_config('synchronous_commit', 'off', true)
FROM box
"""

# A statement of its own, after the lock: in one with it, the listing would come from a snapshot older than the lock
# and show what the session before has expunged. Columns are packed, so that a million messages cost 21 MB, not a
# million rows. The last two are for unique-ids that came along from another server: their lengths, 0 where the message
# has none, and their text.
_LIST = """
SELECT string_agg(int8send(uid), ''), string_agg(int8send(octets), ''),
    string_agg(int4send(epoch), ''), string_agg(boolsend(first_fetched_at IS NOT NULL), ''),
    string_agg(int2send(coalesce(length(kept_unique_id), 0)::smallint), ''), string_agg(kept_unique_id, '')
FROM (
    SELECT uid, octets, epoch, first_fetched_at, kept_unique_id FROM mailstore_message
    WHERE mailbox_id = (SELECT mailbox_id FROM mailstore_maildropsession WHERE id = %(session)s)
        AND expunged_at IS NULL
    ORDER BY uid
) listing
"""

_HOLDER = f"""
SELECT session.id, session.listener_id, {presence.GONE}
FROM mailstore_maildropsession session LEFT JOIN mailstore_listener listener ON listener.id = session.listener_id
WHERE session.mailbox_id = %(mailbox)s AND session.view = 0 AND session.ended_at IS NULL
"""

_TAKE_FROM = """
UPDATE mailstore_maildropsession SET ended_at = now(), "end" = 'lost' WHERE id = %(holder)s AND ended_at IS NULL
"""

_READ = """
SELECT message.uid, message.trace, content.id, content.octets, content.header_octets, content.has_dot_lines,
    content.body
FROM mailstore_message message JOIN mailstore_content content ON content.id = message.content_id
WHERE message.mailbox_id = %(mailbox)s AND message.uid = ANY (%(uids)s)
"""

_READ_CHUNK = "SELECT octets FROM mailstore_contentchunk WHERE content_id = %(content)s AND number = %(number)s"

# A session that neither fetched nor removed anything leaves no row behind.
_RELEASE = """
WITH released AS (
    DELETE FROM mailstore_maildropsession WHERE id = %(session)s AND ended_at IS NULL
    RETURNING mailbox_id, started_at, client_address
)
UPDATE accounts_mailbox mailbox
SET last_login_at = released.started_at, last_login_address = released.client_address
FROM released WHERE mailbox.id = released.mailbox_id
RETURNING set_config('synchronous_commit', 'off', true)
"""

# The update of RFC 1939 section 6, all or nothing. The row lock on the session is the fence: whoever took the
# maildrop over has ended it, and then nothing here finds a row. Locks: session, mailbox, messages.
_FINISH = """
WITH held AS (
    SELECT id, mailbox_id, started_at, client_address FROM mailstore_maildropsession
    WHERE id = %(session)s AND ended_at IS NULL
    FOR UPDATE
), box AS (
    SELECT mailbox.id, held.started_at, held.client_address
    FROM accounts_mailbox mailbox JOIN held ON held.mailbox_id = mailbox.id
    WHERE mailbox.closed_at IS NULL AND mailbox.state = 'active'
    FOR NO KEY UPDATE OF mailbox
), removed AS (
    UPDATE mailstore_message message
    SET expunged_at = now(), expunged_in_id = %(session)s,
        first_fetched_at = CASE WHEN uid = ANY (%(fetched)s) THEN now() ELSE first_fetched_at END,
        first_fetched_in_id = CASE WHEN uid = ANY (%(fetched)s) THEN %(session)s ELSE first_fetched_in_id END
    FROM box
    WHERE message.mailbox_id = box.id AND message.uid = ANY (%(expunge)s) AND message.expunged_at IS NULL
    RETURNING message.octets
), fetched AS (
    UPDATE mailstore_message message SET first_fetched_at = now(), first_fetched_in_id = %(session)s
    FROM held
    WHERE message.mailbox_id = held.mailbox_id AND message.uid = ANY (%(fetched)s)
        AND message.uid <> ALL (%(expunge)s) AND message.first_fetched_at IS NULL
), sums AS (
    SELECT count(*) AS messages, coalesce(sum(octets), 0) AS octets FROM removed
), charged AS (
    UPDATE accounts_mailbox mailbox
    SET used_octets = used_octets - sums.octets, message_count = message_count - sums.messages,
        last_login_at = box.started_at, last_login_address = box.client_address
    FROM box, sums
    WHERE mailbox.id = box.id
)
UPDATE mailstore_maildropsession session
SET ended_at = now(), "end" = %(end)s, fetched = %(fetches)s, expunged = sums.messages
FROM held, sums
WHERE session.id = held.id
RETURNING EXISTS (SELECT FROM box), set_config('synchronous_commit', %(commit)s, true)
"""

_ENDED_HERE = """SELECT expunged FROM mailstore_maildropsession WHERE id = %(session)s AND "end" = 'quit'"""


class Listing:
    """The messages of a maildrop as they were when it was opened, in the order of their uids."""

    __slots__ = ("_epochs", "_kept", "_kept_ends", "_mailbox_id", "fetched", "octets", "uids")

    def __init__(self, mailbox_id: int, row: Row) -> None:
        uids, octets, epochs, fetched, kept_lengths, self._kept = row
        self._mailbox_id = mailbox_id
        self.uids = _unpacked("q", uids)
        self.octets = _unpacked("q", octets)
        self._epochs = _unpacked("i", epochs)
        self.fetched = bytes(fetched or b"")  # one octet each: 1 if an earlier session fetched it
        self._kept_ends = array("I", accumulate(_unpacked("h", kept_lengths), initial=0)) if self._kept else None

    def unique_id(self, number: int) -> str:
        """The unique-id of the message with this message-number."""
        if self._kept_ends and (kept := self._kept[self._kept_ends[number - 1] : self._kept_ends[number]]):
            return str(kept)
        return unique_id(self._mailbox_id, self._epochs[number - 1], self.uids[number - 1])


def _unpacked(typecode: str, octets: bytes | None) -> "array[int]":
    numbers = array(typecode, bytes(octets or b""))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


@dataclass(frozen=True, slots=True)
class Copy:
    """A message as it is stored: the octets of RETR are those of `trace`, then the content's."""

    trace: bytes
    content_id: int
    content_octets: int
    header_octets: int  # of the content
    has_dot_lines: bool  # in the content
    body: bytes | None  # the content, unless it lies in chunks

    @property
    def held_octets(self) -> int:
        """How much of the process's memory it takes."""
        return len(self.trace) + len(self.body or b"")


class Maildrops:
    """The way to the maildrops. One per listener process, opened after the fork."""

    def __init__(
        self,
        *,
        connections: int,
        listener_ttl: float,
        default_domain: str,
        redis_url: str,
        secret: bytes,
        throttled: bool,
    ) -> None:
        self.pool = Pool(size=connections)
        self.presence = Presence(kind="pop3", ttl=listener_ttl)
        self.room = ALL_READ_AHEAD  # that is left
        self._passwords = Passwords()
        self._throttle = Throttle(redis_url=redis_url, secret=secret, enabled=throttled)
        self._default_domain = default_domain

    async def start(self) -> None:
        """Register the listener and begin to open connections. Waits a little for the database, not for ever."""
        self.pool.open()
        await self.presence.start()

    async def stop(self) -> None:
        """Give everything back. Sessions are closed before."""
        await self.presence.stop()
        await self.pool.close()
        await self._throttle.close()
        self._passwords.close()

    async def open(
        self, name: str, password: str, *, client: IPv4Address | IPv6Address | None, secure: bool
    ) -> "Maildrop":
        """Check the password, lock the maildrop and list it.

        Raises `WrongPassword`, `TooManyFailures`, `InUse`, `Suspended`, `Unavailable`.
        """
        try:
            address = addresses.login(name, default_domain=self._default_domain)
        except addresses.BadAddress:
            address = ""  # no mailbox has it; the refusal takes as long as any other
        verified = self._passwords.verified(address, password, network=throttle.near(client))
        if verified is None:
            verified = await self._verify(address, password, client)
        for _ in range(2):
            maildrop = await self._try_open(address, verified, client, secure)
            if maildrop:
                return maildrop
            # The password was changed since it was verified: it is checked against the new one.
            verified = await self._verify(address, password, client)
        raise Unavailable

    async def _verify(self, address: str, password: str, client: IPv4Address | IPv6Address | None) -> str:
        """The stored hash, if the password matches it. Raises as `open`."""
        network = throttle.near(client)
        row = await self._one(_LOOK_UP, {"address": address, "network": network})
        mailbox_id, tenant_id, stored, known = row or (None, None, None, False)
        try:
            attempt = await self._throttle.admit(address=address, password=password, client=client, known=known)
        except TooManyFailures:
            log.warning("login refused unseen, after too many failures: %s from %s", address or "no address", client)
            await throttle.answer_on_tick(delay=0.0)
            raise
        try:
            matches = await self._passwords.check(address, password, stored, network=network)
        except Busy:
            raise Unavailable from None
        if not matches:
            log.info("login failed: %s from %s", address or "no address", client)
            await throttle.answer_on_tick(delay=attempt.delay)
            raise WrongPassword
        await self._throttle.succeeded(attempt)
        await self._one(
            _REMEMBER_NETWORK, {"tenant": tenant_id, "mailbox": mailbox_id, "network": network}, returns=False
        )
        return str(stored)

    async def _try_open(
        self, address: str, verified: str, client: IPv4Address | IPv6Address | None, secure: bool
    ) -> "Maildrop | None":
        """Open, taking the maildrop from a holder that is gone; None if the stored hash is another one now."""
        if self.presence.listener_id is None:
            raise Unavailable
        session = uuid.uuid4()
        parameters = {
            "address": address,
            "verified": verified,
            "client": client,
            "secure": secure,
            "session": session,
            "listener": self.presence.listener_id,
        }

        async def work(connection: Connection) -> tuple[Row | None, Row]:
            async with connection.pipeline():
                opening = await connection.execute(_OPEN, parameters, binary=True)
                listing = await connection.execute(_LIST, parameters, binary=True)
            row, columns = await opening.fetchone(), await listing.fetchone()
            assert columns
            return row, columns

        self.presence.sessions.add(session)
        opened = False
        try:
            row, columns = await self._attempt(work)
            if row and row[1] and row[2] and not row[3] and await self._holder_is_gone(row[0]):
                row, columns = await self._attempt(work)
            if row is None or not row[1]:
                return None
            mailbox_id, _, allowed, opened, _ = row
            if not allowed:
                raise Suspended
            if not opened:
                raise InUse
            return Maildrop(self, session, mailbox_id, Listing(mailbox_id, columns))
        finally:
            if not opened:
                self.presence.sessions.discard(session)

    async def _holder_is_gone(self, mailbox_id: int) -> bool:
        """Whether the maildrop is free now: its holder's process is gone, and its session is ended here."""
        holder = await self._one(
            _HOLDER, {"mailbox": mailbox_id, "ttl": self.presence.ttl, "space": presence.LOCK_SPACE}
        )
        if holder is None:
            return True
        session, listener, gone = holder
        forgotten = listener == self.presence.listener_id and session not in self.presence.sessions
        if gone or forgotten:
            await self._one(_TAKE_FROM, {"holder": session}, returns=False)
            log.info("maildrop of mailbox %s taken over from a session that is gone", mailbox_id)
        return bool(gone or forgotten)

    async def _one(self, statement: str, parameters: dict[str, Any], *, returns: bool = True) -> Row | None:
        async def work(connection: Connection) -> Row | None:
            cursor = await connection.execute(statement, parameters, binary=True)
            return await cursor.fetchone() if returns else None

        return await self._attempt(work)

    async def _attempt(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await self.pool.run(work)
        except Unavailable:
            self.presence.end_strays()  # what was lost on the way may have been written all the same
            raise
        except psycopg.Error:
            log.exception("the store failed a maildrop")
            self.presence.end_strays()
            raise Unavailable from None


class Maildrop:
    """An open maildrop. Holds no connection; `close` must be called once."""

    def __init__(self, maildrops: Maildrops, session: uuid.UUID, mailbox_id: int, listing: Listing) -> None:
        self.listing = listing
        self._maildrops = maildrops
        self._session = session
        self._mailbox_id = mailbox_id
        self._ahead: dict[int, Copy] = {}  # by message-number
        self._fetched: set[int] = set()
        self._fetches = 0

    def ready(self, number: int) -> Copy | None:
        """The message, if an earlier read brought it along."""
        return self._ahead.get(number)

    async def read(self, number: int) -> Copy | None:
        """The message with this message-number; None if it was purged since the maildrop was opened.

        Brings along the messages that follow, as far as there is room: clients fetch in order. Raises `Unavailable`.
        """
        if copy := self.ready(number):
            return copy
        octets, last, count = self.listing.octets, number, len(self.listing.octets)
        total, room = 0, min(READ_AHEAD, self._maildrops.room)
        while last < count and (total := total + octets[last]) <= room:
            last += 1
        uids = self.listing.uids[number - 1 : last]
        numbers = dict(zip(uids, range(number, last + 1), strict=True))

        async def work(connection: Connection) -> list[Row]:
            cursor = await connection.execute(_READ, {"mailbox": self._mailbox_id, "uids": uids.tolist()}, binary=True)
            return await cursor.fetchall()

        rows = await self._maildrops._attempt(work)
        self._let_go()
        self._ahead = {numbers[uid]: Copy(*columns) for uid, *columns in rows}
        self._maildrops.room -= sum(copy.held_octets for copy in self._ahead.values())
        return self.ready(number)

    async def chunks(self, copy: Copy) -> AsyncIterator[bytes]:
        """The content's octets, piece by piece. Raises `Unavailable`, also in the middle."""
        if copy.body is not None:
            yield copy.body
            return
        number, left = 0, copy.content_octets
        while left > 0:
            row = await self._maildrops._one(_READ_CHUNK, {"content": copy.content_id, "number": number})
            if row is None:  # purged while it was read
                raise Unavailable
            yield row[0]
            left -= len(row[0])
            number += 1

    def fetched(self, number: int) -> None:
        """The message was sent as a whole, by RETR: it counts as fetched, and is not needed again."""
        if copy := self._ahead.pop(number, None):
            self._maildrops.room += copy.held_octets
        self._fetches += 1
        if not self.listing.fetched[number - 1]:
            self._fetched.add(number)

    async def close(self, *, expunge: Iterable[int] = (), quit: bool = False) -> None:
        """End the session, and remove the messages with these message-numbers, all or none.

        When this returns that is durable. Raises `LockLost`, `Suspended` if the mailbox may no longer be used, or
        `Unavailable`: then nothing is removed.
        """
        uids = self.listing.uids
        removed = [uids[number - 1] for number in expunge]
        fetched = [uids[number - 1] for number in self._fetched]
        parameters: dict[str, Any] = {"session": self._session}
        if removed or self._fetches:
            parameters |= {
                "expunge": removed,
                "fetched": fetched,
                "fetches": self._fetches,
                "end": "quit" if quit else "dropped",
                "commit": "on" if removed else "off",
            }

        async def release(connection: Connection) -> None:
            await connection.execute(_RELEASE, parameters)

        async def finish(connection: Connection) -> None:
            row = await (await connection.execute(_FINISH, parameters, binary=True)).fetchone()
            if row is None:
                # Committed by an attempt whose answer was lost, or taken over by somebody else?
                ended = await (await connection.execute(_ENDED_HERE, parameters)).fetchone()
                if not ended or (removed and not ended[0]):
                    raise LockLost
            elif removed and not row[0]:
                raise Suspended

        try:
            await self._maildrops._attempt(finish if removed or self._fetches else release)
        finally:
            self._maildrops.presence.sessions.discard(self._session)
            self._let_go()

    def _let_go(self) -> None:
        """Of what was read ahead."""
        self._maildrops.room += sum(copy.held_octets for copy in self._ahead.values())
        self._ahead.clear()
