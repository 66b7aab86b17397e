"""The admin as one site: its side bar, and the search in it."""

import re

import pytest
from django.test import Client
from django.urls import reverse

from accounts import provisioning
from tests.fixtures import Customer, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss(acme: Customer) -> Client:
    return signed_in(provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant))


def found(client: Client, term: str, **more: str) -> list[str]:
    answer = client.get(reverse("admin:search"), {"s": term, "extended": "1", **more})
    assert answer.status_code == 200
    return re.findall(r'data-title="([^"]*)"', answer.content.decode())


def test_the_search_finds_lists_and_rows(boss: Client, acme: Customer) -> None:
    acme.add("binh")
    provisioning.add_alias("binh.sales@acme.test", mailbox=acme.mailbox)
    # A mailbox is found by its aliases, too.
    assert set(found(boss, "BINH")) == {"binh@acme.test", "an@acme.test", "binh.sales@acme.test"}
    assert found(boss, "mailb") == ["Mailboxes"]
    assert found(boss, "x" * 5000) == found(boss, "\0") == found(boss, " ") == []
    assert found(boss, "binh", page="99999999999999999999") == found(boss, "binh", page="x") == found(boss, "binh")


def test_another_tenant_s_rows_are_not_found(boss: Client, acme: Customer, globex: Customer) -> None:
    assert found(boss, "globex") == []
    assert found(boss, "an@") == ["an@acme.test"]
    provisioning.close_mailbox(acme.mailbox)
    support = signed_in(provisioning.add_staff("help@globex.test", password=None, role="support", tenant=globex.tenant))
    assert found(support, "an@") == ["an@globex.test"]


def test_the_side_bar_shows_what_somebody_may_look_at(boss: Client, acme: Customer) -> None:
    shown = boss.get(reverse("admin:accounts_mailbox_changelist")).content.decode()
    assert reverse("admin:accounts_domain_changelist") in shown
    assert reverse("admin:accounts_reseller_changelist") not in shown
    assert reverse("admin:mailstore_listener_changelist") not in shown
