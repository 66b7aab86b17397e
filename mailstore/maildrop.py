"""One mailbox's maildrop for one POP3 session: opened under its lock, read, and closed with what was marked."""

import asyncio
import logging
import sys
import uuid
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from itertools import accumulate
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors

from accounts import addresses, app_passwords, failed_logins, notices, throttle
from accounts.authentication import Busy, Passwords, Proof
from accounts.models import FailedLogin
from accounts.throttle import Throttle, TooManyFailures
from mailstore import own_copies, presence
from mailstore.database import Connection, Pool, Unavailable
from mailstore.models import unique_id
from mailstore.noting import Notes
from mailstore.presence import Presence

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = tuple[Any, ...]
Client = IPv4Address | IPv6Address | None

READ_AHEAD: Final = 256 * 1024
"""Octets that one query fetches beyond the message asked for, for each session."""
ALL_READ_AHEAD: Final = 128 * 1024 * 1024
"""Octets that all sessions of a process hold; when they are used up, only the message asked for is fetched."""


_LEAVE: Final = 3.0  # seconds that what is done behind may take when the process ends

_IN_THE_WAY: Final = (errors.LockNotAvailable, errors.DeadlockDetected, errors.ForeignKeyViolation)
"""No fault: somebody holds the mailbox for long, or it was moved to another tenant since we looked it up."""


class Refused(Exception):
    """The maildrop cannot be opened."""


class WrongPassword(Refused):
    """No such address, or not its password: which of the two is not told."""


class InUse(Refused):
    """Another session holds the maildrop."""


class Suspended(Refused):
    """The password is right, and the mailbox must not be used: suspended, or not over POP3, or not from there.

    `reason` is what its owner is to read about that; may be empty.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__()
        self.reason = reason


class LockLost(Exception):
    """The session is no longer this process's to end: nothing was expunged."""


_LOOK_UP = f"""
SELECT mailbox.id, mailbox.tenant_id, owner.password, EXISTS (
    SELECT FROM accounts_knownnetwork known
    WHERE known.mailbox_id = mailbox.id AND known.network = %(network)s
        AND known.last_login_at > now() - interval '{failed_logins.KNOWN_FOR.days} days'
), app.id, app.own_copy, {app_passwords.why_not(scope="pop3", client="%(client)s::inet")}
FROM accounts_mailbox mailbox JOIN accounts_user owner ON owner.id = mailbox.user_id
    LEFT JOIN accounts_apppassword app ON app.mailbox_id = mailbox.id AND app.digest = %(digest)s
WHERE mailbox.address = %(address)s AND mailbox.closed_at IS NULL
"""

_NOBODY: Final = (None, None, None, False, None, None, None)  # what that finds of an address that does not exist

_REMEMBER_NETWORK = """
INSERT INTO accounts_knownnetwork (tenant_id, mailbox_id, network, last_login_at)
VALUES (%(tenant)s, %(mailbox)s, %(network)s, now())
ON CONFLICT (mailbox_id, network) DO UPDATE SET last_login_at = now()
WHERE accounts_knownnetwork.last_login_at < now() - interval '1 day'
"""

_UPGRADE = """
UPDATE accounts_user owner SET password = %(newer)s
FROM accounts_mailbox mailbox
WHERE mailbox.id = %(mailbox)s AND owner.id = mailbox.user_id AND owner.password = %(stored)s
RETURNING owner.id
"""

_IN_USE = "mailbox.state IN ('active', 'no-receive')"
_REASON = f"CASE WHEN {_IN_USE} THEN '' ELSE mailbox.state_reason END"


# What a session needs, to begin and to remove something.


def _allowed(*, client: str) -> str:
    """SQL: whether the mailbox may be used from there."""
    return f"""({_IN_USE} AND mailbox.pop3_enabled AND (
        mailbox.allowed_networks = '{{}}' OR {client} <<= ANY (mailbox.allowed_networks::inet[])
    ))"""


def _still(*, stored: str, newer: str) -> str:
    """SQL: whether the password that a session began with holds for it: it is the mailbox's own, or was until whoever
    changed it let open sessions go on, or until the web stored another hash of it. No new session begins with a former
    one.
    """
    return f"""owner.password IN ({stored}, {newer}) OR ARRAY[
        sha256(convert_to({stored}, 'UTF8')), sha256(convert_to({newer}, 'UTF8'))
    ] && ARRAY[substring(owner.former_password FOR 32), substring(owner.former_password FROM 33)]"""


def _verified(*, matches: str, app: str, view: str, client: str) -> str:
    """SQL: whether what proved the password right still does, and for that view of the maildrop."""
    return f"""CASE WHEN {app} IS NULL THEN {matches} ELSE EXISTS (
        SELECT FROM accounts_apppassword app
        WHERE app.id = {app} AND app.mailbox_id = mailbox.id AND app.own_copy = ({view} <> 0)
            AND {app_passwords.why_not(scope="pop3", client=client)} IS NULL
    ) END"""


# The lock is taken only if what proved the password right still does. What locks and what it logs need not outlive a
# crash of the database: QUIT asks whether the row is there (`_FINISH`).
_OPEN = f"""
WITH box AS (
    SELECT mailbox.id, mailbox.tenant_id,
        {
    _verified(
        matches="owner.password = %(stored)s",
        app="%(app)s::bigint",
        view="%(view)s::bigint",
        client="%(client)s::inet",
    )
} AS verified,
        {_allowed(client="%(client)s::inet")} AS allowed,
        {_REASON} AS reason,
        mailbox.keep_time
    FROM accounts_mailbox mailbox JOIN accounts_user owner ON owner.id = mailbox.user_id
    WHERE mailbox.address = %(address)s AND mailbox.closed_at IS NULL
), locked AS (
    INSERT INTO mailstore_maildropsession (
        id, tenant_id, mailbox_id, view, listener_id, app_password_id, client_address, secure, "end", fetched, expunged
    )
    SELECT %(session)s, tenant_id, id, %(view)s::bigint, %(listener)s, %(app)s::bigint, %(client)s, %(secure)s, '', 0, 0
    FROM box WHERE verified AND allowed
    ON CONFLICT (mailbox_id, view) WHERE ended_at IS NULL DO NOTHING
    RETURNING id
)
SELECT id, tenant_id, verified, allowed, reason, keep_time,
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

# The same for a device with its own copy: without what it has removed, and with a fourth number in the unique-id of
# what came back since (`mailstore.retention`). What counts as fetched is what this device has fetched.
_LIST_OWN = """
SELECT string_agg(int8send(uid), ''), string_agg(int8send(octets), ''),
    string_agg(int4send(epoch), ''), string_agg(boolsend(fetched), ''),
    string_agg(int2send(coalesce(length(given), 0)::smallint), ''), string_agg(given, '')
FROM (
    SELECT message.uid, message.octets, message.epoch, copy.fetched_at IS NOT NULL AS fetched,
        CASE WHEN copy.returns > 0
            THEN concat_ws(
                '.', to_hex(message.mailbox_id), to_hex(message.epoch), to_hex(message.uid), to_hex(copy.returns)
            )
            ELSE message.kept_unique_id END AS given
    FROM mailstore_message message LEFT JOIN mailstore_owncopy copy
        ON copy.app_password_id = %(view)s AND copy.message_id = message.id
    WHERE message.mailbox_id = (SELECT mailbox_id FROM mailstore_maildropsession WHERE id = %(session)s)
        AND message.expunged_at IS NULL AND copy.removed_at IS NULL
    ORDER BY message.uid
) listing
"""

# Looked up with every notice to all, and not at each login, which would take a twentieth longer.
_KEEP_TIMES = "SELECT id, keep_time FROM accounts_tenant WHERE keep_time IS NOT NULL"

_HOLDER = f"""
SELECT session.id, session.listener_id, {presence.GONE}
FROM mailstore_maildropsession session LEFT JOIN mailstore_listener listener ON listener.id = session.listener_id
WHERE session.mailbox_id = %(mailbox)s AND session.view = %(view)s AND session.ended_at IS NULL
"""

_TAKE_FROM = """
UPDATE mailstore_maildropsession SET ended_at = now(), "end" = 'lost' WHERE id = %(holder)s AND ended_at IS NULL
"""

# Of these sessions, those that could not begin now, and why: somebody has ended them, their mailbox must not be used
# (any more, under that address, in that tenant), or else the password is not right any more.
_UNFIT = f"""
SELECT held.id, session.id IS NULL, {_allowed(client="session.client_address")} IS NOT TRUE, coalesce({_REASON}, '')
FROM unnest(
        %(sessions)s::uuid[], %(tenants)s::bigint[], %(addresses)s::text[], %(stored)s::text[], %(newer)s::text[]
    ) held (id, tenant_id, address, stored, newer)
    LEFT JOIN mailstore_maildropsession session ON session.id = held.id AND session.ended_at IS NULL
    LEFT JOIN accounts_mailbox mailbox ON mailbox.id = session.mailbox_id AND mailbox.closed_at IS NULL
        AND mailbox.tenant_id = held.tenant_id AND mailbox.address = held.address
    LEFT JOIN accounts_user owner ON owner.id = mailbox.user_id
WHERE ({_allowed(client="session.client_address")} AND {
    _verified(
        matches=_still(stored="held.stored", newer="held.newer"),
        app="session.app_password_id",
        view="session.view",
        client="session.client_address",
    )
}) IS NOT TRUE
"""

_READ = """
SELECT message.uid, message.trace, content.id, content.octets, content.header_octets, content.has_dot_lines,
    content.body
FROM mailstore_message message JOIN mailstore_content content ON content.id = message.content_id
WHERE message.mailbox_id = %(mailbox)s AND message.uid = ANY (%(uids)s)
"""

_READ_CHUNK = "SELECT octets FROM mailstore_contentchunk WHERE content_id = %(content)s AND number = %(number)s"


def _used(session: str) -> str:
    """SQL: the app password of a session that has ended was used; written once a minute at most.

    For the sessions that one began: the other statements do without, for it is a tenth of what a poll costs them.
    """
    return f""", used AS (
    UPDATE accounts_apppassword app
    SET last_used_at = {session}.started_at, last_used_address = {session}.client_address
    FROM {session}
    WHERE app.id = {session}.app_password_id
        AND (app.last_used_at IS NULL OR app.last_used_at < {session}.started_at - interval '1 minute')
)"""


# A session that neither fetched nor removed anything leaves no row behind.
def _releasing(used: str = "") -> str:
    return f"""
WITH released AS (
    DELETE FROM mailstore_maildropsession WHERE id = %(session)s AND ended_at IS NULL
    RETURNING mailbox_id, app_password_id, started_at, client_address, secure
){used}
UPDATE accounts_mailbox mailbox
SET last_login_at = released.started_at, last_login_address = released.client_address,
    last_login_secure = released.secure, last_login_app_password_id = released.app_password_id
FROM released WHERE mailbox.id = released.mailbox_id
RETURNING set_config('synchronous_commit', 'off', true)
"""


_RELEASE, _RELEASE_USED = _releasing(), _releasing(_used("released"))


# The update of RFC 1939 section 6, all or nothing. The row lock on the session is the fence: whoever took the
# maildrop over has ended it, and then nothing here finds a row. Locks: session, mailbox, messages.
_HELD = f"""
WITH held AS (
    SELECT id, tenant_id, mailbox_id, view, app_password_id, started_at, client_address, secure
    FROM mailstore_maildropsession
    WHERE id = %(session)s AND ended_at IS NULL
    FOR UPDATE
), box AS (
    SELECT mailbox.id, held.started_at, held.client_address, held.secure, held.app_password_id
    FROM accounts_mailbox mailbox JOIN held ON held.mailbox_id = mailbox.id
        JOIN accounts_user owner ON owner.id = mailbox.user_id
    WHERE mailbox.closed_at IS NULL AND {_allowed(client="held.client_address")} AND {
    _verified(
        matches=_still(stored="%(stored)s::text", newer="%(newer)s::text"),
        app="held.app_password_id",
        view="held.view",
        client="held.client_address",
    )
}
    FOR NO KEY UPDATE OF mailbox
)"""
"""SQL: the session and, if it may still remove something, its mailbox; both held."""


def _finishing(used: str = "") -> str:
    return f"""{_HELD}{used}, removed AS (
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
        last_login_at = box.started_at, last_login_address = box.client_address,
        last_login_secure = box.secure, last_login_app_password_id = box.app_password_id
    FROM box, sums
    WHERE mailbox.id = box.id
)
UPDATE mailstore_maildropsession session
SET ended_at = now(), "end" = %(end)s, fetched = %(fetches)s, expunged = sums.messages
FROM held, sums
WHERE session.id = held.id
RETURNING EXISTS (SELECT FROM box), set_config('synchronous_commit', %(commit)s, true)
"""


_FINISH, _FINISH_USED = _finishing(), _finishing(_used("held"))

# The same for a device with its own copy: what it removed is left out of its view, and what was thereby removed by all
# that have one leaves the maildrop, in a statement of its own (`own_copies.expunging`). Messages are held, so that no
# purge takes one away meanwhile.
_FINISH_OWN = f"""{_HELD}{_used("held")}, gate AS MATERIALIZED (
    SELECT held.tenant_id, held.mailbox_id, held.view, EXISTS (SELECT FROM box) AS verified FROM held
), touched AS MATERIALIZED (
    SELECT message.id, message.uid = ANY (%(fetched)s) AS fetched,
        gate.verified AND message.uid = ANY (%(expunge)s) AS removed
    FROM gate JOIN mailstore_message message ON message.mailbox_id = gate.mailbox_id
    WHERE message.uid = ANY (%(touched)s)
    ORDER BY message.uid
    FOR KEY SHARE OF message
), copied AS (
    INSERT INTO mailstore_owncopy AS copy (
        tenant_id, mailbox_id, app_password_id, message_id, fetched_at, fetched_in_id, removed_at, removed_in_id,
        returns
    )
    SELECT gate.tenant_id, gate.mailbox_id, gate.view, touched.id,
        CASE WHEN touched.fetched THEN now() END, CASE WHEN touched.fetched THEN %(session)s::uuid END,
        CASE WHEN touched.removed THEN now() END, CASE WHEN touched.removed THEN %(session)s::uuid END, 0
    FROM touched, gate WHERE touched.fetched OR touched.removed
    ON CONFLICT (app_password_id, message_id) DO UPDATE SET
        fetched_at = coalesce(copy.fetched_at, excluded.fetched_at),
        fetched_in_id = CASE WHEN copy.fetched_at IS NULL THEN excluded.fetched_in_id ELSE copy.fetched_in_id END,
        removed_at = coalesce(copy.removed_at, excluded.removed_at),
        removed_in_id = CASE WHEN copy.removed_at IS NULL THEN excluded.removed_in_id ELSE copy.removed_in_id END
    RETURNING copy.removed_in_id
), fetched AS (
    UPDATE mailstore_message message SET first_fetched_at = now(), first_fetched_in_id = %(session)s
    FROM touched
    WHERE message.id = touched.id AND touched.fetched AND message.first_fetched_at IS NULL
), logged_in AS (
    UPDATE accounts_mailbox mailbox
    SET last_login_at = box.started_at, last_login_address = box.client_address,
        last_login_secure = box.secure, last_login_app_password_id = box.app_password_id
    FROM box WHERE mailbox.id = box.id
)
UPDATE mailstore_maildropsession session
SET ended_at = now(), "end" = %(end)s, fetched = %(fetches)s,
    expunged = (SELECT count(*) FROM copied WHERE removed_in_id = %(session)s)
FROM held
WHERE session.id = held.id
RETURNING (SELECT verified FROM gate), set_config('synchronous_commit', %(commit)s, true)
"""
# Only in the transaction that has just ended the session, and if that removed something: then it holds the mailbox.
_EXPUNGE_OWN = own_copies.expunging("""message.uid = ANY (%(expunge)s) AND EXISTS (
    SELECT FROM mailstore_maildropsession WHERE id = %(session)s AND ended_at = now() AND expunged > 0
)""")

_ENDED_HERE = """SELECT expunged FROM mailstore_maildropsession WHERE id = %(session)s AND "end" = 'quit'"""


class Listing:
    """The messages of a maildrop as they were when it was opened, in the order of their uids."""

    __slots__ = ("_epochs", "_kept", "_kept_ends", "fetched", "mailbox_id", "octets", "uids")

    def __init__(self, mailbox_id: int, row: Row) -> None:
        uids, octets, epochs, fetched, kept_lengths, self._kept = row
        self.mailbox_id = mailbox_id
        self.uids = _unpacked("q", uids)
        self.octets = _unpacked("q", octets)
        self._epochs = _unpacked("i", epochs)
        self.fetched = bytes(fetched or b"")  # one octet each: 1 if an earlier session fetched it
        self._kept_ends = array("I", accumulate(_unpacked("h", kept_lengths), initial=0)) if self._kept else None

    def unique_id(self, number: int) -> str:
        """The unique-id of the message with this message-number."""
        if self._kept_ends and (kept := self._kept[self._kept_ends[number - 1] : self._kept_ends[number]]):
            return str(kept)
        return unique_id(self.mailbox_id, self._epochs[number - 1], self.uids[number - 1])


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
        role: str | None = None,
    ) -> None:
        self.pool = Pool(size=connections, role=role)
        self.presence = Presence(kind="pop3", ttl=listener_ttl, look=self._look, role=role)
        self.room = ALL_READ_AHEAD  # that is left
        self._passwords = Passwords()
        self._throttle = Throttle(redis_url=redis_url, secret=secret, enabled=throttled)
        self._failed = Notes(self.pool, failed_logins.WRITE, failed_logins.parameters, of="failed logins")
        self._default_domain = default_domain
        self._open: dict[uuid.UUID, Maildrop] = {}  # by session
        self._notices = 0  # that have come
        self._keep_times: dict[int, timedelta] = {}  # of the tenants that have one
        self._behind: set[asyncio.Task[None]] = set()  # what no client waits for

    async def start(self) -> None:
        """Register the listener and begin to open connections. Waits a little for the database, not for ever."""
        self.pool.open()
        self._failed.start()
        await self.presence.start()

    async def stop(self) -> None:
        """Give everything back. Sessions are closed before."""
        last = asyncio.create_task(self._failed.stop())
        await asyncio.wait([last, *self._behind], timeout=_LEAVE)
        await self.presence.stop()
        await self.pool.close()
        await self._throttle.close()
        self._passwords.close()

    async def open(self, name: str, password: str, *, client: Client, secure: bool) -> "Maildrop":
        """Check the password, lock the maildrop and list it.

        Raises `WrongPassword`, `TooManyFailures`, `InUse`, `Suspended`, `Unavailable`.
        """
        try:
            address = addresses.login(name, default_domain=self._default_domain)
        except addresses.BadAddress:
            address = ""  # no mailbox has it; the refusal takes as long as any other
        failed = self._failures(address, client, typed_whole="@" in name)
        proof = self._passwords.verified(address, password, network=throttle.near(client))
        checked = proof is None
        if proof is None:
            proof = await self._verify(address, password, client, failed)
        for _ in range(2):
            maildrop = await self._try_open(address, proof, client, secure, failed)
            if maildrop:
                if checked and proof.stored:
                    self._do_behind(self._upgrade(maildrop, password, client))
                return maildrop
            # What is stored was changed since then: the password is checked against that.
            checked, proof = True, await self._verify(address, password, client, failed)
        raise Unavailable

    def _failures(self, address: str, client: Client, *, typed_whole: bool = True) -> "_Failures":
        return _Failures(self._failed, address, client, typed_whole=typed_whole)

    async def _verify(self, address: str, password: str, client: Client, failed: "_Failures") -> Proof:
        """What proves the password right. Raises as `open`."""
        network = throttle.near(client)
        digest = app_passwords.digest(password)
        row = await self._one(_LOOK_UP, {"address": address, "network": network, "client": client, "digest": digest})
        mailbox_id, tenant_id, stored, known, app_password_id, own_copy, why_not = row or _NOBODY
        try:
            attempt = await self._throttle.admit(address=address, password=password, client=client, known=known)
        except TooManyFailures:
            log.warning("login refused unseen, after too many failures: %s from %s", address or "no address", client)
            failed.note(mailbox_id, FailedLogin.Reason.UNSEEN)
            await throttle.answer_on_tick(delay=0.0)
            raise
        if app_password_id is not None and why_not is None:
            proof = Proof("", app_password_id, own_copy)
            self._passwords.remember(address, password, proof, network=network)
        else:
            try:
                matches = await self._passwords.check(address, password, stored, network=network)
            except Busy:
                raise Unavailable from None
            if not matches:
                reason = f": app password {app_password_id} is {why_not}" if why_not else ""
                log.info("login failed: %s from %s%s", address or "no address", client, reason)
                why = failed_logins.reason(known=mailbox_id is not None, app_password_is=why_not)
                failed.note(mailbox_id, why, app_password_id)
                await throttle.answer_on_tick(delay=attempt.delay)
                raise WrongPassword
            proof = Proof(stored)
        await self._throttle.succeeded(attempt)
        await self._one(
            _REMEMBER_NETWORK, {"tenant": tenant_id, "mailbox": mailbox_id, "network": network}, returns=False
        )
        return proof

    async def _try_open(
        self, address: str, proof: Proof, client: Client, secure: bool, failed: "_Failures"
    ) -> "Maildrop | None":
        """Open, taking the maildrop from a holder that is gone; None if the proof is none any more."""
        if self.presence.listener_id is None:
            raise Unavailable
        session = uuid.uuid4()
        parameters = {
            "address": address,
            "stored": proof.stored,
            "app": proof.app_password_id,
            "view": proof.view,
            "client": client,
            "secure": secure,
            "session": session,
            "listener": self.presence.listener_id,
        }

        list_ = _LIST_OWN if proof.own_copy else _LIST

        async def work(connection: Connection) -> tuple[Row | None, Row]:
            async with connection.pipeline():
                opening = await connection.execute(_OPEN, parameters, binary=True)
                listing = await connection.execute(list_, parameters, binary=True)
            row, columns = await opening.fetchone(), await listing.fetchone()
            assert columns
            return row, columns

        self.presence.sessions.add(session)
        notices_before = self._notices
        kept = False
        try:
            row, columns = await self._attempt(work)
            if row and row[2] and row[3] and not row[6] and await self._holder_is_gone(row[0], proof.view):
                row, columns = await self._attempt(work)
            if row is None or not row[2]:
                return None
            mailbox_id, tenant_id, _, allowed, reason, keep_time, opened, _ = row
            if not allowed:
                failed.note(mailbox_id, failed_logins.BARRED, proof.app_password_id)
                raise Suspended(reason)
            if not opened:
                failed.note(mailbox_id, FailedLogin.Reason.IN_USE, proof.app_password_id)
                raise InUse
            listing = Listing(mailbox_id, columns)
            if keep_time is None:
                keep_time = self._keep_times.get(tenant_id)
            maildrop = self._open[session] = Maildrop(self, session, tenant_id, address, proof, listing, keep_time)
            if self._notices != notices_before and not await self._still_fit(maildrop):
                return None
            kept = True
            return maildrop
        finally:
            if not kept:
                self._open.pop(session, None)
                self.presence.sessions.discard(session)

    async def _still_fit(self, maildrop: "Maildrop") -> bool:
        """Whether it may stay open; else it is closed.

        Asked if a notice came while it was being opened: of a change that the statement which locked did not see, and
        when the maildrop could not yet be found here.
        """

        async def work(connection: Connection) -> bool:
            return not await self._unfit(connection, [maildrop])

        if await self._attempt(work) and not maildrop.ended:
            return True
        with suppress(Refused, LockLost):
            await maildrop.close()
        return False

    async def _look(self, connection: Connection, payloads: Collection[str]) -> None:
        """End the open sessions of these mailboxes that could not begin now."""
        self._notices += 1
        every = notices.EVERY in payloads
        if every:
            cursor = await connection.execute(_KEEP_TIMES, binary=True)
            self._keep_times = dict(await cursor.fetchall())
        told = [maildrop for maildrop in self._open.values() if every or str(maildrop.mailbox_id) in payloads]
        for maildrop, why in await self._unfit(connection, told):
            maildrop.end(why)

    async def _unfit(
        self, connection: Connection, maildrops: Collection["Maildrop"]
    ) -> list[tuple["Maildrop", Refused | LockLost]]:
        if not maildrops:
            return []
        by_session = {maildrop.session: maildrop for maildrop in maildrops}
        parameters = {
            "sessions": list(by_session),
            "tenants": [maildrop.tenant_id for maildrop in maildrops],
            "addresses": [maildrop.address for maildrop in maildrops],
            "stored": [maildrop.proof.stored for maildrop in maildrops],
            "newer": [maildrop.newer for maildrop in maildrops],
        }
        rows = await (await connection.execute(_UNFIT, parameters, binary=True)).fetchall()
        return [
            (by_session[session], LockLost() if ended else Suspended(reason) if suspended else WrongPassword())
            for session, ended, suspended, reason in rows
        ]

    async def _upgrade(self, maildrop: "Maildrop", password: str, client: Client) -> None:
        """Store a newer hash of the password that opened it, if the stored one is of an older kind."""
        stored = maildrop.proof.stored
        newer = await self._passwords.upgraded(password, stored)
        if newer is None:
            return
        maildrop.newer = newer  # before it is there, so that the session never looks as if it had an old password
        parameters = {"mailbox": maildrop.mailbox_id, "stored": stored, "newer": newer}
        with suppress(Unavailable):
            if await self._one(_UPGRADE, parameters):
                self._passwords.remember(maildrop.address, password, Proof(newer), network=throttle.near(client))
                log.info("password of mailbox %s stored under a newer hash", maildrop.mailbox_id)

    def _do_behind(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what no client waits for."""
        task = asyncio.create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _holder_is_gone(self, mailbox_id: int, view: int) -> bool:
        """Whether that view is free now: its holder's process is gone, and its session is ended here."""
        parameters = {"mailbox": mailbox_id, "view": view, "ttl": self.presence.ttl, "space": presence.LOCK_SPACE}
        holder = await self._one(_HOLDER, parameters)
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
        except psycopg.Error as error:
            if isinstance(error, _IN_THE_WAY):
                log.warning("somebody else is at work in a maildrop: %s", type(error).__name__)
            else:
                log.exception("the store failed a maildrop")
            self.presence.end_strays()
            raise Unavailable from None


class Maildrop:
    """An open maildrop. Holds no connection; `close` must be called once.

    It can be ended from outside: then `ended` says why, `on_end` was called, and nothing will be removed.
    """

    def __init__(
        self,
        maildrops: Maildrops,
        session: uuid.UUID,
        tenant_id: int,
        address: str,
        proof: Proof,
        listing: Listing,
        keep_time: timedelta | None,
    ) -> None:
        self.listing = listing
        self.keep_time = keep_time  # None: messages stay until somebody removes them
        self.session = session
        self.mailbox_id = listing.mailbox_id
        self.tenant_id = tenant_id
        self.address = address
        self.proof = proof
        self.newer = proof.stored  # a hash of the same password that may stand in its place
        self.ended: Refused | LockLost | None = None
        self.on_end: Callable[[Refused | LockLost], None] | None = None
        self._maildrops = maildrops
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
            cursor = await connection.execute(_READ, {"mailbox": self.mailbox_id, "uids": uids.tolist()}, binary=True)
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

    def end(self, why: Refused | LockLost) -> None:
        """End the session from outside. Its lock is free as soon as that is written, whatever its client does."""
        log.info("session of mailbox %s ended: %s", self.mailbox_id, type(why).__name__)
        self._maildrops._open.pop(self.session, None)
        self.ended = why
        self._maildrops._do_behind(self._write_end())
        if self.on_end:
            self.on_end(why)

    async def close(self, *, expunge: Iterable[int] = (), quit: bool = False) -> None:
        """End the session, and remove the messages with these message-numbers, all or none.

        When this returns that is durable. Raises `LockLost`, `Suspended` if the mailbox may no longer be used, what it
        was ended for, or `Unavailable`: then nothing is removed.
        """
        try:
            if self.ended:
                raise self.ended
            self._maildrops._open.pop(self.session, None)
            uids = self.listing.uids
            removed = [uids[number - 1] for number in expunge]
            if removed or self._fetches:
                await self._finish(removed, end="quit" if quit else "dropped")
            else:
                await self._release()
        finally:
            self._maildrops.presence.sessions.discard(self.session)
            self._let_go()

    async def _write_end(self) -> None:
        try:
            await self._finish([], end="ended")
        except (LockLost, Unavailable):
            pass  # whoever wanted its end has written it, or it is a stray
        finally:
            self._maildrops.presence.sessions.discard(self.session)

    async def _release(self) -> None:
        statement = _RELEASE if self.proof.app_password_id is None else _RELEASE_USED

        async def release(connection: Connection) -> None:
            await connection.execute(statement, {"session": self.session})

        await self._maildrops._attempt(release)

    async def _finish(self, removed: list[int], *, end: str) -> None:
        uids = self.listing.uids
        parameters = {
            "session": self.session,
            "stored": self.proof.stored,
            "newer": self.newer,
            "expunge": removed,
            "fetched": [uids[number - 1] for number in self._fetched],
            "fetches": self._fetches,
            "end": end,
            "commit": "on" if removed else "off",
        }

        async def finish(connection: Connection) -> None:
            if self.proof.own_copy:
                row = await self._finish_own(connection, parameters)
            else:
                statement = _FINISH if self.proof.app_password_id is None else _FINISH_USED
                row = await (await connection.execute(statement, parameters, binary=True)).fetchone()
            if row is None:
                # Committed by an attempt whose answer was lost, or taken over by somebody else?
                ended = await (await connection.execute(_ENDED_HERE, parameters)).fetchone()
                if not ended or (removed and not ended[0]):
                    raise LockLost
            elif removed and not row[0]:
                raise Suspended

        await self._maildrops._attempt(finish)

    async def _finish_own(self, connection: Connection, parameters: dict[str, Any]) -> Row | None:
        """The same in a device's own view: two statements in one transaction and one trip."""
        parameters |= {
            "mailbox": self.mailbox_id,
            "touched": sorted({*parameters["fetched"], *parameters["expunge"]}),
            "most": None,
        }
        async with connection.pipeline(), connection.transaction():
            finishing = await connection.execute(_FINISH_OWN, parameters, binary=True)
            if parameters["expunge"]:
                await connection.execute(_EXPUNGE_OWN, parameters, binary=True)
        return await finishing.fetchone()

    def _let_go(self) -> None:
        """Of what was read ahead."""
        self._maildrops.room += sum(copy.held_octets for copy in self._ahead.values())
        self._ahead.clear()


class _Failures:
    """Notes how a login failed, if it does (`accounts.failed_logins`)."""

    __slots__ = ("_address", "_client", "_notes", "_typed_whole")

    def __init__(
        self, notes: Notes[failed_logins.Failure, Client], address: str, client: Client, *, typed_whole: bool
    ) -> None:
        self._notes = notes
        self._address = address
        self._client = client
        self._typed_whole = typed_whole

    def note(self, mailbox_id: int | None, reason: str, app_password_id: int | None = None) -> None:
        """Why it failed, at the mailbox that the address is, if it is one's."""
        failed = failed_logins.failure(
            self._address,
            mailbox_id=mailbox_id,
            reason=reason,
            through=FailedLogin.Through.POP3,
            client=self._client,
            app_password_id=app_password_id,
            typed_whole=self._typed_whole,
        )
        self._notes.note(failed, self._client)
