"""App passwords are made, changed and taken back."""

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import app_passwords, provisioning
from accounts.app_passwords import NotInUse, TooMany
from accounts.models import AppPassword, AuditEvent
from accounts.provisioning import BadValue, UnknownMailbox
from tests.fixtures import Customer

pytestmark = pytest.mark.django_db


def test_it_is_shown_once_and_a_digest_is_stored(acme: Customer) -> None:
    made, text = app_passwords.create(acme.mailbox, name=" Outlook office ")
    made.refresh_from_db()
    assert (made.name, made.scopes, made.expires_at, made.allowed_networks) == ("Outlook office", ["pop3"], None, [])
    assert bytes(made.digest) == hashlib.sha256(text.replace("-", "").encode()).digest()
    assert text not in str(AuditEvent.objects.values())


def test_it_can_be_typed_as_people_type() -> None:
    text = "abcde-fghjk-mnpqr-23456"
    assert app_passwords.digest(text) == app_passwords.digest(" ABCDEfghjk mnpqr\t23456 ") is not None


@pytest.mark.parametrize("text", ["", "hutech123", "abcde-fghjk-mnpqr-2345", "abcde-fghjk-mnpqr-23451", "é" * 20])
def test_other_passwords_are_not_looked_for_among_them(text: str) -> None:
    """And so no quick hash of them goes to the database."""
    assert app_passwords.digest(text) is None


def test_it_is_changed_and_revoked_and_all_of_that_is_recorded(acme: Customer, globex: Customer) -> None:
    made, _ = app_passwords.create(acme.mailbox, name="phone")
    tomorrow = timezone.now() + timedelta(days=1)
    assert app_passwords.change(made, name="old phone", expires_at=tomorrow, allowed_networks=["192.0.2.7"])
    assert (made.name, made.expires_at, made.allowed_networks) == ("old phone", tomorrow, ["192.0.2.7/32"])
    assert not app_passwords.change(made, name="old phone")
    assert app_passwords.revoke(made)
    assert made.revoked_at
    assert not app_passwords.revoke(made)
    with pytest.raises(NotInUse):
        app_passwords.change(made, name="phone")
    events = AuditEvent.objects.filter(target_kind="apppassword")
    assert [event.action.partition(".")[2] for event in events.order_by("id")] == ["created", "changed", "revoked"]
    assert {(event.tenant_id, event.mailbox_id) for event in events} == {(acme.tenant.pk, acme.mailbox.pk)}
    assert "phone" not in str(events.values("changes"))
    globex_only = provisioning.add_staff("boss@globex.test", password=None, tenant=globex.tenant)
    assert not AppPassword.objects.visible_to(globex_only).exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", " "),
        ("name", "x" * 101),
        ("name", "two\nlines"),
        ("scopes", []),
        ("scopes", ["pop3", "everything"]),
        ("allowed_networks", ["office"]),
        ("expires_at", timezone.now() - timedelta(seconds=1)),
    ],
)
def test_bad_values_make_and_change_none(acme: Customer, field: str, value: Any) -> None:
    made, _ = app_passwords.create(acme.mailbox, name="phone")
    with pytest.raises(BadValue) as refusal:
        app_passwords.create(acme.mailbox, **{"name": "tablet", field: value})
    assert refusal.value.field == field
    with pytest.raises(BadValue):
        app_passwords.change(made, **{field: value})
    made.refresh_from_db()
    assert (AppPassword.objects.count(), made.name, made.scopes) == (1, "phone", ["pop3"])


def test_what_has_expired_can_still_be_renamed(acme: Customer) -> None:
    made, _ = app_passwords.create(acme.mailbox, name="phone")
    AppPassword.objects.update(expires_at=timezone.now() - timedelta(days=1))
    made.refresh_from_db()
    assert app_passwords.change(made, name="old phone", expires_at=made.expires_at)


def test_a_mailbox_has_so_many_and_no_more(acme: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were revoked do not count, and are not kept for ever."""
    monkeypatch.setattr(app_passwords, "MOST", 3)
    for number in range(9):
        made, _ = app_passwords.create(acme.mailbox, name=str(number))
        if number < 6:
            app_passwords.revoke(made)
    with pytest.raises(TooMany):
        app_passwords.create(acme.mailbox, name="one more")
    names = AppPassword.objects.filter(revoked_at=None).values_list("name", flat=True)
    assert set(names) == {"6", "7", "8"}
    assert AppPassword.objects.count() == 6
    app_passwords.create(acme.add("binh"), name="another mailbox's")


def test_a_closed_mailbox_gets_none(acme: Customer) -> None:
    provisioning.close_mailbox(acme.mailbox)
    with pytest.raises(UnknownMailbox):
        app_passwords.create(acme.mailbox, name="phone")
