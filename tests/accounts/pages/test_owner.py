"""What an owner does on the pages: the password, devices, setting up a mail program."""

import plistlib
import re
from typing import Any

import pytest
from django.urls import reverse

from accounts import app_passwords, provisioning, signing_in
from accounts.models import AppPassword, AuditEvent
from tests.fixtures import PASSWORD, Customer, WebClient
from tests.pages_of import browser, signed_in, text

NEW = "correct horse battery"


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accounts.authentication.REFUSED_AFTER", 0.0)


def change(client: WebClient, current: str, new: str, again: str | None = None) -> Any:
    values = {"current": current, "new": new, "again": new if again is None else again}
    return client.post(reverse("owner-password"), values)


def test_the_password_is_changed_and_other_visits_end(acme: Customer, globex: Customer) -> None:
    here, elsewhere, other = signed_in(acme.mailbox), signed_in(acme.mailbox), signed_in(globex.mailbox)
    assert change(here, PASSWORD, NEW)["Location"] == "/me/"
    assert "Your password is changed" in text(here.get("/me/"))
    assert elsewhere.get("/me/").status_code == 302
    assert other.get("/me/").status_code == 200
    acme.mailbox.user.refresh_from_db()
    globex.mailbox.user.refresh_from_db()
    assert acme.mailbox.user.check_password(NEW)
    assert globex.mailbox.user.check_password(PASSWORD)
    event = AuditEvent.objects.filter(mailbox_id=acme.mailbox.pk, through="pages").get()
    assert (event.action, event.role, event.user_id) == (
        "mailbox.password_changed", "member", acme.mailbox.user_id,
    )  # fmt: skip
    assert event.client_address


@pytest.mark.parametrize(
    ("current", "new", "again", "said"),
    [
        ("wrong", NEW, NEW, "not your password"),
        (PASSWORD, NEW, NEW + "x", "not the same"),
        (PASSWORD, "", "", "too short"),
        (PASSWORD, "short", "short", "too short"),
        (PASSWORD, "password123", "password123", "too common"),
        (PASSWORD, "1234567890", "1234567890", "too common"),
        (PASSWORD, "an@acme.test", "an@acme.test", "too similar"),
        (PASSWORD, "x" * 300, "x" * 300, "at most 248 octets"),
    ],
)
def test_what_is_no_good_as_a_password_is_said(acme: Customer, current: str, new: str, again: str, said: str) -> None:
    response = change(signed_in(acme.mailbox), current, new, again)
    assert response.status_code in (403, 422)
    assert said in response.content.decode()
    acme.mailbox.user.refresh_from_db()
    assert acme.mailbox.user.check_password(PASSWORD)


def test_an_app_password_is_not_the_current_one(acme: Customer) -> None:
    _, secret = app_passwords.create(acme.mailbox, name="Telephone", scopes=["self"])
    assert change(signed_in(acme.mailbox, secret), secret, NEW).status_code == 403


def test_a_device_gets_a_password_that_is_shown_once(acme: Customer, globex: Customer) -> None:
    client = signed_in(acme.mailbox)
    values = {"name": "Outlook <office>", "scopes": ["pop3", "self"], "life": "30"}
    page = text(client.post(reverse("owner-devices"), values))
    found = re.search(r'<p class="secret">([a-z0-9-]+)</p>', page)
    assert found
    assert "Outlook &lt;office&gt;" in page
    device = AppPassword.objects.get()
    assert device.mailbox == acme.mailbox
    assert device.expires_at
    assert signing_in.verify(str(acme.mailbox), found[1], client=None, app_scope="self").app_password_id == device.pk
    again = text(client.get(reverse("owner-devices")))
    assert found[1] not in again
    assert "Outlook &lt;office&gt;" in again
    assert "Outlook &lt;" not in text(signed_in(globex.mailbox).get(reverse("owner-devices")))


def test_a_device_without_a_name_or_a_purpose_is_refused(acme: Customer) -> None:
    client = signed_in(acme.mailbox)
    for values in ({"name": " ", "scopes": ["pop3"]}, {"name": "x"}, {"name": "x", "scopes": ["admin"]}):
        assert 'class="wrong"' in text(client.post(reverse("owner-devices"), values), 422)
    assert not AppPassword.objects.exists()


def test_a_device_is_revoked_by_its_owner_alone(acme: Customer, globex: Customer) -> None:
    device, _ = app_passwords.create(acme.mailbox, name="Outlook")
    path = reverse("owner-device-revoke", args=[device.pk])
    assert signed_in(globex.mailbox).post(path).status_code == 404
    colleague, _ = provisioning.add_mailbox("binh@acme.test", password=PASSWORD, quota_octets=None)
    assert signed_in(colleague).post(path).status_code == 404
    device.refresh_from_db()
    assert device.revoked_at is None
    client = signed_in(acme.mailbox)
    assert "Outlook cannot sign in" in text(client.post(path, follow=True))
    device.refresh_from_db()
    assert device.revoked_at


def test_the_steps_have_the_values_of_the_mailbox(acme: Customer, settings: Any) -> None:
    settings.MAILHOST_PUBLIC_NAME, settings.MAILHOST_PUBLIC_POP3S = "pop.host.example", 995
    page = text(signed_in(acme.mailbox).get(reverse("owner-set-up")))
    assert "poll pop.host.example service 995 protocol pop3" in page
    for name in ("Outlook", "Thunderbird", "Apple Mail", "Gmail", "fetchmail", "getmail", "mpop"):
        assert f"<summary>{name}</summary>" in page
    assert page.count("an@acme.test") > 8


def test_an_apple_profile_has_a_password_of_its_own(acme: Customer, settings: Any) -> None:
    settings.MAILHOST_PUBLIC_NAME, settings.MAILHOST_PUBLIC_POP3S = "pop.host.example", 995
    response = signed_in(acme.mailbox).post(reverse("owner-profile"))
    assert response["Content-Type"] == "application/x-apple-aspen-config"
    [account] = plistlib.loads(response.content)["PayloadContent"]
    assert account["EmailAccountType"] == "EmailTypePOP"
    assert (account["IncomingMailServerHostName"], account["IncomingMailServerPortNumber"]) == ("pop.host.example", 995)
    assert account["IncomingMailServerUsername"] == "an@acme.test"
    assert account["IncomingPassword"] != PASSWORD
    device = AppPassword.objects.get()
    assert bytes(device.digest) == app_passwords.digest(account["IncomingPassword"])
    assert device.scopes == ["pop3"]


def test_a_link_leads_to_a_profile_once(acme: Customer, settings: Any) -> None:
    settings.MAILHOST_PUBLIC_URL = "http://testserver"
    page = text(signed_in(acme.mailbox).post(reverse("owner-profile-link")))
    assert 'src="data:image/svg+xml' in page
    [path] = re.findall(r"http://testserver(/me/profile/[^<]+/)</pre>", page)
    telephone = browser()
    for _ in range(2):  # looking does not use it up
        assert "an@acme.test" in text(telephone.get(path))
    assert not AppPassword.objects.exists()
    assert plistlib.loads(telephone.post(path).content)["PayloadContent"][0]["EmailAddress"] == "an@acme.test"
    assert AppPassword.objects.get().mailbox == acme.mailbox
    assert "does not hold any more" in text(telephone.post(path), 404)
    assert "does not hold any more" in text(telephone.get(path), 404)
    assert AuditEvent.objects.get(action="app-password.created").through == "pages"


@pytest.mark.parametrize("what", ["suspended", "closed", "another password"])
def test_a_link_does_not_outlive_the_right_to_it(acme: Customer, what: str) -> None:
    page = text(signed_in(acme.mailbox).post(reverse("owner-profile-link")))
    [path] = re.findall(r"http://testserver(/me/profile/[^<]+/)</pre>", page)
    match what:
        case "suspended":
            provisioning.suspend(acme.mailbox, reason="")
        case "closed":
            provisioning.close_mailbox(acme.mailbox)
        case _:
            provisioning.set_password(acme.mailbox.user, NEW)
    assert browser().post(path).status_code == 404
    assert not AppPassword.objects.exists()


def test_a_device_gets_an_own_copy_and_gives_it_back(acme: Customer, globex: Customer) -> None:
    client = signed_in(acme.mailbox)
    page = text(client.post(reverse("owner-devices"), {"name": "Phone", "scopes": ["pop3"], "own_copy": "on"}))
    device = AppPassword.objects.get()
    assert device.own_copy
    assert "End its own copy" in page
    path = reverse("owner-device-own-copy", args=[device.pk])
    page = text(client.post(path, follow=True))
    assert "what it removes is gone for all devices" in page
    device.refresh_from_db()
    assert not device.own_copy
    assert signed_in(globex.mailbox).post(path, {"on": "yes"}).status_code == 404
    page = text(client.post(path, {"on": "yes"}, follow=True))
    assert "what it removes is gone for that device only" in page
    app_passwords.revoke(device)
    assert "was revoked" in text(client.post(path, follow=True))
    refused = client.post(reverse("owner-devices"), {"name": "Pages", "scopes": ["self"], "own_copy": "on"})
    assert "An own copy is for a device that fetches mail" in text(refused, 422)
