"""Delivering: one transaction stores a message for all its recipients, each by its own decision."""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import Any, BinaryIO, Final, Literal, NamedTuple
from weakref import WeakValueDictionary

import psycopg
from psycopg import errors

from accounts import addresses, limits
from mailstore import headers, srs
from mailstore.database import Connection, Pool, Unavailable
from mailstore.refusals import TOO_LARGE, Refusals
from mailstore.spool import Spool

log = logging.getLogger(__name__)

CHUNK_OCTETS: Final = 256 * 1024
"""Contents up to this size lie in the row itself; larger ones in chunks of it."""

Copies = dict[int, str]
"""By mailbox, the address that the envelope named."""


class Outcome(StrEnum):
    """What became of one copy. Of several for one recipient the first of these, temporary ones before, is told."""

    STORED = "stored"
    ALREADY = "already"  # an earlier attempt stored it (the ledger)
    FAILED = "failed"  # a fault of ours; nothing is stored, later it may work
    NO_SPACE = "no space"  # the store's disk is full; later there may be room
    DEFERRED = "deferred"  # the mailbox takes no mail for now, or nobody takes mail to addresses outside
    SUSPENDED = "suspended"
    OVER_QUOTA = "over quota"  # of the mailbox, or of its domain, tenant or reseller
    LOOP = "loop"  # the alias has sent it outside before, or it has come too far
    GONE = "gone"  # the mailbox was closed meanwhile


_ENDLESS: Final = 2**63
_RANK: Final = {outcome: rank for rank, outcome in enumerate(Outcome)}
_REFUSALS: Final = (Outcome.GONE, Outcome.SUSPENDED, Outcome.DEFERRED, Outcome.OVER_QUOTA)
FOR_NOW: Final = frozenset((Outcome.FAILED, Outcome.NO_SPACE, Outcome.DEFERRED, Outcome.SUSPENDED))
"""After these a client is asked to come again, if the host's settings are the default."""

Unverified = Literal["receive", "defer", "refuse"]
"""What happens to mail for a domain of which nobody has shown yet that it is the tenant's."""


class Refused(Exception):
    """A recipient to whom nothing can be delivered."""


class UnknownDomain(Refused):
    """The domain is not hosted here."""


class UnverifiedDomain(Refused):
    """The domain takes no mail until it is verified."""


class UnknownMailbox(Refused):
    """The domain is hosted here and has no such address."""


class Suspended(Refused):
    """The mailbox is suspended."""


class Deferred(Refused):
    """The mailbox takes no mail for now; or it would go outside, and nobody takes it there."""


class OverQuota(Refused):
    """The mailbox, its domain, its tenant or its reseller has no room for a message of that size."""


_REFUSED: Final[Mapping[Outcome, type[Refused]]] = {
    Outcome.GONE: UnknownMailbox,
    Outcome.SUSPENDED: Suspended,
    Outcome.DEFERRED: Deferred,
    Outcome.OVER_QUOTA: OverQuota,
}


class Box(NamedTuple):
    """A mailbox that mail goes to."""

    mailbox_id: int
    domain_id: int = 0
    is_limited: bool = False  # whether its domain, tenant or reseller has a limit on octets


class Outside(NamedTuple):
    """An address outside that mail goes on to."""

    address: str
    by: str  # the address here that sends it there: an alias, or one that bounces come back to (mailstore.srs)
    alias_id: int | None
    tenant_id: int
    domain_id: int


Destination = int | Outside
"""A mailbox's id, or an address outside."""
Outcomes = dict[Destination, Outcome]


@dataclass(frozen=True, slots=True)
class Recipient:
    """What an address of an envelope stands for."""

    address: str  # as the envelope named it, in normal form
    boxes: tuple[Box, ...]
    outside: tuple[Outside, ...] = ()

    @property
    def destinations(self) -> list[Destination]:
        """Where a copy goes."""
        return [*(box.mailbox_id for box in self.boxes), *self.outside]


# What is asked comes as a text of addresses with blanks between: arrays cost psycopg more than it costs the server to
# split a text.
_ROOM = """
LEFT JOIN LATERAL (
    SELECT min(room) AS room
    FROM (
        SELECT max_octets - octets AS room FROM accounts_allowance
        WHERE max_octets IS NOT NULL AND tenant_id = {owner}.tenant_id
            AND (domain_id IS NULL OR domain_id = {owner}.domain_id)
        UNION ALL
        SELECT max_octets - octets FROM accounts_allowance
        WHERE max_octets IS NOT NULL
            AND reseller_id = (SELECT reseller_id FROM accounts_tenant WHERE id = {owner}.tenant_id)
    ) allowance
) pooled ON {owner}.id IS NOT NULL
"""

# Most mail is for a mailbox by its own name: then this is all. Everything else is `FIND`'s, since the server takes as
# long to begin with that as to look a mailbox up.
_FIND_BOX = f"""
SELECT asked.number, named.id, named.tenant_id, named.state,
    box.id, box.tenant_id, box.domain_id, box.state, box.quota_octets, box.used_octets, '', NULL, NULL, pooled.room
FROM unnest(string_to_array(%(addresses)s::text, ' ')) WITH ORDINALITY AS asked (address, number)
LEFT JOIN accounts_domain named ON named.name = split_part(asked.address, '@', 2) AND named.closed_at IS NULL
LEFT JOIN accounts_mailbox box
    ON box.address = asked.address AND box.closed_at IS NULL AND box.domain_id = named.id AND named.alias_of_id IS NULL
{_ROOM.format(owner="box")}
ORDER BY asked.number
"""

# The address itself before the one without subaddress, a mailbox before an alias, then postmaster's last resort
# (RFC 5321 section 4.5.1), then the catch-all; each is only looked for where none before was found. An alias's id is
# negative. A catch-all does not take what is in quarantine, or was an alias that expired: that is not for its owner.
_DOMAIN, _MAILBOX = 1, 4  # columns
_USABLE = """
    (alias.expires_at IS NULL OR alias.expires_at > now()) AND EXISTS (
        SELECT FROM accounts_aliastarget target LEFT JOIN accounts_mailbox mailbox ON mailbox.id = target.mailbox_id
        WHERE target.alias_id = alias.id AND mailbox.closed_at IS NULL
    )
"""
FIND = f"""
SELECT asked.number, named.id, named.tenant_id, named.state,
    destination.id, destination.tenant_id, destination.domain_id, destination.state, destination.quota_octets,
    destination.used_octets, destination.outside, destination.alias_id, destination.alias, pooled.room
FROM unnest(string_to_array(%(addresses)s::text, ' ')) WITH ORDINALITY AS asked (address, number)
LEFT JOIN accounts_domain named ON named.name = split_part(asked.address, '@', 2) AND named.closed_at IS NULL
LEFT JOIN accounts_domain domain ON domain.id = coalesce(named.alias_of_id, named.id)
CROSS JOIN LATERAL (
    SELECT local_part, base AS base_part, local_part || at AS address, base || at AS base, at AS any
    FROM (
        SELECT split_part(asked.address, '@', 1) AS local_part, '@' || domain.name AS at,
            coalesce(domain.subaddress, %(subaddress)s) AS separator
    ) part, LATERAL (
        SELECT CASE WHEN strpos(local_part, separator) > 1 THEN split_part(local_part, separator, 1)
            ELSE local_part END AS base
    ) head
    OFFSET 0  -- as in the next one: evaluated once
) name
LEFT JOIN LATERAL (
    SELECT coalesce(
        (SELECT id FROM accounts_mailbox WHERE address = name.address AND closed_at IS NULL),
        (SELECT -id FROM accounts_alias alias WHERE address = name.address AND {_USABLE}),
        (SELECT id FROM accounts_mailbox WHERE address = name.base AND closed_at IS NULL),
        (SELECT -id FROM accounts_alias alias WHERE address = name.base AND {_USABLE}),
        CASE name.base_part WHEN 'postmaster' THEN (
            SELECT admin_mailbox_id FROM accounts_tenant WHERE id = domain.tenant_id
        ) END,
        (
            SELECT -id FROM accounts_alias alias
            WHERE address = name.any AND {_USABLE}
                AND NOT EXISTS (
                    SELECT FROM accounts_mailbox WHERE address IN (name.address, name.base) AND closed_at IS NOT NULL
                )
                AND NOT EXISTS (SELECT FROM accounts_alias WHERE address IN (name.address, name.base))
        )
    ) AS id
    OFFSET 0
) entry ON name.local_part <> ''
LEFT JOIN LATERAL (
    SELECT id, tenant_id, domain_id, state, quota_octets, used_octets,
        '' AS outside, NULL::bigint AS alias_id, NULL AS alias
    FROM accounts_mailbox
    WHERE id = entry.id AND closed_at IS NULL
    UNION ALL
    SELECT mailbox.id, alias.tenant_id, coalesce(mailbox.domain_id, alias.domain_id), mailbox.state,
        mailbox.quota_octets, mailbox.used_octets, target.address, alias.id, alias.address
    FROM accounts_alias alias JOIN accounts_aliastarget target ON target.alias_id = alias.id
    LEFT JOIN accounts_mailbox mailbox ON mailbox.id = target.mailbox_id
    WHERE alias.id = -entry.id AND mailbox.closed_at IS NULL
) destination ON entry.id IS NOT NULL
{_ROOM.format(owner="destination")}
ORDER BY asked.number, destination.id
"""

# Only asked when there is no room: a stored copy whose answer got lost may itself have filled the quota.
_RECENT = """
SELECT EXISTS (
    SELECT FROM mailstore_deliveryledger WHERE mailbox_id = %(mailbox)s AND reverse_path = %(reverse_path)s
)
"""

# One statement is one transaction and one trip. Whoever has locked a mailbox sees its newest row; but the ledger as it
# was before. So the row in the ledger is the claim to store a copy: its key refuses a second one, seen or not.
_STORE = """
WITH locked AS MATERIALIZED (
    SELECT id, tenant_id, state, closed_at, quota_octets, used_octets, next_uid
    FROM accounts_mailbox
    WHERE id = ANY (string_to_array({boxes}::text, ' ')::bigint[])
    ORDER BY id
    FOR NO KEY UPDATE {wait}
), copy AS MATERIALIZED (
    SELECT mailbox_id, trace, octet_length(trace) + %(octets)s::bigint AS octets
    FROM unnest(
        string_to_array(%(mailboxes)s::text, ' ')::bigint[], string_to_array(%(addresses)s::text, ' ')
    ) AS asked (mailbox_id, address),
    LATERAL (
        SELECT %(before_address)b::bytea || convert_to(address, 'UTF8') || %(after_address)b::bytea AS trace
    ) traced
), decided AS MATERIALIZED (
    SELECT locked.id, locked.tenant_id, locked.next_uid, copy.trace, copy.octets,
        CASE
            WHEN locked.closed_at IS NOT NULL THEN 'gone'
            WHEN locked.state = 'suspended' THEN 'suspended'
            WHEN locked.state = 'no-receive' THEN 'deferred'
            WHEN locked.used_octets + copy.octets > locked.quota_octets THEN 'over quota'
            ELSE 'stored'
        END AS outcome
    FROM locked JOIN copy ON copy.mailbox_id = locked.id
), claimed AS (
    INSERT INTO mailstore_deliveryledger (tenant_id, mailbox_id, digest, reverse_path)
    SELECT tenant_id, id, %(digest)b, %(reverse_path)s FROM decided WHERE outcome = 'stored'
    ON CONFLICT DO NOTHING
    RETURNING mailbox_id
), room AS MATERIALIZED (
    SELECT decided.* FROM decided JOIN claimed ON claimed.mailbox_id = decided.id
){forwards}, content AS (
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
), charged AS (
    UPDATE accounts_mailbox mailbox
    SET used_octets = mailbox.used_octets + room.octets,
        message_count = mailbox.message_count + 1,
        next_uid = mailbox.next_uid + 1
    FROM room
    WHERE mailbox.id = room.id
){forwarded}
SELECT decided.id, decided.tenant_id,
    CASE WHEN outcome = 'stored' AND claimed.mailbox_id IS NULL THEN 'already' ELSE outcome END
FROM decided LEFT JOIN claimed ON claimed.mailbox_id = decided.id
{answered}
"""
# Where mail also goes on to addresses outside. Their ledger keeps a retry from sending it there again.
_FORWARDS = """, asked AS MATERIALIZED (
    SELECT * FROM unnest(
        %(digests)s::bytea[], %(tenants)s::bigint[], %(domains)s::bigint[], %(aliases)s::bigint[],
        %(outside)s::text[], %(reverse_paths)s::text[], %(traces)s::bytea[]
    ) WITH ORDINALITY AS forward (digest, tenant_id, domain_id, alias_id, recipient, reverse_path, trace, number)
), taken AS (
    INSERT INTO mailstore_forwardledger (digest, tenant_id) SELECT digest, tenant_id FROM asked
    ON CONFLICT DO NOTHING
    RETURNING digest
)"""
_FORWARDED = """, forward AS (
    INSERT INTO mailstore_forward (
        tenant_id, domain_id, alias_id, content_id, trace, reverse_path, recipient, attempts, last_error
    )
    SELECT asked.tenant_id, asked.domain_id, asked.alias_id, content.id, asked.trace, asked.reverse_path,
        asked.recipient, 0, ''
    FROM asked JOIN taken USING (digest) JOIN content USING (tenant_id)
)"""
_ANSWERED = """
UNION ALL
SELECT -asked.number, asked.tenant_id, CASE WHEN taken.digest IS NULL THEN 'already' ELSE 'stored' END
FROM asked LEFT JOIN taken USING (digest)
"""

_CONTENT = """
    INSERT INTO mailstore_content (tenant_id, octets, header_octets, has_dot_lines, body)
    SELECT DISTINCT tenant_id, %(octets)s::bigint, %(header_octets)s::bigint, %(has_dot_lines)s::boolean,
        %(body)b::bytea
    FROM {takers}
    RETURNING id, tenant_id
"""
_GIVEN_CONTENT = """
    SELECT id, tenant_id FROM mailstore_content
    WHERE id = ANY (string_to_array(%(contents)s::text, ' ')::bigint[])
"""
_WAIT: Final = ("SKIP LOCKED", "")  # by whether to
_TAKERS: Final = "(SELECT tenant_id FROM room UNION SELECT tenant_id FROM asked JOIN taken USING (digest)) taker"


def _store(*, large: bool, wait: bool, forwards: bool) -> str:
    content = _GIVEN_CONTENT if large else _CONTENT.format(takers=_TAKERS if forwards else "room")
    return _STORE.format(
        boxes="%(held)s" if large else "%(mailboxes)s",
        wait=_WAIT[wait],
        content=content,
        forwards=_FORWARDS if forwards else "",
        forwarded=_FORWARDED if forwards else "",
        answered=_ANSWERED if forwards else "",
    )


_STORES: Final = {
    (large, wait, forwards): _store(large=large, wait=wait, forwards=forwards)
    for large, wait, forwards in itertools.product((False, True), repeat=3)
}

# In a statement of its own, which sees what whoever held the mailbox before has committed: a retry of what is stored is
# answered as stored, whatever came since. The stored copy may itself have filled the quota.
_CLAIMED = """
SELECT mailbox_id FROM mailstore_deliveryledger
WHERE mailbox_id = ANY (%(refused)s) AND digest = %(digest)b
"""

# A content for each tenant, but for those that have one from an earlier transaction of this delivery. All chunks come
# in one statement, and the largest message must get through on the slowest disk. The mailboxes are held where they are:
# none is moved to another tenant (`mailstore.moving`) before its message has this content.
_BEGIN_LARGE = """
WITH box AS MATERIALIZED (
    SELECT id, tenant_id FROM accounts_mailbox
    WHERE id = ANY (string_to_array(%(mailboxes)s::text, ' ')::bigint[])
    ORDER BY id
    FOR KEY SHARE {wait}
), wanted AS (
    SELECT tenant_id FROM box
    UNION
    SELECT unnest(%(tenants)s::bigint[])
), kept AS (
    SELECT id, tenant_id FROM mailstore_content
    WHERE id = ANY (%(stored)s) AND tenant_id IN (SELECT tenant_id FROM wanted)
    FOR KEY SHARE
), made AS (
    INSERT INTO mailstore_content (tenant_id, octets, header_octets, has_dot_lines)
    SELECT tenant_id, %(octets)s::bigint, %(header_octets)s::bigint, %(has_dot_lines)s::boolean
    FROM wanted WHERE tenant_id NOT IN (SELECT tenant_id FROM kept)
    RETURNING id, tenant_id
)
SELECT id, tenant_id, is_new, (SELECT string_agg(id::text, ' ') FROM box), set_config('statement_timeout', '5min', true)
FROM (SELECT id, tenant_id, false AS is_new FROM kept UNION ALL SELECT id, tenant_id, true FROM made) content
"""
_BEGINS_LARGE: Final = [_BEGIN_LARGE.format(wait=wait) for wait in _WAIT]  # by whether to
# Not COPY, which takes two thirds of the time: it is not to be had where there is row-level security.
_ADD_CHUNK = """
INSERT INTO mailstore_contentchunk (tenant_id, content_id, number, octets)
SELECT tenant_id, content_id, %(number)s, %(octets)b
FROM unnest(%(tenants)s::bigint[], %(contents)s::bigint[]) AS content (tenant_id, content_id)
"""
_DROP_CHUNKS = "DELETE FROM mailstore_contentchunk WHERE content_id = ANY (%(contents)s)"
_DROP_CONTENTS = "DELETE FROM mailstore_content WHERE id = ANY (%(contents)s)"

_PATIENCE: Final = 30.0
"""Seconds that a message waits for its mailboxes, one after the other."""
_TURN: Final = 5.0
"""Seconds that it waits for its turn with one of them. With the turn, PostgreSQL's lock_timeout counts."""


class Deliveries:
    """The way into the store. One per process, opened after the fork.

    `subaddress` is what separates a subaddress from its local part where the domain does not say it (empty: nothing
    does); `default_domain` is where a bare `postmaster` belongs (RFC 5321 section 4.1.1.3); `for_now` are the outcomes
    after which the client is asked to come again. With a `forward_key` mail goes on to addresses outside, and bounces
    come back (`mailstore.srs`); else it is deferred. `role` is the database's role to work as, and `tenant_id` the only
    tenant that it sees if it is the web's.

    An alias with several destinations has one reply for all of them (RFC 2033 section 4.2): while one of them may
    succeed later it is temporary, and the client's retry stores nothing twice (the ledger); else positive if one has
    the message. What others then refused for good is noted (`mailstore.refusals`), since no reply tells it.
    """

    def __init__(
        self,
        *,
        connections: int,
        subaddress: str,
        default_domain: str,
        unverified: Unverified = "receive",
        for_now: Collection[Outcome] = FOR_NOW,
        forward_key: bytes | None = None,
        role: str | None = None,
        tenant_id: int | None = None,
    ) -> None:
        # Each delivery waits for the disk. Measured where a commit takes 10 ms: 360 messages a second, not 215.
        self._pool = Pool(size=connections, few=connections, role=role, tenant_id=tenant_id)
        # Neither large messages nor those who wait for a mailbox ever take all connections.
        self._large = asyncio.Semaphore(max(1, connections // 2))
        self._waiting = asyncio.Semaphore(max(1, connections // 4))
        self._queues: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()  # by mailbox
        self._subaddress = subaddress
        self._default_domain = default_domain
        self._unverified = unverified
        self._for_now = frozenset(for_now)
        self._forward_key = forward_key
        self._refusals = Refusals(self._pool)

    async def start(self) -> None:
        """Begin to open the connections; does not wait for the database."""
        self._pool.open()
        self._refusals.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self._refusals.stop()
        await self._pool.close()

    async def find(self, address: str, *, reverse_path: str, octets: int | None) -> Recipient:
        """Where mail for `address` goes, of a message of `octets` where that is known.

        Raises `UnknownDomain`, `UnverifiedDomain`, `UnknownMailbox`, `Suspended`, `Deferred`, `OverQuota`,
        `Unavailable`.
        """
        [found] = await self.find_all([address], reverse_path=reverse_path, octets=octets)
        if isinstance(found, Refused):
            raise found
        return found

    async def find_all(
        self, asked: Sequence[str], *, reverse_path: str, octets: int | None
    ) -> list[Recipient | Refused]:
        """For each of these addresses what `find` returns or, but for `Unavailable`, raises."""
        names = [self._name(address) for address in asked]
        known = [name for name in names if name]
        answers = {name: [row] for name, row in zip(known, await self._rows(_FIND_BOX, known), strict=True)}
        others = [name for name, [row] in answers.items() if row[_DOMAIN] is not None and row[_MAILBOX] is None]
        if others:
            for number, rows in itertools.groupby(await self._rows(FIND, others), key=itemgetter(0)):
                answers[others[number - 1]] = list(rows)
        return [
            await self._judge(address, name, answers[name], reverse_path, octets) if name else UnknownDomain()
            for address, name in zip(asked, names, strict=True)
        ]

    def _name(self, address: str) -> str | None:
        """The normal form of an address, without a local part if it can be none's; None if its domain can be none."""
        if address.lower() == "postmaster":
            address = f"postmaster@{self._default_domain}"
        local, _, host = address.rpartition("@")
        try:
            domain = addresses.domain(host)
        except addresses.BadAddress:
            return None
        try:
            return f"{addresses.local_part(local)}@{domain}"
        except addresses.BadAddress:
            return f"@{domain}"  # no mailbox has this name; whether the domain is known is still to be told

    async def _judge(
        self, address: str, name: str, rows: list[tuple[Any, ...]], reverse_path: str, octets: int | None
    ) -> Recipient | Refused:
        _, domain, tenant, state, *_ = rows[0]
        if domain is None:
            return UnknownDomain()
        if state == "pending" and self._unverified != "receive":
            self._refusals.note(domain, None, "unverified", reverse_path)
            return UnverifiedDomain() if self._unverified == "defer" else UnknownDomain()
        if not reverse_path and (back := self._way_back(address, domain, tenant)):
            return back
        boxes: list[Box] = []
        outside: list[Outside] = []
        judged: list[tuple[int | None, Outcome | None]] = []
        for _, _, _, _, mailbox, owner, of, box_state, quota, used, target, alias_id, alias, room in rows:
            if mailbox is not None:
                boxes.append(Box(mailbox, of, room is not None))
                left = min(_ENDLESS if quota is None else quota - used, _ENDLESS if room is None else room)
                judged.append((mailbox, await self._refusal(mailbox, box_state, left, reverse_path, octets)))
            elif target:
                outside.append(Outside(target, alias, alias_id, owner, of))
                judged.append((None, None if self._forward_key else Outcome.DEFERRED))
        if any(outcome is None for _, outcome in judged):
            return Recipient(name, tuple(boxes), tuple(outside))
        refusals = [outcome for _, outcome in judged if outcome] or [Outcome.GONE]
        for mailbox, refusal in judged or [(None, Outcome.GONE)]:
            self._refusals.note(domain, mailbox, refusal or "", reverse_path)
        return _REFUSED[self._told(refusals)]()

    async def _refusal(
        self, mailbox: int, state: str, left: int, reverse_path: str, octets: int | None
    ) -> Outcome | None:
        """Why a mailbox with so many octets left takes nothing, as far as can be told before the message is there."""
        if state == "suspended":
            return Outcome.SUSPENDED
        if state == "no-receive":
            return Outcome.DEFERRED
        if (octets or 1) > left:
            [(recent,)] = await self._ask(_RECENT, {"mailbox": mailbox, "reverse_path": reverse_path})
            if not recent:
                return Outcome.OVER_QUOTA
        return None

    def _way_back(self, address: str, domain: int, tenant: int) -> Recipient | None:
        """Whom a bounce to this address is for, if it is one that we gave a message that went on."""
        if self._forward_key is None or not srs.is_rewritten(address):
            return None
        try:
            sender = srs.original(address, key=self._forward_key, today=srs.today())
        except srs.Forged:
            return None
        return Recipient(address, (), (Outside(sender, address, None, tenant, domain),))

    def _told(self, outcomes: Iterable[Outcome]) -> Outcome:
        """The one outcome that is told of several."""
        return min(outcomes, key=lambda outcome: (outcome not in self._for_now, _RANK[outcome]))

    async def _rows(self, statement: str, names: Sequence[str]) -> list[tuple[Any, ...]]:
        return await self._ask(statement, {"addresses": " ".join(names), "subaddress": self._subaddress})

    async def _ask(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        async def work(connection: Connection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(statement, parameters)).fetchall()

        try:
            return await self._pool.run(work)
        except psycopg.Error as error:
            log.error("recipients could not be looked up: %s", _described(error))  # noqa: TRY400 (its text is another's)
            raise Unavailable from None

    async def deliver(
        self,
        spool: Spool,
        *,
        reverse_path: str,
        recipients: Sequence[Recipient],
        received: bytes,
        retry: bytes | None = None,
    ) -> list[Outcome]:
        """Store what `spool` holds for each recipient; an outcome per recipient, in their order.

        What is `STORED` or `ALREADY` is committed when this returns, for each destination of the recipient. Everything
        else left nothing behind. `received` is the trace field of this hop, with its CRLF; the spool is finished.
        `retry` is the same for a client's attempts to deliver one message, if the client says so; else its octets tell.
        Never raises for a fault of the store: that is an outcome.
        """
        message = _Message(spool, reverse_path, received, self._forward_key, retry)
        outcomes = await self._store(message, recipients)
        for recipient in recipients:
            for box in recipient.boxes:
                if box.domain_id and outcomes[box.mailbox_id] in _REFUSALS:
                    outcome = outcomes[box.mailbox_id]
                    self._refusals.note(box.domain_id, box.mailbox_id, outcome, reverse_path)
            for outside in recipient.outside:
                if outcomes[outside] == Outcome.LOOP:
                    log.warning("mail loop: alias %s has sent this message outside before", outside.alias_id)
                    self._refusals.note(outside.domain_id, None, Outcome.LOOP, reverse_path)
        return [self._told(outcomes[each] for each in recipient.destinations) for recipient in recipients]

    def note_too_large(self, recipients: Iterable[Recipient], reverse_path: str) -> None:
        """Note that a message for these was refused while it came: no message is that large here."""
        for recipient in recipients:
            for box in recipient.boxes:
                self._refusals.note(box.domain_id, box.mailbox_id, TOO_LARGE, reverse_path)

    async def _store(self, message: "_Message", recipients: Sequence[Recipient]) -> Outcomes:
        """All copies in one transaction; then, each in its own, those that another's lock or fault kept out of it.

        So nobody waits for a mailbox while holding another: no two wait for each other, and one that is stuck delays
        no other's mail. Where there is a limit on octets, only copies of one domain share a transaction: one that is
        over its limit keeps no other's out.
        """
        copies: dict[int, Copies] = {0: {}}  # by domain, where there is a limit
        for recipient in reversed(recipients):
            for box in recipient.boxes:
                copies.setdefault(box.domain_id if box.is_limited else 0, {})[box.mailbox_id] = recipient.address
        outcomes: Outcomes = {}
        forwards: list[Outside] = []
        for outside in dict.fromkeys(outside for recipient in recipients for outside in recipient.outside):
            if (refusal := message.refusal(outside)) is None:
                forwards.append(outside)
            else:
                outcomes[outside] = refusal
        for group in copies.values():
            going = [outside for outside in forwards if outside not in outcomes]
            if group or going:
                async with self._large if message.large else contextlib.nullcontext():
                    outcomes |= await self._attempt(message, group, going, wait=False)
        deadline = time.monotonic() + _PATIENCE
        for mailbox, address in (copy for group in copies.values() for copy in group.items()):
            if mailbox not in outcomes:
                patience = min(_TURN, deadline - time.monotonic())
                outcomes |= await self._wait(message, mailbox, address, patience)
        everybody = [destination for recipient in recipients for destination in recipient.destinations]
        return {
            each: outcomes.get(each, Outcome.GONE if isinstance(each, int) else Outcome.FAILED) for each in everybody
        }

    async def _wait(self, message: "_Message", mailbox: int, address: str, patience: float) -> Outcomes:
        """One copy, when it is its turn: of those who wait here for one mailbox, one waits in the database."""
        queue = self._queues.get(mailbox) or asyncio.Lock()
        self._queues[mailbox] = queue
        try:
            async with asyncio.timeout(patience) as waiting, queue, self._waiting:
                waiting.reschedule(None)  # now it is its turn; a transaction is never cut short
                return await self._attempt(message, {mailbox: address}, [], wait=True)
        except TimeoutError:
            log.warning("delivery to mailbox %s deferred: too many wait", mailbox)
            return {mailbox: Outcome.FAILED}

    async def _attempt(
        self, message: "_Message", copies: Copies, forwards: Sequence[Outside], *, wait: bool
    ) -> Outcomes:
        """One transaction: what became of the copies that it could decide on."""
        destinations: list[Destination] = [*copies, *forwards]
        try:
            return await self._pool.run(lambda connection: message.store(connection, copies, forwards, wait=wait))
        except Unavailable:
            log.warning("delivery deferred: the database does not answer")
            return dict.fromkeys(destinations, Outcome.FAILED)
        except (errors.DiskFull, errors.OutOfMemory) as error:
            log.warning("delivery deferred, the store is full: %s", _described(error))
            return dict.fromkeys(destinations, Outcome.NO_SPACE)
        except (psycopg.Error, OSError) as error:
            outcome = Outcome.OVER_QUOTA
            if getattr(error, "sqlstate", None) != limits.OVER_QUOTA:
                log.warning("delivery to mailboxes %s deferred: %s", list(copies), _described(error))
                outcome = Outcome.FAILED
            return {} if len(destinations) > 1 else dict.fromkeys(destinations, outcome)


class _Message:
    """A message on its way into the store: what its statements need."""

    def __init__(
        self, spool: Spool, reverse_path: str, received: bytes, forward_key: bytes | None, retry: bytes | None
    ) -> None:
        self.large = spool.octets > CHUNK_OCTETS
        self._spool = spool
        self._contents: set[int] = set()  # committed, of a large message
        self._forward_key = forward_key
        # Only a message that an MTA queued comes twice because an answer got lost: it begins with that MTA's trace.
        # Equal octets without one are two messages, and the salt makes them so; it still serves our own retry.
        salt = retry or (b"" if spool.begins_with_received else os.urandom(16))
        look = headers.look(spool.head)
        self._parameters: dict[str, Any] = {
            "octets": spool.octets,
            "header_octets": spool.header_octets,
            "has_dot_lines": spool.has_dot_lines,
            "digest": hashlib.sha256(reverse_path.encode() + b"\0" + spool.digest + salt).digest(),
            "before_address": f"Return-Path: <{reverse_path}>\r\nDelivered-To: ".encode(),
            "after_address": b"\r\n" + received,
            "reverse_path": reverse_path,
            "subject": look.subject,
            "sender": look.sender,
            "message_id": look.message_id,
            "date": look.date,
            "tenants": [],
        }

    def refusal(self, outside: Outside) -> Outcome | None:
        """Why this message does not go outside, if it does not."""
        if self._forward_key is None:
            return Outcome.DEFERRED
        return Outcome.LOOP if headers.has_looped(self._spool.head, outside.by) else None

    async def store(
        self, connection: Connection, copies: Copies, forwards: Sequence[Outside], *, wait: bool
    ) -> Outcomes:
        """Store these copies in one transaction. Without `wait`, mailboxes that others hold are left out."""
        parameters = {
            **self._parameters,
            "mailboxes": " ".join(map(str, copies)),
            "addresses": " ".join(copies.values()),
        }
        if forwards:
            parameters |= self._forwarding(forwards)
        statement = _STORES[self.large, wait, bool(forwards)]
        store = self._store_large if self.large else self._store_small
        decided = await store(connection, statement, parameters, wait=wait)
        outcomes: Outcomes = {
            number if number > 0 else forwards[-number - 1]: Outcome(outcome) for number, outcome in decided
        }
        if refused := [mailbox for mailbox, outcome in outcomes.items() if outcome in _REFUSALS]:
            rows = await connection.execute(_CLAIMED, {"refused": refused, "digest": parameters["digest"]})
            outcomes.update((mailbox, Outcome.ALREADY) for (mailbox,) in await rows.fetchall())
        return outcomes

    def _forwarding(self, forwards: Sequence[Outside]) -> dict[str, Any]:
        assert self._forward_key is not None, "refused"
        digest, reverse_path = self._parameters["digest"], self._parameters["reverse_path"]
        return {
            "digests": [hashlib.sha256(digest + f"{one.by} {one.address}".encode()).digest() for one in forwards],
            "tenants": [one.tenant_id for one in forwards],
            "domains": [one.domain_id for one in forwards],
            "aliases": [one.alias_id for one in forwards],
            "outside": [one.address for one in forwards],
            "reverse_paths": [
                srs.rewritten(reverse_path, domain=addresses.split(one.by)[1], key=self._forward_key, today=srs.today())
                for one in forwards
            ],
            # No Return-Path: that is for whoever delivers at last (RFC 5321 section 4.4).
            "traces": [f"Delivered-To: {one.by}".encode() + self._parameters["after_address"] for one in forwards],
        }

    async def _store_small(
        self, connection: Connection, statement: str, parameters: dict[str, Any], *, wait: bool
    ) -> list[tuple[int, str]]:
        parameters["body"] = b"".join(self._spool.chunks(CHUNK_OCTETS))
        rows = await connection.execute(statement, parameters)
        return [(number, outcome) for number, _, outcome in await rows.fetchall()]

    async def _store_large(
        self, connection: Connection, statement: str, parameters: dict[str, Any], *, wait: bool
    ) -> list[tuple[int, str]]:
        """The content first, a chunk at a time; the mailboxes are locked only for the last step."""
        async with connection.transaction():
            rows = await connection.execute(_BEGINS_LARGE[wait], parameters | {"stored": list(self._contents)})
            contents = await rows.fetchall()
            made = {tenant: content for content, tenant, is_new, *_ in contents if is_new}
            await self._add_chunks(connection, made)
            parameters["contents"] = " ".join(str(content) for content, *_ in contents)
            parameters["held"] = contents[0][3] if contents else None
            rows = await connection.execute(statement, parameters)
            decided = await rows.fetchall()
            for _, tenant, outcome in decided:
                if outcome == Outcome.STORED:
                    made.pop(tenant, None)
            if made:
                unused = {"contents": list(made.values())}
                await connection.execute(_DROP_CHUNKS, unused)
                await connection.execute(_DROP_CONTENTS, unused)
        self._contents.update(content for content, tenant, *_ in contents if tenant not in made)
        return [(number, outcome) for number, _, outcome in decided]

    async def _add_chunks(self, connection: Connection, contents: dict[int, int]) -> None:
        """Write the chunks of new contents, by tenant."""
        if not contents:
            return
        of = {"tenants": list(contents), "contents": list(contents.values())}
        for number, chunk in enumerate(self._spool.chunks(CHUNK_OCTETS)):
            await connection.execute(_ADD_CHUNK, of | {"number": number, "octets": chunk})


def _described(error: Exception) -> str:
    """What is logged of a fault: one short line, whatever its text holds."""
    first, _, _ = str(error).partition("\n")
    return f"{type(error).__name__} ({getattr(error, 'sqlstate', None)}): {first[:200]!r}"


def deliver_now(
    stream: BinaryIO,
    *,
    to: Iterable[str],
    reverse_path: str = "",
    limit: int,
    subaddress: str,
    default_domain: str,
    unverified: Unverified = "receive",
    for_now: Collection[Outcome] = FOR_NOW,
    forward_key: bytes | None = None,
    role: str | None = None,
) -> list[Outcome | Refused]:
    """Deliver what `stream` holds to the addresses `to`, from outside an event loop; an outcome for each, in order.

    `limit` is the largest message in octets; the others are as for `Deliveries`. Raises `mailstore.spool.TooLarge`,
    `Unavailable`.
    """
    deliveries = Deliveries(
        connections=1,
        subaddress=subaddress,
        default_domain=default_domain,
        unverified=unverified,
        for_now=for_now,
        forward_key=forward_key,
        role=role,
    )
    with Spool(limit=limit) as spool:
        while octets := stream.read(CHUNK_OCTETS):
            spool.write(octets)
        spool.finish()
        return deliver_spooled(spool, to=to, reverse_path=reverse_path, deliveries=deliveries)


def deliver_spooled(
    spool: Spool,
    *,
    to: Iterable[str],
    reverse_path: str,
    deliveries: Deliveries,
    received: bytes = b"",
    retry: bytes | None = None,
    pretend: bool = False,
) -> list[Outcome | Refused]:
    """Deliver what `spool` holds as `deliver_now` does, by `deliveries` that nobody has started.

    `received` and `retry` are as for `Deliveries.deliver`. To `pretend` stores nothing: `STORED` is then what is taken
    as far as can be told. Raises `Unavailable`.
    """

    async def deliver() -> list[Outcome | Refused]:
        await deliveries.start()
        try:
            found = await deliveries.find_all(list(to), reverse_path=reverse_path, octets=spool.octets)
            recipients = [one for one in found if isinstance(one, Recipient)]
            if pretend or not recipients:
                return [one if isinstance(one, Refused) else Outcome.STORED for one in found]
            stored = await deliveries.deliver(
                spool, reverse_path=reverse_path, recipients=recipients, received=received, retry=retry
            )
            outcomes = iter(stored)
            return [one if isinstance(one, Refused) else next(outcomes) for one in found]
        finally:
            await deliveries.stop()

    return asyncio.run(deliver())
