"""Removing for good what nobody can ask for any more: expunged messages, closed mailboxes, old records.

Before that, what has been in a maildrop for longer than its mailbox's keep-time is expunged, and what was there only
for a device that has expired. Each mailbox has a retention, by default its tenant's, by default the host's; nothing of
one that is on legal hold goes. Time is the database's.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.utils.translation import gettext as _

from accounts import audit, failed_logins, notices, provisioning
from accounts.models import (
    Alias,
    AliasTarget,
    ApiToken,
    AppPassword,
    Domain,
    Event,
    FailedLogin,
    KnownNetwork,
    Mailbox,
    Tenant,
    User,
    Webhook,
)
from accounts.provisioning import OnHold, happened
from mailstore import own_copies, presence, quota, statistics
from mailstore.models import (
    DailyStatistics,
    DeliveryLedger,
    ForwardLedger,
    HourlyStatistics,
    ImportedItem,
    ImportJob,
    MaildropSession,
    Message,
    OwnCopy,
    PurgeForecast,
    Refusal,
)

log = logging.getLogger(__name__)

BATCH: Final = 1000
"""Messages, or other rows, that one transaction of a purge removes at most."""
BATCH_OCTETS: Final = 256 * 1024 * 1024
"""Octets after which a batch is full, though it has fewer messages: large ones lie in many rows."""

_WINDOW: Final = 20  # batches of which the messages are looked up at once
_LATELY: Final = timedelta(days=7)  # for which a purge looks again at a device that has expired
_PURGING: Final = 0x7075726765  # the advisory lock of those who give way
_RECORDS: Final[tuple[Any, ...]] = (  # of a mailbox
    MaildropSession,
    DeliveryLedger,
    KnownNetwork,
    OwnCopy,
    AppPassword,
    ImportedItem,
    ImportJob,
    FailedLogin,
)
_OF_TENANT: Final[tuple[Any, ...]] = (
    Webhook,
    Event,
    ApiToken,
    User,
    Refusal,
    FailedLogin,
    ForwardLedger,
    HourlyStatistics,
    DailyStatistics,
    PurgeForecast,
)


@dataclass(frozen=True, kw_only=True)
class Keep:
    """How long things are kept, by the database's clock."""

    retention: timedelta  # expunged messages and closed mailboxes, where mailbox and tenant have none of their own
    sessions: timedelta  # the record of a session, from its end
    ledger: timedelta  # what was delivered, so that a retry stores nothing again
    listener_ttl: timedelta  # a listener without a heartbeat for so long is gone, and its sessions are over
    networks: timedelta = failed_logins.KNOWN_FOR  # where somebody signed in from
    refusals: timedelta = timedelta(days=30)  # which mail was refused
    runs: timedelta = timedelta(days=7)  # what a process of Celery did last
    failed_logins: timedelta = timedelta(days=30)  # which logins failed


@dataclass
class Share:
    """A tenant's part in a purge."""

    messages: int = 0
    octets: int = 0  # of the messages; what several of them share lies on the disk once
    mailboxes: int = 0


@dataclass
class Purged:
    """What a purge removed."""

    tenants: dict[str, Share] = field(default_factory=dict)  # by slug
    expired: int = 0  # messages that left their maildrops, and can be restored
    contents: int = 0
    sessions: int = 0
    ended: int = 0  # sessions of listeners that are gone
    ledger: int = 0
    networks: int = 0
    refusals: int = 0
    statistics: int = 0
    runs: int = 0  # of background work, that no process has renewed for long
    failed_logins: int = 0
    listeners: int = 0
    domains: int = 0
    closed_tenants: int = 0
    finished: bool = False  # whether nothing more was due

    @property
    def messages(self) -> int:
        """Messages of all tenants."""
        return sum(share.messages for share in self.tenants.values())

    def add(self, more: "Purged") -> None:
        """Add what a further batch removed."""
        for slug, share in more.tenants.items():
            mine = self.tenants.setdefault(slug, Share())
            mine.messages += share.messages
            mine.octets += share.octets
            mine.mailboxes += share.mailboxes
        self.expired += more.expired
        self.contents += more.contents
        self.sessions += more.sessions
        self.ended += more.ended
        self.ledger += more.ledger
        self.networks += more.networks
        self.refusals += more.refusals
        self.statistics += more.statistics
        self.runs += more.runs
        self.failed_logins += more.failed_logins
        self.listeners += more.listeners
        self.domains += more.domains
        self.closed_tenants += more.closed_tenants


def purge(
    keep: Keep,
    *,
    batch: int = BATCH,
    budget: timedelta | None = None,
    give_way: bool = False,
    thorough: bool = False,
    watch: Callable[[Purged], object] = lambda purged: None,
) -> Purged:
    """Remove for good what nobody can ask for any more, in batches that are a transaction each.

    It can be killed anywhere, and run beside itself: what is locked is left to who locked it. It ends when nothing is
    due, or after a batch that removed something when the time `budget` is over; with `give_way` also when another
    purge that gives way is at work. `thorough` also looks at devices that have expired long ago, and through all
    contents for such as have no message: there should be none. `watch` is told what is removed so far, after each
    batch. Not to be called in a transaction.
    """
    run = _Purge(keep, batch, budget, give_way, watch)
    try:
        run.sessions()
        run.aged("ledger", "mailstore_deliveryledger", "delivered_at", keep.ledger)
        run.aged("ledger", "mailstore_forwardledger", "delivered_at", keep.ledger)
        run.aged("refusals", "mailstore_refusal", "last_at", keep.refusals)
        run.aged("statistics", "mailstore_hourlystatistics", "start", statistics.HOURS_KEPT)
        run.aged("statistics", "mailstore_dailystatistics", "start", keep.sessions)
        run.aged("runs", "mailstore_backgroundrun", "at", keep.runs)
        run.aged("failed_logins", "accounts_failedlogin", "hour", keep.failed_logins)
        run.aged("networks", "accounts_knownnetwork", "last_login_at", keep.networks)
        run.keep_times()
        run.own_copies(None if thorough else _LATELY)
        run.expunged()
        run.closed()
        run.domains()
        run.tenants()
        if thorough:
            run.orphans()
        run.purged.finished = True
    except _EnoughForNow:
        pass
    finally:
        if run.purged.tenants:
            mailboxes = sum(share.mailboxes for share in run.purged.tenants.values())
            log.info("%s messages and %s mailboxes purged", run.purged.messages, mailboxes)
    return run.purged


def erase(mailbox: Mailbox) -> None:
    """Have a mailbox removed for good as soon as can be, with all its mail: a request of law.

    It is closed at once, and due: the next purge removes it, which `erase_now` and the task of the same name do not
    wait for. Raises `OnHold`.
    """
    with transaction.atomic():
        row = Mailbox.objects.select_for_update(no_key=True).filter(pk=mailbox.pk).first()
        if row is None:
            return
        if row.legal_hold:
            raise OnHold(_("%(row)s is on legal hold: its mail must be kept") % {"row": row})
        provisioning.close_mailbox(row)
        Mailbox.objects.filter(pk=row.pk).update(retention=timedelta(0))
        happened.to_mailbox("erased", row)
        notices.mailboxes_changed([row.pk])
        # What was told of it to others is not kept either.
        Event.objects.filter(tenant_id=row.tenant_id, kind__startswith="mailbox.", payload__id=row.pk).exclude(
            kind="mailbox.erased"
        ).delete()


def erase_now(keep: Keep, mailbox_id: int) -> bool:
    """Remove what `erase` marked. Whether it is gone: somebody may hold it. Not to be called in a transaction."""
    run = _Purge(keep, BATCH, None, give_way=False, watch=lambda purged: None)
    run.closed(mailbox_id)
    return not Mailbox.objects.filter(pk=mailbox_id).exists()


def forecast(keep: Keep) -> dict[str, Share]:
    """What a purge would remove now: each tenant's share, by slug."""
    parameters: dict[str, Any] = {"retention": keep.retention}
    with connection.cursor() as cursor:
        cursor.execute(_FORECAST, parameters)
        return {slug: Share(messages, int(octets), mailboxes) for slug, messages, octets, mailboxes in cursor}


def remove_unused(cursor: CursorWrapper, contents: list[int]) -> int:
    """Remove those of these contents that no message has and nothing sends on any more. Returns how many.

    Belongs into the transaction that took one of those away.
    """
    cursor.execute(_LOCK_CONTENTS, {"contents": contents})
    cursor.execute(_PURGE_CONTENTS, {"contents": contents})
    removed: int = cursor.rowcount
    return removed


# Nothing is longer ago than null.
_KEPT = """
    CASE WHEN mailbox.legal_hold THEN NULL ELSE coalesce(mailbox.retention, tenant.retention, %(retention)s) END
"""
_WITH_TENANT = "JOIN accounts_tenant tenant ON tenant.id = mailbox.tenant_id"

_FORECAST = f"""
SELECT slug, sum(messages)::bigint, sum(octets), sum(mailboxes)::bigint
FROM (
    SELECT tenant.slug, count(*) AS messages, sum(message.octets) AS octets, 0 AS mailboxes
    FROM mailstore_message message JOIN accounts_mailbox mailbox ON mailbox.id = message.mailbox_id {_WITH_TENANT}
    WHERE message.expunged_at < now() - {_KEPT} AND (mailbox.closed_at < now() - {_KEPT}) IS NOT TRUE
    GROUP BY tenant.slug
    UNION ALL
    SELECT tenant.slug, count(message.id), coalesce(sum(message.octets), 0), count(DISTINCT mailbox.id)
    FROM accounts_mailbox mailbox {_WITH_TENANT} LEFT JOIN mailstore_message message ON message.mailbox_id = mailbox.id
    WHERE mailbox.closed_at < now() - {_KEPT}
    GROUP BY tenant.slug
) due
GROUP BY slug ORDER BY slug
"""

# A keep-time ends at the midnight (UTC) after it has passed: so of each mailbox mail goes once a day, and the audit
# tells of that once. Uids are in the order in which mail came, or came back: of what is not due only the first is read.
_KEEP_TIME = "CASE WHEN mailbox.legal_hold THEN NULL ELSE coalesce(mailbox.keep_time, tenant.keep_time) END"
_SINCE = "coalesce(message.kept_since, message.delivered_at)"
_TODAY = "date_trunc('day', now(), 'UTC')"
_OVERDUE = f"""
SELECT mailbox.id
FROM accounts_mailbox mailbox {_WITH_TENANT}
CROSS JOIN LATERAL (
    SELECT {_SINCE} AS since FROM mailstore_message message
    WHERE message.mailbox_id = mailbox.id AND message.expunged_at IS NULL
    ORDER BY message.uid LIMIT 1
) oldest
WHERE mailbox.id >= %(first)s AND mailbox.closed_at IS NULL AND oldest.since < {_TODAY} - {_KEEP_TIME} AND (
    mailbox.keep_time IS NOT NULL
    OR mailbox.tenant_id = ANY (ARRAY(SELECT id FROM accounts_tenant WHERE keep_time IS NOT NULL))
)
ORDER BY mailbox.id LIMIT %(batch)s
"""

_EXPIRE = f"""
WITH oldest AS MATERIALIZED (
    SELECT message.id, {_SINCE} AS since FROM mailstore_message message
    WHERE message.mailbox_id = %(mailbox)s AND message.expunged_at IS NULL
    ORDER BY message.uid LIMIT %(batch)s
), gone AS (
    UPDATE mailstore_message message SET expunged_at = now(), expired = true
    FROM oldest, accounts_mailbox mailbox {_WITH_TENANT}
    WHERE message.id = oldest.id AND message.expunged_at IS NULL AND mailbox.id = message.mailbox_id
        AND oldest.since < {_TODAY} - {_KEEP_TIME}
    RETURNING message.octets
)
SELECT count(*), coalesce(sum(octets), 0)::bigint FROM gone
"""

_EXPIRED_DEVICES = """
SELECT DISTINCT app.mailbox_id
FROM accounts_apppassword app JOIN accounts_mailbox mailbox ON mailbox.id = app.mailbox_id
WHERE app.own_copy AND app.revoked_at IS NULL AND app.expires_at <= now()
    AND (app.expires_at > now() - %(lately)s::interval OR %(lately)s::interval IS NULL) AND mailbox.closed_at IS NULL
ORDER BY app.mailbox_id
"""

# Mailbox by mailbox, since each has its own retention: what is not due yet is never read, however much there is.
_EXPUNGED = f"""
SELECT mailbox.id, due.id, due.octets
FROM accounts_mailbox mailbox {_WITH_TENANT}
CROSS JOIN LATERAL (
    SELECT id, octets FROM mailstore_message
    WHERE mailbox_id = mailbox.id AND expunged_at < now() - {_KEPT}
    ORDER BY expunged_at LIMIT %(window)s
) due
WHERE mailbox.id >= %(first)s
ORDER BY mailbox.id LIMIT %(window)s
"""

_CLOSED = f"""
SELECT mailbox.id FROM accounts_mailbox mailbox {_WITH_TENANT}
WHERE mailbox.closed_at < now() - {_KEPT} AND (mailbox.id = %(mailbox)s OR %(mailbox)s IS NULL) ORDER BY mailbox.id
"""

_CLOSED_DOMAINS = """
SELECT domain.id FROM accounts_domain domain JOIN accounts_tenant tenant ON tenant.id = domain.tenant_id
WHERE domain.closed_at < now() - coalesce(tenant.retention, %(retention)s)
    AND NOT EXISTS (SELECT FROM accounts_mailbox WHERE domain_id = domain.id)
ORDER BY domain.id
"""

_CLOSED_TENANTS = """
SELECT tenant.id FROM accounts_tenant tenant
WHERE tenant.closed_at < now() - coalesce(tenant.retention, %(retention)s)
    AND NOT EXISTS (SELECT FROM accounts_domain WHERE tenant_id = tenant.id)
    AND NOT EXISTS (SELECT FROM mailstore_forward WHERE tenant_id = tenant.id)
ORDER BY tenant.id
"""

_OF_CLOSED = """
SELECT uid, id, octets FROM mailstore_message
WHERE mailbox_id = %(mailbox)s AND uid >= %(first)s ORDER BY uid LIMIT %(window)s
"""

# For as long as a batch takes it cannot be reopened.
_LOCK_CLOSED = f"""
SELECT mailbox.user_id, tenant.slug FROM accounts_mailbox mailbox {_WITH_TENANT}
WHERE mailbox.id = %(mailbox)s AND mailbox.closed_at < now() - {_KEPT}
FOR NO KEY UPDATE OF mailbox SKIP LOCKED
"""

# Looked up a while ago: each is asked again, under its lock, whether it is due. Those still in a maildrop are a closed
# mailbox's, which is locked.
_PURGE = f"""
WITH due AS MATERIALIZED (
    SELECT message.id, tenant.slug
    FROM mailstore_message message JOIN accounts_mailbox mailbox ON mailbox.id = message.mailbox_id {_WITH_TENANT}
    WHERE message.id = ANY (%(messages)s)
        AND (message.expunged_at < now() - {_KEPT} OR message.mailbox_id = %(closed)s)
    FOR UPDATE OF message SKIP LOCKED
), gone AS (
    DELETE FROM mailstore_message message USING due WHERE message.id = due.id
    RETURNING due.slug, message.content_id, message.octets, message.expunged_at
), copies AS (
    DELETE FROM mailstore_owncopy copy USING due WHERE copy.message_id = due.id
), refunded AS (
    UPDATE accounts_mailbox
    SET used_octets = used_octets - present.octets, message_count = message_count - present.messages
    FROM (SELECT count(*) AS messages, sum(octets) AS octets FROM gone WHERE expunged_at IS NULL) present
    WHERE id = %(closed)s AND present.messages > 0
)
SELECT slug, count(*), sum(octets), array_agg(content_id) FROM gone GROUP BY slug
"""

# Not SKIP LOCKED: of two that remove the last two messages of a content, the one who comes second must see that they
# are the last. In a statement of its own, so that the next one sees what whoever held them committed.
_LOCK_CONTENTS = "SELECT FROM mailstore_content WHERE id = ANY (%(contents)s) ORDER BY id FOR UPDATE"

_UNUSED = """NOT EXISTS (SELECT FROM mailstore_message WHERE content_id = content.id)
    AND NOT EXISTS (SELECT FROM mailstore_forward WHERE content_id = content.id)"""
_PURGE_CONTENTS = f"""
WITH unused AS MATERIALIZED (
    SELECT id FROM mailstore_content content WHERE id = ANY (%(contents)s) AND {_UNUSED}
), chunks AS (
    DELETE FROM mailstore_contentchunk chunk USING unused WHERE chunk.content_id = unused.id
)
DELETE FROM mailstore_content content USING unused WHERE content.id = unused.id
"""

_ORPHANS = f"""
SELECT id FROM mailstore_content content
WHERE id > %(after)s AND created_at < now() - interval '1 day' AND {_UNUSED}
ORDER BY id LIMIT %(batch)s
"""

_AGED = """
WITH due AS MATERIALIZED (
    SELECT ctid FROM {table} WHERE {column} < now() - %(kept)s AND {column} >= %(oldest)s::timestamptz
    ORDER BY {column} LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM due)) RETURNING {column} AS age
)
SELECT count(*), max(age) FROM gone
"""

# SKIP LOCKED, since the mailbox is locked already, and whoever holds a session may want that.
_OF_MAILBOX = """
DELETE FROM {table} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {table} WHERE mailbox_id = %(mailbox)s LIMIT %(batch)s FOR UPDATE SKIP LOCKED
))
"""

_END_SESSIONS = f"""
WITH over AS MATERIALIZED (
    SELECT session.id
    FROM mailstore_maildropsession session LEFT JOIN mailstore_listener listener ON listener.id = session.listener_id
    WHERE session.ended_at IS NULL AND {presence.GONE}
    LIMIT %(batch)s
    FOR UPDATE OF session SKIP LOCKED
)
UPDATE mailstore_maildropsession session SET ended_at = now(), "end" = 'lost' FROM over WHERE session.id = over.id
"""

# The record of a session names the host and process of its listener, so a listener stays as long as its sessions.
_PURGE_LISTENERS = """
DELETE FROM mailstore_listener listener
WHERE heartbeat_at < now() - interval '1 day'
    AND NOT EXISTS (SELECT FROM mailstore_maildropsession WHERE listener_id = listener.id)
    AND pg_try_advisory_xact_lock_shared(%(space)s, id)
"""


class _EnoughForNow(Exception):
    """The rest is left to the next purge, or to the other one that is at work."""


class _NotNow(Exception):
    """A closed mailbox was opened again, or somebody holds it or a message of it."""


class _Purge:
    """One run of a purge."""

    def __init__(
        self,
        keep: Keep,
        batch: int,
        budget: timedelta | None,
        give_way: bool,
        watch: Callable[[Purged], object],
    ) -> None:
        self.purged = Purged()
        self._keep = keep
        self._batch_size = batch
        self._parameters: dict[str, Any] = {
            "retention": keep.retention,
            "batch": batch,
            "window": batch * _WINDOW,
            "ttl": keep.listener_ttl.total_seconds(),
            "space": presence.LOCK_SPACE,
        }
        self._deadline = time.monotonic() + budget.total_seconds() if budget is not None else None
        self._give_way = give_way
        self._watch = watch

    # The stages

    def sessions(self) -> None:
        """Sessions of listeners that are gone are over; old records go, and listeners that none of them names."""
        removed = Purged(ended=self._batch_size)
        while removed.ended == self._batch_size:
            with self._batch() as (cursor, removed):
                cursor.execute(_END_SESSIONS, self._parameters)
                removed.ended = cursor.rowcount
        self.aged("sessions", "mailstore_maildropsession", "ended_at", self._keep.sessions)
        with self._batch() as (cursor, removed):
            cursor.execute(_PURGE_LISTENERS, self._parameters)
            removed.listeners = cursor.rowcount

    def aged(self, what: str, table: str, column: str, kept: timedelta) -> None:
        """Rows of a table that are older than they are kept; `what` they are called in `Purged`."""
        statement = _AGED.format(table=table, column=column)
        count, oldest = self._batch_size, "-infinity"
        while count == self._batch_size:
            with self._batch() as (cursor, removed):
                cursor.execute(statement, self._parameters | {"kept": kept, "oldest": oldest})
                [(count, oldest)] = cursor.fetchall()
                setattr(removed, what, count)

    def keep_times(self) -> None:
        """Messages that have been in their maildrops for longer than they may leave them."""
        first = 0
        while rows := self._rows(_OVERDUE, first=first):
            first = rows[-1][0] + 1
            for (mailbox,) in rows:
                count = self._batch_size
                while count == self._batch_size:
                    with self._batch() as (cursor, removed):
                        count = removed.expired = self._expire(cursor, mailbox)

    def own_copies(self, lately: timedelta | None) -> None:
        """Messages that are there only because of a device with an own copy that has expired."""
        for (pk,) in self._rows(_EXPIRED_DEVICES, lately=lately):
            count = self._batch_size
            while count == self._batch_size:
                with self._batch() as (_, removed):
                    mailbox = self._free(pk)
                    count = own_copies.expunge_removed_by_all(mailbox, most=self._batch_size) if mailbox else 0
                    removed.expired = count

    def expunged(self) -> None:
        """Messages that were expunged longer ago than their mailbox's retention."""
        first = 0
        while rows := self._rows(_EXPUNGED, first=first):
            before = self.purged.messages
            for ids in self._batches(rows):
                with self._batch() as (cursor, removed):
                    self._messages(cursor, removed, ids)
            if len(rows) < self._parameters["window"]:
                return
            # The last mailbox may have more; but if all of these are locked, whoever holds them is left alone.
            first = rows[-1][0] + (self.purged.messages == before)

    def closed(self, mailbox_id: int | None = None) -> None:
        """Mailboxes that were closed longer ago than their retention, or one of them, with all that is theirs."""
        for (mailbox,) in self._rows(_CLOSED, mailbox=mailbox_id):
            try:
                self._mail(mailbox)
                self._records(mailbox)
                self._mailbox(mailbox)
            except _NotNow:
                continue

    def domains(self) -> None:
        """Closed domains whose last mailbox is gone."""
        for (pk,) in self._rows(_CLOSED_DOMAINS):
            with self._batch() as (_, removed):
                domain = (
                    Domain.objects.select_for_update(skip_locked=True).exclude(closed_at=None).filter(pk=pk).first()
                )
                if domain and not Mailbox.objects.filter(domain=domain).exists():
                    audit.record("domain.removed", domain)
                    domain.delete()
                    removed.domains = 1

    def tenants(self) -> None:
        """Closed tenants whose last domain is gone, and from whom nothing is on its way any more."""
        for (pk,) in self._rows(_CLOSED_TENANTS):
            with self._batch() as (_, removed):
                tenant = (
                    Tenant.objects.select_for_update(skip_locked=True).exclude(closed_at=None).filter(pk=pk).first()
                )
                if tenant and not Domain.objects.filter(tenant=tenant).exists():
                    audit.record("tenant.removed", tenant)
                    for model in _OF_TENANT:
                        model.objects.filter(tenant=tenant).delete()
                    tenant.delete()
                    removed.closed_tenants = 1

    def orphans(self) -> None:
        """Contents without a message. None can come about: every transaction that could leave one removes it."""
        after = 0
        while rows := self._rows(_ORPHANS, after=after):
            after = rows[-1][0]
            with self._batch() as (cursor, removed):
                self._contents(cursor, removed, [content for (content,) in rows])

    # What they are made of

    @contextmanager
    def _batch(self) -> Iterator[tuple[CursorWrapper, Purged]]:
        """A transaction, and what to note in that it removes; then raises `_EnoughForNow` if time is up."""
        removed = Purged()
        with transaction.atomic(durable=True), connection.cursor() as cursor:
            if self._give_way:
                cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_PURGING])
                if cursor.fetchall() == [(False,)]:
                    raise _EnoughForNow
            yield cursor, removed
        self.purged.add(removed)
        self._watch(self.purged)
        if self._deadline is not None and time.monotonic() > self._deadline and removed != Purged():
            raise _EnoughForNow

    def _rows(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(statement, self._parameters | parameters)
            return list(cursor.fetchall())

    def _batches(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[list[int]]:
        """Rows of (…, message, octets) as lists of messages, none with too many or too large ones for a batch."""
        ids: list[int] = []
        total = 0
        for _key, message, octets in rows:
            if ids and (len(ids) == self._batch_size or total + octets > BATCH_OCTETS):
                yield ids
                ids, total = [], 0
            ids.append(message)
            total += octets
        if ids:
            yield ids

    def _free(self, mailbox: int) -> Mailbox | None:
        """Lock an open mailbox, unless somebody else has."""
        free = Mailbox.objects.open().select_for_update(no_key=True, skip_locked=True)
        found: Mailbox | None = free.filter(pk=mailbox).first()
        return found

    def _expire(self, cursor: CursorWrapper, pk: int) -> int:
        """Expunge a batch of what is in a mailbox for too long. Returns how many."""
        mailbox = self._free(pk)
        if mailbox is None:
            return 0
        cursor.execute(_EXPIRE, self._parameters | {"mailbox": pk})
        [(messages, octets)] = cursor.fetchall()
        if messages:
            quota.refund(mailbox, octets=octets, messages=messages)
            detail = {"messages": messages, "octets": octets, "because": "keep-time"}
            audit.record("mailbox.messages_expunged", mailbox, detail=detail)
        return int(messages)

    def _messages(self, cursor: CursorWrapper, removed: Purged, ids: list[int], *, closed: int | None = None) -> None:
        """Those of these messages that are due, and the contents that were theirs alone."""
        cursor.execute(_PURGE, self._parameters | {"messages": ids, "closed": closed})
        contents: list[int] = []
        for slug, messages, octets, theirs in cursor.fetchall():
            removed.tenants[slug] = Share(messages, int(octets))
            contents += theirs
        self._contents(cursor, removed, contents)

    def _contents(self, cursor: CursorWrapper, removed: Purged, contents: list[int]) -> None:
        """Those of these contents that nothing needs any more."""
        if contents:
            removed.contents += remove_unused(cursor, contents)

    # A closed mailbox, in three steps

    def _mail(self, mailbox: int) -> None:
        first = 0
        while rows := self._rows(_OF_CLOSED, mailbox=mailbox, first=first):
            first = rows[-1][0] + 1
            for ids in self._batches(rows):
                with self._batch() as (cursor, removed):
                    self._lock_closed(cursor, mailbox)
                    self._messages(cursor, removed, ids, closed=mailbox)

    def _records(self, mailbox: int) -> None:
        for model in _RECORDS:
            statement = _OF_MAILBOX.format(table=model._meta.db_table)
            count = self._batch_size
            while count == self._batch_size:
                with self._batch() as (cursor, _):
                    self._lock_closed(cursor, mailbox)
                    cursor.execute(statement, self._parameters | {"mailbox": mailbox})
                    count = cursor.rowcount

    def _mailbox(self, mailbox: int) -> None:
        with self._batch() as (cursor, removed):
            user, slug = self._lock_closed(cursor, mailbox)
            if any(model.objects.filter(mailbox=mailbox).exists() for model in (Message, *_RECORDS)):
                raise _NotNow  # some were locked
            targets = AliasTarget.objects.filter(mailbox=mailbox)
            aliases = list(targets.values_list("alias_id", flat=True))
            targets.delete()
            for alias in Alias.objects.filter(pk__in=aliases, targets=None):
                provisioning.remove_alias(alias)
            ApiToken.objects.filter(mailbox=mailbox).delete()
            Tenant.objects.filter(admin_mailbox=mailbox).update(admin_mailbox=None)
            Mailbox.objects.filter(pk=mailbox).delete()
            User.objects.filter(pk=user).delete()
            removed.tenants[slug] = Share(mailboxes=1)

    def _lock_closed(self, cursor: CursorWrapper, mailbox: int) -> tuple[int, str]:
        """Lock a mailbox that is due: its user, its tenant's slug. Raises `_NotNow`."""
        cursor.execute(_LOCK_CLOSED, self._parameters | {"mailbox": mailbox})
        row: tuple[int, str] | None = cursor.fetchone()
        if row is None:
            raise _NotNow
        return row
