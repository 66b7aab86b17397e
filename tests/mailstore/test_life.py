"""The life of a message is told from what is stored, whoever asks and whatever is gone meanwhile."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from accounts import app_passwords, principals, provisioning, scope
from accounts.models import Mailbox, User
from accounts.principals import Principal
from mailstore import life, retention
from mailstore.life import Event, Kind
from mailstore.models import MaildropSession, Message
from tests.fixtures import Customer, as_web
from tests.mailstore import post
from tests.mailstore.rows import add_listener, add_message, add_session

KEPT = timedelta(days=14)


def of(message: Message) -> list[Event]:
    [found] = life.of([Message.objects.select_related("mailbox", "tenant").get(pk=message.pk)], kept=KEPT).values()
    return found


def kinds(message: Message) -> list[Kind]:
    return [event.kind for event in of(message)]


def ended(mailbox: Mailbox, **values: Any) -> MaildropSession:
    return add_session(mailbox, add_listener("pop3"), ended_at=timezone.now(), end="quit", **values)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("padding", [0, 300_000], ids=["small", "in chunks"])
def test_who_delivered_it_is_the_mta_that_queued_it(acme: Customer, padding: int) -> None:
    received = (
        b"Received: from mail.example.com (mail.example.com [203.0.113.9])\r\n"
        b"\tby mx.acme.test (Postfix) with ESMTPS id 4Zk1Xy2Jz3z\r\n\tfor <an@acme.test>; Wed, 25 Nov 2026 09:02\r\n"
    )
    post.deliver(received + post.text(body="x\r\n" * (padding // 3)), acme.mailbox)
    delivered, *rest = of(Message.objects.get())
    assert (delivered.kind, rest) == (Kind.DELIVERED, [])
    assert delivered.hop == ("mail.example.com", "203.0.113.9", "4Zk1Xy2Jz3z")


def test_what_no_mta_queued_came_from_whoever_brought_it(acme: Customer) -> None:
    ours = b"Return-Path: <>\r\nReceived: from [192.0.2.9]\r\n\tby here with HTTP id 77aa;\r\n\tWed, 25 Nov\r\n"
    message = add_message(acme.mailbox)
    Message.objects.update(trace=ours)
    assert of(message)[0].hop == ("192.0.2.9", "192.0.2.9", "77aa")
    Message.objects.update(trace=b"Return-Path: <>\r\n")
    assert (of(message)[0].kind, of(message)[0].hop) == (Kind.DELIVERED, None)
    Message.objects.update(trace=b"")
    assert kinds(message) == [Kind.IMPORTED]


def test_who_fetched_and_who_removed_it_are_told_by_device_and_address(acme: Customer) -> None:
    office, _ = app_passwords.create(acme.mailbox, name="Outlook office")
    first = ended(acme.mailbox, client_address="192.0.2.7", app_password_id=office.pk)
    second = ended(acme.mailbox, client_address="2001:db8::1", secure=False)
    message = add_message(acme.mailbox, first_fetched_in=first, expunged_in=second)
    _, fetched, removed, due = of(message)
    assert fetched.kind == Kind.FETCHED
    assert fetched.seen == life.Seen(first.pk, True, "Outlook office", False, "192.0.2.7", True)
    assert removed.kind == Kind.REMOVED
    assert removed.seen == life.Seen(second.pk, True, "", True, "2001:db8::1", False)
    assert (due.kind, due.at) == (Kind.DUE, message.expunged_at + KEPT)  # type: ignore[operator]


def test_what_is_gone_meanwhile_is_told_as_far_as_it_can_be(acme: Customer) -> None:
    session = ended(acme.mailbox, app_password_id=2**40)
    message = add_message(acme.mailbox, first_fetched_in=session, expunged_in=session)
    device = of(message)[1].seen
    assert device
    assert (device.device, device.own_password) == ("", False)
    MaildropSession.objects.all().delete()
    assert of(message)[1].seen == life.Seen(message.first_fetched_in_id, False)


def test_what_must_be_kept_does_not_go_for_good(acme: Customer) -> None:
    provisioning.set_legal_hold(acme.mailbox, True)
    there, gone = add_message(acme.mailbox), add_message(acme.mailbox, expunged_at=timezone.now())
    assert kinds(there) == [Kind.DELIVERED]
    assert kinds(gone) == [Kind.DELIVERED, Kind.REMOVED, Kind.HELD]


def test_a_restored_message_keeps_what_became_of_it_before(acme: Customer) -> None:
    session = ended(acme.mailbox, client_address="192.0.2.7")
    message = add_message(acme.mailbox, first_fetched_in=session, expunged_in=session)
    boss = provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant)
    retention.restore(Message.objects.all(), by=boss)
    assert kinds(message) == [Kind.DELIVERED, Kind.FETCHED, Kind.REMOVED, Kind.RESTORED]
    told = of(message)
    assert told[2].at == message.expunged_at
    assert told[2].seen
    assert told[2].seen.address == "192.0.2.7"
    assert told[3].by == "boss@acme.test"
    retention.expunge(Message.objects.all(), by=boss)
    assert kinds(message)[4:] == [Kind.REMOVED, Kind.DUE]
    for _ in range(25):  # however often: it is not kept for ever
        retention.restore(Message.objects.all(), by=None)
        retention.expunge(Message.objects.all(), by=None)
    message.refresh_from_db()
    assert len(message.earlier or ()) == 20
    assert of(message)[-2].by == ""


@pytest.mark.django_db(transaction=True)
def test_an_operator_is_named_to_nobody(acme: Customer) -> None:
    operator = provisioning.add_staff("operator@localhost", password=None, tenant=None)
    message = add_message(acme.mailbox)
    with principals.acting_as(Principal(role="operator", user_id=operator.pk)):
        retention.expunge(Message.objects.all(), by=operator)
    assert of(message)[1].by == "an operator"
    principal = Principal(role="tenant-admin", tenant_id=acme.tenant.pk)
    with as_web(), scope.entered(principal):
        assert of(message)[1].by == "an operator"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("role", "called"),
    [("tenant-admin", "a tenant admin whose login is gone"), ("domain-admin", "a domain admin whose login is gone")],
)
def test_who_is_gone_is_called_what_he_was(acme: Customer, role: str, called: str) -> None:
    message = add_message(acme.mailbox)
    boss = provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant, role=role)
    with principals.acting_as(Principal(role=role, user_id=boss.pk)):
        retention.expunge(Message.objects.all(), by=boss)
        retention.restore(Message.objects.all(), by=boss)
        retention.expunge(Message.objects.all(), by=boss)
    retention.restore(Message.objects.all(), by=None)
    assert [event.by for event in of(message)[1:]] == [*["boss@acme.test"] * 3, ""]
    provisioning.remove_login(boss)
    assert [event.by for event in of(message)[1:]] == [called, called, called, ""]


def test_of_whom_the_audit_does_not_know_is_told_that_he_is_gone(acme: Customer) -> None:
    message = add_message(acme.mailbox, expunged_at=timezone.now())
    retention.restore(Message.objects.all(), by=User(pk=2**40))
    assert of(message)[-1].by == "somebody whose login is gone"


@pytest.mark.django_db
def test_a_hundred_lives_take_as_many_statements_as_one(
    acme: Customer, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    user = User.objects.get(pk=acme.mailbox.user_id)
    device, _ = app_passwords.create(acme.mailbox, name="Phone")
    for _ in range(30):
        session = ended(acme.mailbox, app_password_id=device.pk)
        add_message(acme.mailbox, first_fetched_in=session, expunged_in=session)
        add_message(acme.mailbox, expunged_at=timezone.now(), expunged_by=user, earlier=None)
    messages = list(Message.objects.select_related("mailbox", "tenant"))
    with django_assert_num_queries(5):
        assert len(life.of(messages, kept=KEPT)) == 60
    with django_assert_num_queries(0):
        assert life.of([], kept=KEPT) == {}


def test_a_session_of_nowhere_is_in_no_scope(acme: Customer) -> None:
    message = add_message(acme.mailbox, expunged_at=timezone.now())
    Message.objects.update(expunged_in=uuid4())
    assert of(message)[1].seen
