"""Which logins failed is kept, and never more of it than can be read."""

from datetime import timedelta
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone

from accounts import app_passwords, failed_logins, provisioning, scope, signing_in
from accounts.failed_logins import MOST, MOST_UNKNOWN
from accounts.models import AppPassword, FailedLogin, Role
from accounts.principals import Principal
from accounts.signing_in import WrongPassword
from accounts.throttle import TooManyFailures
from tests.fixtures import PASSWORD, Customer, WebClient, as_web

Reason = FailedLogin.Reason

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals wait for nothing."""
    monkeypatch.setattr("accounts.throttle.LONGEST_DELAY", 0.0)
    monkeypatch.setattr("accounts.authentication.REFUSED_AFTER", 0.0)


def fail(login: object, password: str = "wrong", *, client: str = "192.0.2.7", **options: Any) -> None:
    with as_web(), pytest.raises((WrongPassword, TooManyFailures)):
        signing_in.verify(str(login), password, client=ip_address(client), **options)


def kept() -> list[tuple[str, str, str, int]]:
    """Whose, why, from which network and how often."""
    rows = FailedLogin.objects.order_by("subject", "reason", "network", "address")
    return [(str(row.mailbox or row.user or row.address or row.domain or ""), row.reason, row.network, row.count)
            for row in rows.select_related("mailbox", "user", "domain")]  # fmt: skip


def note(number: int, **values: Any) -> failed_logins.Failure:
    """One of many."""
    given: dict[str, Any] = {
        "mailbox_id": None, "reason": "password", "through": "pop3", "client": IPv4Address(number << 8),
        "typed_whole": True, **values,
    }  # fmt: skip
    return failed_logins.failure(given.pop("address", ""), **given)


def write(notes: list[failed_logins.Failure]) -> None:
    with as_web(), scope.whole_host(), connection.cursor() as cursor:
        counts = dict.fromkeys(notes, 1)
        clients = dict.fromkeys(notes, ip_address("192.0.2.7"))
        cursor.execute(failed_logins.WRITE, failed_logins.parameters(counts, clients))


def test_sign_ins_to_the_web_are_counted_by_hour_and_network(acme: Customer, globex: Customer) -> None:
    for _ in range(2):
        fail(acme.mailbox)
    fail(acme.mailbox, client="198.51.100.1")
    fail("Binh@globex.test")
    assert kept() == [
        ("binh@globex.test", Reason.UNKNOWN, "192.0.2.0/24", 1),
        ("an@acme.test", Reason.PASSWORD, "192.0.2.0/24", 2),
        ("an@acme.test", Reason.PASSWORD, "198.51.100.0/24", 1),
    ]
    row = FailedLogin.objects.get(mailbox=acme.mailbox, count=2)
    assert (row.tenant, row.domain, row.client_address, row.through) == (
        acme.tenant, acme.domain, "192.0.2.7", FailedLogin.Through.PAGES,
    )  # fmt: skip
    FailedLogin.objects.filter(pk=row.pk).update(hour=row.hour - timedelta(hours=1))
    fail(acme.mailbox)
    assert FailedLogin.objects.filter(mailbox=acme.mailbox, network=row.network).count() == 2


def test_app_passwords_that_are_not_good_are_named(acme: Customer) -> None:
    def made(name: str, **values: Any) -> tuple[int, str]:
        row, text = app_passwords.create(acme.mailbox, name=name, scopes=values.pop("scopes", ["self"]), **values)
        return row.pk, text

    revoked, old, elsewhere, other = (
        made("revoked"), made("old"), made("elsewhere", allowed_networks=["10.0.0.0/8"]), made("pop3", scopes=["pop3"]),
    )  # fmt: skip
    app_passwords.revoke(AppPassword.objects.get(pk=revoked[0]))
    AppPassword.objects.filter(pk=old[0]).update(expires_at=timezone.now() - timedelta(minutes=1))
    for _, text in (revoked, old, elsewhere, other):
        fail(acme.mailbox, text, app_scope="self")
    assert {row.app_password_id: row.reason for row in FailedLogin.objects.all()} == {
        revoked[0]: Reason.REVOKED,
        old[0]: Reason.EXPIRED,
        elsewhere[0]: Reason.NOT_FROM_THERE,
        other[0]: Reason.NOT_MEANT,
    }


def test_a_login_without_a_mailbox_is_known_by_its_row(acme: Customer, globex: Customer) -> None:
    boss = provisioning.add_staff("boss@globex.test", password=PASSWORD, tenant=acme.tenant)
    fail(boss, through=FailedLogin.Through.ADMIN)
    row = FailedLogin.objects.get()
    # The login is acme's, whoever has the domain of its name.
    assert (row.user, row.tenant, row.domain, row.address, row.through) == (boss, acme.tenant, None, "", "admin")
    assert not FailedLogin.objects.visible_to(Principal(role=Role.TENANT_ADMIN, tenant_id=globex.tenant.pk)).exists()


@pytest.mark.parametrize(
    ("login", "typed_whole"),
    [("hutech123@acme.test", False), ("hutech123@nowhere.test", True), ("hutech123", True), ("a b@acme.test", True)],
)
def test_what_may_be_a_password_in_the_wrong_field_is_not_kept(acme: Customer, login: str, typed_whole: bool) -> None:
    fail(login, typed_whole=typed_whole)
    row = FailedLogin.objects.get()
    assert (row.address, row.reason) == ("", Reason.UNKNOWN)
    assert (row.domain == acme.domain) is (login == "hutech123@acme.test")
    assert "hutech123" not in str(FailedLogin.objects.values())


def test_a_flood_fills_no_table(acme: Customer, globex: Customer) -> None:
    """Of a mailbox so many rows an hour, of unknown addresses of a domain so many; the rest is added up."""
    at_mailbox = [note(number, mailbox_id=acme.mailbox.pk) for number in range(500)]
    at_nobody = [note(number, address=f"x{number}@globex.test", reason="unknown") for number in range(500)]
    for start in (0, 250):
        write(at_mailbox[start : start + 250] + at_nobody[start : start + 250])
    of_mailbox = FailedLogin.objects.filter(mailbox=acme.mailbox)
    of_domain = FailedLogin.objects.filter(domain=globex.domain)
    for rows, most in ((of_mailbox, MOST), (of_domain, MOST_UNKNOWN)):
        assert sum(rows.values_list("count", flat=True)) == 500
        assert rows.exclude(network="").count() == most
        others = rows.get(network="")
        assert (others.count, others.address, others.client_address) == (500 - most, "", None)
    write(at_mailbox[:1] * 3 + at_mailbox[-1:])  # who was kept before goes on being counted
    assert of_mailbox.get(network=at_mailbox[0].network).count == 2
    assert of_mailbox.count() == MOST + 1


def test_a_mailbox_that_is_gone_has_none(acme: Customer) -> None:
    write([note(1, mailbox_id=acme.mailbox.pk + 1000), note(2, user_id=acme.mailbox.user_id + 1000)])
    assert not FailedLogin.objects.exists()


def test_another_tenants_do_not_exist(acme: Customer, globex: Customer) -> None:
    fail(acme.mailbox)
    fail("nobody@globex.test")
    fail("nobody@nowhere.test")
    for principal, seen in (
        (Principal(role=Role.OPERATOR), 3),
        (Principal(role=Role.TENANT_ADMIN, tenant_id=acme.tenant.pk), 1),
        (Principal(role=Role.TENANT_ADMIN, tenant_id=globex.tenant.pk), 1),
        (Principal(role=Role.MEMBER, tenant_id=acme.tenant.pk, mailbox_id=acme.mailbox.pk), 1),
        (Principal(role=Role.DOMAIN_ADMIN, tenant_id=acme.tenant.pk, domain_ids=[globex.domain.pk]), 1),
    ):
        assert FailedLogin.objects.visible_to(principal).count() == seen
        with as_web(), transaction.atomic(), scope.entered(principal):
            assert FailedLogin.objects.count() == seen


def test_an_owner_whose_mailbox_is_suspended_is_kept_though_the_password_is_right(acme: Customer) -> None:
    provisioning.suspend(acme.mailbox)
    answer = WebClient().post(reverse("owner-sign-in"), {"address": "an@acme.test", "password": PASSWORD})
    assert answer.status_code == 403
    assert kept() == [("an@acme.test", Reason.STATE, "127.0.0.0/24", 1)]


def test_the_admin_tells_where_it_was(acme: Customer) -> None:
    boss = provisioning.add_staff("boss@localhost", password=PASSWORD, tenant=acme.tenant)
    WebClient().post(reverse("admin:login"), {"username": str(boss), "password": "wrong"})
    row = FailedLogin.objects.get()
    assert (row.through, row.user, row.reason) == ("admin", boss, Reason.PASSWORD)
