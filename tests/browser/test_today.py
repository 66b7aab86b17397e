"""The first page of the admin in a real browser, for who runs the host and for who looks after a tenant."""

from functools import partial
from typing import Any

import pytest

from accounts import provisioning
from tests.browser.looking import browser, expect, look_closely, needs_chromium
from tests.fixtures import PASSWORD, Customer
from tests.mailstore import retain, today

pytestmark = [
    needs_chromium,
    pytest.mark.django_db(transaction=True),
]


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_first_page(acme: Customer, globex: Customer, live_server: Any, width: int, height: int) -> None:
    provisioning.add_staff("operator@localhost", password=PASSWORD, tenant=None)
    provisioning.add_staff("boss@acme.test", password=PASSWORD, tenant=acme.tenant)
    today.of(acme, size=40)
    today.crowd(acme)

    with browser(width, height) as page:
        look = partial(look_closely, page)

        def sign_in(login: str) -> None:
            page.context.clear_cookies()
            page.goto(f"{live_server.url}/admin/")
            page.fill("[name=username]", login)
            page.fill("[name=password]", PASSWORD)
            page.keyboard.press("Enter")
            page.locator(".today").wait_for()

        sign_in("operator@localhost")
        expect(page.locator(".today-notices")).to_contain_text("Celery has not run yet")
        look("today-nothing-runs")
        retain.at_once([today.run_everything])  # playwright's own loop lets nobody ask the database
        page.reload()
        expect(page.locator(".today-state").first).to_be_visible()
        expect(page.locator(".is-bad.today-state")).to_have_count(0)
        for name in ("24 hours", "7 days", "30 days", "1 year"):
            page.get_by_role("link", name=name, exact=True).click()
            expect(page.get_by_role("link", name=name, exact=True)).to_have_attribute("aria-current", "true")
            expect(page.locator("canvas[role=img]")).to_have_count(3)
            look(f"today-{name.replace(' ', '-')}")
        page.locator("#chart-deliveries summary").click()
        page.locator("#chart-deliveries tbody tr").nth(20).wait_for()
        look("today-table")
        page.get_by_role("link", name="Mailboxes near quota").click()
        page.locator("#result_list tbody tr").nth(5).wait_for()

        sign_in("boss@acme.test")
        expect(page.locator("canvas[role=img]").first).to_be_visible()
        look("today-boss")
        expect(page.locator("#today-processes")).to_have_count(0)
        page.evaluate("document.documentElement.classList.add('dark')")
        look("today-dark")
