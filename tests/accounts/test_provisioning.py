from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from unicodedata import normalize

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.hashers import check_password, is_password_usable
from django.db import connection, connections

from accounts import app_passwords, principals, provisioning
from accounts.addresses import BadAddress
from accounts.models import Alias, Mailbox, User
from accounts.passwords import BadPassword
from accounts.principals import Principal
from accounts.provisioning import (
    AddressTaken,
    BadValue,
    DomainTaken,
    InQuarantine,
    NotAllowed,
    OtherTenant,
    OwnsMailbox,
    UnknownDomain,
    UnknownMailbox,
    UnknownTenant,
    bulk,
)
from tests.fixtures import PASSWORD, Customer


def test_a_tenant_added_again_stays_as_it_is(db: None) -> None:
    first, added = provisioning.add_tenant("acme", name="Acme Ltd.")
    again, added_again = provisioning.add_tenant("acme", name="Something else")
    assert (added, added_again) == (True, False)
    assert (again.pk, again.name) == (first.pk, "Acme Ltd.")


@pytest.mark.parametrize("slug", ["", "Acme", "a b", "-a", "a-", "ä", "a" * 64, "a\n", "a\0"])
def test_a_bad_slug_is_refused(db: None, slug: str) -> None:
    with pytest.raises(BadValue):
        provisioning.add_tenant(slug)
    with pytest.raises(UnknownTenant):
        provisioning.find_tenant(slug)


def test_a_domain_has_one_tenant(acme: Customer, globex: Customer) -> None:
    assert provisioning.add_domain("ACME.test.", tenant=acme.tenant) == (acme.domain, False)
    with pytest.raises(DomainTaken):
        provisioning.add_domain("acme.test", tenant=globex.tenant)


def test_the_admin_mailbox_is_one_of_the_tenant_s_own_in_use(acme: Customer, globex: Customer) -> None:
    def choose(mailbox: Mailbox) -> None:
        provisioning.change_tenant(acme.tenant, name="Acme", retention=None, admin_mailbox=mailbox)

    choose(acme.mailbox)
    assert acme.tenant.admin_mailbox == acme.mailbox
    with pytest.raises(OtherTenant):
        choose(globex.mailbox)
    provisioning.close_mailbox(acme.mailbox)
    with pytest.raises(UnknownMailbox):
        choose(acme.mailbox)


@pytest.mark.parametrize("retention", [timedelta(seconds=-1), timedelta(days=999_999_999)])
def test_a_retention_that_would_stop_the_purge_is_refused(acme: Customer, retention: timedelta) -> None:
    with pytest.raises(BadValue):
        provisioning.change_tenant(acme.tenant, name="Acme", retention=retention, admin_mailbox=None)
    with pytest.raises(BadValue):
        provisioning.change_mailbox(
            acme.mailbox, quota_octets=None, pop3_enabled=True, allowed_networks=[], retention=retention
        )


def test_the_longest_retention_is_one_that_the_database_can_subtract(acme: Customer) -> None:
    provisioning.change_tenant(acme.tenant, name="Acme", retention=timedelta(days=36500), admin_mailbox=None)
    with connection.cursor() as cursor:
        cursor.execute("SELECT now() - retention FROM accounts_tenant")


def test_a_mailbox_signs_in_with_its_password(acme: Customer) -> None:
    mailbox, added = provisioning.add_mailbox("Binh@ACME.test", password="mật khẩu", quota_octets=1000)
    assert added
    assert (mailbox.address, mailbox.quota_octets, mailbox.tenant) == ("binh@acme.test", 1000, acme.tenant)
    assert mailbox.user.tenant == acme.tenant
    assert check_password("mật khẩu", mailbox.user.password)
    assert check_password(normalize("NFD", "mật khẩu"), mailbox.user.password)
    assert not check_password("mat khau", mailbox.user.password)


def test_a_mailbox_added_again_keeps_its_password_and_quota(acme: Customer) -> None:
    again, added = provisioning.add_mailbox("an@acme.test", password="another", quota_octets=5)
    assert not added
    assert (again, again.quota_octets) == (acme.mailbox, None)
    assert check_password(PASSWORD, again.user.password)


def test_a_mailbox_without_password_lets_nobody_in(acme: Customer) -> None:
    assert not is_password_usable(acme.add("binh").user.password)


def test_a_mailbox_needs_a_domain_that_is_hosted(acme: Customer) -> None:
    with pytest.raises(UnknownDomain):
        provisioning.add_mailbox("an@elsewhere.test", password=None, quota_octets=None)
    with pytest.raises(BadAddress):
        provisioning.add_mailbox("an", password=None, quota_octets=None)


@pytest.mark.parametrize("quota", [-1, 2**63])
def test_a_quota_that_cannot_be_stored_is_refused(acme: Customer, quota: int) -> None:
    with pytest.raises(BadValue):
        acme.add("binh", quota_octets=quota)


def test_an_address_is_one_mailbox_s_or_one_alias_s_or_one_login_s(acme: Customer) -> None:
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant)
    for taken in ("sales", "boss"):
        with pytest.raises(AddressTaken):
            acme.add(taken)
    binh = acme.add("binh")
    for taken in ("an", "boss", "sales"):
        with pytest.raises(AddressTaken):
            provisioning.add_alias(f"{taken}@acme.test", mailbox=binh)
    for taken in ("an", "sales", "boss"):
        with pytest.raises(AddressTaken):
            provisioning.add_staff(f"{taken}@acme.test", password=None, tenant=None)


@pytest.mark.django_db(transaction=True)
def test_an_address_claimed_twice_at_once_is_given_away_once(acme: Customer) -> None:
    def as_mailbox(name: str) -> bool:
        try:
            return provisioning.add_mailbox(name, password=None, quota_octets=None)[1]
        except AddressTaken:
            return False
        finally:
            connections.close_all()

    def as_alias(name: str) -> bool:
        try:
            return provisioning.add_alias(name, mailbox=acme.mailbox)[1]
        except AddressTaken:
            return False
        finally:
            connections.close_all()

    names = [f"user{number}@acme.test" for number in range(20)]
    with ThreadPoolExecutor(4) as threads:
        mailboxes, aliases = threads.map(as_mailbox, names), threads.map(as_alias, names)
        got = list(zip(mailboxes, aliases, strict=True))
    assert all(mailbox != alias for mailbox, alias in got)


def test_an_alias_stays_within_its_tenant(acme: Customer, globex: Customer) -> None:
    with pytest.raises(UnknownDomain):
        provisioning.add_alias("sales@globex.test", mailbox=acme.mailbox)
    alias, added = provisioning.add_alias("Sales@acme.test", mailbox=acme.mailbox)
    assert added
    assert provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox) == (alias, False)
    provisioning.remove_alias(alias)
    provisioning.remove_alias(alias)
    assert not Alias.objects.exists()


def test_a_closed_mailbox_frees_its_login_and_keeps_its_address(acme: Customer) -> None:
    provisioning.change_tenant(acme.tenant, name="Acme", retention=None, admin_mailbox=acme.mailbox)
    provisioning.suspend(acme.mailbox)
    provisioning.close_mailbox(acme.mailbox)
    closed_at = acme.mailbox.closed_at
    assert closed_at
    assert acme.mailbox.state == Mailbox.State.SUSPENDED
    user = User.objects.get(pk=acme.mailbox.user_id)
    assert (user.email, user.is_active) == (None, False)
    acme.tenant.refresh_from_db()
    assert acme.tenant.admin_mailbox is None
    with pytest.raises(UnknownMailbox):
        provisioning.find_mailbox("an@acme.test")
    with pytest.raises(InQuarantine):
        acme.add("an")

    provisioning.close_mailbox(acme.mailbox)
    assert acme.mailbox.closed_at == closed_at


def test_a_released_address_is_a_new_mailbox(acme: Customer) -> None:
    provisioning.close_mailbox(acme.mailbox)
    again, added = provisioning.add_mailbox("an@acme.test", password="new", quota_octets=None, release=True)
    assert added
    assert again.pk != acme.mailbox.pk
    assert again.user_id != acme.mailbox.user_id
    provisioning.close_mailbox(again)  # two closed ones may wait for their purge
    assert acme.add("binh").closed_at is None


def test_the_aliases_of_a_closed_mailbox_are_in_quarantine_with_it(acme: Customer) -> None:
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    provisioning.close_mailbox(acme.mailbox)
    binh = acme.add("binh")
    with pytest.raises(InQuarantine):
        acme.add("sales")
    with pytest.raises(InQuarantine):
        provisioning.add_alias("sales@acme.test", mailbox=binh)
    with pytest.raises(InQuarantine):
        provisioning.set_alias("sales@acme.test", tenant_id=acme.tenant.pk, mailboxes=[binh])
    alias, added = provisioning.add_alias("sales@acme.test", mailbox=binh, release=True)
    assert added
    assert list(Alias.objects.all()) == [alias]
    provisioning.close_mailbox(binh)
    chi = acme.add("chi")
    released, added = provisioning.set_alias(
        "sales@acme.test", tenant_id=acme.tenant.pk, mailboxes=[chi, chi], release=True
    )
    assert added
    assert provisioning.targets_of(released) == ["chi@acme.test"]


def test_a_closed_mailbox_takes_no_change(acme: Customer) -> None:
    provisioning.close_mailbox(acme.mailbox)
    with pytest.raises(UnknownMailbox):
        provisioning.suspend(acme.mailbox)
    with pytest.raises(UnknownMailbox):
        provisioning.resume(acme.mailbox)
    with pytest.raises(UnknownMailbox):
        provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    with pytest.raises(UnknownMailbox):
        provisioning.change_mailbox(
            acme.mailbox, quota_octets=1, pop3_enabled=False, allowed_networks=[], retention=None
        )


def test_suspending_and_resuming_can_be_repeated(acme: Customer) -> None:
    for _ in range(2):
        provisioning.suspend(acme.mailbox)
        assert acme.mailbox.state == Mailbox.State.SUSPENDED
    for _ in range(2):
        provisioning.resume(acme.mailbox)
        assert acme.mailbox.state == Mailbox.State.ACTIVE


def test_networks_are_stored_as_the_database_reads_them(acme: Customer) -> None:
    provisioning.change_mailbox(
        acme.mailbox,
        quota_octets=None,
        pop3_enabled=True,
        allowed_networks=["192.0.2.7", "2001:DB8::/48"],
        retention=None,
    )
    assert acme.mailbox.allowed_networks == ["192.0.2.7/32", "2001:db8::/48"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT '192.0.2.7'::inet <<= ANY (allowed_networks::inet[]) FROM accounts_mailbox")
        assert cursor.fetchone() == (True,)


@pytest.mark.parametrize("network", ["", "192.0.2.7/24", "example.test", "fe80::1%eth0", "\0", "1/2/3"])
def test_a_network_that_would_stop_the_login_is_refused(acme: Customer, network: str) -> None:
    with pytest.raises(BadValue):
        provisioning.change_mailbox(
            acme.mailbox, quota_octets=None, pop3_enabled=True, allowed_networks=[network], retention=None
        )


def test_a_password_changes_at_once(acme: Customer) -> None:
    provisioning.set_password(acme.mailbox.user, "another")
    user = User.objects.get(pk=acme.mailbox.user_id)
    assert check_password("another", user.password)
    assert not check_password(PASSWORD, user.password)
    with pytest.raises(BadPassword):
        provisioning.set_password(user, "x" * 249)
    assert check_password("another", User.objects.get(pk=user.pk).password)


@pytest.mark.parametrize("role", ["support", "domain-admin", "tenant-admin"])
def test_who_may_only_change_mailboxes_signs_in_as_nobody_who_may_do_more(acme: Customer, role: str) -> None:
    binh, user = acme.add("binh"), acme.mailbox.user
    provisioning.set_role(user, role)
    weak = Principal(role="domain-admin", tenant_id=acme.tenant.pk, user_id=binh.user_id)
    token = Principal(role="tenant-admin", tenant_id=acme.tenant.pk, scopes=frozenset({"mailboxes:write"}), token_id=1)
    item = bulk.Item(action="update", address="an@acme.test", password="another")
    for principal in (weak, token):
        with principals.acting_as(principal):
            with pytest.raises(NotAllowed):
                provisioning.set_password(user, "another")
            [result] = bulk.apply([item], atomic=False)
            assert isinstance(result.refusal, NotAllowed)
            with pytest.raises(NotAllowed):
                app_passwords.create(acme.mailbox, name="Phone")
            provisioning.set_password(binh.user, "another")
            app_passwords.create(binh, name="Phone")
    assert check_password(PASSWORD, User.objects.get(pk=user.pk).password)
    for principal in (replace(weak, user_id=user.pk), replace(token, scopes=None)):
        with principals.acting_as(principal):
            provisioning.set_password(user, "another")


def test_staff_sign_in_by_any_spelling_of_their_address(acme: Customer) -> None:
    boss = provisioning.add_staff("Boss@Acme.test", password="secret", tenant=acme.tenant)
    assert (boss.is_staff, boss.is_superuser) == (True, False)
    assert authenticate(username="BOSS@acme.test", password="secret") == boss
    assert authenticate(username="BOSS@acme.test", password="Secret") is None
    assert authenticate(username="boss", password="secret") is None
    provisioning.change_login(boss, is_active=False, is_staff=True)
    assert authenticate(username="boss@acme.test", password="secret") is None


def test_an_operator_belongs_to_no_tenant(db: None) -> None:
    operator = provisioning.add_staff("operator@localhost", password="secret", tenant=None)
    assert (operator.tenant, operator.is_superuser) == (None, True)
    with pytest.raises(AddressTaken):
        provisioning.add_staff("operator@localhost", password="secret", tenant=None)


def test_the_owner_of_a_mailbox_signs_in_for_as_long_as_it_is_open(acme: Customer) -> None:
    user = acme.mailbox.user
    with pytest.raises(OwnsMailbox):
        provisioning.change_login(user, is_active=False, is_staff=False)
    provisioning.change_login(user, is_active=True, is_staff=True)
    assert user.is_staff
    provisioning.close_mailbox(acme.mailbox)
    with pytest.raises(OwnsMailbox):
        provisioning.change_login(user, is_active=True, is_staff=True)
