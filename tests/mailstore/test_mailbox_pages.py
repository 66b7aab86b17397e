"""The mailbox page: what became of its mail is told at one look, and comes back with one answer."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape
from django.utils.timezone import localtime
from pytest_django import DjangoAssertNumQueries

from accounts import app_passwords, limits, provisioning
from accounts.models import AuditEvent, Mailbox, Reseller, Role, Tenant, User
from mailstore import retention, search
from mailstore.models import MaildropSession, Message, OwnCopy
from tests.fixtures import Customer, signed_in
from tests.mailstore.rows import add_listener, add_message, add_session

PAGES = ("messages", "sessions", "restore", "remove", "end")


def url(name: str, mailbox: Mailbox) -> str:
    return reverse(f"admin:accounts_mailbox_{name}", args=[mailbox.pk])


def page(client: Client, name: str, mailbox: Mailbox, **query: Any) -> str:
    response = client.get(url(name, mailbox), query)
    assert response.status_code == 200, response.status_code
    return response.content.decode()


def said(client: Client, name: str, mailbox: Mailbox, **values: Any) -> str:
    """What the page says after a form was sent, and after a redirect."""
    response = client.post(url(name, mailbox), values, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def subjects(client: Client, mailbox: Mailbox, **query: Any) -> list[str]:
    return re.findall(r'class="subject"><a [^>]*>([^<]*)<', page(client, "messages", mailbox, **query))


def ended(mailbox: Mailbox, **values: Any) -> MaildropSession:
    return add_session(mailbox, add_listener("pop3"), **{"ended_at": timezone.now(), "end": "quit", **values})


@pytest.fixture
def support(acme: Customer) -> Client:
    """A browser in which somebody has signed in who helps the users of acme."""
    return signed_in(provisioning.add_staff("help@acme.test", password=None, tenant=acme.tenant, role=Role.SUPPORT))


# --- One look ------------------------------------------------------------------------------------------------------


def test_the_list_of_mailboxes_leads_to_their_mail(boss: Client, acme: Customer) -> None:
    listed = boss.get(reverse("admin:accounts_mailbox_changelist")).content.decode()
    assert url("messages", acme.mailbox) in listed
    shown = page(boss, "messages", acme.mailbox)
    for name in ("sessions", "why", "change"):
        assert url(name, acme.mailbox) in shown
    for query in (f"mailbox__id__exact={acme.mailbox.pk}", f"mailbox_id__exact={acme.mailbox.pk}"):
        assert query in shown


def test_state_space_and_who_was_there_last_are_told(boss: Client, acme: Customer) -> None:
    device, _ = app_passwords.create(acme.mailbox, name="Outlook office")
    shown = page(boss, "messages", acme.mailbox)
    assert "No mail program has signed in yet" in shown
    provisioning.suspend(acme.mailbox, reason="not paid")
    values: dict[str, Any] = {"quota_octets": 1000, "used_octets": 950, "last_login_at": timezone.now()}
    Mailbox.objects.update(**values, last_login_address="192.0.2.7")
    shown = page(boss, "messages", acme.mailbox)
    assert "Suspended" in shown
    assert "not paid" in shown
    assert '<progress max="100" value="95" class="full"' in shown
    assert "from 192.0.2.7" in shown
    assert "encrypted" not in shown  # of what was before nobody knows
    Mailbox.objects.update(last_login_secure=True, last_login_app_password_id=device.pk)
    assert "“Outlook office” from 192.0.2.7, encrypted (TLS)" in " ".join(page(boss, "messages", acme.mailbox).split())


def test_the_life_of_each_message_stands_with_it(boss: Client, acme: Customer) -> None:
    device, _ = app_passwords.create(acme.mailbox, name="Outlook office")
    session = ended(acme.mailbox, client_address="192.0.2.7", app_password_id=device.pk, expunged=1)
    add_message(acme.mailbox, subject="Where is it?", first_fetched_in=session, expunged_in=session)
    shown = page(boss, "messages", acme.mailbox)
    for fact in ("fetched by “Outlook office” from 192.0.2.7", "removed in that session", "gone for good on"):
        assert fact in shown, fact
    assert "Undo: bring 1 back" in shown
    assert reverse("admin:mailstore_maildropsession_change", args=[session.pk]) in shown
    message = Message.objects.get()
    change = boss.get(reverse("admin:mailstore_message_change", args=[message.pk])).content.decode()
    assert "fetched by “Outlook office” from 192.0.2.7" in change


def test_whatever_senders_write_stays_text(boss: Client, acme: Customer) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    device, _ = app_passwords.create(acme.mailbox, name=evil[:100])
    Mailbox.objects.update(name=evil, state_reason=evil)
    session = ended(acme.mailbox, app_password_id=device.pk, expunged=1)
    add_message(acme.mailbox, subject=evil, sender=evil, message_id=evil, first_fetched_in=session, expunged_in=session)
    add_message(acme.mailbox, subject=evil, sender="", reverse_path=evil)
    whole = b"Return-Path: <>\r\nReceived: from <script>alert(1)</script> by x with SMTP id 1\r\n"
    Message.objects.update(trace=whole)
    shown = [
        page(boss, "messages", acme.mailbox),
        page(boss, "messages", acme.mailbox, words=evil, where="removed", session=session.pk),
        page(boss, "messages", acme.mailbox, words="x", where=evil, session=evil, since=evil),
        page(boss, "sessions", acme.mailbox),
        page(boss, "restore", acme.mailbox, what="session", session=session.pk),
        page(boss, "restore", acme.mailbox, what="found", words=evil[:100], where="removed"),
        boss.get(reverse("admin:mailstore_message_change", args=[Message.objects.latest("pk").pk])).content.decode(),
    ]
    for text in shown:
        assert "<script>alert" not in text
        assert "<img src=x" not in text
    assert escape(evil) in shown[0]


def test_a_page_takes_few_statements_however_much_it_shows(
    boss: Client, acme: Customer, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    device, _ = app_passwords.create(acme.mailbox, name="Phone")
    owner = User.objects.get(pk=acme.mailbox.user_id)
    for number in range(30):
        session = ended(acme.mailbox, app_password_id=device.pk, fetched=1, expunged=1)
        add_message(acme.mailbox, subject=str(number), first_fetched_in=session, expunged_in=session)
        add_message(acme.mailbox, subject=str(number), expunged_at=timezone.now(), expunged_by=owner)
    add_session(acme.mailbox, add_listener("pop3"))
    session = MaildropSession.objects.exclude(ended_at=None).latest("started_at")
    # Of these some twenty find out who asks, and in what scope.
    with django_assert_max_num_queries(38):
        page(boss, "messages", acme.mailbox)
    with django_assert_max_num_queries(40):
        page(boss, "messages", acme.mailbox, words="1", where="removed", since="2026-01-01", session=session.pk)
    with django_assert_max_num_queries(26):
        page(boss, "sessions", acme.mailbox)
    with django_assert_max_num_queries(30):
        page(boss, "restore", acme.mailbox, what="session", session=session.pk)


# --- Searching -----------------------------------------------------------------------------------------------------


def test_messages_are_found_by_what_they_say_when_they_came_and_where_they_are(boss: Client, acme: Customer) -> None:
    session = ended(acme.mailbox, expunged=1)
    before = timezone.now() - timedelta(days=3)
    add_message(acme.mailbox, subject="Invoice 7", sender="Ann <ann@example.com>", message_id="<7@example.com>")
    add_message(acme.mailbox, subject="Lunch", sender="b@example.com", first_fetched_in=session)
    add_message(acme.mailbox, subject="Gone", first_fetched_in=session, expunged_in=session)
    Message.objects.filter(subject="Lunch").update(delivered_at=before)
    assert subjects(boss, acme.mailbox) == ["Gone", "Lunch", "Invoice 7"]
    assert subjects(boss, acme.mailbox, words="INVOICE") == ["Invoice 7"]
    assert subjects(boss, acme.mailbox, words="ann@") == ["Invoice 7"]
    assert subjects(boss, acme.mailbox, words="7@example.com") == ["Invoice 7"]
    assert subjects(boss, acme.mailbox, words="<7@example.com>") == ["Invoice 7"]
    assert subjects(boss, acme.mailbox, where="maildrop") == ["Lunch", "Invoice 7"]
    assert subjects(boss, acme.mailbox, where="fetched") == ["Lunch"]
    assert subjects(boss, acme.mailbox, where="removed") == ["Gone"]
    assert subjects(boss, acme.mailbox, session=session.pk) == ["Gone", "Lunch"]
    day = f"{localtime(before):%Y-%m-%d}"
    assert subjects(boss, acme.mailbox, until=day) == ["Lunch"]
    assert subjects(boss, acme.mailbox, since=day, until=day) == ["Lunch"]
    assert subjects(boss, acme.mailbox, since=f"{localtime():%Y-%m-%d}") == ["Gone", "Invoice 7"]
    assert "No message is like that" in page(boss, "messages", acme.mailbox, words="nothing")
    retention.restore(retention.removed_in(session), by=None)
    assert subjects(boss, acme.mailbox, session=session.pk) == ["Gone", "Lunch"]  # it removed it all the same


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ({"since": "yesterday"}, "Enter a valid date"),
        ({"since": "0001-01-01", "until": "9999-12-31"}, ""),
        ({"where": "nowhere"}, "Select a valid choice"),
        ({"session": "x"}, "Enter a valid UUID"),
        ({"session": "00000000-0000-0000-0000-000000000000"}, "There is no such session"),
        ({"page": "9" * 50}, ""),
        ({"page": "-1"}, ""),
        ({"page": "٣"}, ""),
        ({"words": "\0"}, "Null characters are not allowed"),
        ({"words": "x" * 201}, "Ensure this value has at most 200 characters"),
        ({"words": "%_\\"}, "No message is like that"),
    ],
)
def test_what_cannot_be_asked_for_is_answered_in_words(
    boss: Client, acme: Customer, query: dict[str, str], answer: str
) -> None:
    add_message(acme.mailbox, subject="there")
    shown = page(boss, "messages", acme.mailbox, **query)
    assert answer in shown
    for path in ("restore", "remove"):
        boss.get(url(path, acme.mailbox), {"what": "found", **query}, follow=True)


def test_a_search_that_takes_too_long_is_given_up(
    boss: Client, acme: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(50):
        add_message(acme.mailbox, subject="x" * 255)
    monkeypatch.setattr(search, "find", lambda mailbox, wanted: Message.objects.extra(where=["pg_sleep(1) IS NULL"]))
    monkeypatch.setattr(search, "LONGEST", "50ms")
    shown = page(boss, "messages", acme.mailbox, words="x")
    assert "That takes too long to find" in shown
    for path in ("restore", "remove"):
        assert "That takes too long to find" in said(boss, path, acme.mailbox, what="found", words="x", apply="yes")


def test_more_than_a_page_is_turned_over(boss: Client, acme: Customer) -> None:
    for number in range(30):
        add_message(acme.mailbox, subject=str(number))
    assert subjects(boss, acme.mailbox) == [str(number) for number in range(29, 4, -1)]
    assert "?page=2" in page(boss, "messages", acme.mailbox)
    assert subjects(boss, acme.mailbox, page=2) == ["4", "3", "2", "1", "0"]
    assert 'rel="next"' not in page(boss, "messages", acme.mailbox, page=2)


# --- Bringing back -------------------------------------------------------------------------------------------------


def test_a_session_is_undone_after_it_was_said_what_that_means(boss: Client, acme: Customer) -> None:
    session, other = ended(acme.mailbox, expunged=3, client_address="192.0.2.7"), ended(acme.mailbox, expunged=1)
    gone = [add_message(acme.mailbox, subject=str(number), expunged_in=session) for number in range(2)]
    add_message(acme.mailbox, subject="another's", expunged_in=other)
    asked = page(boss, "restore", acme.mailbox, what="session", session=session.pk)
    assert "with the mailbox&#x27;s password, from 192.0.2.7" in asked
    assert "3 messages" in asked  # removed
    assert re.search(r"Of these back already, or gone for good</th><td>1 message<", asked)
    assert f"2 messages, {2 * gone[0].octets}" in asked
    assert not Message.objects.in_maildrop().exists()
    result = said(boss, "restore", acme.mailbox, what="session", session=session.pk, apply="yes")
    assert "The session is undone. 2 messages are back" in result
    assert {message.subject for message in Message.objects.in_maildrop()} == {"0", "1"}
    record = AuditEvent.objects.get(action="mailbox.messages_restored")
    assert (record.changes["messages"], record.through) == (2, "admin")
    again = page(boss, "restore", acme.mailbox, what="session", session=session.pk)
    assert "None of them can be brought back" in again
    assert ">Restore<" not in again


def test_an_own_copy_s_session_is_undone_for_its_device(boss: Client, acme: Customer) -> None:
    device, _ = app_passwords.create(acme.mailbox, name="Laptop", own_copy=True)
    session = ended(acme.mailbox, app_password_id=device.pk, view=device.pk, expunged=1)
    message = add_message(acme.mailbox, subject="kept")
    OwnCopy.objects.create(
        tenant=acme.tenant, mailbox=acme.mailbox, app_password=device, message=message, removed_in=session,
        removed_at=timezone.now(),
    )  # fmt: skip
    assert "from its own copy" in page(boss, "messages", acme.mailbox)
    assert "Undo: bring 1 back" in page(boss, "sessions", acme.mailbox)
    assert "own copy comes back there" in page(boss, "restore", acme.mailbox, what="session", session=session.pk)
    assert "1 message is back" in said(boss, "restore", acme.mailbox, what="session", session=session.pk, apply="yes")
    assert OwnCopy.objects.get().removed_at is None


def test_some_messages_come_back_and_others_are_taken_out(boss: Client, acme: Customer, globex: Customer) -> None:
    gone, there = add_message(acme.mailbox, expunged_at=timezone.now()), add_message(acme.mailbox)
    theirs = add_message(globex.mailbox, expunged_at=timezone.now())
    chosen = {"message": [gone.pk, theirs.pk]}
    assert f"1 message, {gone.octets}" in said(boss, "restore", acme.mailbox, **chosen)
    assert not Message.objects.in_maildrop().filter(pk=gone.pk).exists()
    assert "1 message is back" in said(boss, "restore", acme.mailbox, **chosen, apply="yes")
    assert set(Message.objects.in_maildrop()) == {gone, there}
    assert "Choose messages first" in said(boss, "restore", acme.mailbox)
    assert "Choose messages first" in said(boss, "restore", acme.mailbox, message=["x", "9" * 30])

    asked = said(boss, "remove", acme.mailbox, message=[there.pk])
    assert "They can be brought back for 14 days" in asked
    assert "1 message is removed" in said(boss, "remove", acme.mailbox, message=[there.pk], apply="yes")
    assert set(Message.objects.in_maildrop()) == {gone}
    assert "None of them is in the maildrop" in said(boss, "remove", acme.mailbox, message=[there.pk], apply="yes")


def test_all_that_was_found_comes_back(boss: Client, acme: Customer) -> None:
    for number in range(30):
        add_message(acme.mailbox, subject=f"Invoice {number}", expunged_at=timezone.now())
    add_message(acme.mailbox, subject="Lunch", expunged_at=timezone.now())
    query = {"what": "found", "words": "invoice", "where": "removed"}
    assert f"?{urlencode(query)}".replace("&", "&amp;") in page(
        boss, "messages", acme.mailbox, words="invoice", where="removed"
    )
    assert "30 messages," in page(boss, "restore", acme.mailbox, **query)
    assert "30 messages are back" in said(boss, "restore", acme.mailbox, **query, apply="yes")
    assert Message.objects.in_maildrop().count() == 30
    query = {"what": "found", "words": "invoice 1"}
    assert "11 messages are removed" in said(boss, "remove", acme.mailbox, **query, apply="yes")
    assert Message.objects.in_maildrop().count() == 19


def test_the_maildrop_comes_back_as_it_was(boss: Client, acme: Customer) -> None:
    now = timezone.now()
    was, later, before = (
        add_message(acme.mailbox, subject=name, expunged_at=now) for name in ("was", "later", "before")
    )
    Message.objects.filter(pk=was.pk).update(delivered_at=now - timedelta(days=3))
    Message.objects.filter(pk=before.pk).update(
        delivered_at=now - timedelta(days=3), expunged_at=now - timedelta(days=2)
    )
    at = f"{localtime(now - timedelta(days=1)):%Y-%m-%dT%H:%M}"
    assert "1 message," in page(boss, "restore", acme.mailbox, what="then", at=at)
    assert "1 message is back" in said(boss, "restore", acme.mailbox, what="then", at=at, apply="yes")
    assert list(Message.objects.in_maildrop()) == [was]
    assert later not in Message.objects.in_maildrop()
    long_ago = page(boss, "restore", acme.mailbox, what="then", at="2020-01-01T00:00")
    assert "more than 14 days ago is gone for good" in long_ago
    for wrong in ("", "x", "2020-13-01T00:00", "9999-12-31T23:59", "0001-01-01T00:00", "2020-01-01T00:00+07:00"):
        boss.get(url("restore", acme.mailbox), {"what": "then", "at": wrong}, follow=True)
    assert (
        "That is to come"
        in boss.get(
            url("restore", acme.mailbox), {"what": "then", "at": "2999-01-01T00:00"}, follow=True
        ).content.decode()
    )


def test_without_room_nothing_comes_back_and_it_is_said_how_much_is_missing(boss: Client, acme: Customer) -> None:
    session = ended(acme.mailbox, expunged=3)
    octets = add_message(acme.mailbox, expunged_in=session).octets
    for _ in range(2):
        add_message(acme.mailbox, expunged_in=session)
    Mailbox.objects.update(quota_octets=octets * 2)
    for apply in ({}, {"apply": "yes"}):
        answer = said(boss, "restore", acme.mailbox, what="session", session=session.pk, **apply)
        assert f"There is no room: {octets}" in answer
        assert not Message.objects.in_maildrop().exists()
    Mailbox.objects.update(quota_octets=None)
    limits.set_limits(acme.domain, max_octets=octets)
    assert f"{octets * 2}" in said(boss, "restore", acme.mailbox, what="session", session=session.pk, apply="yes")
    limits.set_limits(acme.domain, max_octets=None)
    reseller = provisioning.add_reseller("seller")[0]
    Tenant.objects.filter(pk=acme.tenant.pk).update(reseller=reseller)
    limits.set_limits(Reseller.objects.get(), max_octets=octets)
    answer = said(boss, "restore", acme.mailbox, what="session", session=session.pk, apply="yes")
    assert "a limit of whoever hosts the domain was reached" in answer
    assert not Message.objects.in_maildrop().exists()


def test_nothing_comes_back_into_a_closed_mailbox(boss: Client, acme: Customer) -> None:
    session = ended(acme.mailbox, expunged=1)
    add_message(acme.mailbox, expunged_in=session)
    provisioning.close_mailbox(acme.mailbox)
    shown = page(boss, "messages", acme.mailbox)
    assert "Closed" in shown
    assert "Undo" not in shown
    said(boss, "restore", acme.mailbox, what="session", session=session.pk, apply="yes")
    assert not Message.objects.in_maildrop().exists()


# --- Ending sessions -----------------------------------------------------------------------------------------------


def test_a_session_is_ended_after_it_was_said_what_that_means(boss: Client, acme: Customer) -> None:
    session = add_session(acme.mailbox, add_listener("pop3"), client_address="192.0.2.7")
    assert f"{url('end', acme.mailbox)}?session={session.pk}" in page(boss, "messages", acme.mailbox)
    asked = page(boss, "end", acme.mailbox, session=session.pk)
    assert "Nothing that it marked is removed" in asked
    assert "192.0.2.7" in asked
    assert "The session is ended." in said(boss, "end", acme.mailbox, session=session.pk)
    session.refresh_from_db()
    assert session.end == "ended"
    assert "That session has ended" in said(boss, "end", acme.mailbox, session=session.pk)
    change = reverse("admin:mailstore_maildropsession_change", args=[session.pk])
    assert f"{change.removesuffix('change/')}stop/" not in boss.get(change).content.decode()


def test_the_page_of_a_session_leads_to_what_can_be_done_with_it(boss: Client, acme: Customer) -> None:
    session = ended(acme.mailbox, expunged=1)
    add_message(acme.mailbox, expunged_in=session)
    undo = reverse("admin:mailstore_maildropsession_undo", args=[session.pk])
    change = reverse("admin:mailstore_maildropsession_change", args=[session.pk])
    assert undo in boss.get(change).content.decode()
    response = boss.get(undo)
    assert response["Location"] == f"{url('restore', acme.mailbox)}?what=session&session={session.pk}"


@pytest.mark.parametrize("keep", [False, True])
def test_who_changes_a_password_chooses_whether_open_sessions_go_on(boss: Client, acme: Customer, keep: bool) -> None:
    values = {
        "state": "active",
        "pop3_enabled": "on",
        "password": "another one",
        **({"keep_sessions": "on"} if keep else {}),
    }
    assert "was changed" in said(boss, "change", acme.mailbox, **values)
    acme.mailbox.user.refresh_from_db()
    assert acme.mailbox.user.check_password("another one")
    assert (acme.mailbox.user.former_password is not None) is keep


# --- Who may -------------------------------------------------------------------------------------------------------


def test_what_belongs_to_another_tenant_does_not_exist(boss: Client, acme: Customer, globex: Customer) -> None:
    theirs = ended(globex.mailbox, expunged=1)
    secret = add_message(globex.mailbox, subject="Secret", expunged_in=theirs)
    add_session(globex.mailbox, add_listener("pop3"))
    query = {"what": "session", "session": str(theirs.pk), "apply": "yes"}
    for name in PAGES:
        for method in (boss.get, boss.post):
            answer = method(url(name, globex.mailbox), query)
            nowhere = method(reverse(f"admin:accounts_mailbox_{name}", args=[999_999]))
            assert answer.status_code == nowhere.status_code == 302
    # Nor by way of one's own.
    for others in ({"what": "session", "session": theirs.pk}, {"message": [secret.pk]}):
        said(boss, "restore", acme.mailbox, **others, apply="yes")
    assert "There is no such session" in page(boss, "messages", acme.mailbox, session=theirs.pk)
    said(boss, "end", acme.mailbox, session=MaildropSession.objects.get(ended_at=None).pk)
    assert MaildropSession.objects.filter(ended_at=None).exists()
    assert not Message.objects.in_maildrop().exists()
    listed = boss.get(
        reverse("admin:accounts_apppassword_changelist"), {"mailbox__id__exact": globex.mailbox.pk}
    ).content.decode()
    assert "globex" not in listed


def test_support_brings_back_and_ends_and_takes_nothing_out(support: Client, acme: Customer) -> None:
    session = ended(acme.mailbox, expunged=1)
    gone, there = add_message(acme.mailbox, expunged_in=session), add_message(acme.mailbox)
    opened = add_session(acme.mailbox, add_listener("pop3"))
    shown = page(support, "messages", acme.mailbox)
    assert "Restore chosen" in shown
    assert "Remove chosen" not in shown
    assert "1 message is back" in said(
        support, "restore", acme.mailbox, what="session", session=session.pk, apply="yes"
    )
    assert support.post(url("remove", acme.mailbox), {"message": [there.pk], "apply": "yes"}).status_code == 403
    assert set(Message.objects.in_maildrop()) == {gone, there}
    said(support, "end", acme.mailbox, session=opened.pk)
    assert not MaildropSession.objects.filter(ended_at=None).exists()


def test_a_domain_admin_sees_the_mail_of_his_domains_only(acme: Customer) -> None:
    other, _ = provisioning.add_domain("other.test", tenant=acme.tenant)
    mine, _ = provisioning.add_mailbox("an@other.test", password=None, quota_octets=None)
    staff = provisioning.add_staff(
        "d@acme.test", password=None, tenant=acme.tenant, role=Role.DOMAIN_ADMIN, domains=[other]
    )
    client = signed_in(staff)
    add_message(acme.mailbox, subject="not his")
    page(client, "messages", mine)
    assert client.get(url("messages", acme.mailbox)).status_code == 302
    assert (
        client.get(url("restore", acme.mailbox), {"what": "then", "at": f"{localtime():%Y-%m-%dT%H:%M}"}).status_code
        == 302
    )


def test_nobody_looks_without_signing_in(acme: Customer, client: Client) -> None:
    for name in PAGES:
        assert "/login/" in client.get(url(name, acme.mailbox))["Location"]
