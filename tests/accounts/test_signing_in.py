"""Signing in to the web: counted, delayed and refused as POP3 does it."""

import time
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Address

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import app_passwords, provisioning, signing_in, throttle
from accounts.models import KnownNetwork
from accounts.signing_in import SignedIn, WrongPassword
from accounts.throttle import TooManyFailures
from tests.fixtures import PASSWORD, Customer, WebClient, as_web, stranger


@pytest.fixture
def client_address() -> IPv4Address:
    """Where nobody has failed before."""
    return stranger()


@pytest.fixture
def verify(client_address: IPv4Address) -> Callable[..., SignedIn]:
    def verify(login: object, password: str, *, app_scope: str | None = None) -> SignedIn:
        with as_web():
            return signing_in.verify(str(login), password, client=client_address, app_scope=app_scope)

    return verify


def seconds(attempt: Callable[[], object]) -> float:
    began = time.monotonic()
    with pytest.raises(WrongPassword):
        attempt()
    return time.monotonic() - began


def test_a_password_is_its_logins_alone(acme: Customer, globex: Customer, verify: Callable[..., SignedIn]) -> None:
    other, _ = provisioning.add_mailbox(f"binh@{globex.domain}", password="another", quota_octets=None)
    assert verify(acme.mailbox, PASSWORD) == (acme.mailbox.user, None)
    assert verify(acme.mailbox.address.upper(), PASSWORD).user == acme.mailbox.user
    with pytest.raises(WrongPassword):
        verify(acme.mailbox, "another")
    assert verify(other, "another").user == other.user


def test_every_refusal_takes_as_long(acme: Customer, verify: Callable[..., SignedIn]) -> None:
    """Whether the address exists, and whose hash its password is kept in, is not told by the clock."""
    imported = acme.add("old")
    md5 = "{PLAIN-MD5}5ebe2294ecd0e0f08eab7690d2a6ee69"
    provisioning.set_password(imported.user, None, password_hash=md5)
    assert seconds(lambda: verify(acme.mailbox, "wrong")) >= 1
    assert seconds(lambda: verify("nobody@acme.test", "wrong")) >= 1
    assert seconds(lambda: verify(imported, "wrong")) >= 1
    assert verify(imported, "secret").user == imported.user
    imported.user.refresh_from_db()
    assert imported.user.password.startswith("argon2$")


def test_who_guesses_is_refused_unseen_and_the_owner_is_not(
    acme: Customer, verify: Callable[..., SignedIn], client_address: IPv4Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.throttle.LONGEST_DELAY", 0.0)
    monkeypatch.setattr("accounts.authentication.REFUSED_AFTER", 0.0)
    for guess in range(15):
        with pytest.raises(WrongPassword):
            verify(f"nobody{guess}@acme.test", "wrong")
    with pytest.raises(TooManyFailures):
        verify(acme.mailbox, PASSWORD)
    KnownNetwork.objects.create(
        tenant=acme.tenant,
        mailbox=acme.mailbox,
        network=throttle.near(client_address),
        last_login_at=timezone.now(),
    )
    assert verify(acme.mailbox, PASSWORD).user == acme.mailbox.user


def test_the_network_of_an_owner_is_remembered(acme: Customer, verify: Callable[..., SignedIn]) -> None:
    verify(acme.mailbox, PASSWORD)
    verify(acme.mailbox, PASSWORD)
    assert KnownNetwork.objects.get().mailbox == acme.mailbox


def test_an_app_password_is_good_for_its_scope_only(
    acme: Customer, globex: Customer, verify: Callable[..., SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.authentication.REFUSED_AFTER", 0.0)
    own, text = app_passwords.create(acme.mailbox, name="Telephone", scopes=["self"])
    _, of_pop3 = app_passwords.create(acme.mailbox, name="Outlook", scopes=["pop3"])
    assert verify(acme.mailbox, text.upper(), app_scope="self") == (acme.mailbox.user, own.pk)
    own.refresh_from_db()
    assert own.last_used_at
    for login, password, app_scope in (
        (acme.mailbox, text, None),
        (acme.mailbox, of_pop3, "self"),
        (globex.mailbox, text, "self"),
    ):
        with pytest.raises(WrongPassword):
            verify(login, password, app_scope=app_scope)
    type(own).objects.filter(pk=own.pk).update(expires_at=timezone.now() - timedelta(hours=1))
    with pytest.raises(WrongPassword):
        verify(acme.mailbox, text, app_scope="self")


def test_the_admin_counts_too(acme: Customer, client_address: IPv4Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accounts.throttle.LONGEST_DELAY", 0.0)
    monkeypatch.setattr("accounts.authentication.REFUSED_AFTER", 0.0)
    staff = provisioning.add_staff("boss@acme.test", password="secret", tenant=acme.tenant)
    browser: Client = WebClient(REMOTE_ADDR=str(client_address))
    path = reverse("admin:login")
    for guess in range(15):
        assert "correct login" in browser.post(path, {"username": "boss@acme.test", "password": guess}).content.decode()
    assert "correct login" in browser.post(path, {"username": "boss@acme.test", "password": "secret"}).content.decode()
    elsewhere: Client = WebClient(REMOTE_ADDR=str(stranger()))
    assert elsewhere.post(path, {"username": "boss@acme.test", "password": "secret"}).status_code == 302
    staff.refresh_from_db()
    assert staff.last_login


def test_staff_is_not_locked_out_where_it_signed_in_before(
    acme: Customer, verify: Callable[..., SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.throttle.LONGEST_DELAY", 0.0)
    monkeypatch.setattr("accounts.authentication.REFUSED_AFTER", 0.0)
    staff = provisioning.add_staff("boss@acme.test", password="secret", tenant=acme.tenant)
    assert verify(staff, "secret").user == staff
    for guess in range(20):
        with pytest.raises(WrongPassword):
            verify(staff, f"guess {guess}")
    assert verify(staff, "secret").user == staff
