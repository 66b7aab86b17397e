"""The second step in a real browser, at a desk and on a telephone: a passkey of the browser, an app, recovery codes."""

import re
import time
from typing import Any

import pytest

from accounts import provisioning
from accounts.models import AuthenticatorApp, Passkey, User, WebSession
from accounts.two_factor import totp
from tests.browser import looking
from tests.browser.looking import browser, expect, needs_chromium
from tests.fixtures import Customer

PASSWORD = "correct horse"
INSIDE = re.compile("^http://[^/]+/admin/$")

pytestmark = [
    needs_chromium,
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def boss(acme: Customer, monkeypatch: pytest.MonkeyPatch) -> User:
    monkeypatch.setattr("accounts.throttle._TICK", 0.01)
    monkeypatch.setattr("accounts.authentication.REFUSED_AFTER", 0.0)
    return provisioning.add_staff("boss@acme.test", password=PASSWORD, tenant=acme.tenant)


def look(page: Any, name: str) -> None:
    page.mouse.move(0, 0)  # what is under it has other colours
    looking.look(page, name)


def add_authenticator(page: Any) -> Any:
    """One that is built into the browser, and says yes at once."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    made = devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return devtools, made["authenticatorId"]


def give_password(page: Any, at: str) -> None:
    page.goto(f"{at}/admin/")
    page.locator("#id_username").fill("boss@acme.test")
    page.locator("#id_password").fill(PASSWORD)
    page.keyboard.press("Enter")


def sign_out(page: Any) -> None:
    page.wait_for_load_state()
    page.evaluate("document.getElementById('logout-form').submit()")
    page.wait_for_url("**/admin/logout/")


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_passkey_where_one_is_required(boss: User, live_server: Any, settings: Any, width: int, height: int) -> None:
    settings.MAILHOST_TWO_FACTOR = "required"
    with browser(width, height) as page:
        devtools, authenticator = add_authenticator(page)
        give_password(page, live_server.url)
        page.get_by_text("Here everybody signs in with a second step").wait_for()
        look(page, "security-required")
        page.goto(f"{live_server.url}/admin/accounts/mailbox/")
        page.get_by_role("link", name="Add a passkey").click()
        page.get_by_label("Name").fill("Telephone")
        look(page, "passkey")
        page.get_by_role("button", name="Make a passkey").click()
        page.get_by_role("heading", name="Your recovery codes").first.wait_for()
        expect(page.locator("li code")).to_have_count(10)
        look(page, "recovery-codes")
        page.get_by_role("link", name="I have kept them").click()
        page.get_by_text("After your password you are asked").wait_for()
        look(page, "security")

        page.get_by_role("link", name="Add a passkey").click()
        page.get_by_label("Name").fill("The same telephone")
        page.get_by_role("button", name="Make a passkey").click()
        page.get_by_text("One of your passkeys is kept there already").wait_for()
        look(page, "passkey-problem")

        sign_out(page)
        give_password(page, live_server.url)
        page.get_by_role("heading", name="One more step").wait_for()
        look(page, "second-step")
        page.get_by_role("button", name="Use a passkey").click()
        page.wait_for_url(INSIDE)
        sign_out(page)

        devtools.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": authenticator})
        add_authenticator(page)  # another, which has none of the passkeys
        give_password(page, live_server.url)
        page.get_by_role("button", name="Use a passkey").click()
        page.get_by_text("Nothing was signed").wait_for()
        look(page, "second-step-problem")
    assert Passkey.objects.get().sign_count > 0


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_an_app_and_a_recovery_code(boss: User, live_server: Any, width: int, height: int) -> None:
    WebSession.objects.create(
        user=boss,
        second_step="app",
        client_address="192.0.2.7",
        browser="Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) Version/18.6 Mobile Safari/604.1",
    )
    with browser(width, height) as page:
        give_password(page, live_server.url)
        page.wait_for_url(INSIDE)
        page.goto(f"{live_server.url}/admin/security/")
        page.get_by_text("Your password alone lets you in").wait_for()
        page.get_by_role("link", name="Add an app").click()
        page.get_by_text("It sees no code").click()
        shared = page.locator("#shared").inner_text().replace(" ", "")
        look(page, "app")
        assert page.locator("ol img").evaluate("image => image.complete && image.naturalWidth > 0")
        page.get_by_label("Code of your app").fill(code(shared))
        page.get_by_role("button", name="Add the app").click()
        recovery = page.locator("li code").first.inner_text()
        sign_out(page)

        give_password(page, live_server.url)
        page.get_by_label("Code of your app").fill("000000")
        page.keyboard.press("Enter")
        page.get_by_text("That code is not right").wait_for()
        look(page, "second-step-code")
        page.get_by_label("Code of your app").fill(code(shared, 1))  # that of now was taken
        page.keyboard.press("Enter")
        page.wait_for_url(INSIDE)
        sign_out(page)

        give_password(page, live_server.url)
        page.get_by_text("I have lost it").click()
        page.get_by_label("Recovery code").fill(recovery)
        look(page, "second-step-recovery")
        page.get_by_role("button", name="Use the recovery code").click()
        page.wait_for_url(INSIDE)

        page.goto(f"{live_server.url}/admin/my-sessions/")
        page.get_by_text("this browser").wait_for()
        look(page, "my-sessions")
        page.get_by_role("button", name="End all others").click()
        page.get_by_text("session is ended").wait_for()

        page.goto(f"{live_server.url}/admin/security/")
        page.get_by_role("link", name="Remove the app").click()
        look(page, "app-remove")
        page.get_by_role("button", name="Remove it").click()
        page.get_by_text("The app is removed").wait_for()
        page.get_by_role("link", name="Change my password").click()
        look(page, "own-password")
        page.goto(f"{live_server.url}/admin/login/password/")
        look(page, "password-again")
        page.get_by_label("Password").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("That is not your password").wait_for()
    assert not AuthenticatorApp.objects.exists()
    assert WebSession.objects.get().second_step == "recovery"


def code(shared: str, steps: int = 0) -> str:
    return totp._totp(shared).generate(int(time.time()) + steps * totp.STEP).decode()
