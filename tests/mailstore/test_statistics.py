"""What happens is counted once each, whoever counts, however late it was committed, and wherever a domain goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction
from django.db.models import Sum
from django.utils import timezone

from accounts import audit, provisioning
from accounts.models import Mailbox, Role, Tenant
from accounts.principals import Principal
from mailstore import database, moving, purging, retention, statistics
from mailstore.models import (
    DailyStatistics,
    HourlyStatistics,
    MaildropSession,
    Message,
    PurgeForecast,
    Refusal,
    Rollup,
)
from tests import servers
from tests.fixtures import Customer
from tests.mailstore import post, retain, rows

pytestmark = pytest.mark.django_db(transaction=True)

KEPT = timedelta(days=14)
LONG_AGO = timedelta(minutes=5)


def look(**options: Any) -> None:
    """A run that looks how far things are. An autovacuum that began before it is let end: it is none of the tests'."""
    statistics.roll_up(retention=KEPT, **options)
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        [looked] = cursor.fetchone()

        def is_alone() -> bool:
            cursor.execute(
                "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
                " AND datname = current_database() AND xact_start < %s)",
                (looked,),
            )
            return bool(cursor.fetchone() == (True,))

        servers.eventually(is_alone, 60)


def count(**options: Any) -> None:
    """Count all that there is: a run that looks, and one that counts up to there."""
    look(**options)
    statistics.roll_up(retention=KEPT, **options)


def totals(model: Any = DailyStatistics, **where: Any) -> tuple[int, ...]:
    names = ("delivered", "delivered_octets", "sessions", "fetched", "removed", "refused")
    found = model.objects.filter(**(where or {"domain": None})).aggregate(**{name: Sum(name) for name in names})
    return tuple(int(found[name] or 0) for name in names)


def deliver(*mailboxes: Mailbox) -> None:
    post.deliver(post.text(), *mailboxes)


def add_session(mailbox: Mailbox, *, ago: timedelta = LONG_AGO, **values: Any) -> MaildropSession:
    return rows.add_session(mailbox, rows.add_listener("pop3"), ended_at=timezone.now() - ago, end="quit", **values)


def refuse(customer: Customer, times: int, *, ago: timedelta = timedelta(0)) -> None:
    at = timezone.now() - ago
    hour = at.replace(minute=0, second=0, microsecond=0)
    values = {"tenant": customer.tenant, "first_at": at, "last_at": at, "count": times}
    row, is_new = Refusal.objects.get_or_create(
        domain=customer.domain, mailbox=None, reason="unknown", hour=hour, defaults=values
    )
    if not is_new:
        Refusal.objects.filter(pk=row.pk).update(count=row.count + times, last_at=at)


@contextmanager
def another() -> Iterator["psycopg.Connection[Any]"]:
    """A further connection to the database, in a transaction."""
    with psycopg.connect(database.conninfo()) as other:
        yield other


def test_nothing_is_counted_twice_and_each_domain_is_its_own(acme: Customer, globex: Customer) -> None:
    deliver(acme.mailbox, globex.mailbox)
    deliver(acme.mailbox)
    add_session(acme.mailbox, fetched=2, expunged=1)
    refuse(globex, 3)
    octets = Message.objects.filter(mailbox=acme.mailbox).aggregate(octets=Sum("octets"))["octets"]
    all_octets = Message.objects.aggregate(octets=Sum("octets"))["octets"]
    for _ in range(3):
        count()
        for model in (HourlyStatistics, DailyStatistics):
            assert totals(model, domain=acme.domain) == (2, octets, 1, 2, 1, 0)
            assert totals(model, domain=globex.domain) == (1, all_octets - octets, 0, 0, 0, 3)
            assert totals(model) == (3, all_octets, 1, 2, 1, 3)


def test_what_comes_later_is_added(acme: Customer) -> None:
    deliver(acme.mailbox)
    refuse(acme, 1)
    count()
    deliver(acme.mailbox)
    refuse(acme, 4)
    count()
    assert totals()[0] == 2
    assert totals()[5] == 5


def test_a_message_that_is_committed_late_is_counted(acme: Customer, globex: Customer) -> None:
    with another() as late:
        late.execute("SELECT FROM accounts_mailbox WHERE id = %s FOR NO KEY UPDATE", (acme.mailbox.pk,))
        late.execute(
            "WITH content AS (INSERT INTO mailstore_content (tenant_id, octets, header_octets, has_dot_lines, body)"
            " VALUES (%(tenant)s, 2, 2, false, '') RETURNING id)"
            "INSERT INTO mailstore_message (tenant_id, mailbox_id, content_id, uid, epoch, trace, octets, reverse_path,"
            " subject, sender, message_id) SELECT %(tenant)s, %(mailbox)s, id, 1, 1, 'Received: x', 13, '', '', '', ''"
            " FROM content",
            {"tenant": acme.tenant.pk, "mailbox": acme.mailbox.pk},
        )
        deliver(globex.mailbox)  # has a higher id, and is there first
        count()
        count()
        assert totals() == (0, 0, 0, 0, 0, 0)
    count()
    assert totals(domain=acme.domain)[:2] == (1, 13)
    assert totals(domain=globex.domain)[0] == 1
    assert totals()[0] == 2


def test_what_is_open_in_another_database_of_the_server_holds_nothing_up(acme: Customer) -> None:
    with psycopg.connect(database.conninfo(), dbname="postgres") as neighbour:
        neighbour.execute("CREATE TEMPORARY TABLE busy (id int)")
        deliver(acme.mailbox)
        count()
        assert totals()[0] == 1


def test_the_worker_sees_what_others_have_open(acme: Customer) -> None:
    """Its role sees little of their sessions, but all locks."""
    deliver(acme.mailbox)
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE mailhost_worker")
        try:
            with another() as late:
                late.execute("SELECT FROM accounts_mailbox WHERE id = %s FOR NO KEY UPDATE", (acme.mailbox.pk,))
                count()
                assert totals()[0] == 0
            count()
            assert totals()[0] == 1
        finally:
            cursor.execute("RESET ROLE")


def test_a_session_whose_end_is_committed_late_is_counted(acme: Customer) -> None:
    add_session(acme.mailbox, fetched=1)
    late_one = rows.add_session(acme.mailbox, rows.add_listener("pop3"))
    with another() as late:
        late.execute(
            "UPDATE mailstore_maildropsession SET ended_at = %s, fetched = 5 WHERE id = %s",
            (timezone.now() - LONG_AGO - timedelta(seconds=1), late_one.pk),
        )
        count()
        assert totals()[2:4] == (0, 0)
    count()
    assert totals()[2:4] == (2, 6)


def test_a_session_that_has_just_ended_is_left_for_later(acme: Customer) -> None:
    session = add_session(acme.mailbox, ago=timedelta(seconds=5), fetched=1)
    count()
    assert totals()[2] == 0
    MaildropSession.objects.filter(pk=session.pk).update(ended_at=timezone.now() - timedelta(seconds=61))
    Rollup.objects.update(session_ended_at=timezone.now() - timedelta(hours=1))
    count()
    assert totals()[2:4] == (1, 1)


def test_in_another_cluster_whose_transactions_are_numbered_anew_it_goes_on(acme: Customer) -> None:
    """After a restore of a dump: what is noted of transactions is of the cluster before."""
    deliver(acme.mailbox)
    count()
    Rollup.objects.update(sampled_xid=2**40)
    deliver(acme.mailbox)
    count()
    assert totals()[0] == 2


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_look_that_came_late_takes_nothing_back(acme: Customer, busy: bool) -> None:
    """Of two that looked, who looked first comes second: what the other noted stays."""
    count()
    late = statistics._look()
    if busy:
        deliver(acme.mailbox)
    statistics.roll_up(retention=KEPT)
    noted = Rollup.objects.values().get()
    assert statistics._count_some(late, statistics.BATCH) == "nothing"
    assert Rollup.objects.values().get() == noted


def test_it_catches_up_in_small_transactions(acme: Customer) -> None:
    for _ in range(7):
        deliver(acme.mailbox)
    for minutes in range(5):
        add_session(acme.mailbox, ago=timedelta(minutes=10 + minutes), fetched=1)
    look()
    assert not statistics.roll_up(retention=KEPT, batch=2, budget=timedelta(0))
    assert totals()[::3] == (2, 2)
    assert statistics.roll_up(retention=KEPT, batch=2)
    assert (totals()[0], totals()[2]) == (7, 5)


def test_two_workers_at_once_count_once(acme: Customer) -> None:
    for _ in range(20):
        deliver(acme.mailbox)
    look()
    retain.at_once([lambda: statistics.roll_up(retention=KEPT, batch=3)] * 4)
    count()
    assert totals()[0] == totals(HourlyStatistics, domain=acme.domain)[0] == 20


def test_killed_it_has_counted_nothing(acme: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(acme.mailbox)
    refuse(acme, 2)
    look()
    connection.cursor().execute("ALTER TABLE mailstore_rollup ADD CONSTRAINT killed CHECK (counted_at IS NULL)")
    try:
        with pytest.raises(Exception, match="killed"):
            statistics.roll_up(retention=KEPT)
        assert totals() == (0, 0, 0, 0, 0, 0)
    finally:
        connection.cursor().execute("ALTER TABLE mailstore_rollup DROP CONSTRAINT killed")
    count()
    assert (totals()[0], totals()[5]) == (1, 2)


def test_what_somebody_removes_is_counted_with_what_sessions_remove(acme: Customer, globex: Customer) -> None:
    deliver(acme.mailbox, acme.mailbox, globex.mailbox)
    post.deliver(post.text(), acme.mailbox)
    add_session(acme.mailbox, expunged=3)
    boss = provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant)
    retention.expunge(Message.objects.filter(mailbox=acme.mailbox), by=boss)
    retention.restore(Message.objects.filter(mailbox=acme.mailbox), by=boss)
    count()
    removed = Message.objects.filter(mailbox=acme.mailbox).count()
    assert totals(domain=acme.domain)[4] == totals()[4] == removed + 3
    assert totals(domain=globex.domain)[4] == 0
    retention.expunge(Message.objects.filter(mailbox=globex.mailbox), by=None)
    count(batch=1)
    count(batch=1)
    assert totals(HourlyStatistics)[4] == removed + 4
    assert totals(domain=globex.domain)[4] == 1


def test_what_nobody_asked_for_is_no_removal(acme: Customer) -> None:
    detail = {"messages": 5, "octets": 100, "because": "keep-time"}
    audit.record("mailbox.messages_expunged", acme.mailbox, detail=detail)
    count()
    assert totals()[4] == 0


def test_what_was_brought_along_was_not_delivered(acme: Customer) -> None:
    deliver(acme.mailbox)
    Message.objects.update(trace=b"")
    count()
    assert totals()[0] == 0


def test_what_is_old_is_counted_by_day_only(acme: Customer) -> None:
    deliver(acme.mailbox)
    Message.objects.update(delivered_at=timezone.now() - timedelta(days=30))
    refuse(acme, 5, ago=timedelta(days=20))
    count()
    count()
    assert totals(HourlyStatistics) == (0, 0, 0, 0, 0, 0)
    assert (totals()[0], totals()[5]) == (1, 5)


def test_what_lies_there_is_looked_at_each_hour(acme: Customer, globex: Customer) -> None:
    deliver(acme.mailbox)
    count()
    acme.mailbox.refresh_from_db()
    for model in (HourlyStatistics, DailyStatistics):
        row = model.objects.get(domain=acme.domain, stored_octets__gt=0)
        assert (row.stored_messages, row.stored_octets) == (1, acme.mailbox.used_octets)
        assert model.objects.get(domain=None, stored_octets__gt=0).stored_octets == acme.mailbox.used_octets
    deliver(acme.mailbox)
    count()
    assert DailyStatistics.objects.get(domain=acme.domain).stored_messages == 1
    Rollup.objects.update(stored_at=timezone.now() - timedelta(hours=1))
    count()
    assert DailyStatistics.objects.get(domain=acme.domain).stored_messages == 2


def test_the_forecast_tells_of_each_day(acme: Customer, globex: Customer) -> None:
    def removed(mailbox: Mailbox, ago: timedelta) -> int:
        return rows.add_message(mailbox, expunged_at=timezone.now() - ago).octets

    today = timezone.now().astimezone(UTC).date()
    octets = removed(acme.mailbox, timedelta(days=20))  # is late
    removed(acme.mailbox, timedelta(days=11))
    removed(acme.mailbox, timedelta(days=1))  # not in these days
    held, short, closed = (acme.add(name) for name in ("held", "short", "closed"))
    Mailbox.objects.filter(pk=held.pk).update(legal_hold=True)
    Mailbox.objects.filter(pk=short.pk).update(retention=timedelta(days=5))
    Tenant.objects.filter(pk=globex.tenant.pk).update(retention=timedelta(days=30))
    removed(held, timedelta(days=20))
    removed(short, timedelta(days=1))
    removed(globex.mailbox, timedelta(days=26))
    rows.add_message(closed)
    removed(closed, timedelta(days=13))
    provisioning.close_mailbox(closed)
    Mailbox.objects.filter(pk=closed.pk).update(closed_at=timezone.now() - timedelta(days=12))

    count()

    def forecast(**where: Any) -> dict[int, tuple[int, int]]:
        found = PurgeForecast.objects.filter(**where)
        return {(row.day - today).days: (row.messages, row.mailboxes) for row in found}

    assert forecast(domain=acme.domain) == {0: (1, 0), 1: (1, 0), 2: (1, 1), 3: (1, 0), 4: (1, 0)}
    assert forecast(domain=globex.domain) == {4: (1, 0)}
    assert forecast(domain=None) == {0: (1, 0), 1: (1, 0), 2: (1, 1), 3: (1, 0), 4: (2, 0)}
    assert PurgeForecast.objects.get(domain=None, day=today).octets == octets


def test_a_domain_takes_its_statistics_along(acme: Customer, globex: Customer) -> None:
    deliver(acme.mailbox)
    rows.add_message(acme.mailbox, expunged_at=timezone.now() - timedelta(days=12))
    count()
    moving.move_domain(acme.domain, to=globex.tenant)
    deliver(acme.mailbox)
    count()
    for model in (HourlyStatistics, DailyStatistics, PurgeForecast):
        assert set(model.objects.filter(domain=acme.domain).values_list("tenant", flat=True)) == {globex.tenant.pk}
    assert totals(domain=acme.domain)[0] == 3


def test_while_a_domain_moves_nothing_is_counted_for_its_old_tenant(acme: Customer, globex: Customer) -> None:
    deliver(acme.mailbox)
    look()

    def work() -> None:
        try:
            statistics.roll_up(retention=KEPT)
        finally:
            connections.close_all()

    worker = Thread(target=work)
    with transaction.atomic():
        moving._Move(acme.domain, globex.tenant).carried_out()
        worker.start()
        worker.join(0.5)
        assert worker.is_alive()
    worker.join()
    assert set(DailyStatistics.objects.values_list("tenant", flat=True)) == {globex.tenant.pk, None}


def test_each_sees_his_own(acme: Customer, globex: Customer) -> None:
    other, _ = provisioning.add_domain("other.test", tenant=acme.tenant)
    mailbox, _ = provisioning.add_mailbox("an@other.test", password=None, quota_octets=None)
    deliver(acme.mailbox, mailbox, globex.mailbox)
    count()

    def seen(principal: Principal) -> int:
        return sum(row.delivered for row in statistics.of(DailyStatistics, principal))

    assert seen(Principal(role=Role.OPERATOR)) == 3
    assert seen(Principal(role=Role.TENANT_ADMIN, tenant_id=acme.tenant.pk)) == 2
    assert seen(Principal(role=Role.DOMAIN_ADMIN, tenant_id=acme.tenant.pk, domain_ids=[other.pk])) == 1
    assert seen(Principal(role=Role.RESELLER, reseller_id=1)) == 0


def test_old_ones_go_and_those_of_a_tenant_that_is_removed(acme: Customer, globex: Customer) -> None:
    keep = purging.Keep(retention=KEPT, sessions=timedelta(days=400), ledger=KEPT, listener_ttl=timedelta(seconds=90))
    deliver(acme.mailbox, globex.mailbox)
    count()
    HourlyStatistics.objects.filter(domain=acme.domain).update(start=datetime(2020, 1, 1, tzinfo=UTC))
    purging.purge(keep)
    assert not HourlyStatistics.objects.filter(domain=acme.domain).exists()
    assert DailyStatistics.objects.filter(domain=acme.domain).exists()
    DailyStatistics.objects.filter(domain=acme.domain).update(start=timezone.now() - timedelta(days=401))
    purging.purge(keep)
    assert not DailyStatistics.objects.filter(domain=acme.domain).exists()

    retention.expunge(Message.objects.filter(mailbox=globex.mailbox), by=None)
    provisioning.close_domain(globex.domain)
    provisioning.close_tenant(globex.tenant)
    for model in (Mailbox, type(globex.domain), Tenant):
        model.objects.exclude(closed_at=None).update(closed_at=timezone.now() - timedelta(days=15))
    purging.purge(keep)
    assert not Tenant.objects.filter(pk=globex.tenant.pk).exists()
    assert not DailyStatistics.objects.exclude(tenant=None).exists()
    assert totals()[0] == 2
