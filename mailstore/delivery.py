"""Delivering: one transaction stores a message for all its recipients, each by its own decision."""

import asyncio
import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, Final

import psycopg
from psycopg import errors

from accounts import addresses
from mailstore import database, headers
from mailstore.database import Connection, Pool, Unavailable
from mailstore.spool import Spool

log = logging.getLogger(__name__)

CHUNK_OCTETS: Final = 256 * 1024
"""Contents up to this size lie in the row itself; larger ones in chunks of it."""


class Outcome(StrEnum):
    """What became of one recipient's copy."""

    STORED = "stored"
    ALREADY = "already"  # an earlier attempt stored it (the ledger)
    GONE = "gone"  # the mailbox was closed meanwhile
    SUSPENDED = "suspended"
    OVER_QUOTA = "over quota"
    NO_SPACE = "no space"  # the store's disk is full; later there may be room
    FAILED = "failed"  # a fault of ours; nothing is stored, later it may work


class Refused(Exception):
    """A recipient to whom nothing can be delivered."""


class UnknownDomain(Refused):
    """The domain is not hosted here."""


class UnknownMailbox(Refused):
    """The domain is hosted here and has no such address."""


class Suspended(Refused):
    """The mailbox is suspended."""


class OverQuota(Refused):
    """The mailbox has no room for a message of that size."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A mailbox found for an address of an envelope."""

    address: str  # as the envelope named it, in normal form
    mailbox_id: int


# The address itself before the one without subaddress, a mailbox before an alias, postmaster's last resort last.
_FIND = """
SELECT box.id, box.state, box.quota_octets, box.used_octets
FROM accounts_domain domain
LEFT JOIN LATERAL (
    SELECT mailbox.id, mailbox.state, mailbox.quota_octets, mailbox.used_octets
    FROM (
        SELECT id, array_position(%(addresses)s, address) * 2 AS rank
        FROM accounts_mailbox
        WHERE address = ANY (%(addresses)s) AND closed_at IS NULL
        UNION ALL
        SELECT mailbox_id, array_position(%(addresses)s, address) * 2 + 1
        FROM accounts_alias
        WHERE address = ANY (%(addresses)s)
        UNION ALL
        SELECT admin_mailbox_id, 9 FROM accounts_tenant WHERE id = domain.tenant_id AND %(postmaster)s
    ) candidate
    JOIN accounts_mailbox mailbox ON mailbox.id = candidate.id AND mailbox.closed_at IS NULL
    ORDER BY candidate.rank
    LIMIT 1
) box ON true
WHERE domain.name = %(domain)s
"""

# Only asked when there is no room: a stored copy whose answer got lost may itself have filled the quota.
_RECENT = """
SELECT EXISTS (
    SELECT FROM mailstore_deliveryledger WHERE mailbox_id = %(mailbox)s AND reverse_path = %(reverse_path)s
)
"""

# In a statement of its own, so that what follows sees everything that those who held the locks before had committed.
_LOCK = "SELECT FROM accounts_mailbox WHERE id = ANY (%(mailboxes)s) ORDER BY id FOR NO KEY UPDATE"

_INSERT_CONTENT = """
INSERT INTO mailstore_content (tenant_id, octets, header_octets, has_dot_lines, body)
SELECT DISTINCT tenant_id, %(octets)s::bigint, %(header_octets)s::bigint, %(has_dot_lines)s::boolean, %(body)b::bytea
FROM room
RETURNING id, tenant_id
"""

_GIVEN_CONTENT = "SELECT id, tenant_id FROM mailstore_content WHERE id = ANY (%(contents)s)"

# The ledger is asked before state and quota: a retry of what was stored is answered as stored, whatever came since.
_STORE = """
WITH asked AS (
    SELECT * FROM unnest(%(mailboxes)s::bigint[], %(traces)s::bytea[]) AS asked (mailbox_id, trace)
), decided AS MATERIALIZED (
    SELECT mailbox.id, mailbox.tenant_id, mailbox.next_uid, asked.trace,
        octet_length(asked.trace) + %(octets)s::bigint AS octets,
        CASE
            WHEN EXISTS (
                SELECT FROM mailstore_deliveryledger ledger
                WHERE ledger.mailbox_id = mailbox.id AND ledger.digest = %(digest)b
            ) THEN 'already'
            WHEN mailbox.closed_at IS NOT NULL THEN 'gone'
            WHEN mailbox.state = 'suspended' THEN 'suspended'
            WHEN mailbox.used_octets + octet_length(asked.trace) + %(octets)s::bigint > mailbox.quota_octets
                THEN 'over quota'
            ELSE 'stored'
        END AS outcome
    FROM asked JOIN accounts_mailbox mailbox ON mailbox.id = asked.mailbox_id
), room AS (
    SELECT * FROM decided WHERE outcome = 'stored'
), content AS (
    {content}
), message AS (
    INSERT INTO mailstore_message (
        tenant_id, mailbox_id, content_id, uid, epoch, trace, octets,
        reverse_path, subject, sender, message_id, date
    )
    SELECT room.tenant_id, room.id, content.id, room.next_uid,
        coalesce((SELECT epoch FROM mailstore_store), 1), room.trace, room.octets,
        %(reverse_path)s, %(subject)s, %(sender)s, %(message_id)s, %(date)s
    FROM room JOIN content USING (tenant_id)
), ledger AS (
    INSERT INTO mailstore_deliveryledger (tenant_id, mailbox_id, digest, reverse_path)
    SELECT tenant_id, id, %(digest)b, %(reverse_path)s FROM room
), charged AS (
    UPDATE accounts_mailbox mailbox
    SET used_octets = mailbox.used_octets + room.octets,
        message_count = mailbox.message_count + 1,
        next_uid = mailbox.next_uid + 1
    FROM room
    WHERE mailbox.id = room.id
)
SELECT id, tenant_id, outcome FROM decided
"""
_STORE_SMALL = _STORE.format(content=_INSERT_CONTENT)
_STORE_LARGE = _STORE.format(content=_GIVEN_CONTENT)

_BEGIN_LARGE = """
INSERT INTO mailstore_content (tenant_id, octets, header_octets, has_dot_lines)
SELECT DISTINCT tenant_id, %(octets)s::bigint, %(header_octets)s::bigint, %(has_dot_lines)s::boolean
FROM accounts_mailbox WHERE id = ANY (%(mailboxes)s)
RETURNING id, tenant_id
"""
_CHUNK = """
INSERT INTO mailstore_contentchunk (tenant_id, content_id, number, octets)
SELECT tenant_id, id, %(number)s, %(chunk)b FROM mailstore_content WHERE id = ANY (%(contents)s)
"""
_DROP_CHUNKS = "DELETE FROM mailstore_contentchunk WHERE content_id = ANY (%(contents)s)"
_DROP_CONTENTS = "DELETE FROM mailstore_content WHERE id = ANY (%(contents)s)"


class Deliveries:
    """The way into the store. One per process, opened after the fork.

    `subaddress` is what separates a subaddress from its local part (empty: nothing does); `default_domain` is where
    a bare `postmaster` belongs (RFC 5321 section 4.1.1.3).
    """

    def __init__(self, *, connections: int, subaddress: str, default_domain: str) -> None:
        self._pool: Pool = database.pool(size=connections)
        self._subaddress = subaddress
        self._default_domain = default_domain

    async def start(self) -> None:
        """Begin to open the connections; does not wait for the database."""
        await self._pool.open()

    async def stop(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def find(self, address: str, *, reverse_path: str, octets: int | None) -> Recipient:
        """The mailbox that takes mail for `address`, of a message of `octets` where that is known.

        Raises `UnknownDomain`, `UnknownMailbox`, `Suspended`, `OverQuota`, `Unavailable`.
        """
        if address.lower() == "postmaster":
            address = f"postmaster@{self._default_domain}"
        local, _, host = address.rpartition("@")
        try:
            domain = addresses.domain(host)
        except addresses.BadAddress:
            raise UnknownDomain from None
        try:
            local = addresses.local_part(local)
        except addresses.BadAddress:
            local = ""  # no mailbox has this name; whether the domain is known is still to be told
        base = addresses.base(local, separator=self._subaddress)
        row = await self._one(
            _FIND,
            {
                "addresses": [f"{local}@{domain}", f"{base}@{domain}"],
                "domain": domain,
                "postmaster": base == "postmaster",
            },
        )
        if row is None:
            raise UnknownDomain
        mailbox, state, quota, used = row
        if mailbox is None:
            raise UnknownMailbox
        if state == "suspended":
            raise Suspended
        if quota is not None and used + (octets or 1) > quota:
            recent = await self._one(_RECENT, {"mailbox": mailbox, "reverse_path": reverse_path})
            if not recent or not recent[0]:
                raise OverQuota
        return Recipient(f"{local}@{domain}", mailbox)

    async def deliver(
        self, spool: Spool, *, reverse_path: str, recipients: Sequence[Recipient], received: bytes
    ) -> list[Outcome]:
        """Store what `spool` holds for each recipient; an outcome per recipient, in their order.

        What is `STORED` or `ALREADY` is committed when this returns. Everything else left nothing behind.
        `received` is the trace field of this hop, with its CRLF; the spool is finished. Never raises for a fault of
        the store: that is an outcome.
        """
        copies = {recipient.mailbox_id: recipient.address for recipient in reversed(recipients)}
        message = _Message(spool, reverse_path, received)
        outcomes = await self._store(message, copies)
        return [outcomes.get(recipient.mailbox_id, Outcome.GONE) for recipient in recipients]

    async def _store(self, message: "_Message", copies: dict[int, str]) -> dict[int, Outcome]:
        """All copies in one transaction; if another's lock or fault is in the way, each in its own."""
        store = message.store_small if message.spool.inline is not None else message.store_large
        try:
            return await database.attempt(self._pool, lambda connection: store(connection, copies))
        except Unavailable:
            log.warning("delivery deferred: the database does not answer")
            return dict.fromkeys(copies, Outcome.FAILED)
        except (errors.DiskFull, errors.OutOfMemory) as error:
            log.warning("delivery deferred, the store is full: %s", error.sqlstate)
            return dict.fromkeys(copies, Outcome.NO_SPACE)
        except psycopg.Error as error:
            if len(copies) == 1:
                expected = isinstance(error, errors.LockNotAvailable | errors.QueryCanceled)
                log.warning("delivery to mailbox %s deferred: %s", *copies, error, exc_info=not expected)
                return dict.fromkeys(copies, Outcome.FAILED)
        alone = [self._store(message, {mailbox: address}) for mailbox, address in copies.items()]
        return {mailbox: outcome for part in await asyncio.gather(*alone) for mailbox, outcome in part.items()}

    async def _one(self, statement: str, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
        async def work(connection: Connection) -> tuple[Any, ...] | None:
            return await (await connection.execute(statement, parameters)).fetchone()

        try:
            return await database.attempt(self._pool, work)
        except psycopg.Error:
            log.exception("a recipient could not be looked up")
            raise Unavailable from None


class _Message:
    """A message on its way into the store: what its statements need."""

    def __init__(self, spool: Spool, reverse_path: str, received: bytes) -> None:
        self.spool = spool
        self._return_path = f"Return-Path: <{reverse_path}>\r\n".encode()
        self._received = received
        # Only a message that an MTA queued comes twice because an answer got lost: it begins with that MTA's trace.
        # Equal octets without one are two messages, and the salt makes them so; it still serves our own retry.
        salt = b"" if spool.begins_with_received else os.urandom(16)
        look = headers.look(spool.head)
        self._parameters = {
            "octets": spool.octets,
            "header_octets": spool.header_octets,
            "has_dot_lines": spool.has_dot_lines,
            "body": spool.inline,
            "digest": hashlib.sha256(reverse_path.encode() + b"\0" + spool.digest + salt).digest(),
            "reverse_path": reverse_path,
            "subject": look.subject,
            "sender": look.sender,
            "message_id": look.message_id,
            "date": look.date,
        }

    def _for(self, copies: dict[int, str]) -> dict[str, Any]:
        traces = [
            self._return_path + f"Delivered-To: {address}\r\n".encode() + self._received for address in copies.values()
        ]
        return {**self._parameters, "mailboxes": list(copies), "traces": traces}

    async def store_small(self, connection: Connection, copies: dict[int, str]) -> dict[int, Outcome]:
        """One round trip: the statements of a pipeline are one transaction, committed at its end."""
        parameters = self._for(copies)
        async with connection.pipeline():
            await connection.execute(_LOCK, parameters)
            cursor = await connection.execute(_STORE_SMALL, parameters)
        return {mailbox: Outcome(outcome) for mailbox, _, outcome in await cursor.fetchall()}

    async def store_large(self, connection: Connection, copies: dict[int, str]) -> dict[int, Outcome]:
        """The content first, a chunk at a time; the mailboxes are locked only for the last step."""
        parameters = self._for(copies)
        async with connection.transaction():
            cursor = await connection.execute(_BEGIN_LARGE, parameters)
            contents: dict[int, int] = {tenant: content for content, tenant in await cursor.fetchall()}
            parameters["contents"] = list(contents.values())
            for number, chunk in enumerate(self.spool.chunks(CHUNK_OCTETS)):
                await connection.execute(_CHUNK, {"number": number, "chunk": chunk, "contents": parameters["contents"]})
            await connection.execute(_LOCK, parameters)
            rows = await (await connection.execute(_STORE_LARGE, parameters)).fetchall()
            stored = {tenant for _, tenant, outcome in rows if outcome == Outcome.STORED}
            unused = [content for tenant, content in contents.items() if tenant not in stored]
            if unused:
                await connection.execute(_DROP_CHUNKS, {"contents": unused})
                await connection.execute(_DROP_CONTENTS, {"contents": unused})
        return {mailbox: Outcome(outcome) for mailbox, _, outcome in rows}


def deliver_now(
    stream: BinaryIO,
    *,
    to: Iterable[str],
    reverse_path: str = "",
    limit: int,
    subaddress: str,
    default_domain: str,
) -> list[Outcome | Refused]:
    """Deliver what `stream` holds to the addresses `to`, from outside an event loop; an outcome for each, in order.

    `limit` is the largest message in octets. Raises `mailstore.spool.TooLarge`, `Unavailable`.
    """

    async def deliver() -> list[Outcome | Refused]:
        deliveries = Deliveries(connections=1, subaddress=subaddress, default_domain=default_domain)
        await deliveries.start()
        try:
            with Spool(limit=limit) as spool:
                while octets := stream.read(CHUNK_OCTETS):
                    spool.write(octets)
                spool.finish()
                found: list[Recipient | Refused] = []
                for address in to:
                    try:
                        found.append(await deliveries.find(address, reverse_path=reverse_path, octets=spool.octets))
                    except Refused as refusal:
                        found.append(refusal)
                recipients = [one for one in found if isinstance(one, Recipient)]
                outcomes = iter(
                    await deliveries.deliver(spool, reverse_path=reverse_path, recipients=recipients, received=b"")
                    if recipients
                    else ()
                )
                return [one if isinstance(one, Refused) else next(outcomes) for one in found]
        finally:
            await deliveries.stop()

    return asyncio.run(deliver())
