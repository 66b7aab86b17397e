"""Events reach webhooks: signed, again until it worked, and nowhere that only we can reach."""

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
import trustme
from celery import Celery
from django.conf import settings
from django.contrib import admin
from django.db import connection, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.test import override_settings
from django.utils import translation

from accounts import endpoint, events, outside, principals, provisioning, scope, sending, tasks, tidying, webhooks
from accounts.database_roles import WORKER
from accounts.endpoint import Config
from accounts.models import AuditEvent, Event, IdempotencyKey, Reseller, User, Webhook, WebhookDelivery
from accounts.principals import Principal
from accounts.provisioning import BadValue
from mailhost.celery import app
from tests.accounts.receiver import Receiver, Request, drip, flood, garbage, hang_up, receiver
from tests.fixtures import Customer, as_web

pytestmark = pytest.mark.django_db(transaction=True)

TLS = ssl.create_default_context()
BUDGET = timedelta(seconds=20)


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def add(customer: Customer | None, url: str, **values: Any) -> tuple[Webhook, str]:
    return webhooks.add(url, tenant=customer.tenant if customer else None, allow_private=True, **values)


def emit(customer: Customer, kind: str = "mailbox.created", **payload: Any) -> None:
    events.emit(kind, tenant_id=customer.tenant.pk, domain=customer.domain.name, payload=payload or {"id": 1})


def send(*, allow_private: bool = True, timeout: float = 5, tls: ssl.SSLContext = TLS) -> int:
    return sending.send(Config(allow_private=allow_private, tls=tls, timeout=timeout), budget=BUDGET)


def pass_time() -> None:
    """Until the next attempt is due."""
    WebhookDelivery.objects.filter(state="pending").update(next_attempt_at=Now())
    Webhook.objects.update(held_until=None)


def verified(request: Request, secret: str) -> bool:
    """What a receiver does, by https://www.standardwebhooks.com."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    recent = abs(time.time() - int(request.headers["webhook-timestamp"])) < 300
    return recent and f"v1,{wanted}" in request.headers["webhook-signature"].split(" ")


# --- What is sent --------------------------------------------------------------------------------------------------


def test_a_reseller_is_told_nothing_more_of_a_tenant_that_was_given_away(acme: Customer) -> None:
    umbrella, _ = provisioning.add_reseller("umbrella")
    provisioning.change_tenant(acme.tenant, reseller=umbrella)
    theirs, _ = webhooks.add("https://umbrella.test/", reseller=umbrella, allow_private=False)
    own, _ = webhooks.add("https://acme.test/", tenant=acme.tenant, allow_private=False)
    provisioning.suspend(acme.mailbox)
    assert WebhookDelivery.objects.filter(webhook=theirs).count() == 1
    provisioning.change_tenant(acme.tenant, reseller=None)
    assert not WebhookDelivery.objects.filter(webhook=theirs).exists()
    assert WebhookDelivery.objects.filter(webhook=own).count() == 2
    with as_web(), scope.entered(Principal(role="reseller", reseller_id=umbrella.pk)):
        webhooks.remove(theirs)
    assert list(Webhook.objects.all()) == [own]


def test_an_event_is_sent_signed(acme: Customer, hook: Receiver) -> None:
    _, secret = add(acme, f"{hook.url}/hook?from=mail")
    emit(acme, id=7, address="an@acme.test")
    assert send() == 1
    [request] = hook.requests
    [event] = Event.objects.all()
    assert request.path == "/hook?from=mail"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == hook.url.removeprefix("http://")
    assert json.loads(request.body) == {
        "id": str(event.pk),
        "type": "mailbox.created",
        "created_at": event.created_at.isoformat(),
        "tenant": "acme",
        "data": {"id": 7, "address": "an@acme.test"},
    }
    assert request.headers["webhook-id"] == str(event.pk)
    assert verified(request, secret)
    assert not verified(request, webhooks._new_secret())
    delivery = WebhookDelivery.objects.get()
    assert (delivery.state, delivery.attempts, delivery.last_status) == ("delivered", 1, 200)
    assert delivery.delivered_at
    assert send() == 0


def test_a_rotated_secret_and_the_one_before_both_verify(acme: Customer, hook: Receiver) -> None:
    webhook, first = add(acme, hook.url)
    second = webhooks.rotate_secret(webhook)
    emit(acme)
    send()
    third = webhooks.rotate_secret(webhook)
    emit(acme)
    send()
    one, other = hook.requests
    assert verified(one, first)
    assert verified(one, second)
    assert verified(other, third)
    assert not verified(other, first)


def test_many_go_in_their_order_over_one_connection(acme: Customer, hook: Receiver) -> None:
    add(acme, hook.url)
    for number in range(30):
        emit(acme, id=number)
    assert send() == 30
    assert [json.loads(request.body)["data"]["id"] for request in hook.requests] == list(range(30))
    assert hook.connections == 1


def test_each_tenant_gets_its_own_and_the_host_gets_all(acme: Customer, globex: Customer) -> None:
    with receiver() as mine, receiver() as theirs, receiver() as hosts:
        add(acme, mine.url)
        add(globex, theirs.url)
        add(None, hosts.url)
        emit(acme)
        emit(globex)
        assert send() == 4

        def tenants(of: Receiver) -> list[str]:
            return sorted(json.loads(request.body)["tenant"] for request in of.requests)

        assert (tenants(mine), tenants(theirs), tenants(hosts)) == (["acme"], ["globex"], ["acme", "globex"])


def test_https_is_with_the_name_at_the_address_that_was_looked_at(
    acme: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("hooks.example.test").configure_cert(server)
    authority.configure_trust(client)
    names: list[str | None] = []
    server.sni_callback = lambda _, name, __: names.append(name)
    with receiver(server) as made:
        port = int(made.url.rpartition(":")[2])
        looked_up = [outside.Address(socket.AF_INET, "127.0.0.1", port)]
        asked: list[str] = []

        def resolve(host: str, *_: Any, **__: Any) -> list[outside.Address]:
            asked.append(host)
            return looked_up

        monkeypatch.setattr(outside, "resolve", resolve)  # there is no DNS for tests
        add(acme, f"https://hooks.example.test:{port}/")
        emit(acme)
        assert send(tls=client) == 1
        assert (asked, names) == (["hooks.example.test"], ["hooks.example.test"])
        assert made.requests[0].headers["host"] == f"hooks.example.test:{port}"
        Webhook.objects.update(url=f"https://other.example.test:{port}/")
        emit(acme)
        assert send(tls=client) == 0
        assert WebhookDelivery.objects.filter(state="pending").get().last_error.startswith("TLS failed")
        assert len(made.requests) == 1


# --- What goes wrong -----------------------------------------------------------------------------------------------


def test_what_failed_is_sent_again_later_and_later_and_then_given_up(acme: Customer, hook: Receiver) -> None:
    add(acme, hook.url)
    emit(acme)
    hook.answers = [500] * sending.MOST_ATTEMPTS
    waits: list[timedelta] = []
    for attempt in range(1, sending.MOST_ATTEMPTS + 1):
        before = _now()
        assert send() == 0
        assert send() == 0, "not before it is due"
        delivery = WebhookDelivery.objects.get()
        assert (delivery.attempts, delivery.last_status, delivery.last_error) == (attempt, 500, "it answered 500")
        if delivery.next_attempt_at:
            waits.append(delivery.next_attempt_at - before)
        pass_time()
    assert delivery.state == "failed"
    assert len(hook.requests) == sending.MOST_ATTEMPTS
    assert len({request.headers["webhook-id"] for request in hook.requests}) == 1
    assert timedelta(seconds=24) <= waits[0] <= timedelta(seconds=37)
    assert timedelta(hours=9.6) <= waits[-1] <= timedelta(hours=14.5)
    assert timedelta(hours=55) < sum(waits, timedelta()) < timedelta(hours=84)


def _now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        [now] = cursor.fetchone()
        assert isinstance(now, datetime)
        return now


def test_it_works_again_as_soon_as_the_endpoint_does(acme: Customer, hook: Receiver) -> None:
    add(acme, hook.url)
    emit(acme)
    hook.answers = [503]
    assert send() == 0
    pass_time()
    assert send() == 1
    delivery = WebhookDelivery.objects.get()
    assert (delivery.state, delivery.attempts, delivery.last_error) == ("delivered", 2, "")


@pytest.mark.parametrize(
    ("answer", "error", "in_vietnamese"),
    [
        (drip, "there was no answer in time", "không có trả lời"),
        (hang_up, "the connection was closed without an answer", "kết nối bị đóng"),
        (garbage, "its answer is not HTTP", "không phải HTTP"),
        (302, "it redirects, which is not followed", "chuyển hướng"),
        (404, "it answered 404", "trả lời 404"),
    ],
)
def test_an_answer_that_is_none_ends_in_time_and_is_told(
    acme: Customer, hook: Receiver, answer: int | Callable[[Any], None], error: str, in_vietnamese: str
) -> None:
    add(acme, hook.url)
    emit(acme)
    hook.answers = [answer]
    began = time.monotonic()
    assert send(timeout=0.5 if answer is drip else 5) == 0
    assert time.monotonic() - began < 5
    delivery = WebhookDelivery.objects.get()
    assert delivery.last_error == error
    with translation.override("vi"):
        assert in_vietnamese in admin.site._registry[WebhookDelivery].shown_error(delivery)  # type: ignore[attr-defined]
    assert len(hook.requests) == 1


def test_a_refused_connection_is_told(acme: Customer) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and not listened at
        add(acme, f"http://127.0.0.1:{nobody.getsockname()[1]}/")
        emit(acme)
        assert send() == 0
    assert WebhookDelivery.objects.get().last_error == "the connection was refused"


def test_an_answer_without_end_is_not_read_to_its_end(acme: Customer, hook: Receiver) -> None:
    add(acme, hook.url)
    emit(acme)
    emit(acme)
    hook.answers = [flood]
    assert send() == 2
    assert hook.connections == 2


def test_410_disables_the_webhook(acme: Customer, hook: Receiver) -> None:
    webhook, _ = add(acme, hook.url)
    emit(acme)
    emit(acme)
    hook.answers = [410]
    assert send() == 0
    webhook.refresh_from_db()
    assert not webhook.enabled
    assert sorted(WebhookDelivery.objects.values_list("state", flat=True)) == ["failed", "pending"]
    [record] = AuditEvent.objects.filter(action="webhook.changed")
    assert (record.changes, record.through, record.tenant_id) == ({"enabled": [True, False]}, "system", acme.tenant.pk)
    pass_time()
    assert send() == 0
    webhooks.change(webhook, enabled=True, allow_private=True)
    assert send() == 1


def test_a_dead_endpoint_costs_one_attempt_and_holds_up_no_other(acme: Customer, globex: Customer) -> None:
    with receiver() as dead, receiver() as alive:
        silent, _ = add(acme, dead.url)
        add(globex, alive.url)
        for _ in range(20):
            emit(acme)
            emit(globex)
        dead.answers = [drip] * 20
        began = time.monotonic()
        assert send(timeout=2) == 20
        assert time.monotonic() - began < 20
        assert len(dead.requests) == 1
        assert set(silent.deliveries.values_list("attempts", flat=True)) == {1}
        emit(acme)
        assert send(timeout=1) == 0, "nobody asks there again at once"
        assert len(dead.requests) == 1
        silent.refresh_from_db()
        assert silent.held_until
        assert timedelta(seconds=20) < silent.held_until - _now() <= timedelta(minutes=15)


def test_two_senders_send_nothing_twice(acme: Customer, hook: Receiver) -> None:
    webhook, _ = add(acme, hook.url)
    emit(acme)
    [turn] = sending._claimed(16, Config(allow_private=True, tls=TLS), time.monotonic() + 9)
    assert turn.next()
    assert send() == 0, "another has it"
    Webhook.objects.filter(pk=webhook.pk).update(held_until=F("held_until") - timedelta(minutes=2))
    assert send() == 1, "the other is gone"
    assert turn.next() is None


def test_what_the_queue_lost_is_found(acme: Customer, hook: Receiver) -> None:
    add(acme, hook.url)
    emit(acme)
    with override_settings(MAILHOST_PRIVATE_TARGETS=True):
        tasks.send_webhooks.apply().get()
    assert len(hook.requests) == 1


def test_a_queue_that_is_away_fails_nothing_and_keeps_nobody_waiting(
    acme: Customer, hook: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    add(acme, hook.url)
    with Celery("nobody", broker="redis://127.0.0.1:1/0") as nobody:
        nobody.conf.broker_transport_options = settings.CELERY_BROKER_TRANSPORT_OPTIONS
        nobody.set_current()
        try:
            began = time.monotonic()
            emit(acme)
        finally:
            app.set_current()
    assert time.monotonic() - began < 5
    assert "Connection refused" in caplog.text
    assert send() == 1


def test_the_workers_role_may_send_and_tidy(acme: Customer, hook: Receiver) -> None:
    add(acme, hook.url)
    emit(acme)
    emit(acme)
    hook.answers = [200, 410]
    Event.objects.update(created_at=Now() - timedelta(days=31))
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {WORKER}")
        try:
            assert send() == 1
            assert tidying.tidy() == 2
        finally:
            cursor.execute("RESET ROLE")


def test_answers_to_repeated_requests_are_kept_for_a_day(db: None) -> None:
    for key, age in (("old", timedelta(hours=25)), ("new", timedelta(hours=23))):
        IdempotencyKey.objects.create(principal="token 1", key=key, digest=b"", status=201, body=b"")
        IdempotencyKey.objects.filter(key=key).update(created_at=Now() - age)
    assert tidying.tidy() == 1
    assert IdempotencyKey.objects.get().key == "new"


# --- Where nothing is sent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "127.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"],
)
def test_nothing_is_sent_to_what_only_we_can_reach(acme: Customer, hook: Receiver, host: str) -> None:
    port = hook.url.rpartition(":")[2]
    add(acme, f"https://{host}:{port}/")
    emit(acme)
    assert send(allow_private=False) == 0
    assert not hook.connections
    assert WebhookDelivery.objects.get().last_error.endswith("has an address that is not on the public internet")


def test_http_is_not_spoken_any_more_once_that_is_not_allowed(acme: Customer, hook: Receiver) -> None:
    add(acme, hook.url)
    emit(acme)
    assert send(allow_private=False) == 0
    assert not hook.connections
    assert WebhookDelivery.objects.get().last_error == "its URL does not begin with https://"


def test_a_redirect_leads_nowhere(acme: Customer, hook: Receiver) -> None:
    add(acme, hook.url)
    emit(acme)
    hook.answers = [307]
    assert send() == 0
    assert [request.path for request in hook.requests] == ["/"]


NOWHERE = [
    "http://hooks.example.test/",
    "ftp://hooks.example.test/",
    "gopher://hooks.example.test:6379/_",
    "hooks.example.test",
    "https://",
    "https:///path",
    "https://user:secret@hooks.example.test/",
    "https://user@hooks.example.test/",
    "https://hooks.example.test/#fragment",
    "https://hooks.example.test:25/",
    "https://hooks.example.test:0/",
    "https://hooks.example.test:99999/",
    "https://hooks.example.test:x/",
    "https://hooks.example.test/\r\nX: y",
    "https://hooks example.test/",
    "https://hooks.example.test/\\@127.0.0.1",
    "https://hücks.example.test/",
    "https://[::1/",
    "https://127.0.0.1/",
    "https://[::1]/",
    "https://169.254.169.254/latest/meta-data/",
    "https://[::ffff:10.0.0.1]/",
    "https://hooks.example.test/" + "x" * 2000,
    "",
]


def test_a_url_that_could_do_harm_is_refused(acme: Customer) -> None:
    for url in NOWHERE:
        with pytest.raises(BadValue):
            webhooks.add(url, tenant=acme.tenant, allow_private=False)
    assert not Webhook.objects.exists()


# --- Adding, changing, removing ------------------------------------------------------------------------------------


def test_a_webhook_is_added_changed_and_removed_and_the_audit_tells_no_secret(acme: Customer) -> None:
    webhook, secret = webhooks.add(
        "https://hooks.example.test:8443/x", events=["mailbox.closed"], tenant=acme.tenant, allow_private=False
    )
    assert secret.startswith("whsec_")
    webhooks.change(webhook, events=[], enabled=False, allow_private=False)
    assert (webhook.url, webhook.events, webhook.enabled) == ("https://hooks.example.test:8443/x", [], False)
    new = webhooks.rotate_secret(webhook)
    webhooks.remove(webhook)
    assert not Webhook.objects.exists()
    told = list(AuditEvent.objects.filter(action__startswith="webhook.").order_by("pk"))
    assert [one.action for one in told] == [
        "webhook.created",
        "webhook.changed",
        "webhook.secret_rotated",
        "webhook.removed",
    ]
    assert told[0].changes["url"] is None
    everything = " ".join(str(one.changes) for one in told)
    assert secret not in everything
    assert new not in everything
    assert "hooks.example.test" not in everything


def test_an_event_that_there_is_not_cannot_be_asked_for(acme: Customer) -> None:
    with pytest.raises(BadValue, match="exploded"):
        webhooks.add(
            "https://hooks.example.test/", events=["mailbox.exploded"], tenant=acme.tenant, allow_private=False
        )


def test_nobody_has_more_webhooks_than_there_may_be(acme: Customer, globex: Customer) -> None:
    reseller = Reseller.objects.create(slug="seller", name="Seller")
    for whose in ({"tenant": acme.tenant}, {"reseller": reseller}):
        for _ in range(webhooks.MOST):
            webhooks.add("https://hooks.example.test/", allow_private=False, **whose)
        with pytest.raises(BadValue, match="cannot have more"):
            webhooks.add("https://hooks.example.test/", allow_private=False, **whose)
    webhooks.add("https://hooks.example.test/", tenant=globex.tenant, allow_private=False)


def test_what_was_delivered_or_given_up_can_be_sent_again(acme: Customer, hook: Receiver) -> None:
    webhook, _ = add(acme, hook.url)
    emit(acme)
    emit(acme)
    hook.answers = [200, 404]
    assert send() == 1
    WebhookDelivery.objects.filter(state="pending").update(state="failed", next_attempt_at=None)
    found: QuerySet[WebhookDelivery] = webhook.deliveries.all()
    assert webhooks.replay(found) == 2
    assert send() == 2
    ids = [request.headers["webhook-id"] for request in hook.requests]
    assert sorted(ids[:2]) == sorted(ids[2:])
    assert AuditEvent.objects.get(action="webhook.replayed").changes == {"deliveries": 2}
    assert webhooks.replay(found.none()) == 0


def test_of_what_goes_to_others_webhooks_nothing_is_seen(acme: Customer, globex: Customer, boss: object) -> None:
    mine, _ = add(acme, "https://mine.example.test/")
    add(None, "https://hosts.example.test/")
    add(globex, "https://theirs.example.test/")
    emit(acme)
    emit(globex)
    admin = User.objects.get(email="boss@acme.test")
    assert [one.webhook_id for one in webhooks.deliveries_visible_to(admin)] == [mine.pk]
    assert webhooks.deliveries_visible_to(principals.SYSTEM).count() == 4


def test_a_tenants_admin_does_all_of_it_within_row_level_security(
    acme: Customer, globex: Customer, boss: object, hook: Receiver
) -> None:
    theirs, _ = add(globex, hook.url)
    with scope.entered(principals.of(User.objects.get(email="boss@acme.test"))):
        webhook, _ = add(acme, hook.url)
        webhooks.rotate_secret(webhook)
        webhooks.change(webhook, events=["mailbox.created"], allow_private=True)
        emit(acme)
        assert webhooks.replay(WebhookDelivery.objects.all()) == 1
        assert list(Webhook.objects.all()) == [webhook]
        with pytest.raises(Webhook.DoesNotExist):
            webhooks.rotate_secret(theirs)
    assert send() == 1
    told = AuditEvent.objects.filter(action__startswith="webhook.", tenant_id=acme.tenant.pk)
    assert set(told.values_list("role", flat=True)) == {"tenant-admin"}
    with scope.entered(principals.of(User.objects.get(email="boss@acme.test"))):
        webhooks.remove(webhook)
    assert list(Webhook.objects.all()) == [theirs]


def test_a_webhook_can_be_removed_while_events_are_written_for_it(acme: Customer) -> None:
    webhook, _ = add(acme, "https://hooks.example.test/")
    written = threading.Event()

    def write() -> None:
        with transaction.atomic():
            emit(acme)
            written.set()
            time.sleep(0.5)
        connection.close()

    def remove() -> None:
        written.wait()
        webhooks.remove(webhook)
        connection.close()

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(write), threads.submit(remove)]:
            done.result()
    assert not Webhook.objects.exists()
    assert not WebhookDelivery.objects.exists()
    webhooks.remove(webhook)
    assert AuditEvent.objects.filter(action="webhook.removed").count() == 1


# --- What becomes of it all ----------------------------------------------------------------------------------------


def test_old_events_are_removed_with_their_deliveries(acme: Customer, hook: Receiver) -> None:
    add(acme, hook.url)
    emit(acme)
    emit(acme)
    old = Event.objects.order_by("pk")[0]
    Event.objects.filter(pk=old.pk).update(created_at=Now() - timedelta(days=31))
    tasks.tidy.apply().get()
    assert list(Event.objects.values_list("pk")) == list(WebhookDelivery.objects.values_list("event_id"))
    assert Event.objects.count() == 1
    assert Event.objects.get().pk != old.pk


def test_the_signature_is_the_one_of_the_standard() -> None:
    # The example of the specification.
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    told = endpoint.signature(
        [key],
        event_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert told == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
