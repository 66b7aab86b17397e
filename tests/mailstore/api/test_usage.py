from datetime import timedelta

import pytest
from django.utils import timezone

from accounts import limits, provisioning
from accounts.models import Mailbox, Reseller
from mailstore import usage
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer
from tests.mailstore.rows import add_message


@pytest.fixture
def mail(acme: Customer, globex: Customer) -> None:
    """Of acme two messages and two that were removed, of globex one."""
    for _ in range(2):
        add_message(acme.mailbox)
    add_message(acme.mailbox, expunged_at=timezone.now())
    add_message(acme.mailbox, expunged_at=timezone.now() - timedelta(days=13, hours=12))
    add_message(globex.mailbox)


OCTETS = len(b"Return-Path: <>\r\n" + b"Subject: x\r\n\r\nx\r\n")


@pytest.mark.usefixtures("mail")
def test_everybody_sees_what_exists_for_him(admin: Program, host: Program) -> None:
    shown = admin.read("/usage/")
    assert (shown["mailboxes"], shown["messages"], shown["octets"]) == (1, 2, 2 * OCTETS)
    assert shown["removed"] == {
        "messages": 2,
        "octets": 2 * OCTETS,
        "exact": True,
        "now": {"messages": 0, "octets": 0},
        "day": {"messages": 1, "octets": OCTETS},
        "week": {"messages": 1, "octets": OCTETS},
    }
    assert host.read("/usage/")["messages"] == 3


@pytest.mark.usefixtures("mail")
def test_tenants_and_domains_have_allowances(acme: Customer, admin: Program, host: Program) -> None:
    limits.set_limits(acme.tenant, max_octets=1000, max_mailboxes=5)
    shown = admin.read("/usage/tenants/acme/")
    assert shown["name"] == "acme"
    assert shown["allowance"] == {
        "max_domains": None, "max_mailboxes": 5, "max_aliases": None, "max_octets": 1000,
        "domains": 1, "mailboxes": 1, "aliases": 0, "octets": 2 * OCTETS,
    }  # fmt: skip
    assert shown["removed"]["messages"] == 2
    assert [(row["name"], row["messages"]) for row in host.read("/usage/tenants/")["items"]] == [
        ("acme", 2),
        ("globex", 1),
    ]
    [row] = admin.read("/usage/domains/")["items"]
    assert (row["name"], row["octets"]) == ("acme.test", 2 * OCTETS)
    assert row["allowance"]["octets"] is None
    assert admin.read("/usage/domains/ACME.test/")["messages"] == 2


@pytest.mark.usefixtures("mail")
@pytest.mark.usefixtures("other_reseller")
def test_a_reseller_sees_its_tenants_together(acme: Customer, reseller: Reseller) -> None:
    asker = Program(token_text("reseller", reseller=reseller))
    [row] = asker.read("/usage/resellers/")["items"]
    assert (row["name"], row["messages"]) == ("reseller", 2)
    assert asker.read("/usage/resellers/reseller/")["removed"]["messages"] == 2
    assert [row["name"] for row in asker.read("/usage/tenants/")["items"]] == ["acme"]
    assert asker.read("/usage/tenants/", "reseller=reseller")["items"]
    assert asker.read("/usage/tenants/", "reseller=other")["items"] == []
    assert refusal(asker.send("GET", "/usage/tenants/globex/"), 404)
    assert refusal(asker.send("GET", "/usage/resellers/other-reseller/"), 404)


def test_full_mailboxes_are_counted(acme: Customer, admin: Program) -> None:
    for used in (79, 80, 90, 100, 110):
        mailbox = acme.add(f"used{used}", quota_octets=100)
        Mailbox.objects.filter(pk=mailbox.pk).update(used_octets=used)
    closed = acme.add("closed", quota_octets=100)
    Mailbox.objects.filter(pk=closed.pk).update(used_octets=100)
    provisioning.close_mailbox(closed)
    Mailbox.objects.filter(pk=acme.add("largest", quota_octets=2**63 - 1).pk).update(used_octets=0)
    shown = admin.read("/usage/")
    assert (shown["over_80"], shown["over_90"], shown["over_100"]) == (4, 3, 2)
    assert (shown["mailboxes"], shown["closed"]) == (7, 1)


@pytest.mark.usefixtures("mail")
def test_a_mailbox_shows_what_it_uses(acme: Customer) -> None:
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(quota_octets=4 * OCTETS, legal_hold=True)
    member = Program(token_text("member", mailbox=acme.mailbox))
    shown = member.read("/mailboxes/AN@acme.test/usage/")
    assert (shown["octets"], shown["messages"], shown["percent"]) == (2 * OCTETS, 2, 50)
    assert shown["removed"]["messages"] == 2
    assert shown["removed"]["week"]["messages"] == 0  # it is held
    assert refusal(member.send("GET", "/mailboxes/an@globex.test/usage/"), 404)
    assert refusal(member.send("GET", "/usage/"), 403)


@pytest.mark.usefixtures("mail")
def test_who_looks_after_a_domain_sees_no_more(acme: Customer) -> None:
    provisioning.add_domain("other.test", tenant=acme.tenant)
    add_message(provisioning.add_mailbox("an@other.test", password=None, quota_octets=None)[0])
    asker = Program(token_text("domain-admin", tenant=acme.tenant, domain=acme.domain))
    assert asker.read("/usage/")["messages"] == 2
    assert [row["name"] for row in asker.read("/usage/domains/")["items"]] == ["acme.test"]
    assert refusal(asker.send("GET", "/usage/domains/other.test/"), 404)
    shown = asker.read("/usage/tenants/acme/")
    assert (shown["messages"], shown["allowance"]) == (2, None)
    assert [row["allowance"] for row in asker.read("/usage/tenants/")["items"]] == [None]


@pytest.mark.parametrize("path", ["tenants/globex", "domains/globex.test", "domains/%2E"])
@pytest.mark.usefixtures("globex")
def test_what_others_use_does_not_exist(acme: Customer, path: str) -> None:
    for role in ("tenant-admin", "support"):
        asker = Program(token_text(role, tenant=acme.tenant))
        assert refusal(asker.send("GET", f"/usage/{path}/"), 404)
    assert asker.read("/usage/tenants/", "count=estimate")["count"]["rows"] == 1
    assert asker.read("/usage/domains/", "tenant=globex")["items"] == []


@pytest.mark.usefixtures("mail")
def test_of_very_many_removed_messages_a_part_stands_for_all(
    acme: Customer, admin: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        add_message(acme.mailbox, expunged_at=timezone.now())
    monkeypatch.setattr(usage, "COUNTED", 3)
    removed = admin.read("/usage/")["removed"]
    assert (removed["exact"], removed["messages"], removed["octets"]) == (False, 6, 6 * OCTETS)


def test_where_there_is_nothing_all_is_zero(acme: Customer, admin: Program) -> None:
    shown = admin.read("/usage/tenants/acme/")
    assert (shown["messages"], shown["octets"], shown["removed"]["octets"]) == (0, 0, 0)
