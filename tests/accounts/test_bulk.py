"""Many mailboxes at once: all or each by itself, each with its answer, in few statements."""

import pytest
from django.contrib.auth.hashers import check_password, make_password
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts import limits, provisioning
from accounts.models import Domain, Mailbox
from accounts.provisioning import bulk
from accounts.provisioning.bulk import Item, NotAll
from accounts.provisioning.refusals import AddressTaken, BadValue, UnknownDomain, UnknownMailbox
from tests.fixtures import Customer


def create(address: str, **more: object) -> Item:
    return Item(action="create", address=address, **more)  # type: ignore[arg-type]


def test_each_item_has_its_answer_in_order(acme: Customer, globex: Customer) -> None:
    items = [
        create("binh@acme.test", password="secret-1", values={"quota_octets": 5, "name": "Bình"}),
        create("an@acme.test"),
        Item(action="update", address="AN@acme.test".lower(), values={"quota_octets": 9}),
        Item(action="update", address="nobody@acme.test"),
        create("x@elsewhere.test"),
        Item(action="put", address="chi@acme.test", state="suspended", state_reason="unpaid"),
        Item(action="close", address="an@globex.test"),
        create("dung@acme.test", values={"quota_octets": -1}),
        create("Binh@acme.test"),
        create("giang@acme.test", state="away"),
        Item(action="put", address="ha@acme.test", state="suspended", state_reason="a\nb"),
    ]
    # an@acme.test stands twice: the second of the two is refused
    results = bulk.apply(items, atomic=False)
    assert [result.done for result in results] == [
        "created", None, None, None, None, "created", "closed", None, None, None, None,
    ]  # fmt: skip
    assert [type(result.refusal) for result in results if result.refusal][:4] == [
        AddressTaken,
        bulk._Twice,
        UnknownMailbox,
        UnknownDomain,
    ]
    assert all(isinstance(results[number].refusal, BadValue) for number in (7, 9, 10))
    binh = provisioning.find_mailbox("binh@acme.test")
    assert (binh.quota_octets, binh.name) == (5, "Bình")
    assert check_password("secret-1", binh.user.password)
    assert provisioning.find_mailbox("chi@acme.test").state == "suspended"
    globex.mailbox.refresh_from_db()
    assert globex.mailbox.closed_at


def test_put_brings_to_a_state_and_can_be_repeated(acme: Customer) -> None:
    item = Item(action="put", address="an@acme.test", values={"quota_octets": 7}, state="no-login")
    assert [bulk.apply([item], atomic=True)[0].done for _ in range(2)] == ["changed", "unchanged"]


def test_add_leaves_what_is_there_and_hashes_nothing_for_it(acme: Customer) -> None:
    seen: list[tuple[int, int]] = []
    items = [
        Item(action="add", address="an@acme.test", password="another", values={"quota_octets": 7}),
        Item(action="add", address="binh@acme.test", password="secret", defaults={"quota_octets": 1000}),
        Item(action="add", address="chi@acme.test", values={"quota_octets": 5}, defaults={"quota_octets": 1000}),
    ]
    results = bulk.apply(items, atomic=True, progress=lambda done, of: seen.append((done, of)))
    assert [result.done for result in results] == ["unchanged", "created", "created"]
    assert seen == [(1, 1)]
    assert dict(Mailbox.objects.values_list("address", "quota_octets")) == {
        "an@acme.test": None,
        "binh@acme.test": 1000,
        "chi@acme.test": 5,
    }


@pytest.mark.django_db(transaction=True)
def test_a_mailbox_that_somebody_adds_meanwhile_stays_as_it_is(acme: Customer) -> None:
    items = [Item(action="add", address=f"{name}@acme.test", password="secret") for name in ("binh", "chi")]
    results = bulk.apply(items, atomic=True, progress=lambda done, of: done == 1 and acme.add("binh", quota_octets=5))
    assert [result.done for result in results] == ["unchanged", "created"]
    assert provisioning.find_mailbox("binh@acme.test").quota_octets == 5


def test_what_would_be_done_is_told_and_not_done(acme: Customer) -> None:
    items = [
        create("binh@acme.test", password="secret"),
        create("an@acme.test"),
        Item(action="put", address="an@acme.test", state="suspended"),
        Item(action="close", address="nobody@acme.test"),
    ]
    results = bulk.check([items[0], *items[2:]])
    assert [result.done for result in results] == ["created", "changed", None]
    assert bulk.check(items[:2])[1].refusal
    assert list(Mailbox.objects.values_list("address", "state")) == [("an@acme.test", "active")]


def test_where_all_or_none_is_wanted_nothing_is_hashed_in_vain(acme: Customer) -> None:
    seen: list[int] = []
    items = [create("binh@acme.test", password="secret"), create("chi@acme.test", values={"quota_octets": -1})]
    with pytest.raises(NotAll):
        bulk.apply(items, atomic=True, progress=lambda done, of: seen.append(done))
    assert not seen


def test_all_or_none(acme: Customer) -> None:
    items = [create("binh@acme.test"), Item(action="close", address="an@acme.test"), create("x@elsewhere.test")]
    with pytest.raises(NotAll) as refused:
        bulk.apply(items, atomic=True)
    assert [result.done for result in refused.value.results] == [None, None, None]
    assert [bool(result.refusal) for result in refused.value.results] == [False, False, True]
    assert list(Mailbox.objects.open()) == [acme.mailbox]
    assert limits.of(acme.tenant).mailboxes == 1


def test_a_limit_takes_as_many_as_there_is_room_for(acme: Customer) -> None:
    limits.set_limits(acme.domain, max_mailboxes=3)
    results = bulk.apply([create(f"u{number}@acme.test") for number in range(4)], atomic=False)
    assert [result.done for result in results] == ["created", "created", None, None]


def test_domains_that_do_not_exist_for_whoever_asks_are_not_hosted(acme: Customer, globex: Customer) -> None:
    within = Domain.objects.filter(tenant=acme.tenant)
    items = [create("x@globex.test"), Item(action="close", address="an@globex.test"), create("x@acme.test")]
    results = bulk.apply(items, atomic=False, within=within)
    assert [result.done for result in results] == [None, None, "created"]
    assert {str(result.refusal) for result in results[:2]} == {"globex.test is not hosted here"}


def test_hashes_come_along(acme: Customer) -> None:
    stored = make_password("hutech123")
    [result] = bulk.apply([create("binh@acme.test", password_hash=stored)], atomic=True)
    assert result.mailbox
    assert check_password("hutech123", result.mailbox.user.password)
    [result] = bulk.apply([create("chi@acme.test", password_hash="nonsense")], atomic=False)
    assert result.refusal


def test_a_thousand_take_as_many_statements_as_ten(acme: Customer) -> None:
    def statements(first: int, count: int) -> int:
        items = [create(f"u{number}@acme.test") for number in range(first, first + count)]
        with CaptureQueriesContext(connection) as queries:
            bulk.apply(items, atomic=True)
        return len(queries)

    assert statements(0, 10) == statements(10, 1000)
