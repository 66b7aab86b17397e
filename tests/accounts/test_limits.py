"""What a reseller, a tenant and a domain may have is counted and kept, also by many at once."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.db import connection, transaction

from accounts import limits, provisioning
from accounts.limits import LimitReached
from accounts.models import Allowance, Domain, Mailbox, Reseller, Tenant
from accounts.provisioning import bulk
from mailstore import database, drift, quota
from tests.fixtures import Customer


def counts(target: Reseller | Tenant | Domain) -> tuple[int, int, int]:
    found = limits.of(target)
    return found.domains, found.mailboxes, found.aliases


def choose(whose: str, customer: Customer, reseller: Reseller) -> Reseller | Tenant | Domain:
    if whose == "reseller":
        return reseller
    return customer.tenant if whose == "tenant" else customer.domain


@pytest.fixture
def reseller(acme: Customer) -> Reseller:
    reseller, _ = provisioning.add_reseller("umbrella")
    provisioning.change_tenant(acme.tenant, reseller=reseller)
    return reseller


def test_everything_is_counted(acme: Customer, globex: Customer, reseller: Reseller) -> None:
    binh = acme.add("binh")
    alias, _ = provisioning.add_alias("sales@acme.test", mailbox=binh)
    second, _ = provisioning.add_domain("acme.example", tenant=acme.tenant)
    assert counts(reseller) == counts(acme.tenant) == (2, 2, 1)
    assert counts(acme.domain) == (0, 2, 1)
    assert counts(second) == (0, 0, 0)
    assert counts(globex.tenant) == (1, 1, 0)
    provisioning.remove_alias(alias)
    provisioning.close_mailbox(binh)
    provisioning.close_domain(second)
    assert counts(reseller) == counts(acme.tenant) == (1, 1, 0)
    provisioning.reopen_mailbox(binh)
    provisioning.rename_mailbox(binh, "chi@acme.test")
    assert counts(acme.domain) == (0, 2, 1)  # the old address is an alias
    provisioning.change_tenant(acme.tenant, reseller=None)
    assert counts(reseller) == (0, 0, 0)


@pytest.mark.parametrize("whose", ["domain", "tenant", "reseller"])
def test_a_limit_is_kept_and_says_whose_it_is(whose: str, acme: Customer, globex: Customer, reseller: Reseller) -> None:
    target = choose(whose, acme, reseller)
    limits.set_limits(target, max_mailboxes=2, max_aliases=1)
    acme.add("binh")
    with pytest.raises(LimitReached, match=f"the {whose} may have 2 mailboxes"):
        acme.add("chi")
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    with pytest.raises(LimitReached, match="1 alias, and has it"):
        provisioning.add_alias("help@acme.test", mailbox=acme.mailbox)
    globex.add("binh")
    globex.add("chi")
    limits.set_limits(target, max_mailboxes=None)
    acme.add("chi")


def test_a_limit_on_domains_is_the_tenants(acme: Customer) -> None:
    limits.set_limits(acme.tenant, max_domains=1)
    with pytest.raises(LimitReached):
        provisioning.add_domain("acme.example", tenant=acme.tenant)
    assert not Domain.objects.filter(name="acme.example").exists()


def test_a_limit_below_what_there_is_takes_nothing_away(acme: Customer) -> None:
    limits.set_limits(acme.tenant, max_mailboxes=0)
    with pytest.raises(LimitReached):
        acme.add("binh")
    provisioning.close_mailbox(acme.mailbox)
    assert counts(acme.tenant)[1] == 0


def test_bad_limits_are_refused(acme: Customer) -> None:
    for bad in (-1, 2**63):
        with pytest.raises(ValueError, match="max_mailboxes"):
            limits.set_limits(acme.tenant, max_mailboxes=bad)
    with pytest.raises(ValueError, match="no limit"):
        limits.set_limits(acme.tenant, domains=3)


def charge(mailbox: Mailbox, octets: int) -> None:
    with transaction.atomic():
        quota.charge(mailbox, octets=octets, messages=1)


def refused(work: Callable[[], object]) -> bool:
    try:
        work()
    except quota.QuotaExceeded:
        return True
    return False


@pytest.mark.parametrize("whose", ["domain", "tenant", "reseller"])
def test_pooled_storage_is_real_use(whose: str, acme: Customer, globex: Customer, reseller: Reseller) -> None:
    target = choose(whose, acme, reseller)
    binh = acme.add("binh")
    charge(acme.mailbox, 300)
    limits.set_limits(target, max_octets=1000)
    assert limits.of(target).octets == 300
    charge(binh, 700)
    assert refused(lambda: charge(binh, 1))
    assert limits.of(target).octets == 1000
    quota.refund(acme.mailbox, octets=300, messages=1)
    charge(binh, 300)
    provisioning.close_mailbox(binh)
    assert limits.of(target).octets == 0
    charge(acme.mailbox, 1)
    with pytest.raises(LimitReached):
        provisioning.reopen_mailbox(binh)
    charge(globex.mailbox, 5000)
    limits.set_limits(target, max_octets=None)
    provisioning.reopen_mailbox(binh)


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_as_many_get_in_as_there_is_room_for(acme: Customer) -> None:
    limits.set_limits(acme.tenant, max_mailboxes=4, max_octets=500)
    boxes = [acme.add(name) for name in ("a", "b", "c")]

    def add(number: int) -> bool:
        try:
            acme.add(f"box{number}")
        except LimitReached:
            return False
        finally:
            connection.close()
        return True

    def store(number: int) -> bool:
        try:
            return not refused(lambda: charge(boxes[number % 3], 100))
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(add, range(8))) == 0  # an@ and three more are there
        assert sum(threads.map(store, range(12))) == 5
    limits.set_limits(acme.tenant, max_mailboxes=6)
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(add, range(8))) == 2
    assert counts(acme.tenant)[1] == Mailbox.objects.open().filter(tenant=acme.tenant).count() == 6
    assert limits.of(acme.tenant).octets == 500


@pytest.mark.django_db(transaction=True)
def test_a_limit_that_is_set_while_mail_arrives_begins_exact(acme: Customer) -> None:
    boxes = [acme.add(name) for name in ("a", "b", "c")]

    def store(number: int) -> None:
        try:
            charge(boxes[number % 3], 10)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as threads:
        work = [threads.submit(store, number) for number in range(60)]
        limits.set_limits(acme.tenant, max_octets=10_000)
        for one in work:
            one.result()
    assert limits.of(acme.tenant).octets == 600


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("close", ["domain", "tenant", "bulk"])
def test_closing_many_waits_for_who_delivers_to_one_and_not_the_other_way_round(acme: Customer, close: str) -> None:
    limits.set_limits(acme.tenant, max_octets=1000)
    last = acme.add("last")

    def close_all() -> None:
        try:
            if close == "domain":
                provisioning.close_domain(acme.domain)
            elif close == "tenant":
                provisioning.close_tenant(acme.tenant)
            else:
                items = [bulk.Item(action="close", address=f"{name}@acme.test") for name in ("an", "last")]
                bulk.apply(items, atomic=True)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as threads, psycopg.connect(database.conninfo()) as other:
        other.execute("SELECT FROM accounts_mailbox WHERE id = %s FOR NO KEY UPDATE", [last.pk])
        closing = threads.submit(close_all)
        with psycopg.connect(database.conninfo(), autocommit=True) as watching:
            while not watching.execute(_WAITING).fetchone():
                time.sleep(0.01)
        other.execute("UPDATE accounts_mailbox SET used_octets = 7 WHERE id = %s", [last.pk])
        other.commit()
        closing.result()
    assert not Mailbox.objects.open().exists()
    assert limits.of(acme.tenant).octets == 0


_WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.mark.django_db(transaction=True)
def test_who_counts_in_two_domains_and_who_delivers_to_one_never_wait_for_each_other(acme: Customer) -> None:
    other, _ = provisioning.add_domain("acme.example", tenant=acme.tenant)
    for target in (acme.tenant, acme.domain, other):
        limits.set_limits(target, max_octets=10_000_000)
    binh, _ = provisioning.add_mailbox("binh@acme.example", password=None, quota_octets=None)
    chi = acme.add("chi")

    def rename(round_: int) -> None:
        for address in ("an@acme.example", "an@acme.test"):
            provisioning.rename_mailbox(acme.mailbox, address)

    def store(mailbox: Mailbox) -> Callable[[int], None]:
        return lambda round_: charge(mailbox, 10)

    def again_and_again(work: Callable[[int], None]) -> None:
        try:
            for round_ in range(25):
                work(round_)
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(again_and_again, work) for work in (rename, store(binh), store(chi))]:
            done.result()
    assert [line for line in drift.find() if not line.startswith("mailbox")] == []  # no messages are there


@pytest.mark.django_db(transaction=True)
def test_a_tenant_that_changes_hands_while_it_grows_is_counted_exactly(acme: Customer, reseller: Reseller) -> None:
    second, _ = provisioning.add_reseller("second")

    def add(number: int) -> None:
        try:
            acme.add(f"box{number}")
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as threads:
        work = [threads.submit(add, number) for number in range(30)]
        for to in (second, reseller) * 4:
            provisioning.change_tenant(acme.tenant, reseller=to)
        for one in work:
            one.result()
    assert counts(reseller) == counts(acme.tenant) == (1, 31, 0)
    assert counts(second) == (0, 0, 0)


def test_a_tenant_moves_to_a_reseller_who_has_room_for_it(acme: Customer) -> None:
    small, _ = provisioning.add_reseller("small")
    limits.set_limits(small, max_mailboxes=0)
    with pytest.raises(provisioning.BadValue, match="small cannot take acme"):
        provisioning.change_tenant(acme.tenant, reseller=small)
    assert Allowance.objects.get(reseller=small).mailboxes == 0
