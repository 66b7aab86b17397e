"""A purge removes for good what is past its time, never anything else, and can be killed and run beside itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path
from threading import Event
from typing import TypeVar
from urllib.parse import quote, urlencode

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from accounts import app_passwords, limits, provisioning
from accounts.database_roles import WORKER
from accounts.models import AliasTarget, AppPassword, Domain, FailedLogin, KnownNetwork, Mailbox, Tenant, User
from mailstore import database, drift, presence, purging, retention
from mailstore.delivery import CHUNK_OCTETS, Outcome
from mailstore.models import (
    Content,
    ContentChunk,
    DeliveryLedger,
    Forward,
    ForwardLedger,
    Listener,
    MaildropSession,
    Message,
    OwnCopy,
    Refusal,
)
from mailstore.purging import Purged, Share, purge
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.retain import DAY, KEEP, at_once, expunge, fill
from tests.mailstore.rows import add_failed_login

pytestmark = pytest.mark.django_db(transaction=True)

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_drift(transactional_db: None) -> Iterator[None]:
    """Whatever a test does here, every counter is right after it, and no content is left behind."""
    yield
    assert list(drift.find()) == []


@contextmanager
def elsewhere() -> Iterator[psycopg.Connection]:
    """A connection of somebody else, in a transaction."""
    with psycopg.connect(database.conninfo()) as other:
        yield other
        other.rollback()


def until_it_waits(purging_: "Future[list[T]]") -> None:
    """Return when a purge in a thread waits for a lock."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(database.conninfo(), autocommit=True) as watching:
        while not watching.execute(waiting).fetchone():
            assert not purging_.done()


def age(model: type[object], column: str, by: timedelta) -> None:
    model.objects.update(**{column: F(column) - by})  # type: ignore[attr-defined]


def session(mailbox: Mailbox, listener: Listener, *, ended: bool = True) -> MaildropSession:
    return MaildropSession.objects.create(
        tenant_id=mailbox.tenant_id,
        mailbox=mailbox,
        listener=listener,
        secure=True,
        ended_at=timezone.now() if ended else None,
        end="quit" if ended else "",
    )


def listener() -> Listener:
    return Listener.objects.create(kind="pop3", host="here", pid=1)


# --- Expunged messages ---------------------------------------------------------------------------------------------


def test_what_is_expunged_goes_after_its_retention_and_not_before(acme: Customer) -> None:
    early, late, present = fill(acme.mailbox, "early", "late", "present")
    expunge(early, ago=14 * DAY + timedelta(minutes=1))
    expunge(late, ago=14 * DAY - timedelta(minutes=1))
    purged = purge(KEEP)
    assert purged.tenants == {"acme": Share(messages=1, octets=early.octets)}
    assert (purged.contents, purged.finished) == (1, True)
    assert set(Message.objects.all()) == {late, present}
    assert set(Content.objects.all()) == {late.content, present.content}


@pytest.mark.parametrize(
    ("of_mailbox", "of_tenant", "days", "gone"),
    [
        (None, None, 15, True),
        (None, None, 13, False),
        (None, 30 * DAY, 29, False),
        (None, 30 * DAY, 31, True),
        (None, 2 * DAY, 3, True),
        (5 * DAY, 30 * DAY, 6, True),
        (40 * DAY, 30 * DAY, 39, False),
        (0 * DAY, 30 * DAY, 0, True),
        (10 * DAY, None, 9, False),
    ],
)
def test_the_mailboxs_retention_stands_before_the_tenants_before_the_hosts(
    acme: Customer, globex: Customer, of_mailbox: timedelta | None, of_tenant: timedelta | None, days: int, gone: bool
) -> None:
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(retention=of_mailbox)
    Tenant.objects.filter(pk=acme.tenant.pk).update(retention=of_tenant)
    [ours], [theirs] = fill(acme.mailbox, "ours"), fill(globex.mailbox, "theirs")
    expunge(ours, theirs, ago=days * DAY)
    assert purging.forecast(KEEP).get("acme", Share()).messages == gone
    purge(KEEP)
    assert Message.objects.filter(pk=ours.pk).exists() is not gone
    assert Message.objects.filter(pk=theirs.pk).exists() is (days < 14)


def test_what_is_kept_longer_does_not_hold_up_the_rest(acme: Customer, globex: Customer) -> None:
    Tenant.objects.filter(pk=acme.tenant.pk).update(retention=365 * DAY)
    kept = fill(acme.mailbox, *"abcdefghijklmnopqrstuvwxyz")
    due = fill(globex.mailbox, "one", "two", "three")
    expunge(*kept, ago=100 * DAY)
    expunge(*due, ago=15 * DAY)
    assert purge(KEEP, batch=1).messages == 3
    assert Message.objects.count() == len(kept)


def test_a_content_goes_with_the_last_of_its_messages(acme: Customer, globex: Customer) -> None:
    large = post.text(body="line\r\n" * (CHUNK_OCTETS // 3))
    other = acme.add("other")
    assert post.deliver(large, acme.mailbox, other, globex.mailbox) == [Outcome.STORED] * 3
    one, two, theirs = Message.objects.order_by("tenant_id", "mailbox_id")
    assert one.content == two.content != theirs.content
    expunge(one, ago=15 * DAY)
    assert purge(KEEP).contents == 0
    assert ContentChunk.objects.filter(content=two.content).count() == 3
    expunge(two, ago=15 * DAY)
    assert purge(KEEP).contents == 1
    assert set(ContentChunk.objects.values_list("content", flat=True)) == {theirs.content_id}


def test_a_restored_copy_keeps_the_content(acme: Customer) -> None:
    other = acme.add("other")
    post.deliver(post.text(), acme.mailbox, other)
    one, two = Message.objects.order_by("mailbox_id")
    expunge(one, two, ago=15 * DAY)
    assert retention.restore(Message.objects.filter(pk=two.pk), by=None).messages == 1
    assert purge(KEEP).tenants == {"acme": Share(messages=1, octets=one.octets)}
    assert Message.objects.get().content.body


def test_batches_are_no_larger_than_asked_for(acme: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = fill(acme.mailbox, *"abcdefghij")
    expunge(*messages, ago=15 * DAY)
    steps: list[int] = []
    purge(KEEP, batch=4, watch=lambda purged: steps.append(purged.messages))
    assert [step for step in steps if step] == [4, 8, 10]
    messages = fill(acme.mailbox, *"abcd")
    expunge(*messages, ago=15 * DAY)
    monkeypatch.setattr(purging, "BATCH_OCTETS", 2 * messages[0].octets)
    steps.clear()
    purge(KEEP, batch=4, watch=lambda purged: steps.append(purged.messages))
    assert [step for step in steps if step] == [2, 4]


def test_what_is_restored_while_a_purge_runs_is_not_purged(acme: Customer) -> None:
    messages = fill(acme.mailbox, *"abcdef")
    expunge(*messages, ago=15 * DAY)

    def restore_the_rest(purged: Purged) -> None:
        if purged.messages == 2:
            retention.restore(Message.objects.all(), by=None)

    assert purge(KEEP, batch=2, watch=restore_the_rest).messages == 2
    assert Message.objects.in_maildrop(acme.mailbox).count() == 4


def test_what_is_expunged_anew_while_a_purge_runs_is_not_purged(acme: Customer) -> None:
    messages = fill(acme.mailbox, *"abcdef")
    expunge(*messages, ago=15 * DAY)

    def to_and_fro(purged: Purged) -> None:
        if purged.messages == 2:
            retention.restore(Message.objects.all(), by=None)
            retention.expunge(Message.objects.all(), by=None)

    assert purge(KEEP, batch=2, watch=to_and_fro).messages == 2
    assert Message.objects.expunged().count() == 4


def test_locked_messages_are_left_and_hold_up_nothing(acme: Customer) -> None:
    """Also when there are more of them than a purge looks up at once."""
    locked = fill(acme.mailbox, *(f"{number}" for number in range(45)))
    free = fill(acme.add("other"), "one", "two")
    expunge(*locked, *free, ago=15 * DAY)
    with elsewhere() as other:
        other.execute("SELECT FROM mailstore_message WHERE mailbox_id = %s FOR UPDATE", [acme.mailbox.pk])
        assert purge(KEEP, batch=1).messages == 2
        assert Message.objects.count() == 45
    assert purge(KEEP, batch=1).messages == 45


def test_a_purge_is_not_in_the_way_of_deliveries_and_sessions(acme: Customer) -> None:
    """In the middle of a batch, its mailboxes can be delivered to and expunged from."""
    [due] = fill(acme.mailbox, "due")
    expunge(due, ago=15 * DAY)
    fill(acme.mailbox, "present")
    with ThreadPoolExecutor(1) as thread, elsewhere() as other:
        # The purge waits for the content, its message already locked and deleted.
        other.execute("SELECT FROM mailstore_content WHERE id = %s FOR UPDATE", [due.content_id])
        purging_ = thread.submit(at_once, [lambda: purge(KEEP).messages])
        until_it_waits(purging_)
        assert post.deliver(post.text("new"), acme.mailbox) == [Outcome.STORED]
        assert retention.expunge(Message.objects.filter(subject="present"), by=None).messages == 1
        other.rollback()
        assert purging_.result() == [1]


# --- At the same time, and interrupted -----------------------------------------------------------------------------


def test_many_purges_at_once_purge_each_message_once(acme: Customer, globex: Customer) -> None:
    other = acme.add("other")
    for number in range(40):
        post.deliver(post.text(f"{number}"), acme.mailbox, other, globex.mailbox)
    everything = list(Message.objects.all())
    expunge(*everything, ago=15 * DAY)
    results = at_once([lambda: purge(KEEP, batch=3) for _ in range(4)])
    # Who comes second to a mailbox leaves it to the first, who may be finished with it already.
    results.append(purge(KEEP))
    assert sum(result.messages for result in results) == len(everything)
    assert sum(result.contents for result in results) == 80
    assert not Content.objects.exists()


def test_of_two_purges_that_have_the_last_two_copies_the_second_takes_the_content(acme: Customer) -> None:
    post.deliver(post.text(), acme.mailbox, acme.add("other"))
    one, two = Message.objects.order_by("mailbox_id")
    expunge(one, two, ago=15 * DAY)
    parameters = {"messages": [one.pk], "contents": [one.content_id], "retention": KEEP.retention, "closed": None}
    with ThreadPoolExecutor(1) as thread, elsewhere() as first:
        for statement in (purging._PURGE, purging._LOCK_CONTENTS, purging._PURGE_CONTENTS):
            first.execute(statement, parameters)
        second = thread.submit(at_once, [lambda: purge(KEEP)])
        until_it_waits(second)
        first.commit()
        [purged] = second.result()
    assert (purged.messages, purged.contents) == (1, 1)


def test_who_gives_way_leaves_the_work_to_the_purge_that_is_at_it(acme: Customer) -> None:
    expunge(*fill(acme.mailbox, "one"), ago=15 * DAY)
    inside, go_on = Event(), Event()

    def held() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [purging._PURGING])
            inside.set()
            assert go_on.wait(60)

    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(at_once, [held])
        assert inside.wait(60)
        purged = purge(KEEP, give_way=True)
        assert (purged.messages, purged.finished) == (0, False)
        go_on.set()
        first.result()
    assert purge(KEEP, give_way=True).messages == 1


def test_it_ends_when_its_time_is_up_and_goes_on_the_next_time(acme: Customer) -> None:
    expunge(*fill(acme.mailbox, *"abcde"), ago=15 * DAY)
    for left in (3, 1, 0):
        purged = purge(KEEP, batch=2, budget=timedelta(0))
        assert not purged.finished
        assert Message.objects.count() == left
    assert purge(KEEP, budget=timedelta(0)).finished


def database_url() -> str:
    """The tests' own database, for a process of its own."""
    settings = connection.settings_dict
    user = f"{quote(settings['USER'])}:{quote(settings['PASSWORD'])}@" if settings["USER"] else ""
    query = {key: settings[key.upper()] for key in ("host", "port") if settings[key.upper()]}
    return f"postgresql://{user}/{quote(settings['NAME'])}?{urlencode(query)}"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_it_can_be_ended_anywhere_and_goes_on_the_next_time(
    acme: Customer, globex: Customer, how: signal.Signals
) -> None:
    """Each content is an expunged message's and a closed mailbox's."""
    with connection.cursor() as cursor:
        number = 3000
        contents = Content.objects.bulk_create(
            Content(tenant=acme.tenant, octets=5, header_octets=2, has_dot_lines=False, body=b"\r\nabc")
            for _ in range(number)
        )
        closed = acme.add("closed")
        Message.objects.bulk_create(
            Message(
                tenant=acme.tenant,
                mailbox=mailbox,
                content=content,
                uid=uid,
                epoch=1,
                trace=b"",
                octets=5,
                expunged_at=timezone.now() - 15 * DAY if mailbox == acme.mailbox else None,
            )
            for uid, content in enumerate(contents, 1)
            for mailbox in (acme.mailbox, closed)
        )
        cursor.execute(
            "UPDATE accounts_mailbox SET next_uid = %s WHERE id IN (%s, %s)", [number + 1, acme.mailbox.pk, closed.pk]
        )
    Mailbox.objects.filter(pk=closed.pk).update(
        closed_at=timezone.now() - 15 * DAY, used_octets=5 * number, message_count=number
    )
    limits.charge(tenant_id=acme.tenant.pk, domain_id=acme.domain.pk, mailboxes=-1)
    command = subprocess.Popen(
        [sys.executable, ROOT / "manage.py", "purge", "--batch", "7"],
        env=os.environ | {"DATABASE_URL": database_url()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    half = 2 * number - (number // 2 if how is signal.SIGKILL else number + number // 2)
    while Message.objects.count() > half:
        assert command.poll() is None
        time.sleep(0.01)
    command.send_signal(how)
    output, _ = command.communicate(timeout=30)
    left = Message.objects.count()
    assert 0 < left <= half
    assert list(drift.find()) == []
    if how is signal.SIGINT:
        assert command.returncode == 130
        assert f"{2 * number - left:,} messages of {5 * (2 * number - left):,} octets, 0 mailboxes are gone" in output
    else:
        assert command.returncode == -signal.SIGKILL
    assert purge(KEEP).messages == left
    assert not Content.objects.exists()


# --- Closed mailboxes ----------------------------------------------------------------------------------------------


def closed(customer: Customer, ago: timedelta) -> Mailbox:
    """A mailbox with all that a mailbox can have, closed some time ago."""
    mailbox = customer.add("leaver")
    provisioning.add_alias(f"alias@{customer.domain}", mailbox=mailbox)
    present, expunged = fill(mailbox, "present", "expunged")
    device, _ = app_passwords.create(mailbox, name="Outlook", own_copy=True)
    for message in (present, expunged):
        OwnCopy.objects.create(
            tenant=customer.tenant, mailbox=mailbox, app_password=device, message=message, fetched_at=timezone.now()
        )
    retention.expunge(Message.objects.filter(pk=expunged.pk), by=mailbox.user)
    session(mailbox, listener())
    session(mailbox, listener(), ended=False)
    KnownNetwork.objects.create(
        tenant=customer.tenant, mailbox=mailbox, network="192.0.2.0/24", last_login_at=timezone.now()
    )
    provisioning.close_mailbox(mailbox)
    Mailbox.objects.filter(pk=mailbox.pk).update(closed_at=timezone.now() - ago)
    mailbox.refresh_from_db()
    return mailbox


def everything_of(mailbox: Mailbox) -> list[int]:
    return [
        model.objects.filter(mailbox=mailbox.pk).count()
        for model in (Message, MaildropSession, DeliveryLedger, KnownNetwork, OwnCopy, AppPassword, AliasTarget)
    ] + [Mailbox.objects.filter(pk=mailbox.pk).count(), User.objects.filter(pk=mailbox.user_id).count()]


def test_a_closed_mailbox_goes_with_all_that_is_its_own(acme: Customer, globex: Customer) -> None:
    mailbox = closed(acme, 15 * DAY)
    other, [theirs] = closed(globex, 13 * DAY), fill(acme.mailbox, "theirs")
    Tenant.objects.filter(pk=acme.tenant.pk).update(admin_mailbox=mailbox)
    octets = sum(Message.objects.filter(mailbox=mailbox).values_list("octets", flat=True))
    expected = {"acme": Share(messages=2, octets=octets, mailboxes=1)}
    assert purging.forecast(KEEP) == expected
    purged = purge(KEEP)
    assert (purged.tenants, purged.contents) == (expected, 2)
    assert everything_of(mailbox) == [0] * 9
    assert Tenant.objects.get(pk=acme.tenant.pk).admin_mailbox is None
    assert everything_of(other) == [2, 2, 2, 1, 2, 1, 1, 1, 1]
    assert Message.objects.get(mailbox=acme.mailbox) == theirs


def close_tenant(customer: Customer, *, ago: timedelta) -> None:
    provisioning.close_tenant(customer.tenant)
    for model in (Mailbox, Domain, Tenant):
        model.objects.filter(closed_at__gt=timezone.now() - DAY).update(closed_at=timezone.now() - ago)


def test_the_workers_role_may_do_all_that_a_purge_does(acme: Customer, globex: Customer) -> None:
    fill(acme.mailbox, "one", "two")
    app_passwords.create(acme.mailbox, name="Phone", scopes=["pop3"])
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant)
    close_tenant(acme, ago=15 * DAY)
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {WORKER}")
        try:
            purged = purge(KEEP)
        finally:
            cursor.execute("RESET ROLE")
    assert (purged.messages, purged.tenants["acme"].mailboxes) == (2, 1)
    assert (purged.domains, purged.closed_tenants) == (1, 1)
    assert list(Tenant.objects.all()) == [globex.tenant]


def test_a_closed_tenant_goes_with_its_records_once_nothing_of_it_is_on_its_way(
    acme: Customer, globex: Customer
) -> None:
    now = timezone.now()
    Refusal.objects.create(
        tenant=acme.tenant, domain=acme.domain, reason="over quota", hour=now, count=1, first_at=now, last_at=now
    )
    ForwardLedger.objects.create(tenant=acme.tenant, digest=b"x" * 32)
    content = Content.objects.create(tenant=acme.tenant, octets=2, header_octets=2, has_dot_lines=False, body=b"\r\n")
    forward = Forward.objects.create(tenant=acme.tenant, content=content, trace=b"", recipient="binh@elsewhere.test")
    close_tenant(acme, ago=15 * DAY)
    assert (purge(KEEP).closed_tenants, Tenant.objects.count()) == (0, 2)
    forward.delete()
    content.delete()
    assert (purge(KEEP).closed_tenants, list(Tenant.objects.all())) == (1, [globex.tenant])


def test_failed_logins_go_when_they_are_old_and_with_their_mailbox(acme: Customer, globex: Customer) -> None:
    add_failed_login(acme.mailbox, hour=timezone.now() - 31 * DAY)
    kept = add_failed_login(acme.mailbox, hour=timezone.now() - 29 * DAY)
    assert purge(KEEP).failed_logins == 1
    assert list(FailedLogin.objects.all()) == [kept]
    gone = closed(globex, 15 * DAY)
    add_failed_login(gone)
    purge(KEEP)
    assert list(FailedLogin.objects.all()) == [kept]


def test_nothing_of_a_closed_mailbox_goes_before_its_retention(acme: Customer) -> None:
    Mailbox.objects.update(retention=20 * DAY)
    mailbox = closed(acme, 15 * DAY)
    Mailbox.objects.filter(pk=mailbox.pk).update(retention=20 * DAY)
    assert purge(KEEP).tenants == {}
    assert everything_of(mailbox) == [2, 2, 2, 1, 2, 1, 1, 1, 1]
    Mailbox.objects.filter(pk=mailbox.pk).update(retention=14 * DAY)
    assert purge(KEEP).tenants["acme"].mailboxes == 1


def test_an_address_made_again_starts_empty_and_with_new_unique_ids(acme: Customer) -> None:
    mailbox = closed(acme, 15 * DAY)
    seen = {message.unique_id for message in Message.objects.filter(mailbox=mailbox)}
    with pytest.raises(provisioning.InQuarantine):
        acme.add("leaver")
    purge(KEEP)
    again = acme.add("leaver")
    assert not Message.objects.filter(mailbox=again).exists()
    post.deliver(post.text(), "alias@acme.test")  # the alias went too
    new = fill(again, "present", "expunged", "more")
    assert not seen & {message.unique_id for message in new}


def test_the_content_of_a_closed_mailbox_stays_for_who_else_has_it(acme: Customer) -> None:
    leaver = acme.add("leaver")
    post.deliver(post.text(), acme.mailbox, leaver)
    provisioning.close_mailbox(leaver)
    age(Mailbox, "closed_at", 15 * DAY)
    assert purge(KEEP).contents == 0
    assert Message.objects.get().content.body


def test_what_an_owner_expunged_elsewhere_stays_when_the_owner_goes(acme: Customer) -> None:
    leaver = acme.add("leaver")
    [message] = fill(acme.mailbox, "one")
    retention.expunge(Message.objects.filter(pk=message.pk), by=leaver.user)
    provisioning.close_mailbox(leaver)
    age(Mailbox, "closed_at", 15 * DAY)
    assert purge(KEEP).tenants["acme"] == Share(mailboxes=1)
    message.refresh_from_db()
    assert message.expunged_by is None


@pytest.mark.parametrize("table", ["accounts_mailbox", "mailstore_message", "mailstore_maildropsession"])
def test_a_closed_mailbox_that_somebody_holds_is_left_for_the_next_time(acme: Customer, table: str) -> None:
    mailbox = closed(acme, 15 * DAY)
    with elsewhere() as other:
        column = "id" if table == "accounts_mailbox" else "mailbox_id"
        other.execute(f"SELECT FROM {table} WHERE {column} = %s FOR NO KEY UPDATE", [mailbox.pk])
        purged = purge(KEEP)
        assert purged.finished
        assert Mailbox.objects.filter(pk=mailbox.pk).exists()
        assert list(drift.find()) == []
    purge(KEEP)
    assert everything_of(mailbox) == [0] * 9


def test_a_mailbox_that_is_reopened_while_its_mail_goes_keeps_the_rest(acme: Customer) -> None:
    leaver = acme.add("leaver")
    fill(leaver, *"abcdef")
    provisioning.close_mailbox(leaver)
    age(Mailbox, "closed_at", 15 * DAY)

    def reopen(purged: Purged) -> None:
        if purged.messages == 2:
            provisioning.reopen_mailbox(leaver)

    assert purge(KEEP, batch=2, watch=reopen).messages == 2
    assert Message.objects.in_maildrop(leaver).count() == 4


# --- Sessions, listeners and other records -------------------------------------------------------------------------


def test_records_go_when_they_are_old_enough(acme: Customer, globex: Customer) -> None:
    for customer in (acme, globex):
        fill(customer.mailbox, "one", "two")
        for number in range(3):
            session(customer.mailbox, listener())
            KnownNetwork.objects.create(
                tenant=customer.tenant,
                mailbox=customer.mailbox,
                network=f"192.0.{number}.0/24",
                last_login_at=timezone.now(),
            )
    for model, column, kept in (
        (MaildropSession, "ended_at", 400 * DAY),
        (DeliveryLedger, "delivered_at", 8 * DAY),
        (KnownNetwork, "last_login_at", 30 * DAY),
    ):
        age(model, column, kept - timedelta(minutes=1))
        model.objects.filter(mailbox=acme.mailbox).update(**{column: F(column) - timedelta(minutes=2)})
    purged = purge(KEEP, batch=2)
    assert (purged.sessions, purged.ledger, purged.networks) == (3, 2, 3)
    for model in (MaildropSession, DeliveryLedger, KnownNetwork):
        assert set(model.objects.values_list("mailbox", flat=True)) == {globex.mailbox.pk}
    assert Message.objects.count() == 4


def test_an_open_session_is_never_old(acme: Customer) -> None:
    alive = listener()
    open_ = session(acme.mailbox, alive, ended=False)
    MaildropSession.objects.update(started_at=timezone.now() - 500 * DAY)
    with elsewhere() as other:
        other.execute("SELECT pg_advisory_lock(%s, %s)", [presence.LOCK_SPACE, alive.pk])
        purge(KEEP)
    open_.refresh_from_db()
    assert open_.ended_at is None


def test_sessions_of_a_listener_that_is_gone_are_ended(acme: Customer, globex: Customer) -> None:
    frozen, alive = listener(), listener()
    theirs, ours = session(acme.mailbox, frozen, ended=False), session(globex.mailbox, alive, ended=False)
    nobodys = session(acme.add("other"), alive, ended=False)
    MaildropSession.objects.filter(pk=nobodys.pk).update(listener_id=2**31 - 1)
    Listener.objects.filter(pk=frozen.pk).update(heartbeat_at=timezone.now() - timedelta(seconds=91))
    with elsewhere() as other:
        for one in (frozen, alive):
            other.execute("SELECT pg_advisory_lock(%s, %s)", [presence.LOCK_SPACE, one.pk])
        assert purge(KEEP).ended == 2
    for open_, end in ((theirs, "lost"), (nobodys, "lost"), (ours, "")):
        open_.refresh_from_db()
        assert (open_.end, open_.ended_at is None) == (end, end == "")


def test_a_dead_listener_goes_with_the_last_session_that_names_it(acme: Customer) -> None:
    dead, remembered, fresh, frozen = listener(), listener(), listener(), listener()
    session(acme.mailbox, remembered)
    Listener.objects.exclude(pk=fresh.pk).update(heartbeat_at=timezone.now() - 2 * DAY)
    with elsewhere() as other:
        other.execute("SELECT pg_advisory_lock(%s, %s)", [presence.LOCK_SPACE, frozen.pk])
        assert purge(KEEP).listeners == 1
    assert set(Listener.objects.all()) == {remembered, fresh, frozen}
    assert not Listener.objects.filter(pk=dead.pk).exists()
    age(MaildropSession, "ended_at", 401 * DAY)
    purge(KEEP)
    assert set(Listener.objects.all()) == {fresh}


# --- Contents without a message ------------------------------------------------------------------------------------


def test_contents_that_nothing_has_are_collected_when_asked_for(acme: Customer) -> None:
    fill(acme.mailbox, "one")
    old, new = (
        Content.objects.create(tenant=acme.tenant, octets=3, header_octets=0, has_dot_lines=False) for _ in range(2)
    )
    for content in (old, new):
        ContentChunk.objects.create(tenant=acme.tenant, content=content, number=0, octets=b"abc")
    Content.objects.exclude(pk=new.pk).update(created_at=timezone.now() - timedelta(hours=25))
    assert purge(KEEP).contents == 0
    assert purge(KEEP, thorough=True).contents == 1
    assert not Content.objects.filter(pk=old.pk).exists()
    assert Content.objects.filter(pk=new.pk).exists()
    age(Content, "created_at", 1 * DAY)
    assert purge(KEEP, thorough=True).contents == 1


# --- By hand -------------------------------------------------------------------------------------------------------


def by_hand(*arguments: str) -> str:
    output = StringIO()
    call_command("purge", *arguments, stdout=output)
    return output.getvalue()


def test_a_dry_run_tells_what_would_go_and_removes_nothing(acme: Customer, globex: Customer) -> None:
    expunge(*fill(acme.mailbox, "one", "two"), ago=15 * DAY)
    expunge(*fill(globex.mailbox, "one"), ago=13 * DAY)
    octets = sum(Message.objects.filter(tenant=acme.tenant).values_list("octets", flat=True))
    assert by_hand("--dry-run") == (
        f"acme: 2 messages of {octets} octets, 0 mailboxes\n2 messages of {octets} octets, 0 mailboxes would go\n"
    )
    assert Message.objects.count() == 3


def test_by_hand_it_tells_what_went_by_tenant(acme: Customer, globex: Customer) -> None:
    expunge(*fill(acme.mailbox, "one", "two"), *fill(globex.mailbox, "one"), ago=15 * DAY)
    ours, theirs = (
        sum(Message.objects.filter(tenant=customer.tenant).values_list("octets", flat=True))
        for customer in (acme, globex)
    )
    assert by_hand("--batch", "1").splitlines() == [
        f"acme: 2 messages of {ours} octets, 0 mailboxes",
        f"globex: 1 messages of {theirs} octets, 0 mailboxes",
        f"3 messages of {ours + theirs} octets, 0 mailboxes are gone",
        "also 3 contents, 0 sessions, 0 ledger entries, 0 networks, 0 listeners",
    ]
    assert not Message.objects.exists()


@pytest.mark.parametrize("batch", ["0", "-1", "1_0", "x", "100001"])
def test_a_batch_is_a_whole_number(batch: str) -> None:
    with pytest.raises(CommandError, match="from 1 to 100000"):
        by_hand(f"--batch={batch}")
