"""Every change leaves a record of who made it, in its transaction, that nobody can change."""

from typing import Any

import pytest
from django.db import DatabaseError, transaction

from accounts import app_passwords, principals, provisioning
from accounts.models import AppPassword, AuditEvent, Mailbox
from accounts.principals import Principal
from accounts.provisioning import bulk
from accounts.provisioning.bulk import Item
from tests.fixtures import Customer


def last(mailbox: Mailbox) -> AuditEvent:
    return AuditEvent.objects.filter(mailbox_id=mailbox.pk).latest("id")


def test_it_says_who_from_where_through_what_and_which_fields(acme: Customer) -> None:
    boss = provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant)
    who = principals.of_user(boss)
    assert who
    with principals.acting_as(who.via("api", "192.0.2.7")):
        provisioning.change_mailbox(acme.mailbox, quota_octets=500, pop3_enabled=True)
    event = last(acme.mailbox)
    assert (event.user_id, event.token_id, event.role) == (boss.pk, None, "tenant-admin")
    assert (event.through, event.client_address, event.action) == ("api", "192.0.2.7", "mailbox.changed")
    assert (event.tenant_id, event.target_kind, event.target_id) == (acme.tenant.pk, "mailbox", acme.mailbox.pk)
    assert event.changes == {"quota_octets": [None, 500]}


def test_what_changes_nothing_is_not_recorded(acme: Customer) -> None:
    before = AuditEvent.objects.count()
    provisioning.change_mailbox(acme.mailbox, quota_octets=None)
    provisioning.resume(acme.mailbox)
    provisioning.add_mailbox("an@acme.test", password="x", quota_octets=1)
    assert AuditEvent.objects.count() == before


def test_what_is_refused_is_not_recorded(acme: Customer) -> None:
    before = AuditEvent.objects.count()
    with pytest.raises(provisioning.AddressTaken):
        provisioning.rename_mailbox(acme.mailbox, acme.add("binh").address)
    assert AuditEvent.objects.count() == before + 1  # binh


def test_personal_data_and_secrets_are_left_out(acme: Customer) -> None:
    secret, name = "correct horse battery", "An Nguyen"
    provisioning.set_password(acme.mailbox.user, secret)
    provisioning.change_mailbox(acme.mailbox, name=name, external_id="user-77", allowed_networks=["192.0.2.0/24"])
    provisioning.suspend(acme.mailbox, reason="Ms An has not paid")
    provisioning.rename_mailbox(acme.mailbox, "an.nguyen@acme.test")
    provisioning.set_alias("sales@acme.test", tenant_id=acme.tenant.pk, mailboxes=[acme.mailbox])
    told = "".join(
        f"{event.target} {event.changes}" for event in AuditEvent.objects.exclude(target_kind__in=["tenant", "domain"])
    )
    for personal in (secret, "argon2", name, "user-77", "192.0.2.0", "not paid", "an@", "an.nguyen", "sales"):
        assert personal not in told
    assert "allowed_networks" in told


def test_many_mailboxes_are_recorded_each(acme: Customer) -> None:
    bulk.apply([Item(action="create", address=f"u{number}@acme.test") for number in range(3)], atomic=True)
    made = Mailbox.objects.filter(address__startswith="u").values_list("pk", flat=True)
    recorded = AuditEvent.objects.filter(action="mailbox.created", mailbox_id__in=made)
    assert recorded.count() == 3


def test_lists_stay_lists_and_enums_are_their_values(acme: Customer) -> None:
    app_passwords.create(acme.mailbox, name="Outlook", scopes=[AppPassword.Scope.POP3])
    assert last(acme.mailbox).changes["scopes"] == [None, ["pop3"]]


@pytest.mark.parametrize("change", [lambda rows: rows.update(action="x"), lambda rows: rows.delete()])
def test_nobody_changes_it(change: Any, acme: Customer) -> None:
    with pytest.raises(DatabaseError, match="only ever added to"), transaction.atomic():
        change(AuditEvent.objects.all())


def test_other_tenants_records_do_not_exist(acme: Customer, globex: Customer) -> None:
    boss = Principal(role="tenant-admin", tenant_id=acme.tenant.pk)
    seen = AuditEvent.objects.visible_to(boss)
    assert seen.exists()
    assert not seen.filter(tenant_id=globex.tenant.pk).exists()
    member = Principal(role="member", tenant_id=acme.tenant.pk, mailbox_id=acme.mailbox.pk)
    assert {event.mailbox_id for event in AuditEvent.objects.visible_to(member)} == {acme.mailbox.pk}


def test_a_domains_admin_sees_what_belongs_to_its_mailboxes(acme: Customer, globex: Customer) -> None:
    app_passwords.create(acme.mailbox, name="Outlook")
    app_passwords.create(globex.mailbox, name="Outlook")
    admin = Principal(role="domain-admin", tenant_id=acme.tenant.pk, domain_ids=[acme.domain.pk])
    [event] = AuditEvent.objects.visible_to(admin).filter(target_kind="apppassword")
    assert event.mailbox_id == acme.mailbox.pk
