"""What was refused is noted by the hour, and told once."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import provisioning
from accounts.database_roles import LISTENER
from accounts.models import Event, Mailbox, Role, Webhook
from accounts.principals import Principal
from mailstore import refusals
from mailstore.models import Refusal
from tests.fixtures import Customer
from tests.mailstore import post

pytestmark = pytest.mark.django_db(transaction=True)


def noted() -> list[tuple[str, str | None, str, int]]:
    return sorted(
        (row.domain.name, row.mailbox.address if row.mailbox else None, row.reason, row.count)
        for row in Refusal.objects.select_related("domain", "mailbox")
    )


def refuse(address: str, **options: Any) -> None:
    post.deliver(post.text(), address, role=LISTENER, **options)


def test_they_are_counted_by_mailbox_reason_and_hour(acme: Customer, globex: Customer) -> None:
    away, full = acme.add("away"), acme.add("full", quota_octets=1)
    Mailbox.objects.filter(pk=away.pk).update(state=Mailbox.State.NO_RECEIVE)
    for _ in range(3):
        refuse("away@acme.test", reverse_path="x@Elsewhere.TEST")
    refuse(str(full))
    for address in ("nobody@globex.test", "else@globex.test", "an@nowhere.test", "an@acme.test"):
        refuse(address)
    assert noted() == [
        ("acme.test", "away@acme.test", "deferred", 3),
        ("acme.test", "full@acme.test", "over quota", 1),
        ("globex.test", None, "gone", 2),
    ]
    row = Refusal.objects.get(mailbox=away)
    assert (row.sender_domain, row.tenant_id) == ("elsewhere.test", acme.tenant.pk)
    assert row.first_at < row.last_at < timezone.now()
    Refusal.objects.filter(mailbox=away).update(hour=row.hour - timedelta(hours=1))
    refuse("away@acme.test")
    assert noted()[:2] == [("acme.test", "away@acme.test", "deferred", count) for count in (1, 3)]


def test_another_tenants_do_not_exist(acme: Customer, globex: Customer) -> None:
    refuse("nobody@acme.test")
    refuse("nobody@globex.test")
    admin = Principal(role=Role.TENANT_ADMIN, tenant_id=acme.tenant.pk)
    assert [row.tenant_id for row in Refusal.objects.visible_to(admin)] == [acme.tenant.pk]


def test_webhooks_are_told_once(acme: Customer) -> None:
    provisioning.suspend(acme.mailbox)
    Webhook.objects.create(
        tenant=acme.tenant, url="https://hooks.example.test/", events=["mailbox.delivery_refused"], secret="secret"
    )
    refuse("an@acme.test")
    refuse("an@acme.test")
    assert refusals.announce() == 1
    assert refusals.announce() == 0
    [event] = Event.objects.all()
    assert event.payload["address"] == "an@acme.test"
    assert event.payload["reason"] == "suspended"
