import re
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from accounts import provisioning
from accounts.models import Mailbox, User
from mailstore.models import Listener, MaildropSession, Message
from tests.fixtures import Customer, signed_in
from tests.mailstore.rows import add_listener, add_message, add_session

MESSAGES = "/admin/mailstore/message/"
SESSIONS = "/admin/mailstore/maildropsession/"
LISTENERS = "/admin/mailstore/listener/"


def page(client: Client, path: str, **query: Any) -> str:
    response = client.get(path, query)
    assert response.status_code == 200
    return response.content.decode()


def subjects(client: Client, **query: Any) -> list[str]:
    return re.findall(r'data-label="[Ss]ubject"><a [^>]*>([^<]*)<', page(client, MESSAGES, **query))


def act(client: Client, action: str, *messages: Message, **more: Any) -> str:
    values = {"action": action, "_selected_action": [message.pk for message in messages], **more}
    return client.post(MESSAGES, values, follow=True).content.decode()


def test_one_look_tells_what_became_of_a_message(boss: Client, acme: Customer) -> None:
    listener = add_listener("pop3")
    fetched_in = add_session(acme.mailbox, listener, client_address="192.0.2.1", ended_at=Now(), end="quit")
    removed_in = add_session(acme.mailbox, listener, client_address="2001:db8::2", ended_at=Now(), end="quit")
    message = add_message(
        acme.mailbox,
        subject="Where is it?",
        sender="Grace <grace@example.com>",
        first_fetched_in=fetched_in,
        expunged_in=removed_in,
    )
    for path in (MESSAGES, f"{MESSAGES}{message.pk}/change/"):
        shown = page(boss, path)
        for fact in ("Where is it?", "Grace &lt;grace@example.com&gt;", "an@acme.test", "192.0.2.1", "2001:db8::2"):
            assert fact in shown, fact
    assert message.unique_id in shown
    assert "Return-Path: &lt;&gt;" in shown


def test_sessions_that_are_purged_leave_the_message_readable(boss: Client, acme: Customer) -> None:
    session = add_session(acme.mailbox, add_listener("pop3"))
    message = add_message(acme.mailbox, first_fetched_in=session, expunged_in=session)
    session.delete()
    for path in (MESSAGES, f"{MESSAGES}{message.pk}/change/"):
        assert "in a session" in page(boss, path)


def test_operators_are_not_named_to_a_tenant(boss: Client, acme: Customer) -> None:
    operator = provisioning.add_staff("operator@localhost", password=None, tenant=None)
    staff = User.objects.get(email="boss@acme.test")
    add_message(acme.mailbox, expunged_at=Now(), expunged_by=operator)
    add_message(acme.mailbox, expunged_at=Now(), expunged_by=staff)
    add_message(acme.mailbox, expunged_at=Now())
    shown = page(boss, MESSAGES)
    assert "by an operator" in shown
    assert "operator@localhost" not in shown
    assert "by boss@acme.test" in shown
    assert "by a command" in shown


def test_messages_are_found_by_mailbox_and_in_it_by_what_they_say(
    operator: Client, acme: Customer, globex: Customer
) -> None:
    add_message(acme.mailbox, subject="Invoice 7", sender="a@example.com", message_id="<7@example.com>")
    add_message(acme.mailbox, subject="Lunch", sender="b@example.com")
    add_message(globex.mailbox, subject="Invoice 8")
    assert subjects(operator) == ["Invoice 8", "Lunch", "Invoice 7"]
    assert subjects(operator, q="AN@acme") == ["Lunch", "Invoice 7"]
    assert subjects(operator, q="Invoice") == []
    narrowed = {"mailbox__id__exact": acme.mailbox.pk}
    assert subjects(operator, **narrowed) == ["Lunch", "Invoice 7"]
    assert subjects(operator, **narrowed, q="invoice") == ["Invoice 7"]
    assert subjects(operator, **narrowed, q="b@example") == ["Lunch"]
    assert subjects(operator, **narrowed, q="<7@example.com>") == ["Invoice 7"]
    mailbox = page(operator, reverse("admin:accounts_mailbox_change", args=[acme.mailbox.pk]))
    for name in ("messages", "sessions"):
        assert reverse(f"admin:accounts_mailbox_{name}", args=[acme.mailbox.pk]) in mailbox


def test_another_tenant_s_mailbox_cannot_be_looked_into(boss: Client, acme: Customer, globex: Customer) -> None:
    add_message(globex.mailbox, subject="Secret")
    assert subjects(boss) == []
    assert subjects(boss, mailbox__id__exact=globex.mailbox.pk, q="secret") == []
    assert subjects(boss, tenant__id__exact=globex.tenant.pk) == []


def test_messages_are_told_apart_by_where_they_are(operator: Client, acme: Customer) -> None:
    session = add_session(acme.mailbox, add_listener("pop3"))
    add_message(acme.mailbox, subject="new")
    add_message(acme.mailbox, subject="read", first_fetched_in=session)
    add_message(acme.mailbox, subject="gone", first_fetched_in=session, expunged_in=session)
    assert subjects(operator, where="maildrop") == ["read", "new"]
    assert subjects(operator, where="fetched") == ["read"]
    assert subjects(operator, where="removed") == ["gone"]
    assert subjects(operator, expunged_in__id__exact=session.pk) == ["gone"]


def test_removing_and_restoring_keep_the_quota_exact(boss: Client, acme: Customer, globex: Customer) -> None:
    message, other = add_message(acme.mailbox), add_message(acme.mailbox)
    theirs = add_message(globex.mailbox)

    def used() -> tuple[int, int]:
        mailbox = Mailbox.objects.get(pk=acme.mailbox.pk)
        return mailbox.message_count, mailbox.used_octets

    assert "Removed: 1." in act(boss, "remove", message, theirs)
    assert used() == (1, other.octets)
    assert Message.objects.in_maildrop(globex.mailbox).count() == 1
    assert "by boss@acme.test" in page(boss, MESSAGES)
    assert "Restored: 1." in act(boss, "restore", message, theirs)
    assert used() == (2, other.octets + message.octets)
    restored = Message.objects.get(pk=message.pk)
    assert restored.expunged_at is None
    assert restored.uid > other.uid


def test_without_room_nothing_is_restored(boss: Client, acme: Customer) -> None:
    session = add_session(acme.mailbox, add_listener("pop3"))
    gone = [add_message(acme.mailbox, expunged_in=session) for _ in range(3)]
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(quota_octets=gone[0].octets * 2)
    assert "Nothing was restored" in act(boss, "restore", *gone)
    assert not Message.objects.in_maildrop().exists()
    assert "Restored: 2." in act(boss, "restore", *gone[:2])


def test_an_action_on_all_that_a_search_found_stays_within_the_tenant(
    boss: Client, acme: Customer, globex: Customer
) -> None:
    message = add_message(acme.mailbox)
    add_message(globex.mailbox)
    assert "Removed: 1." in act(boss, "remove", message, select_across="1")
    assert list(Message.objects.in_maildrop()) == list(Message.objects.in_maildrop(globex.mailbox))


@pytest.mark.parametrize("path", [MESSAGES, SESSIONS, LISTENERS])
def test_what_the_protocols_own_is_not_for_writing(path: str, operator: Client, acme: Customer) -> None:
    listener = add_listener("pop3")
    rows = {
        MESSAGES: add_message(acme.mailbox),
        SESSIONS: add_session(acme.mailbox, listener),
        LISTENERS: listener,
    }
    assert operator.get(f"{path}add/").status_code == 403
    assert operator.post(f"{path}{rows[path].pk}/change/", {"octets": 1}).status_code == 403
    assert operator.post(f"{path}{rows[path].pk}/delete/", {"post": "yes"}).status_code == 403
    assert "delete_selected" not in page(operator, path)


def test_support_restores_and_removes_nothing(acme: Customer) -> None:
    helper = provisioning.add_staff("helper@acme.test", password=None, tenant=acme.tenant, role="support")
    client = signed_in(helper)
    session = add_session(acme.mailbox, add_listener("pop3"))
    gone, there = add_message(acme.mailbox, expunged_in=session), add_message(acme.mailbox)
    assert "Remove from" not in page(client, MESSAGES)
    act(client, "remove", there)
    act(client, "restore", gone)
    assert set(Message.objects.in_maildrop()) == {gone, there}


def test_sessions_that_are_open_come_first(operator: Client, acme: Customer) -> None:
    listener = add_listener("pop3")
    for number in range(3):
        ended_at = Now() - timedelta(hours=number + 1)
        add_session(acme.mailbox, listener, client_address=f"192.0.2.{number}", ended_at=ended_at, end="quit")
    add_session(acme.mailbox, listener, client_address="192.0.2.9")

    def clients(**query: Any) -> list[str]:
        return re.findall(r"192\.0\.2\.\d", page(operator, SESSIONS, **query))

    assert clients() == ["192.0.2.9", "192.0.2.0", "192.0.2.1", "192.0.2.2"]
    assert clients(open="yes") == ["192.0.2.9"]
    assert len(clients(open="no")) == 3
    assert clients(q="binh") == []
    session = MaildropSession.objects.get(ended_at=None)
    assert f"messages/?session={session.pk}" in page(operator, f"{SESSIONS}{session.pk}/change/")


def test_a_listener_without_heartbeat_is_shown_as_gone(operator: Client, acme: Customer) -> None:
    listener = add_listener("pop3")
    add_session(acme.mailbox, listener)
    add_session(acme.add("binh"), listener, ended_at=Now(), end="quit")
    assert "check_small" in page(operator, LISTENERS)
    assert re.search(r'data-label="open sessions">1<', page(operator, LISTENERS))
    Listener.objects.update(heartbeat_at=Now() - timedelta(seconds=91))
    assert "check_small" not in page(operator, LISTENERS)
