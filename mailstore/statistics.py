"""Counting what happens, by domain and hour: deliveries, fetches, removals, refusals, and what lies there.

Nothing is counted on the path of the mail. A task comes by, again and again, and adds what is new: messages, and
removals that somebody asked for, by ids, which only grow, sessions by their ends, refusals by their hours. What a
transaction writes can be seen later than what a younger one wrote; so each run only notes how far things are, and a
later run counts up to there, once all transactions of this database that may have begun before have ended. A count
and the mark that it was made are one transaction.
"""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeVar

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from accounts.principals import Principal
from accounts.tenancy import TenantQuerySet
from mailstore.models import PurgeForecast, Rollup, Statistics

BATCH: Final = 50_000
"""Messages, sessions or records of the audit that one transaction counts at most."""
HOURS_KEPT: Final = timedelta(days=8)
"""How long statistics by hour are kept. Those by day are kept as long as the record of sessions."""
DAYS_AHEAD: Final = 7
"""Days of the forecast, the present one among them."""

# A session ends at the time at which the transaction that ends it began, which need not have written anything yet when
# we look: what began before that has, or is over.
_MARGIN: Final = timedelta(seconds=60)
# Refusals are noted with the hour in which their transaction began: the hour of a while ago is counted anew.
_LATE: Final = timedelta(minutes=10)


@dataclass(frozen=True)
class _Look:
    """How far things are."""

    at: datetime
    message_id: int
    audit_id: int
    oldest: int  # transaction of this database that has not ended; the next one where all have
    next: int  # transaction


S = TypeVar("S", bound=Statistics | PurgeForecast)


def roll_up(*, retention: timedelta, batch: int = BATCH, budget: timedelta | None = None) -> bool:
    """Count what is new up to where the last run looked. Whether that was reached, or there was nothing to do.

    It can be killed anywhere, and run beside itself: only one counts. After a time of standing still it catches up,
    batch by batch, until the time `budget` is over. `retention` is the host's, for the forecast. Not to be called in a
    transaction.
    """
    deadline = time.monotonic() + budget.total_seconds() if budget is not None else None
    look = _look()
    while True:
        match _count_some(look, batch):
            case "nothing":
                return False
            case "done":
                _look_around(look, retention)
                return True
        if deadline is not None and time.monotonic() > deadline:
            return False


def of(model: type[S], principal: Principal) -> TenantQuerySet[S]:
    """The rows of statistics, or of the forecast, which added up are all that exists for somebody."""
    rows: TenantQuerySet[S] = model._default_manager.all()  # type: ignore[assignment] # that is its manager
    return rows.filter(domain=None) if principal.is_host_wide else rows.visible_to(principal).exclude(domain=None)


# A snapshot is of all databases of the server, and in another one a transaction may be open for days. Ours are those
# that have locked something here, as each does that writes, until it ends. The locks are read after the snapshot is
# made: whose are gone by then, what that one wrote is seen by who counts later.
_LOOK = """
WITH ours AS MATERIALIZED (
    SELECT held.transactionid FROM pg_locks held
    WHERE held.locktype = 'transactionid' AND held.mode = 'ExclusiveLock' AND held.granted
        AND held.virtualtransaction IN (
            SELECT virtualtransaction FROM pg_locks
            WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())
        )
)
SELECT clock_timestamp(), coalesce((SELECT max(id) FROM mailstore_message), 0),
    coalesce((SELECT max(id) FROM accounts_auditevent), 0),
    coalesce(
        (SELECT min(open::text::bigint) FROM pg_snapshot_xip(now) open WHERE open::xid IN (SELECT * FROM ours)),
        pg_snapshot_xmax(now)::text::bigint
    ),
    pg_snapshot_xmax(now)::text::bigint
FROM pg_current_snapshot() now
"""

# Those of one domain are added while it cannot move to another tenant.
_ADD = """
WITH found AS MATERIALIZED (
    {found}
), held AS MATERIALIZED (
    SELECT id, tenant_id FROM accounts_domain WHERE id IN (SELECT domain_id FROM found) ORDER BY id FOR KEY SHARE
), new AS MATERIALIZED (
    SELECT held.tenant_id, found.* FROM found JOIN held ON held.id = found.domain_id
), hourly AS (
    INSERT INTO mailstore_hourlystatistics AS old (tenant_id, domain_id, start, {columns})
    SELECT tenant_id, domain_id, hour, {sums} FROM new
    WHERE hour >= date_trunc('hour', now() - %(hours_kept)s, 'UTC')
    GROUP BY GROUPING SETS ((tenant_id, domain_id, hour), (hour))
    ON CONFLICT (domain_id, start) DO UPDATE SET {changes}
), daily AS (
    INSERT INTO mailstore_dailystatistics AS old (tenant_id, domain_id, start, {columns})
    SELECT tenant_id, domain_id, date_trunc('day', hour, 'UTC') AS day, {sums} FROM new
    GROUP BY GROUPING SETS ((tenant_id, domain_id, day), (day))
    ON CONFLICT (domain_id, start) DO UPDATE SET {changes}
)
SELECT count(*) FROM new
"""


def _adding(found: str, *columns: str) -> str:
    return _ADD.format(
        found=found,
        columns=", ".join(columns),
        sums=", ".join(f"sum({column})" for column in columns),
        changes=", ".join(f"{column} = old.{column} + EXCLUDED.{column}" for column in columns),
    )


# What was brought along from elsewhere has no trace of ours, and was not delivered.
_MESSAGES = _adding(
    """
    SELECT mailbox.domain_id, date_trunc('hour', message.delivered_at, 'UTC') AS hour, count(*) AS delivered,
        sum(message.octets) AS delivered_octets
    FROM mailstore_message message JOIN accounts_mailbox mailbox ON mailbox.id = message.mailbox_id
    WHERE message.id > %(after)s AND message.id <= %(through)s AND message.trace <> ''
    GROUP BY 1, 2
    """,
    "delivered", "delivered_octets",
)  # fmt: skip
_THROUGH_ID = """
SELECT coalesce(
    (SELECT id FROM {table} WHERE id > %(after)s AND id <= %(until)s ORDER BY id OFFSET %(batch)s LIMIT 1),
    %(until)s
)
"""
_THROUGH_MESSAGE = _THROUGH_ID.format(table="mailstore_message")

_SESSIONS = _adding(
    """
    SELECT mailbox.domain_id, date_trunc('hour', session.ended_at, 'UTC') AS hour, count(*) AS sessions,
        sum(session.fetched) AS fetched, sum(session.expunged) AS removed
    FROM mailstore_maildropsession session JOIN accounts_mailbox mailbox ON mailbox.id = session.mailbox_id
    WHERE session.ended_at > %(after)s AND session.ended_at <= %(through)s
    GROUP BY 1, 2
    """,
    "sessions", "fetched", "removed",
)  # fmt: skip
_THROUGH_SESSION = """
SELECT coalesce((
    SELECT ended_at FROM mailstore_maildropsession WHERE ended_at > %(after)s AND ended_at <= %(until)s
    ORDER BY ended_at OFFSET %(batch)s LIMIT 1
), %(until)s)
"""

# What somebody removed, outside of sessions. Why it was removed stands where nobody asked for it.
_REMOVALS = _adding(
    """
    SELECT domain_id, date_trunc('hour', at, 'UTC') AS hour, sum((changes ->> 'messages')::bigint) AS removed
    FROM accounts_auditevent
    WHERE id > %(after)s AND id <= %(through)s
        AND action = 'mailbox.messages_expunged' AND NOT changes ? 'because'
    GROUP BY 1, 2
    """,
    "removed",
)
_THROUGH_AUDIT = _THROUGH_ID.format(table="accounts_auditevent")

# By the hour already. Of hours that were counted in part, what came since.
_REFUSALS = _adding(
    """
    SELECT refusal.domain_id, refusal.hour, greatest(sum(refusal.count) - coalesce((
        SELECT counted.refused FROM mailstore_hourlystatistics counted
        WHERE counted.domain_id = refusal.domain_id AND counted.start = refusal.hour
    ), 0), 0) AS refused
    FROM mailstore_refusal refusal
    WHERE refusal.last_at >= %(after)s AND refusal.hour >= %(after)s
    GROUP BY refusal.domain_id, refusal.hour
    """,
    "refused",
)

_STORED = """
WITH found AS MATERIALIZED (
    SELECT domain_id, sum(message_count) AS messages, sum(used_octets) AS octets FROM accounts_mailbox GROUP BY 1
), held AS MATERIALIZED (
    SELECT id, tenant_id FROM accounts_domain WHERE id IN (SELECT domain_id FROM found) ORDER BY id FOR KEY SHARE
), new AS MATERIALIZED (
    SELECT tenant_id, id AS domain_id, coalesce(sum(messages), 0) AS messages, coalesce(sum(octets), 0) AS octets
    FROM held JOIN found ON domain_id = id GROUP BY GROUPING SETS ((tenant_id, id), ())
), hourly AS (
    INSERT INTO mailstore_hourlystatistics (tenant_id, domain_id, start, stored_messages, stored_octets)
    SELECT tenant_id, domain_id, date_trunc('hour', %(at)s::timestamptz, 'UTC'), messages, octets FROM new
    ON CONFLICT (domain_id, start) DO UPDATE
    SET stored_messages = EXCLUDED.stored_messages, stored_octets = EXCLUDED.stored_octets
), daily AS (
    INSERT INTO mailstore_dailystatistics (tenant_id, domain_id, start, stored_messages, stored_octets)
    SELECT tenant_id, domain_id, date_trunc('day', %(at)s::timestamptz, 'UTC'), messages, octets FROM new
    ON CONFLICT (domain_id, start) DO UPDATE
    SET stored_messages = EXCLUDED.stored_messages, stored_octets = EXCLUDED.stored_octets
)
SELECT count(*) FROM new
"""

# Mailbox by mailbox, as a purge looks: of what is not due in these days nothing is read. Nothing is longer ago than
# null, which is how long a mailbox on legal hold keeps its mail.
_FORECAST = """
WITH box AS MATERIALIZED (
    SELECT mailbox.id, mailbox.domain_id, mailbox.closed_at, kept, now.until - kept AS since,
        coalesce(mailbox.closed_at < now.until - kept, false) AS goes
    FROM accounts_mailbox mailbox JOIN accounts_tenant tenant ON tenant.id = mailbox.tenant_id,
        LATERAL (
            SELECT CASE WHEN mailbox.legal_hold THEN NULL
                ELSE coalesce(mailbox.retention, tenant.retention, %(retention)s) END AS kept
        ) own,
        (SELECT date_trunc('day', %(at)s::timestamptz, 'UTC') + %(ahead)s AS until) now
), going AS (
    SELECT box.domain_id, message.expunged_at + box.kept AS due_at, 1 AS messages, message.octets, 0 AS mailboxes
    FROM box CROSS JOIN LATERAL (
        SELECT expunged_at, octets FROM mailstore_message
        WHERE mailbox_id = box.id AND expunged_at < box.since
    ) message
    WHERE NOT box.goes
    UNION ALL
    SELECT box.domain_id, least(message.expunged_at, box.closed_at) + box.kept, 1, message.octets, 0
    FROM box CROSS JOIN LATERAL (SELECT expunged_at, octets FROM mailstore_message WHERE mailbox_id = box.id) message
    WHERE box.goes
    UNION ALL
    SELECT domain_id, closed_at + kept, 0, 0, 1 FROM box WHERE goes
), found AS MATERIALIZED (
    SELECT domain_id, (greatest(due_at, %(at)s::timestamptz) AT TIME ZONE 'UTC')::date AS day,
        sum(messages) AS messages, sum(octets) AS octets, sum(mailboxes) AS mailboxes
    FROM going GROUP BY 1, 2
), held AS MATERIALIZED (
    SELECT id, tenant_id FROM accounts_domain WHERE id IN (SELECT domain_id FROM found) ORDER BY id FOR KEY SHARE
)
INSERT INTO mailstore_purgeforecast (tenant_id, domain_id, day, messages, octets, mailboxes)
SELECT tenant_id, domain_id, day, sum(messages), sum(octets), sum(mailboxes)
FROM held JOIN found ON domain_id = id GROUP BY GROUPING SETS ((tenant_id, domain_id, day), (day))
"""


def _look() -> _Look:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO mailstore_rollup (id) VALUES (1) ON CONFLICT DO NOTHING")
        cursor.execute(_LOOK)
        return _Look(*cursor.fetchone())


def _count_some(look: _Look, batch: int) -> Literal["nothing", "more", "done"]:
    """Count a batch: whether there is more, all is done, or somebody else counts or has not ended."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        mark = _held()
        if mark is None:
            return "nothing"
        if mark.sampled_xid is not None and look.at <= mark.sampled_at:
            return "nothing"  # somebody who looked later was here before
        # Where transactions have smaller numbers later, it is another cluster: a dump was restored there.
        if mark.sampled_xid is None or look.next < mark.sampled_xid:
            _sample(mark, look)
            mark.save()
            return "nothing"
        if look.oldest < mark.sampled_xid:
            return "nothing"
        parameters: dict[str, Any] = {"hours_kept": HOURS_KEPT, "batch": batch - 1}

        through = parameters | {"after": mark.message_id, "until": mark.sampled_message_id}
        mark.message_id = _one(cursor, _THROUGH_MESSAGE, through)
        cursor.execute(_MESSAGES, through | {"through": mark.message_id})

        until = mark.sampled_at - _MARGIN
        through = parameters | {"after": mark.session_ended_at or "-infinity", "until": until}
        mark.session_ended_at = _one(cursor, _THROUGH_SESSION, through)
        cursor.execute(_SESSIONS, through | {"through": mark.session_ended_at})

        through = parameters | {"after": mark.audit_id, "until": mark.sampled_audit_id}
        mark.audit_id = _one(cursor, _THROUGH_AUDIT, through)
        cursor.execute(_REMOVALS, through | {"through": mark.audit_id})

        more = (
            mark.message_id < mark.sampled_message_id
            or mark.audit_id < mark.sampled_audit_id
            or mark.session_ended_at < until
        )
        if not more:
            after = _hour(mark.refused_at - _LATE) if mark.refused_at else "-infinity"
            cursor.execute(_REFUSALS, parameters | {"after": after})
            mark.refused_at = mark.counted_at = mark.sampled_at
            _sample(mark, look)
        mark.save()
        return "more" if more else "done"


def _look_around(look: _Look, retention: timedelta) -> None:
    """Once in an hour: what lies there, and what will go."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        mark = _held()
        if mark is None or (mark.stored_at and _hour(mark.stored_at) >= _hour(look.at)):
            return
        parameters: dict[str, Any] = {"at": look.at, "retention": retention, "ahead": timedelta(days=DAYS_AHEAD)}
        cursor.execute(_STORED, parameters)
        PurgeForecast.objects.all().delete()
        cursor.execute(_FORECAST, parameters)
        mark.stored_at = look.at
        mark.save()


def _held() -> Any:
    """The row that says how far we are, held; None if somebody else holds it."""
    return Rollup.objects.select_for_update(skip_locked=True, no_key=True).first()


def _sample(mark: Any, look: _Look) -> None:
    mark.sampled_at, mark.sampled_xid = look.at, look.next
    mark.sampled_message_id, mark.sampled_audit_id = look.message_id, look.audit_id


def _one(cursor: CursorWrapper, statement: str, parameters: dict[str, Any]) -> Any:
    cursor.execute(statement, parameters)
    return cursor.fetchone()[0]


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
