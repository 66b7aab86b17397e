"""A page of the admin asks the database a number of times that is bounded, and the same however much there is."""

from typing import Any, Final

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import app_passwords, provisioning, tokens, webhooks
from accounts.models import Event, Mailbox, Webhook, WebhookDelivery
from accounts.principals import SYSTEM
from mailstore.models import ImportJob
from tests.accounts.admin_places import of_kind
from tests.accounts.test_admin import Rows, rows
from tests.accounts.test_admin_isolation import text_of, undone
from tests.fixtures import Customer
from tests.mailstore.rows import add_failed_login, add_listener, add_message, add_session

__all__ = ["rows"]  # a fixture

MOST: Final = 45
"""Queries of one page, with those that find out who looks and set his scope."""


def add(customer: Customer, first: int, last: int) -> None:
    """More of everything, in the tenant and at its mailbox."""
    mailbox = customer.mailbox
    listener = add_listener("pop3")
    webhook = Webhook.objects.get(tenant=customer.tenant, url="https://acme.example/")
    for number in range(first, last):
        other, _ = provisioning.add_mailbox(f"user{number}@acme.test", password=None, quota_octets=None)
        provisioning.add_alias(f"alias{number}@acme.test", mailbox=mailbox)
        provisioning.add_domain(f"acme{number}.test", tenant=customer.tenant)
        provisioning.add_tenant(f"acme{number}")
        provisioning.add_reseller(f"seller{number}")
        provisioning.add_staff(f"staff{number}@acme.example", password=None, tenant=customer.tenant)
        session = add_session(
            mailbox, listener, ended_at=timezone.now(), end="quit", fetched=1, expunged=1, client_address="192.0.2.7"
        )
        add_session(other, listener)
        add_message(mailbox, subject=f"Number {number}", first_fetched_in=session)
        add_message(mailbox, subject=f"Gone {number}", first_fetched_in=session, expunged_in=session)
        app_passwords.create(mailbox, name=f"device {number}")
        tokens.make(
            by=SYSTEM, name=f"token {number}", role="support", scopes=["mailboxes:read"], tenant=customer.tenant
        )
        if number < 15:  # a tenant has not many
            webhooks.add(f"https://{number}.example/", tenant=customer.tenant, allow_private=False)
        event = Event.objects.create(tenant=customer.tenant, kind="mailbox.created", payload={})
        WebhookDelivery.objects.create(tenant=customer.tenant, webhook=webhook, event=event)
        ImportJob.objects.create(tenant=customer.tenant, mailbox=mailbox, source="pop3", state="done")
        add_failed_login(other)


def counted(client: Client, paths: dict[str, str]) -> dict[str, int]:
    """How many queries each page needs."""
    found = {}
    for name, path in paths.items():
        with undone():
            client.get(path)  # once before, for what is kept from then on
        with undone(), CaptureQueriesContext(connection) as captured:
            text_of(client.get(path))
            found[name] = len(captured)
    return found


@pytest.mark.parametrize("who", ["operator", "boss"])
def test_no_page_asks_more_often_because_there_is_more(
    who: str, rows: Rows, acme: Customer, request: pytest.FixtureRequest
) -> None:
    client: Any = request.getfixturevalue(who)
    paths = {place.pattern: place.path() for place in of_kind("list", "add", "plain")}
    for place in of_kind("change", "delete", "history", "row"):
        assert place.model
        paths[place.pattern] = place.path(rows[place.model]["acme"])
    add(acme, 0, 3)
    few = counted(client, paths)
    add(acme, 3, 30)
    many = counted(client, paths)
    assert Mailbox.objects.count() > 30
    # A page of 25 has at most one more question than one that is not full: whether there is another.
    grown = {path: (few[path], many[path]) for path in paths if many[path] > few[path] + 1}
    assert grown == {}
    assert {path: number for path, number in many.items() if number > MOST} == {}
