"""Who helps others finds out why somebody cannot sign in, and helps: in a real browser, at a desk, on a telephone."""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from accounts import app_passwords, provisioning
from accounts.models import Mailbox
from mailstore.models import MaildropSession, Refusal
from tests.browser.looking import browser, expect, look, needs_chromium
from tests.fixtures import Customer, signed_in
from tests.mailstore.rows import add_failed_login, add_listener, add_message, add_session

pytestmark = needs_chromium


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_helpdesk_finds_out_why_and_helps(acme: Customer, live_server: Any, width: int, height: int) -> None:
    now = timezone.now()
    mailbox = acme.mailbox
    Mailbox.objects.filter(pk=mailbox.pk).update(
        quota_octets=1000, used_octets=1000, pop3_enabled=False, last_login_at=now - timedelta(hours=3),
        last_login_address="192.0.2.7",
    )  # fmt: skip
    device, _ = app_passwords.create(mailbox, name="Outlook office")
    add_session(mailbox, add_listener("pop3"), client_address="198.51.100.4", app_password_id=device.pk)
    add_failed_login(mailbox, count=14, client_address="203.0.113.9", network="203.0.113.0/24")
    add_failed_login(mailbox, reason="app-expired", app_password_id=device.pk, count=2)
    add_message(mailbox, reverse_path="binh@elsewhere.test")
    Refusal.objects.create(
        tenant=acme.tenant, domain=acme.domain, mailbox=mailbox, reason="over quota", hour=now, count=3, first_at=now,
        last_at=now, sender_domain="elsewhere.test",
    )  # fmt: skip
    boss = provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant)
    cookie = signed_in(boss).cookies[settings.SESSION_COOKIE_NAME].value

    with browser(width, height) as page:
        page.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": live_server.url}])
        page.goto(f"{live_server.url}/admin/why/")
        page.get_by_label("Which address?").fill("mailto:An@Acme.test")
        look(page, "why-empty")
        page.get_by_role("button", name="Look").click()
        page.get_by_role("heading", name="an@acme.test").wait_for()
        look(page, "why")
        page.get_by_role("link", name="End this session").click()
        look(page, "why-asking")
        page.get_by_role("button", name="End this session").click()
        page.get_by_text("The session has ended.").wait_for()
        page.get_by_role("link", name="Enable POP3").wait_for()
        expect(page.get_by_role("link", name="End this session")).to_have_count(0)
        page.get_by_role("link", name="Enable POP3").click()
        page.get_by_role("button", name="Enable POP3").click()
        page.get_by_text("POP3 is on.").wait_for()
        page.get_by_label("Which address?").fill("ann@acme.test")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="ann@acme.test").wait_for()
        look(page, "why-unknown")
        page.get_by_role("link", name="Look at an@acme.test").click()
        page.get_by_role("link", name="See all failed logins").click()
        look(page, "failed-logins")

    assert not MaildropSession.objects.filter(ended_at=None).exists()
