"""Mail leaves the maildrop when its keep-time ends, and can be restored as any other."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from accounts import app_passwords, provisioning
from accounts.models import AuditEvent, Mailbox
from accounts.provisioning import BadValue
from mailstore import drift, life, purging, retention
from mailstore.life import Kind
from mailstore.models import Message
from mailstore.purging import Purged
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.retain import KEEP, fill

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def nothing_drifts(transactional_db: None) -> Iterator[None]:
    yield
    assert list(drift.find()) == []


def age(*messages: Message, days: int, **values: Any) -> None:
    """Have them been delivered that many days ago."""
    moment = timezone.now() - days * DAY
    Message.objects.filter(pk__in=[message.pk for message in messages]).update(delivered_at=moment, **values)


def present(mailbox: Mailbox) -> list[str]:
    return list(Message.objects.in_maildrop(mailbox).order_by("uid").values_list("subject", flat=True))


def purge(**options: Any) -> Purged:
    return purging.purge(KEEP, **options)


def test_what_is_there_for_too_long_is_expunged_and_can_be_restored(acme: Customer, globex: Customer) -> None:
    old, young = fill(acme.mailbox, "old", "young")
    [theirs] = fill(globex.mailbox, "theirs")
    age(old, theirs, days=32)
    age(young, days=29)
    provisioning.change_mailbox(acme.mailbox, keep_time=30 * DAY)
    assert purge().expired == 1
    assert (present(acme.mailbox), present(globex.mailbox)) == (["young"], ["theirs"])
    acme.mailbox.refresh_from_db()
    assert (acme.mailbox.message_count, acme.mailbox.used_octets) == (1, young.octets)

    gone = Message.objects.select_related("mailbox", "tenant").get(pk=old.pk)
    assert (gone.expired, gone.expunged_in_id, gone.expunged_by_id) == (True, None, None)
    assert [event.kind for event in life.of([gone], kept=14 * DAY)[gone.pk]] == [
        Kind.DELIVERED,
        Kind.EXPIRED,
        Kind.DUE,
    ]
    told = AuditEvent.objects.get(action="mailbox.messages_expunged")
    assert told.changes == {"messages": 1, "octets": old.octets, "because": "keep-time"}
    assert (told.user_id, told.tenant_id, told.mailbox_id) == (None, acme.tenant.pk, acme.mailbox.pk)

    # It does not vanish at once: its time begins anew.
    retention.restore(Message.objects.filter(pk=old.pk), by=None)
    assert purge().expired == 0
    assert present(acme.mailbox) == ["young", "old"]
    back = Message.objects.select_related("mailbox", "tenant").get(pk=old.pk)
    assert not back.expired
    kinds = [event.kind for event in life.of([back], kept=14 * DAY)[back.pk]]
    assert kinds == [Kind.DELIVERED, Kind.EXPIRED, Kind.RESTORED]
    Message.objects.filter(pk=young.pk).update(expunged_at=timezone.now())
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(used_octets=old.octets, message_count=1)
    Message.objects.filter(pk=old.pk).update(kept_since=timezone.now() - 32 * DAY)
    assert purge().expired == 1


@pytest.mark.parametrize(
    ("mailbox", "tenant", "expired"),
    [
        (None, None, 0),
        (None, 30 * DAY, 1),
        (40 * DAY, 30 * DAY, 0),
        (30 * DAY, None, 1),
        (20 * DAY, 60 * DAY, 1),
    ],
)
def test_the_mailboxs_keep_time_stands_before_the_tenants(
    acme: Customer, mailbox: timedelta | None, tenant: timedelta | None, expired: int
) -> None:
    [message] = fill(acme.mailbox, "one")
    age(message, days=35)
    provisioning.change_mailbox(acme.mailbox, keep_time=mailbox)
    provisioning.change_tenant(acme.tenant, keep_time=tenant)
    assert purge().expired == expired


def test_it_ends_at_midnight_so_that_mail_of_a_mailbox_goes_once_a_day(acme: Customer) -> None:
    early, late = fill(acme.mailbox, "early", "late")
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    Message.objects.filter(pk=early.pk).update(delivered_at=midnight - 30 * DAY - timedelta(seconds=1))
    Message.objects.filter(pk=late.pk).update(delivered_at=midnight - 30 * DAY)
    provisioning.change_mailbox(acme.mailbox, keep_time=30 * DAY)
    assert purge().expired == 1
    assert present(acme.mailbox) == ["late"]


def test_a_legal_hold_and_a_closed_mailbox_keep_all(acme: Customer) -> None:
    age(*fill(acme.mailbox, "one"), days=99)
    leaver = acme.add("leaver")
    age(*fill(leaver, "two"), days=99)
    provisioning.change_tenant(acme.tenant, keep_time=DAY)
    provisioning.set_legal_hold(acme.mailbox, True)
    provisioning.close_mailbox(leaver)
    assert purge().expired == 0
    provisioning.set_legal_hold(acme.mailbox, False)
    assert purge().expired == 1


def test_it_goes_in_batches_past_who_holds_a_mailbox(acme: Customer, globex: Customer) -> None:
    for customer in (acme, globex):
        age(*fill(customer.mailbox, *map(str, range(7))), days=40)
        provisioning.change_tenant(customer.tenant, keep_time=30 * DAY)
    seen: list[int] = []
    with psycopg.connect(**connection.get_connection_params()) as elsewhere:
        elsewhere.execute("SELECT FROM accounts_mailbox WHERE id = %s FOR UPDATE", (acme.mailbox.pk,))
        purge(batch=3, watch=lambda purged: seen.append(purged.expired))
    assert (len(present(acme.mailbox)), len(present(globex.mailbox))) == (7, 0)
    assert [count for number, count in enumerate(seen) if count and count not in seen[:number]] == [3, 6, 7]
    assert purge(budget=timedelta(0), batch=3).expired == 3  # one batch, and the next run goes on
    assert purge(batch=3).expired == 4


def test_of_what_is_not_due_only_the_first_is_read(acme: Customer) -> None:
    post.fill(acme.mailbox, [post.text(str(number)) for number in range(50)])
    provisioning.change_mailbox(acme.mailbox, keep_time=30 * DAY)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE mailstore_message")
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {purging._OVERDUE}", {"first": 0, "batch": 10})
        [(plan,)] = cursor.fetchall()
    assert _rows_of(plan[0]["Plan"], "mailstore_message") <= 1


def _rows_of(node: dict[str, Any], table: str) -> float:
    own = node["Actual Rows"] * node["Actual Loops"] if node.get("Relation Name") == table else 0
    return float(own) + sum(_rows_of(child, table) for child in node.get("Plans", ()))


def test_a_keep_time_is_days(acme: Customer) -> None:
    for bad in (timedelta(hours=23), timedelta(hours=36), timedelta(days=36501), -DAY):
        with pytest.raises(BadValue, match="a keep-time is from 1 to 36500 whole days"):
            provisioning.change_mailbox(acme.mailbox, keep_time=bad)
        with pytest.raises(BadValue):
            provisioning.change_tenant(acme.tenant, keep_time=bad)


def test_it_ends_for_devices_with_own_copies_too(acme: Customer) -> None:
    [message] = fill(acme.mailbox, "one")
    app_passwords.create(acme.mailbox, name="Phone", own_copy=True)
    age(message, days=40)
    provisioning.change_mailbox(acme.mailbox, keep_time=30 * DAY)
    assert purge().expired == 1
    assert present(acme.mailbox) == []
