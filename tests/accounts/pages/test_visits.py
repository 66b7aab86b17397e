"""Signing in to the owner's pages: who gets in, for how long, and what it is good for."""

import re
from typing import Any

import pytest
from django.urls import reverse

from accounts import app_passwords, provisioning
from accounts.headers import HEADERS
from accounts.models import Mailbox
from tests.fixtures import PASSWORD, Customer, WebClient
from tests.pages_of import browser, signed_in, text

PAGES = (
    "owner-overview", "owner-sessions", "owner-removed", "owner-export", "owner-set-up", "owner-devices",
    "owner-password",
)  # fmt: skip


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a refusal takes its time is shown elsewhere."""
    monkeypatch.setattr("accounts.authentication.REFUSED_AFTER", 0.0)


def sign_in(client: WebClient, address: Any, password: str, **more: str) -> Any:
    return client.post(reverse("owner-sign-in"), {"address": str(address), "password": password, **more})


@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_for_who_has_signed_in(name: str, acme: Customer, globex: Customer) -> None:
    stranger = browser()
    path = reverse(name)
    response = stranger.get(path)
    assert response.status_code == 302
    assert response["Location"].startswith(reverse("owner-sign-in"))
    for customer, other in ((acme, globex), (globex, acme)):
        page = text(signed_in(customer.mailbox).get(path))
        assert customer.mailbox.address in page
        assert other.mailbox.address not in page


@pytest.mark.parametrize("name", PAGES)
def test_each_page_allows_nothing_of_others(name: str, acme: Customer) -> None:
    response = signed_in(acme.mailbox).get(reverse(name))
    page = text(response)
    assert {name: response[name] for name in HEADERS["/me/"]} == HEADERS["/me/"]
    assert re.findall("<script.*", page) == ['<script src="/static/zone.js" defer></script>']
    assert "style=" not in page
    assert "<style" not in page
    assert " on" not in {attribute[:3] for attribute in page.split('"')}


def test_also_what_is_not_there_is_said_with_these_headers(acme: Customer) -> None:
    response = signed_in(acme.mailbox).get("/me/nothing/")
    assert response.status_code == 404
    assert response["Content-Security-Policy"] == HEADERS["/me/"]["Content-Security-Policy"]


def test_the_way_in_leads_to_where_one_wanted(acme: Customer) -> None:
    assert browser().get("/")["Location"] == "/me/"
    client = browser()
    page = text(client.get(reverse("owner-devices"), follow=True))
    assert 'value="/me/devices/"' in page
    assert reverse("admin:index") in page
    assert sign_in(client, acme.mailbox, PASSWORD, next="/me/devices/")["Location"] == "/me/devices/"
    for elsewhere in ("https://evil.example/", "//evil.example/", "/admin/"):
        assert sign_in(browser(), acme.mailbox, PASSWORD, next=elsewhere)["Location"] == "/me/"


def test_a_wrong_password_and_an_unknown_address_read_the_same(acme: Customer) -> None:
    wrong = text(sign_in(browser(), acme.mailbox, "wrong"), 403)
    unknown = text(sign_in(browser(), "nobody@acme.test", "wrong"), 403)
    assert "not the password" in wrong
    assert "not the password" in unknown
    assert "not the password" in text(sign_in(browser(), '"><script>alert(1)</script>', "x"), 403)


def test_what_was_typed_comes_back_as_text(acme: Customer) -> None:
    page = text(sign_in(browser(), '"><script>alert(1)</script>', "x", next='"><img src=x>'), 403)
    assert "<script>" not in page
    assert "<img" not in page


def test_too_many_are_refused_unseen(acme: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accounts.throttle.LONGEST_DELAY", 0.0)
    client = browser()
    for guess in range(15):
        sign_in(client, acme.mailbox, f"guess {guess}")
    assert "Too many" in text(sign_in(client, acme.mailbox, PASSWORD), 429)


def test_the_session_gets_a_new_key_and_a_careful_cookie(acme: Customer) -> None:
    client = browser()
    client.session.save()
    before = client.session.session_key
    response = sign_in(client, acme.mailbox, PASSWORD)
    cookie = response.cookies["sessionid"]
    assert cookie.value != before
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"


def test_forms_of_other_sites_are_refused(acme: Customer) -> None:
    client = browser(enforce_csrf_checks=True)
    assert sign_in(client, acme.mailbox, PASSWORD).status_code == 403
    client = signed_in(acme.mailbox)
    client.handler.enforce_csrf_checks = True
    device, _ = app_passwords.create(acme.mailbox, name="Outlook")
    for path in (
        reverse("owner-password"),
        reverse("owner-devices"),
        reverse("owner-device-revoke", args=[device.pk]),
        reverse("owner-profile"),
        reverse("owner-profile-link"),
        reverse("owner-restore"),
        reverse("owner-sign-out"),
    ):
        assert client.post(path).status_code == 403, path
    device.refresh_from_db()
    assert device.revoked_at is None


def test_signing_out_ends_it(acme: Customer) -> None:
    client = signed_in(acme.mailbox)
    stolen = client.cookies["sessionid"].value
    assert client.get(reverse("owner-sign-out")).status_code == 405
    client.post(reverse("owner-sign-out"))
    client.cookies["sessionid"] = stolen
    assert client.get("/me/").status_code == 302


def test_it_is_good_for_these_pages_alone(acme: Customer) -> None:
    """Also for somebody who looks after the tenant: he signs in to the admin for that."""
    provisioning.set_role(acme.mailbox.user, "tenant-admin")
    client = signed_in(acme.mailbox)
    assert client.get(reverse("admin:index")).status_code == 302
    assert client.get("/api/v1/mailboxes/").status_code == 401


def test_the_admin_s_is_good_for_none_of_these(acme: Customer) -> None:
    client = browser()
    client.force_login(acme.mailbox.user)
    assert client.get("/me/").status_code == 302


def test_staff_without_a_mailbox_is_shown_the_way(acme: Customer) -> None:
    provisioning.add_staff("boss@acme.test", password="secret", tenant=acme.tenant)
    assert "has no mailbox" in text(sign_in(browser(), "boss@acme.test", "secret"), 403)


@pytest.mark.parametrize("state", ["suspended", "no-login"])
def test_who_may_not_sign_in_reads_why(state: str, acme: Customer, globex: Customer) -> None:
    here, elsewhere = signed_in(acme.mailbox), signed_in(globex.mailbox)
    provisioning.set_state(acme.mailbox, state, reason="the bill <b>is</b> open")
    for name in PAGES:
        client = signed_in(globex.mailbox) if name == "owner-overview" else elsewhere
        assert client.get(reverse(name)).status_code == 200
    page = text(here.get("/me/"), 403)
    assert "the bill &lt;b&gt;is&lt;/b&gt; open" in page
    assert here.get("/me/").status_code == 302
    assert "the bill" in text(sign_in(browser(), acme.mailbox, PASSWORD), 403)
    assert "the bill" not in text(sign_in(browser(), acme.mailbox, "wrong"), 403)
    provisioning.resume(acme.mailbox)
    assert signed_in(acme.mailbox).get("/me/").status_code == 200


def test_a_mailbox_that_is_closed_has_no_pages(acme: Customer, globex: Customer) -> None:
    here, elsewhere = signed_in(acme.mailbox), signed_in(globex.mailbox)
    provisioning.close_mailbox(acme.mailbox)
    for name in PAGES:
        assert here.get(reverse(name)).status_code == 302
        assert elsewhere.get(reverse(name)).status_code == 200
    assert "not the password" in text(sign_in(browser(), "an@acme.test", PASSWORD), 403)


def test_a_new_password_ends_what_the_old_one_began(acme: Customer) -> None:
    client = signed_in(acme.mailbox)
    provisioning.set_password(acme.mailbox.user, "another one")
    assert client.get("/me/").status_code == 302


def test_an_app_password_for_self_service_signs_in_until_it_is_revoked(acme: Customer, globex: Customer) -> None:
    device, secret = app_passwords.create(acme.mailbox, name="Telephone", scopes=["self"])
    _, of_pop3 = app_passwords.create(acme.mailbox, name="Outlook", scopes=["pop3"])
    assert sign_in(browser(), acme.mailbox, of_pop3).status_code == 403
    assert sign_in(browser(), globex.mailbox, secret).status_code == 403
    client = signed_in(acme.mailbox, secret)
    assert client.get("/me/").status_code == 200
    app_passwords.revoke(device)
    assert client.get("/me/").status_code == 302


def test_a_mailbox_s_name_is_text(acme: Customer) -> None:
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(name="<script>alert(1)</script>")
    for name in PAGES:
        page = text(signed_in(acme.mailbox).get(reverse(name))) if name == PAGES[0] else ""
        assert "<script>" not in page
