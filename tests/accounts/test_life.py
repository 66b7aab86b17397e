"""The life of mailboxes, domains and tenants: states, new names, closing and coming back."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from accounts import principals, provisioning, scope
from accounts.models import Alias, Domain, Mailbox, Tenant, User
from accounts.principals import Principal
from accounts.provisioning import (
    AddressTaken,
    BadValue,
    DomainTaken,
    InQuarantine,
    OtherTenant,
    StillInUse,
    Taken,
    UnknownDomain,
    UnknownMailbox,
)
from tests.fixtures import Customer, as_web


def test_a_state_has_a_reason_that_its_owner_reads(acme: Customer) -> None:
    provisioning.set_state(acme.mailbox, "no-receive", reason="moving house")
    assert (acme.mailbox.state, acme.mailbox.state_reason) == ("no-receive", "moving house")
    provisioning.resume(acme.mailbox)
    assert (acme.mailbox.state, acme.mailbox.state_reason) == ("active", "")
    for bad in (
        {"state": "gone"},
        {"state": "suspended", "reason": "a\nb"},
        {"state": "suspended", "reason": "x" * 501},
    ):
        with pytest.raises(BadValue):
            provisioning.set_state(acme.mailbox, **bad)


def test_a_renamed_mailbox_keeps_its_old_address_as_an_alias(acme: Customer, globex: Customer) -> None:
    other, _ = provisioning.add_domain("acme.example", tenant=acme.tenant)
    provisioning.rename_mailbox(acme.mailbox, "An.Nguyen@ACME.example")
    assert (acme.mailbox.address, acme.mailbox.domain) == ("an.nguyen@acme.example", other)
    assert User.objects.get(pk=acme.mailbox.user_id).email == "an.nguyen@acme.example"
    alias = Alias.objects.get(address="an@acme.test")
    assert provisioning.targets_of(alias) == ["an.nguyen@acme.example"]
    provisioning.rename_mailbox(acme.mailbox, "an@acme.test")
    assert acme.mailbox.address == "an@acme.test"
    assert provisioning.targets_of(Alias.objects.get()) == ["an@acme.test"]


def test_nobody_takes_an_address_that_is_taken(acme: Customer, globex: Customer) -> None:
    acme.add("binh")
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    provisioning.close_mailbox(acme.add("old"))
    refusals: dict[str, type[Exception]] = {
        "binh@acme.test": AddressTaken,
        "old@acme.test": InQuarantine,
        "an@globex.test": OtherTenant,
        "an@elsewhere.test": UnknownDomain,
    }
    for address, refusal in refusals.items():
        with pytest.raises(refusal):
            provisioning.rename_mailbox(acme.mailbox, address)
    provisioning.rename_mailbox(acme.mailbox, "sales@acme.test")  # its own alias
    assert [alias.address for alias in Alias.objects.all()] == ["an@acme.test"]


def test_a_closed_mailbox_comes_back_with_its_password(acme: Customer) -> None:
    stored = acme.mailbox.user.password
    provisioning.close_mailbox(acme.mailbox)
    for _ in range(2):
        provisioning.reopen_mailbox(acme.mailbox)
    user = User.objects.get(pk=acme.mailbox.user_id)
    assert (user.email, user.is_active, user.password) == ("an@acme.test", True, stored)


def test_a_closed_mailbox_whose_address_was_given_away_stays_closed(acme: Customer) -> None:
    provisioning.close_mailbox(acme.mailbox)
    provisioning.add_mailbox("an@acme.test", password=None, quota_octets=None, release=True)
    with pytest.raises(AddressTaken):
        provisioning.reopen_mailbox(acme.mailbox)
    Mailbox.objects.filter(pk=acme.mailbox.pk).delete()
    with pytest.raises(UnknownMailbox):
        provisioning.reopen_mailbox(acme.mailbox)


def test_a_closed_mailbox_whose_address_is_an_alias_stays_closed(acme: Customer) -> None:
    provisioning.close_mailbox(acme.mailbox)
    binh = acme.add("binh")
    alias, _ = provisioning.add_alias("an@acme.test", mailbox=binh, release=True)
    for _ in range(2):
        with pytest.raises(AddressTaken):
            provisioning.reopen_mailbox(acme.mailbox)
        provisioning.close_mailbox(binh)  # then the alias is in quarantine itself
    provisioning.remove_alias(alias)
    provisioning.reopen_mailbox(acme.mailbox)
    assert acme.mailbox.closed_at is None


def test_a_login_that_does_not_exist_for_whoever_asks_keeps_its_address(acme: Customer) -> None:
    provisioning.add_staff("ops@acme.test", password=None)
    with as_web(), scope.entered(Principal(role="tenant-admin", tenant_id=acme.tenant.pk)):
        with pytest.raises(AddressTaken):
            provisioning.rename_mailbox(acme.mailbox, "ops@acme.test")
        with pytest.raises(AddressTaken):
            acme.add("ops")
        provisioning.rename_mailbox(acme.mailbox, "an.nguyen@acme.test")


@pytest.mark.parametrize("kind", ["tenant", "domain", "mailbox"])
def test_what_callers_call_things_is_unique(kind: str, acme: Customer, globex: Customer) -> None:
    change: Any = getattr(provisioning, f"change_{kind}")
    one: Any = {"tenant": acme.tenant, "domain": acme.domain, "mailbox": acme.mailbox}[kind]
    theirs: Any = {"tenant": globex.tenant, "domain": globex.domain, "mailbox": globex.mailbox}[kind]
    change(one, external_id="id-7")
    assert one.external_id == "id-7"
    if kind == "tenant":
        with pytest.raises(Taken):
            change(theirs, external_id="id-7")
        reseller, _ = provisioning.add_reseller("umbrella")
        change(theirs, reseller=reseller)
        change(theirs, external_id="id-7")  # a reseller's own numbers
        with pytest.raises(Taken):
            provisioning.add_tenant("third", reseller=reseller, external_id="id-7")
        with pytest.raises(Taken):
            change(theirs, reseller=None)
        return
    change(theirs, external_id="id-7")  # another tenant's: nobody's business
    another: Any = (
        acme.add("binh") if kind == "mailbox" else provisioning.add_domain("acme.example", tenant=acme.tenant)[0]
    )
    with pytest.raises(Taken):
        change(another, external_id="id-7")
    change(another, external_id="")
    assert another.external_id is None


def test_a_domain_that_a_tenants_own_admin_adds_has_to_be_shown_to_be_its_own(acme: Customer) -> None:
    assert acme.domain.state == "verified"
    with principals.acting_as(Principal(role="tenant-admin", tenant_id=acme.tenant.pk)):
        domain, _ = provisioning.add_domain("acme.example", tenant=acme.tenant)
    assert domain.state == "pending"
    assert len(domain.verification_token) == 32


def test_an_alias_domain_has_no_addresses_of_its_own(acme: Customer, globex: Customer) -> None:
    other, _ = provisioning.add_domain("acme.example", tenant=acme.tenant, alias_of=acme.domain)
    with pytest.raises(UnknownDomain, match="alias domain"):
        provisioning.add_mailbox("x@acme.example", password=None, quota_octets=None)
    with pytest.raises(UnknownDomain, match="alias domain"):
        provisioning.add_alias("x@acme.example", mailbox=acme.mailbox)
    with pytest.raises(StillInUse):
        provisioning.change_domain(acme.domain, alias_of=provisioning.add_domain("c.test", tenant=acme.tenant)[0])
    with pytest.raises(BadValue):
        provisioning.add_domain("d.test", tenant=acme.tenant, alias_of=other)
    with pytest.raises(OtherTenant):
        provisioning.change_domain(other, alias_of=globex.domain)
    provisioning.change_domain(other, alias_of=None, subaddress="-")
    provisioning.add_mailbox("x@acme.example", password=None, quota_octets=None)
    with pytest.raises(BadValue):
        provisioning.change_domain(other, subaddress="x")


def test_no_mailbox_is_reopened_in_a_domain_that_has_become_an_alias(acme: Customer) -> None:
    other, _ = provisioning.add_domain("acme.example", tenant=acme.tenant)
    mailbox, _ = provisioning.add_mailbox("an@acme.example", password=None, quota_octets=None)
    provisioning.close_mailbox(mailbox)
    provisioning.change_domain(other, alias_of=acme.domain)
    with pytest.raises(UnknownDomain, match="alias domain"):
        provisioning.reopen_mailbox(mailbox)


def test_a_closed_domain_takes_all_that_is_in_it_along_and_comes_back(acme: Customer, globex: Customer) -> None:
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    for _ in range(2):
        provisioning.close_domain(acme.domain)
    assert acme.domain.closed_at
    assert not Mailbox.objects.open().filter(tenant=acme.tenant).exists()
    assert not Alias.objects.exists()
    with pytest.raises(UnknownDomain):
        acme.add("binh")
    with pytest.raises(DomainTaken, match="closed"):
        provisioning.add_domain("acme.test", tenant=acme.tenant)
    with pytest.raises(DomainTaken):
        provisioning.add_domain("acme.test", tenant=globex.tenant)
    for _ in range(2):
        provisioning.reopen_domain(acme.domain)
    acme.mailbox.refresh_from_db()
    provisioning.reopen_mailbox(acme.mailbox)
    assert Mailbox.objects.open().filter(tenant=globex.tenant).exists()


def test_a_closed_tenant_is_closed_with_all_its_domains(acme: Customer, globex: Customer) -> None:
    boss = provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant)
    for _ in range(2):
        provisioning.close_tenant(acme.tenant)
    assert [domain.name for domain in Domain.objects.filter(closed_at=None)] == ["globex.test"]
    assert not User.objects.get(pk=boss.pk).is_active
    with pytest.raises(BadValue, match="closed"):
        provisioning.add_domain("acme.example", tenant=Tenant.objects.get(slug="acme"))


def test_a_reseller_goes_when_nothing_is_his(acme: Customer) -> None:
    reseller, added = provisioning.add_reseller("umbrella", name="Umbrella", external_id="r-1")
    assert added
    assert not provisioning.add_reseller("umbrella")[1]
    provisioning.change_tenant(acme.tenant, reseller=reseller)
    with pytest.raises(StillInUse):
        provisioning.remove_reseller(reseller)
    provisioning.change_tenant(acme.tenant, reseller=None)
    provisioning.remove_reseller(reseller)
    with pytest.raises(provisioning.UnknownReseller):
        provisioning.find_reseller("umbrella")


def test_an_erased_mailbox_does_not_come_back(acme: Customer) -> None:
    provisioning.change_mailbox(acme.mailbox, retention=timedelta(0))
    provisioning.close_mailbox(acme.mailbox)
    with pytest.raises(UnknownMailbox, match="removed for good"):
        provisioning.reopen_mailbox(acme.mailbox)


def test_who_is_a_domain_admin_no_more_looks_after_none(acme: Customer) -> None:
    boss = provisioning.add_staff(
        "boss@acme.test", password=None, tenant=acme.tenant, role="domain-admin", domains=[acme.domain]
    )
    provisioning.set_role(boss, "support")
    provisioning.set_role(boss, "domain-admin")
    assert not boss.domains.exists()


@pytest.mark.django_db(transaction=True)
def test_no_domain_stays_open_in_a_tenant_that_is_closed_meanwhile(acme: Customer) -> None:
    def add(number: int) -> None:
        try:
            provisioning.add_domain(f"d{number}.test", tenant=Tenant.objects.get(pk=acme.tenant.pk))
        except BadValue:
            pass
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as threads:
        adding = [threads.submit(add, number) for number in range(24)]
        provisioning.close_tenant(acme.tenant)
        for one in adding:
            one.result()
    assert not Domain.objects.filter(tenant=acme.tenant, closed_at=None).exists()
