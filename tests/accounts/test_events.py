"""What happens is written for every webhook that wants it, and for nobody else."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from accounts import events, principals, scope
from accounts.database_roles import LISTENER, WORKER
from accounts.events import Happened
from accounts.models import Event, Reseller, Tenant, User, Webhook, WebhookDelivery
from tests.fixtures import Customer

pytestmark = pytest.mark.django_db


def hook(**values: Any) -> Webhook:
    return Webhook.objects.create(url="https://hooks.example.test/", secret="secret", **values)


def emit(kind: str, customer: Customer) -> None:
    events.emit(kind, tenant_id=customer.tenant.pk, domain=customer.domain.name, payload={"id": 1})


def test_an_event_goes_to_its_tenants_its_resellers_and_the_hosts_webhooks(acme: Customer, globex: Customer) -> None:
    reseller = Reseller.objects.create(slug="seller", name="Seller")
    other = Reseller.objects.create(slug="other", name="Other")
    Tenant.objects.filter(pk=acme.tenant.pk).update(reseller=reseller)
    wanted = [hook(tenant=acme.tenant), hook(reseller=reseller), hook()]
    hook(tenant=globex.tenant)
    hook(reseller=other)
    hook(tenant=acme.tenant, enabled=False)
    hook(tenant=acme.tenant, events=["mailbox.closed"])
    emit("mailbox.created", acme)
    [event] = Event.objects.all()
    assert (event.tenant_id, event.kind, event.domain_name) == (acme.tenant.pk, "mailbox.created", "acme.test")
    assert event.payload == {"id": 1}
    assert {(one.webhook_id, one.event_id, one.tenant_id) for one in WebhookDelivery.objects.all()} == {
        (one.pk, event.pk, acme.tenant.pk) for one in wanted
    }


def test_a_webhook_gets_the_kinds_that_it_asked_for(acme: Customer) -> None:
    wants = hook(tenant=acme.tenant, events=["mailbox.closed", "mailbox.erased"])
    for kind in ("mailbox.created", "mailbox.closed", "mailbox.erased"):
        emit(kind, acme)
    assert list(wants.deliveries.order_by("pk").values_list("event__kind", flat=True)) == [
        "mailbox.closed",
        "mailbox.erased",
    ]
    assert Event.objects.count() == 2


def test_where_no_webhook_wants_it_no_row_is_written(acme: Customer, globex: Customer) -> None:
    hook(tenant=globex.tenant)
    emit("mailbox.created", acme)
    assert not Event.objects.exists()


def test_many_are_one_query_for_each_tenant(acme: Customer, globex: Customer) -> None:
    mine, theirs = hook(tenant=acme.tenant), hook(tenant=globex.tenant)
    happened = [
        Happened("mailbox.created", customer.tenant.pk, {"id": number})
        for number in range(100)
        for customer in (acme, globex)
    ]
    with CaptureQueriesContext(connection) as queries:
        events.emit_many(happened)
    assert len(queries) == 2
    assert [one.event.payload["id"] for one in mine.deliveries.order_by("pk")] == list(range(100))
    assert theirs.deliveries.count() == 100
    assert Event.objects.count() == 200


@pytest.fixture
def as_role() -> Iterator[Any]:
    def enter(role: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('role', %s, true)", (role,))

    yield enter
    enter("none")


@pytest.mark.parametrize("role", [LISTENER, WORKER])
def test_listeners_and_workers_tell_also_whom_they_do_not_see(acme: Customer, as_role: Any, role: str) -> None:
    hosts = hook()
    as_role(role)
    emit("mailbox.created", acme)
    as_role("none")
    assert hosts.deliveries.count() == 1


def test_who_sees_one_tenant_tells_the_host_but_sees_nothing_of_it(acme: Customer, boss: object) -> None:
    hosts = hook()
    principal = principals.of(User.objects.get(email="boss@acme.test"))
    with scope.entered(principal):
        emit("mailbox.created", acme)
        assert not Webhook.objects.exists()
    assert hosts.deliveries.count() == 1


def test_a_transaction_says_go_once_and_only_if_there_is_something_to_send(
    acme: Customer, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks() as none:
        emit("mailbox.created", acme)
    hook(tenant=acme.tenant)
    with django_capture_on_commit_callbacks() as once, transaction.atomic():
        emit("mailbox.created", acme)
        emit("mailbox.closed", acme)
    assert (len(none), len(once)) == (0, 1)


def test_a_kind_that_nobody_has_described_is_not_told(acme: Customer) -> None:
    with pytest.raises(KeyError):
        emit("mailbox.exploded", acme)


def test_each_kind_fits_its_column() -> None:
    assert all(len(kind) <= 40 for kind in events.KINDS)
