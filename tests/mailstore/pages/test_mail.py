"""The owner sees who fetched the mail, and gets back what was removed; nobody else's."""

import io
import zipfile
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts import app_passwords, provisioning
from accounts.models import AuditEvent, Mailbox
from mailstore.models import MaildropSession, Message, OwnCopy
from tests.fixtures import PASSWORD, Customer
from tests.mailstore.rows import add_listener, add_message, add_session, put_away
from tests.pages_of import signed_in, text


def removed_by(mailbox: Mailbox, count: int = 2, **values: Any) -> MaildropSession:
    """A session that ended, and removed so many messages."""
    began = timezone.now() - timedelta(hours=1)
    session = add_session(
        mailbox, add_listener("pop3"), client_address="192.0.2.7", started_at=began, end="quit",
        ended_at=began + timedelta(seconds=9), fetched=count, expunged=count, **values,
    )  # fmt: skip
    for number in range(count):
        add_message(mailbox, subject=f"Offer {number} of {mailbox}", sender="binh@x.test", expunged_in=session)
    return session


def present(mailbox: Mailbox) -> int:
    return int(Message.objects.in_maildrop(mailbox).count())


def test_who_fetched_is_shown_with_the_device(acme: Customer, globex: Customer) -> None:
    device, _ = app_passwords.create(acme.mailbox, name="Outlook <b>office</b>")
    removed_by(acme.mailbox, app_password_id=device.pk)
    removed_by(globex.mailbox, 3)
    for name in ("owner-overview", "owner-sessions"):
        page = text(signed_in(acme.mailbox).get(reverse(name)))
        assert "Outlook &lt;b&gt;office&lt;/b&gt;" in page
        assert "192.0.2.7" in page
        assert "2 messages fetched" in page
        assert "3 messages fetched" not in page


def test_numbers_are_written_as_the_language_does(acme: Customer) -> None:
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(message_count=12345)
    add_session(acme.mailbox, add_listener("pop3"), end="quit", ended_at=timezone.now(), fetched=2345, expunged=1)
    assert acme.mailbox.user
    provisioning.set_language(acme.mailbox.user, language="vi", time_zone="")
    page = text(signed_in(acme.mailbox).get(reverse("owner-overview")))
    assert "12.345 thư" in page
    assert "2.345 thư" in page.replace("12.345", "")
    assert reverse("owner-session", args=[MaildropSession.objects.get().pk]) in page


def test_a_whole_session_is_undone(acme: Customer, globex: Customer) -> None:
    session = removed_by(acme.mailbox, 3)
    other = removed_by(acme.mailbox, 1)
    client = signed_in(acme.mailbox)
    page = text(client.get(reverse("owner-session", args=[session.pk])))
    assert "Bring all 3 messages back" in page
    assert f"Offer 0 of {acme.mailbox}" in page
    page = text(client.post(reverse("owner-session-undo", args=[session.pk]), follow=True))
    assert "3 messages are back" in page
    assert present(acme.mailbox) == 3
    assert Message.objects.filter(expunged_in=other.pk).count() == 1
    event = AuditEvent.objects.get(action="mailbox.messages_restored")
    assert (event.through, event.user_id, event.changes["messages"]) == ("pages", acme.mailbox.user_id, 3)


def test_another_s_session_does_not_exist(acme: Customer, globex: Customer) -> None:
    colleague, _ = provisioning.add_mailbox("binh@acme.test", password=PASSWORD, quota_octets=None)
    session = removed_by(acme.mailbox)
    for mailbox in (globex.mailbox, colleague):
        client = signed_in(mailbox)
        assert client.get(reverse("owner-session", args=[session.pk])).status_code == 404
        assert client.post(reverse("owner-session-undo", args=[session.pk])).status_code == 404
        assert client.post(reverse("owner-session-end", args=[session.pk])).status_code == 404
        assert client.get(reverse("owner-session", args=[uuid4()])).status_code == 404
        chosen = list(Message.objects.values_list("pk", flat=True))
        page = text(client.post(reverse("owner-restore"), {"message": chosen}, follow=True))
        assert "0 messages are back" in page
        assert "Offer" not in text(client.get(reverse("owner-removed")))
    assert present(acme.mailbox) == 0


def test_chosen_messages_come_back(acme: Customer) -> None:
    session = removed_by(acme.mailbox, 3)
    one = Message.objects.filter(expunged_in=session.pk).first()
    assert one
    client = signed_in(acme.mailbox)
    values = {"message": [one.pk, "x", "9" * 30, "9" * 5000], "back": str(session.pk)}
    page = text(client.post(reverse("owner-restore"), values, follow=True))
    assert "1 message is back" in page
    assert present(acme.mailbox) == 1
    assert "Choose the messages" in text(client.post(reverse("owner-restore"), {"back": "/evil"}, follow=True))


def test_what_has_no_room_does_not_come_back(acme: Customer) -> None:
    session = removed_by(acme.mailbox)
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(quota_octets=10)
    page = text(signed_in(acme.mailbox).post(reverse("owner-session-undo", args=[session.pk]), follow=True))
    assert "no room" in page
    assert present(acme.mailbox) == 0


def test_removed_mail_is_found_by_its_words_and_shown_as_text(acme: Customer) -> None:
    session = removed_by(acme.mailbox, 1)
    add_message(
        acme.mailbox, subject="<script>alert(1)</script>", sender='"><img src=x onerror=alert(1)>', expunged_in=session
    )
    client = signed_in(acme.mailbox)
    for path in (reverse("owner-removed"), reverse("owner-session", args=[session.pk])):
        page = text(client.get(path))
        assert "&lt;script&gt;" in page
        assert "<script>" not in page
        assert "<img" not in page
    page = text(client.get(reverse("owner-removed"), {"words": "ALERT"}))
    assert "Offer" not in page
    assert "<script>" not in text(client.get(reverse("owner-removed"), {"words": '"><script>\0', "page": "x"}))


def test_long_lists_come_in_pages(acme: Customer) -> None:
    session = removed_by(acme.mailbox, 51)
    client = signed_in(acme.mailbox)
    for path in (reverse("owner-removed"), reverse("owner-session", args=[session.pk])):
        assert text(client.get(path)).count('name="message"') == 50
        assert text(client.get(path, {"page": 2})).count('name="message"') == 1
        assert "Page 2 of 2" in text(client.get(path, {"page": 99}))


@pytest.mark.parametrize("name", ["owner-overview", "owner-sessions", "owner-removed", "owner-devices"])
def test_a_page_asks_no_more_where_there_is_more(acme: Customer, name: str) -> None:
    client = signed_in(acme.mailbox)

    def asked() -> int:
        with CaptureQueriesContext(connection) as queries:
            text(client.get(reverse(name)))
        return len(queries)

    outlook, _ = app_passwords.create(acme.mailbox, name="Outlook")
    removed_by(acme.mailbox, 1, app_password_id=outlook.pk)
    before = asked()
    for number in range(4):
        device, _ = app_passwords.create(acme.mailbox, name=f"Telephone {number}")
        removed_by(acme.mailbox, 3, app_password_id=device.pk)
    assert asked() == before < 30


def test_an_open_session_is_ended(acme: Customer) -> None:
    session = add_session(acme.mailbox, add_listener("pop3"))
    client = signed_in(acme.mailbox)
    assert "open now" in text(client.get(reverse("owner-sessions")))
    page = text(client.post(reverse("owner-session-end", args=[session.pk]), follow=True))
    assert "The session is ended" in page
    session.refresh_from_db()
    assert session.end == MaildropSession.End.ENDED


@pytest.mark.django_db(transaction=True)
def test_the_mail_is_downloaded(acme: Customer, globex: Customer) -> None:
    add_message(acme.mailbox)
    removed_by(acme.mailbox, 1)
    add_message(globex.mailbox)
    client = signed_in(acme.mailbox)
    path = reverse("owner-export")

    def octets(**query: str) -> bytes:
        response = client.get(path, query)
        assert response.status_code == 200
        assert response["Content-Disposition"].startswith("attachment")
        return bytes(response.getvalue())

    assert octets(format="mbox").count(b"\nSubject: x") == 1
    assert octets(format="mbox", removed="on").count(b"\nSubject: x") == 2
    assert len(zipfile.ZipFile(io.BytesIO(octets(format="eml"))).namelist()) == 1
    assert client.get(path, {"format": "exe"}).status_code == 404


def test_usage_is_shown_against_the_quota(acme: Customer) -> None:
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(quota_octets=1000, used_octets=250, message_count=1)
    page = text(signed_in(acme.mailbox).get("/me/"))
    assert 'value="25"' in page
    assert "1 message to be fetched" in page


def test_a_session_of_a_device_with_an_own_copy_is_undone_for_that_device(acme: Customer, globex: Customer) -> None:
    phone, _ = app_passwords.create(acme.mailbox, name="Phone", own_copy=True)
    began = timezone.now()
    session = add_session(
        acme.mailbox, add_listener("pop3"), app_password_id=phone.pk, view=phone.pk, started_at=began,
        ended_at=began, end="quit", fetched=2, expunged=2,
    )  # fmt: skip
    messages = [add_message(acme.mailbox, subject=f"Offer {number}") for number in range(2)]
    for message in messages:
        put_away(message, phone, session)
    client = signed_in(acme.mailbox)
    page = text(client.get(reverse("owner-session", args=[session.pk])))
    assert "2 removed from its own copy" in page
    assert "removed in that session, from its own copy" in page
    chosen = {"message": [messages[0].pk], "back": str(session.pk)}
    page = text(client.post(reverse("owner-restore"), chosen, follow=True))
    assert "1 message is back" in page
    assert OwnCopy.objects.get(message=messages[0]).removed_at is None
    assert signed_in(globex.mailbox).post(reverse("owner-session-undo", args=[session.pk])).status_code == 404
    assert OwnCopy.objects.get(message=messages[1]).removed_at
    page = text(client.post(reverse("owner-session-undo", args=[session.pk]), follow=True))
    assert "Nothing any more" in page
    assert present(acme.mailbox) == 2
