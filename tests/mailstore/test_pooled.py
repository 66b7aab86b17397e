"""Limits on the octets of a domain, a tenant or a reseller: kept at each delivery, and counted exactly."""

import io
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections

from accounts import limits, provisioning
from accounts.database_roles import LISTENER
from accounts.models import Allowance, Domain, Mailbox, Reseller, Tenant
from mailstore import drift, purging, retention
from mailstore.delivery import Outcome, OverQuota, deliver_now
from mailstore.models import Message
from mailstore.quota import QuotaExceeded
from tests.fixtures import Customer
from tests.mailstore import post

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["domain", "tenant", "reseller"])
def limited(request: pytest.FixtureRequest, acme: Customer) -> Reseller | Tenant | Domain:
    """Who of those that acme's mail counts for has a limit."""
    if request.param == "domain":
        return acme.domain
    if request.param == "tenant":
        return acme.tenant
    reseller, _ = provisioning.add_reseller("umbrella")
    provisioning.change_tenant(acme.tenant, reseller=reseller)
    return reseller


def is_over_quota(outcome: object) -> bool:
    """Whether that is what was said, to RCPT or to the data."""
    return outcome == Outcome.OVER_QUOTA or isinstance(outcome, OverQuota)


def size_of_one(mailbox: Mailbox) -> int:
    [message] = post.fill(mailbox, [post.text()])
    retention.expunge(Message.objects.filter(pk=message.pk), by=None)
    return message.octets


def test_it_is_as_if_the_mailbox_were_full(limited: Reseller | Tenant | Domain, acme: Customer) -> None:
    one = size_of_one(acme.mailbox)
    limits.set_limits(limited, max_octets=2 * one)
    message = post.text(queue_id="1")[: -len("\r\n")]
    assert post.deliver(post.text(), acme.mailbox) == [Outcome.STORED]
    # Found at RCPT to have room, and refused with the data; a retry of what is stored is still one.
    assert post.deliver(post.text(body="x\r\n" * one), acme.mailbox) != [Outcome.STORED]
    assert post.deliver(post.text(), acme.mailbox) == [Outcome.STORED]
    assert limits.of(limited).octets == 2 * one
    [refused] = post.deliver(message, acme.mailbox)
    assert refused == Outcome.OVER_QUOTA  # by the data: the ledger holds something from that reverse-path
    [refused] = post.deliver(message, acme.mailbox, reverse_path="chi@elsewhere.test")
    assert isinstance(refused, OverQuota)
    assert list(drift.find()) == []


def test_others_still_get_theirs(acme: Customer, globex: Customer) -> None:
    limits.set_limits(acme.tenant, max_octets=100)
    [refused, stored] = post.deliver(post.text(body="x" * 200), "an@acme.test", "an@globex.test")
    assert isinstance(refused, OverQuota)
    assert stored == Outcome.STORED
    assert list(drift.find()) == []


@pytest.mark.parametrize("octets", [100, 300_000])
def test_with_the_data_each_copy_is_its_own_decision(acme: Customer, globex: Customer, octets: int) -> None:
    binh = acme.add("binh")
    limits.set_limits(acme.tenant, max_octets=octets + 160)
    outcomes = deliver_now(
        io.BytesIO(post.text(body="x" * octets)),
        to=["an@acme.test", "an@globex.test", str(binh)],
        limit=10**7,
        subaddress="+",
        default_domain="x.test",
        role=LISTENER,
    )
    assert sorted(str(outcome) for outcome in outcomes) == ["over quota", "stored", "stored"]
    assert outcomes[1] == Outcome.STORED
    assert list(drift.find()) == []


def test_two_deliveries_cannot_both_take_the_last_room(limited: Reseller | Tenant | Domain, acme: Customer) -> None:
    boxes = [acme.mailbox, *(acme.add(f"m{number}") for number in range(5))]
    one = size_of_one(acme.mailbox)
    limits.set_limits(limited, max_octets=4 * (one + 2))

    def deliver(number: int) -> object:
        try:
            return post.deliver(post.text(), boxes[number % len(boxes)], role=LISTENER)[0]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(deliver, range(16)))
    assert outcomes.count(Outcome.STORED) == 4
    assert {str(one) for one in outcomes} <= {"stored", "over quota", ""}
    assert list(drift.find()) == []


def test_whatever_happens_the_counters_are_exact(limited: Reseller | Tenant | Domain, acme: Customer) -> None:
    choose = random.Random(7)
    provisioning.add_domain("acme.example", tenant=acme.tenant)
    chi, _ = provisioning.add_mailbox("chi@acme.example", password=None, quota_octets=None)
    boxes = [acme.mailbox, acme.add("binh"), chi]
    one = size_of_one(acme.mailbox)
    limits.set_limits(limited, max_octets=6 * one)
    keep = purging.Keep(
        retention=timedelta(0), sessions=timedelta(days=1), ledger=timedelta(days=1), listener_ttl=timedelta(minutes=1)
    )
    refused = restored = 0
    for step in range(60):
        box = choose.choice(boxes)
        chosen = Message.objects.filter(mailbox=box)
        match choose.choice(
            ["deliver", "deliver", "deliver", "all", "expunge", "expunge", "restore", "restore", "purge", "close"]
        ):
            case "deliver":
                refused += is_over_quota(post.deliver(post.text(), box, role=LISTENER)[0])
            case "all":
                post.deliver(post.text(), *boxes, role=LISTENER)
            case "expunge":
                some = list(chosen.in_maildrop(box).values_list("pk", flat=True)[:2])
                retention.expunge(chosen.filter(pk__in=some), by=None)
            case "restore":
                try:
                    restored += retention.restore(chosen.expunged(), by=None).messages
                except QuotaExceeded:
                    refused += 1
            case "purge" if step % 7 == 0:
                purging.purge(keep)
            case "close" if box.pk != acme.mailbox.pk and box.closed_at is None and step > 40:
                provisioning.close_mailbox(box)
        assert list(drift.find()) == []
        assert limits.of(limited).octets <= 6 * one
    assert refused
    assert restored


def test_a_counter_that_is_wrong_is_found(acme: Customer) -> None:
    Allowance.objects.filter(tenant=acme.tenant, domain=None).update(mailboxes=7)
    [line] = drift.find()
    counted = "counts [1, 7, 0, 0] domains, mailboxes, aliases and octets, has [1, 1, 0, 0]"
    assert line == f"tenant {acme.tenant.pk}: {counted}"
