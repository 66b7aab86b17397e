"""What each role comes for, and every page of the admin that it sees, in a real browser, wide and narrow."""

import re
from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse

from accounts import app_passwords, permissions, provisioning, tokens, webhooks
from accounts.models import Event, Mailbox, Plan, Reseller, Role, Tenant, User, WebhookDelivery
from accounts.principals import Principal
from mailstore.models import ImportJob, Message
from tests.browser.looking import browser, expect, needs_chromium, violations
from tests.fixtures import PASSWORD, Customer
from tests.mailstore.rows import add_failed_login, add_listener, add_message, add_session

pytestmark = [
    needs_chromium,
    pytest.mark.django_db(transaction=True),
]

SIZES = pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])


@pytest.fixture
def people(acme: Customer, globex: Customer) -> dict[str, User]:
    """Somebody with each role, who looks after acme."""
    reseller, _ = provisioning.add_reseller("north", name="North Hosting")
    provisioning.change_tenant(acme.tenant, reseller=reseller)
    where: dict[str, dict[str, Any]] = {
        Role.OPERATOR: {"tenant": None},
        Role.RESELLER: {"reseller": reseller, "tenant": None},
        Role.TENANT_ADMIN: {"tenant": acme.tenant},
        Role.DOMAIN_ADMIN: {"tenant": acme.tenant, "domains": [acme.domain]},
        Role.SUPPORT: {"tenant": acme.tenant},
    }
    return {
        role: provisioning.add_staff(f"{role}@staff.test", password=PASSWORD, role=role, **whose)
        for role, whose in where.items()
    }


def come(page: Any, live_server: Any, user: User) -> None:
    """Sign in through the form."""
    page.goto(f"{live_server.url}/admin/")
    page.get_by_label("Login").fill(user.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.locator("#nav-sidebar").wait_for(state="attached")
    page.wait_for_load_state()


def go(page: Any, name: str) -> None:
    """Choose something in the side bar."""
    page.wait_for_load_state()  # until the page is there, so is no side bar
    if not page.locator("#nav-sidebar").is_visible():
        page.get_by_role("button", name="Side bar").click()
    page.locator("#nav-sidebar").get_by_role("link", name=name, exact=True).click()
    page.wait_for_load_state()


def search(page: Any) -> Any:
    """Open the search with the keyboard, as somebody does who sees whether it opened: its field."""
    page.wait_for_load_state("networkidle")
    field = page.locator("#search-input-command")
    for _ in range(10):
        page.keyboard.press("Control+k")
        try:
            expect(field).to_be_focused(timeout=3_000)
        except AssertionError:
            continue
        return field
    raise AssertionError("the search does not open")


def act(page: Any, action: str) -> None:
    """Choose an action for the rows that are ticked."""
    page.get_by_label("Select action to run").select_option(label=action)
    page.get_by_role("button", name="Run").click()


@SIZES
def test_a_tenant_s_admin_adds_a_mailbox_and_sets_quotas(
    people: dict[str, User], acme: Customer, live_server: Any, width: int, height: int
) -> None:
    acme.add("binh")
    with browser(width, height) as page:
        come(page, live_server, people[Role.TENANT_ADMIN])
        go(page, "Mailboxes")
        page.get_by_title("Add mailbox").click()
        page.get_by_label("Address").fill("chi@acme.test")
        page.get_by_label("Password").fill("correct horse battery")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_role("link", name="chi@acme.test", exact=True).last).to_be_visible()
        for address in ("binh@acme.test", "chi@acme.test"):
            row = page.locator("tr, tbody").filter(has=page.get_by_role("link", name=address, exact=True)).last
            row.locator("input.action-select").check()
        act(page, "Set the quota")
        page.get_by_label("Quota").fill("2G")
        page.get_by_role("button", name="Look at it first").click()
        expect(page.locator("main")).to_contain_text("Get less than now")
        page.get_by_role("button", name="Set the quota").click()
        page.get_by_role("link", name="chi@acme.test", exact=True).wait_for()
    quotas = dict(Mailbox.objects.values_list("address", "quota_octets"))
    assert quotas["binh@acme.test"] == quotas["chi@acme.test"] == 2 * 2**30
    assert quotas["an@acme.test"] is None


@SIZES
def test_a_reseller_adds_a_customer_on_a_plan(
    people: dict[str, User], live_server: Any, width: int, height: int
) -> None:
    with browser(width, height) as page:
        come(page, live_server, people[Role.RESELLER])
        go(page, "Plans")
        page.get_by_title("Add plan").click()
        page.get_by_label("Slug").fill("small")
        page.get_by_label("Name").fill("Small")
        page.get_by_label("Max mailboxes").fill("5")
        page.get_by_role("button", name="Save", exact=True).click()
        go(page, "Tenants")
        page.get_by_title("Add tenant").click()
        page.get_by_label("Slug").fill("south")
        page.get_by_label("Name").fill("South & Sons")
        page.get_by_role("button", name="Save", exact=True).click()
        row = page.locator("tr, tbody").filter(has=page.get_by_role("link", name="south", exact=True)).last
        row.locator("input.action-select").check()
        act(page, "Move to a plan")
        page.get_by_label("Plan").select_option(label="small")
        page.get_by_role("button", name="Look at it first").click()
        page.get_by_role("button", name="Move").click()
        page.get_by_role("link", name="south", exact=True).wait_for()
        page.wait_for_load_state()
        assert "globex" not in page.content()
    tenant = Tenant.objects.get(slug="south")
    assert tenant.plan == Plan.objects.get(slug="small")
    assert tenant.reseller == Reseller.objects.get(slug="north")


@SIZES
def test_a_domain_s_admin_suspends_a_mailbox(
    people: dict[str, User], acme: Customer, live_server: Any, width: int, height: int
) -> None:
    with browser(width, height) as page:
        come(page, live_server, people[Role.DOMAIN_ADMIN])
        go(page, "Mailboxes")
        page.locator("input.action-select").first.check()
        act(page, "Suspend: no mail in or out until resumed")
        page.get_by_label("Reason").fill("Left the company")
        page.get_by_role("button", name="Look at it first").click()
        page.get_by_role("button", name="Suspend").click()
        page.get_by_text("Now suspended: 1").wait_for()
    assert Mailbox.objects.get(address="an@acme.test").state_reason == "Left the company"


@SIZES
def test_support_finds_a_mailbox_from_anywhere_and_restores(
    people: dict[str, User], acme: Customer, live_server: Any, width: int, height: int
) -> None:
    session = add_session(acme.mailbox, add_listener("pop3"), client_address="192.0.2.7", end="quit")
    add_message(acme.mailbox, subject="Offer 7", expunged_in=session)
    with browser(width, height) as page:
        come(page, live_server, people[Role.SUPPORT])
        field = search(page)
        field.press_sequentially("an@acme", delay=20)
        expect(field).to_have_value("an@acme")
        field.press("Enter")  # before anything is found
        page.get_by_text("Offer 7").wait_for()
        page.get_by_role("button", name="Restore chosen").wait_for()
        expect(page.get_by_role("button", name="Remove chosen")).to_have_count(0)
        page.locator("input[type=checkbox]:visible").first.check()
        page.get_by_role("button", name="Restore chosen").click()
        page.locator("main").get_by_role("button", name="Restore").first.click()
        expect(page.locator("main")).to_contain_text("1 message is back")
    assert Message.objects.in_maildrop(acme.mailbox).count() == 1


def test_enter_takes_what_is_found_for_all_that_was_typed(
    people: dict[str, User], acme: Customer, live_server: Any
) -> None:
    acme.add("chi")
    held: list[Any] = []
    with browser(1280, 900) as page:
        page.route(re.compile(r"/admin/search/.*\bs=acme\b"), lambda route: held.append(route))
        come(page, live_server, people[Role.SUPPORT])
        field = search(page)
        with page.expect_request("**/admin/search/**"):
            field.press_sequentially("acme")
        field.press("Home")
        field.press_sequentially("chi@")
        field.press("Enter")
        held[0].continue_()
        expect(page.get_by_role("heading", name="chi@acme.test").first).to_be_visible()


@pytest.fixture
def everything(acme: Customer) -> None:
    """A row in each list."""
    listener = add_listener("pop3")
    session = add_session(acme.mailbox, listener, client_address="192.0.2.7")
    add_message(acme.mailbox, subject="Họp nhóm chiều thứ Năm", sender="Bình <binh@example.com>", expunged_in=session)
    add_failed_login(acme.mailbox)
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    provisioning.add_plan("small", name="Small", max_mailboxes=5)
    app_passwords.create(acme.mailbox, name="Outlook office")
    by = Principal(role="tenant-admin", tenant_id=acme.tenant.pk)
    tokens.make(by=by, name="sign-up", role="tenant-admin", scopes=["mailboxes:read"], tenant=acme.tenant)
    webhook, _ = webhooks.add("https://hooks.example/", tenant=acme.tenant, allow_private=False)
    event = Event.objects.create(tenant=acme.tenant, kind="mailbox.created", payload={})
    WebhookDelivery.objects.create(tenant=acme.tenant, webhook=webhook, event=event)
    ImportJob.objects.create(tenant=acme.tenant, mailbox=acme.mailbox, source="pop3", host="pop.example", login="an")


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize(("role", "width", "height"), [(Role.OPERATOR, 1280, 900), (Role.TENANT_ADMIN, 390, 844)])
def test_every_page_is_for_everybody(
    people: dict[str, User], acme: Customer, live_server: Any, role: str, width: int, height: int
) -> None:
    """Nothing sticks out, and axe finds nothing serious against accessibility; nothing is said on the console."""
    faults: list[Any] = []
    seen = paths(people[role])
    with browser(width, height) as page:
        come(page, live_server, people[role])
        for path in seen:
            page.goto(live_server.url + path)
            if page.evaluate("document.documentElement.scrollWidth") > width:
                faults.append((path, "sticks out"))
            faults += [
                (path, one["id"], [node["html"][:300] for node in one["nodes"]])
                for one in violations(page)
                if one["impact"] in ("serious", "critical")
            ]
    assert faults == []


def test_what_icons_alone_tell_is_said_in_the_reader_s_language(
    people: dict[str, User], acme: Customer, live_server: Any
) -> None:
    provisioning.set_language(people[Role.OPERATOR], language="vi", time_zone="")
    with browser(390, 844) as page:
        come(page, live_server, people[Role.OPERATOR])
        page.goto(live_server.url + reverse("admin:accounts_mailbox_messages", args=[acme.mailbox.pk]))
        expect(page.get_by_label("Xem thêm", exact=True)).to_be_visible()
        regions = page.locator(".simplebar-content-wrapper")
        expect(regions.first).to_have_attribute("aria-label", "Thanh bên")
        assert "scrollable content" not in [region.get_attribute("aria-label") for region in regions.all()]


def paths(user: User) -> list[str]:
    """Each list, each form with a row, and each empty form that somebody sees."""
    found = ["/admin/"]
    for page in admin.site._registry.values():
        view = f"admin:{page.opts.label_lower.replace('.', '_')}"
        principal = Principal(role=user.role, tenant_id=user.tenant_id)
        if not permissions.may(principal, page.resource, "read"):  # type: ignore[attr-defined] # all are `Scoped`
            continue
        found.append(reverse(f"{view}_changelist"))
        objects: Any = page.model._default_manager
        rows = objects.visible_to(user) if hasattr(objects, "visible_to") else objects.all()
        if (row := rows.order_by("-pk").first()) is not None:
            found.append(reverse(f"{view}_change", args=[row.pk]))
        if permissions.TABLE[page.resource].get("create") and permissions.may(principal, page.resource, "create"):  # type: ignore[attr-defined]
            found.append(reverse(f"{view}_add"))
    return found
