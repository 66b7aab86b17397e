"""The main path of a mailbox's owner in a real browser, at a desk and on a telephone."""

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from accounts import app_passwords
from accounts.models import Mailbox
from mailstore.models import Message
from tests.browser.looking import browser, expect, look_closely, needs_chromium
from tests.fixtures import PASSWORD, Customer
from tests.mailstore.rows import add_listener, add_message, add_session

pytestmark = needs_chromium


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_an_owner_gets_back_what_a_device_took(acme: Customer, live_server: Any, width: int, height: int) -> None:
    mailbox = acme.mailbox
    Mailbox.objects.filter(pk=mailbox.pk).update(name="Nguyễn Văn An", quota_octets=20_000)
    device, _ = app_passwords.create(mailbox, name="Outlook office")
    began = timezone.now() - timedelta(hours=3)
    session = add_session(
        mailbox, add_listener("pop3"), client_address="192.0.2.7", app_password_id=device.pk, started_at=began,
        ended_at=began + timedelta(seconds=9), end="quit", fetched=3, expunged=3,
    )  # fmt: skip
    for subject in ("Họp nhóm chiều thứ Năm", "Stock at the end of the month", "<script>alert(1)</script>" + "x" * 90):
        add_message(mailbox, subject=subject, sender="Bình <binh@example.com>", expunged_in=session)
    add_message(mailbox, subject="Still here")

    with browser(width, height) as page:
        look = partial(look_closely, page)
        page.goto(f"{live_server.url}/")
        page.get_by_label("Address").fill("an@acme.test")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not the password")
        look("sign-in")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")

        page.get_by_role("heading", name="Hello, Nguyễn Văn An", level=1).wait_for()
        look("overview")
        page.get_by_role("link", name="Who fetched my mail").click()
        look("sessions")
        page.get_by_role("link", name="Outlook office").click()
        look("session")
        page.get_by_role("button", name="Bring all 3 messages back").click()
        expect(page.get_by_role("status")).to_contain_text("3 messages are back")

        page.get_by_role("link", name="Removed mail").click()
        look("removed")
        page.get_by_role("link", name="Devices").click()
        page.get_by_label("Name of the device").fill("Telephone")
        page.get_by_label("It gets its own copy of the mail").check()
        page.get_by_role("button", name="Make a password").click()
        expect(page.locator(".secret")).to_have_text(re.compile(r"^\s*\w+(-\w+){3}\s*$"))
        look("devices")
        page.get_by_role("button", name="End the own copy of Telephone").click()
        expect(page.get_by_role("status")).to_contain_text("gone for all devices")
        page.get_by_role("button", name="Revoke Telephone").click()
        expect(page.get_by_role("status")).to_contain_text("Telephone cannot sign in")

        page.get_by_role("link", name="Set up a program").click()
        page.get_by_text("fetchmail", exact=True).click()
        look("set-up")
        page.get_by_role("button", name="Show a code").click()
        look("link")
        assert page.locator("img.code").evaluate("image => image.complete && image.naturalWidth > 0")

        page.get_by_role("link", name="Password").click()
        page.get_by_label("Current password").fill(PASSWORD)
        page.get_by_label("New password", exact=True).fill("correct horse battery")
        page.get_by_label("New password, again").fill("correct horse battery")
        look("password")
        page.get_by_role("button", name="Change it").click()
        expect(page.get_by_role("status")).to_contain_text("Your password is changed")
        page.get_by_role("link", name="Download").click()
        look("export")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        assert Path(download.value.path()).read_bytes().count(b"\nSubject: x") == 4
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", name="Sign in to your mailbox", level=1).wait_for()

    assert Message.objects.in_maildrop(mailbox).count() == 4


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_an_owner_reads_vietnamese(acme: Customer, live_server: Any, width: int, height: int) -> None:
    mailbox = acme.mailbox
    Mailbox.objects.filter(pk=mailbox.pk).update(name="Nguyễn Văn An", quota_octets=20_000)
    began = timezone.now() - timedelta(hours=3)
    session = add_session(
        mailbox, add_listener("pop3"), client_address="192.0.2.7", started_at=began,
        ended_at=began + timedelta(seconds=9), end="quit", fetched=3, expunged=2,
    )  # fmt: skip
    for subject in ("Họp nhóm chiều thứ Năm", "Báo giá tháng 12"):
        add_message(mailbox, subject=subject, sender="Bình <binh@example.com>", expunged_in=session)

    with browser(width, height) as page:
        look = partial(look_closely, page)
        page.goto(f"{live_server.url}/")
        page.get_by_role("button", name="Tiếng Việt").click()
        page.get_by_role("heading", name="Đăng nhập hộp thư của bạn", level=1).wait_for()
        look("vi-sign-in")
        page.get_by_label("Địa chỉ").fill("an@acme.test")
        page.get_by_label("Mật khẩu").fill(PASSWORD)
        page.get_by_role("button", name="Đăng nhập").click()
        page.get_by_role("heading", name="Xin chào, Nguyễn Văn An", level=1).wait_for()
        expect(page.locator("html")).to_have_attribute("lang", "vi")
        look("vi-overview")
        page.get_by_role("link", name="Ngôn ngữ và thời gian").click()
        page.get_by_label("Múi giờ").select_option("Asia/Ho_Chi_Minh")
        page.get_by_label("Ngôn ngữ").select_option("vi")
        page.get_by_role("button", name="Lưu").click()
        expect(page.locator("footer")).to_contain_text("Asia/Ho_Chi_Minh")
        look("vi-language")
        page.get_by_role("link", name="Ai đã tải thư của tôi").click()
        look("vi-sessions")
        page.locator("main a").first.click()
        look("vi-session")
        page.get_by_role("button", name="Lấy lại cả 2 thư").click()
        expect(page.get_by_role("status")).to_contain_text("Đã lấy lại 2 thư")
        for name in ("Thư đã xóa", "Thiết bị", "Thiết lập chương trình", "Mật khẩu", "Tải xuống"):
            page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
            look(f"vi-{name.replace(' ', '-')}")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("scripts", "shown", "zone"),
    [(True, "2 Mar 2026 03:30", "Asia/Ho_Chi_Minh (UTC+07:00)"), (False, "1 Mar 2026 20:30", "UTC")],
)
def test_times_are_the_browser_s_from_the_first_page_on(
    acme: Customer, live_server: Any, scripts: bool, shown: str, zone: str
) -> None:
    add_session(
        acme.mailbox, add_listener("pop3"), fetched=1, end="quit",
        started_at=datetime(2026, 3, 1, 20, 30, tzinfo=UTC), ended_at=datetime(2026, 3, 1, 20, 31, tzinfo=UTC),
    )  # fmt: skip
    with browser(390, 844, timezone_id="Asia/Ho_Chi_Minh", java_script_enabled=scripts) as page:
        page.goto(f"{live_server.url}/")
        page.get_by_label("Address").fill("an@acme.test")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("main")).to_contain_text(shown)
        expect(page.locator("footer")).to_contain_text(f"Times are those of {zone}.")
        page.get_by_role("link", name="Language and time").click()
        page.get_by_label("Time zone").select_option("Asia/Tokyo")
        page.get_by_role("button", name="Keep it").click()
        expect(page.locator("footer")).to_contain_text("Times are those of Asia/Tokyo (UTC+09:00).")
