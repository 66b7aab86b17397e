"""An operator finds out where a mailbox's mail went, and brings it back, in a real browser."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.conf import settings
from django.db.models import F
from django.test import Client
from django.utils import timezone

from accounts import app_passwords, provisioning
from accounts.models import Mailbox
from mailstore.models import MaildropSession, Message
from tests.browser.looking import browser, expect, keep, look_closely, needs_chromium
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.rows import add_listener, add_session

pytestmark = [
    needs_chromium,
    pytest.mark.django_db(transaction=True),
]

_XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def signed_in(url: str, login: str) -> dict[str, str]:
    """The cookie of an operator who has signed in."""
    client = Client()
    client.force_login(provisioning.add_staff(login, password=None, tenant=None))
    value = client.cookies[settings.SESSION_COOKIE_NAME].value
    return {"name": settings.SESSION_COOKIE_NAME, "value": value, "url": url}


def lost_mail(mailbox: Mailbox) -> MaildropSession:
    """Five messages, of which a device took three."""
    device, _ = app_passwords.create(mailbox, name="Outlook office")
    began = timezone.now() - timedelta(minutes=70)
    listener = add_listener("pop3")
    values = {"client_address": "192.0.2.7", "app_password_id": device.pk, "ended_at": began + timedelta(seconds=9)}
    office = add_session(mailbox, listener, started_at=began, end="quit", fetched=4, expunged=3, **values)
    phone = add_session(
        mailbox, listener, started_at=began - timedelta(days=1), ended_at=began - timedelta(days=1), end="dropped",
        fetched=1, client_address="2001:db8::77", secure=False,
    )  # fmt: skip
    subjects = ("Báo cáo tháng 11", "Invoice 4711", "Stock at the end of the month", "Lunch on Thursday?", _XSS)
    for number, subject in enumerate(subjects):
        whence = "Received: from mail.example.com (mail.example.com [203.0.113.9])\r\n\tby mx.acme.test (Postfix)"
        post.deliver(f"{whence} with ESMTPS id 4Zk1X{number}; x\r\n".encode() + post.text(subject), mailbox)
    Message.objects.update(delivered_at=began - timedelta(minutes=9))
    Message.objects.filter(uid=4).update(delivered_at=began - timedelta(days=2))
    Message.objects.filter(uid__lte=3).update(
        first_fetched_at=began, first_fetched_in=office, expunged_at=began + timedelta(seconds=9), expunged_in=office
    )
    Message.objects.filter(uid=4).update(first_fetched_at=began - timedelta(days=1), first_fetched_in=phone)
    gone = sum(Message.objects.expunged().values_list("octets", flat=True))
    Mailbox.objects.filter(pk=mailbox.pk).update(
        quota_octets=3_000, used_octets=F("used_octets") - gone,
        message_count=2, last_login_at=began, last_login_address="192.0.2.7", last_login_secure=True,
        last_login_app_password_id=device.pk,
    )  # fmt: skip
    add_session(mailbox, listener, client_address="198.51.100.4")
    return office


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_an_operator_undoes_what_a_device_did(acme: Customer, live_server: Any, width: int, height: int) -> None:
    lost_mail(acme.mailbox)
    cookie = signed_in(live_server.url, "operator@localhost")
    with browser(width, height) as page:
        look = partial(look_closely, page)
        page.context.add_cookies([cookie])
        page.goto(f"{live_server.url}/admin/accounts/mailbox/")
        page.get_by_role("link", name="an@acme.test").first.click()
        page.get_by_role("heading", name="Messages").wait_for()
        look("mailbox-mail")
        told = expect(page.locator("li.gone .life").first)
        told.to_contain_text("delivered from mail.example.com (203.0.113.9) (queue id 4Zk1X2)")
        told.to_contain_text("fetched by “Outlook office” from 192.0.2.7")
        told.to_contain_text("removed in that session")
        told.to_contain_text("gone for good on")
        expect(page.get_by_text(_XSS)).to_be_visible()

        page.get_by_label("Subject, sender or Message-ID").fill("invoice")
        page.get_by_role("button", name="Search", exact=True).click()
        page.wait_for_url("**words=invoice**")
        expect(page.locator(".messages > li")).to_have_count(1)
        look("mailbox-found")

        page.get_by_role("link", name="Undo: bring 3 back").click()
        page.get_by_role("heading", name="Undo a session of an@acme.test").wait_for()
        expect(page.get_by_text("“Outlook office” from 192.0.2.7")).to_be_visible()
        look("mailbox-undo")
        page.get_by_role("button", name="Restore").click()
        page.get_by_text("The session is undone. 3 messages are back").wait_for()
        look("mailbox-undone")
        expect(page.locator(".messages .life").first).to_contain_text("restored by")

        page.get_by_role("link", name="End it").click()
        look("mailbox-end")
        page.get_by_role("button", name="End it").click()
        page.get_by_text("The session is ended. Nothing that it marked was removed.").wait_for()
        page.get_by_role("link", name="Sessions", exact=True).last.click()
        page.get_by_role("heading", name="Who fetched from it").wait_for()
        look("mailbox-sessions")
        page.locator(".lines a").nth(2).click()
        page.get_by_text("Messages that it fetched or removed").wait_for()
        look("session")
        for model in ("maildropsession", "message"):
            page.goto(f"{live_server.url}/admin/mailstore/{model}/")
            page.wait_for_load_state()
            table = page.locator("#result_list")
            assert table.evaluate("table => table.getBoundingClientRect().right") <= width, model
            keep(page, f"list-{model}")
        page.get_by_role("link", name="Lunch on Thursday?").first.click()
        page.locator(".life").wait_for()
        look("message")
    assert Message.objects.in_maildrop(acme.mailbox).count() == 5
    assert not MaildropSession.objects.filter(ended_at=None).exists()
