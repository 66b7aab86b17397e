"""Who may read what is in messages: as the tenant says, or else the host, and never more than the table."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from django.test import override_settings

from accounts import permissions, principals, provisioning
from accounts.models import AuditEvent, Reseller, Role, Tenant
from accounts.permissions import CONTENT_ROLES, NotAllowed
from accounts.principals import Principal
from accounts.provisioning import BadValue
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer, signed_in
from tests.mailstore.rows import add_message

TENANT = "/tenants/acme/"


@pytest.fixture
def reseller(acme: Customer) -> Reseller:
    """Whose tenant `acme` is."""
    made, _ = provisioning.add_reseller("north")
    provisioning.change_tenant(acme.tenant, reseller=made)
    return made


def _principals(tenant: Tenant, reseller: Reseller) -> Iterator[tuple[Principal, set[str]]]:
    """Whoever sees the tenant's messages, and the roles that a policy must name for him."""
    yield Principal(role=Role.OPERATOR), {"operator"}
    yield Principal(role=Role.RESELLER, reseller_id=reseller.pk), {"reseller"}
    yield Principal(role=Role.TENANT_ADMIN, tenant_id=tenant.pk), {"tenant-admin"}
    yield Principal(role=Role.DOMAIN_ADMIN, tenant_id=tenant.pk, domain_ids=[]), {"domain-admin"}
    yield Principal(role=Role.SUPPORT, tenant_id=tenant.pk), {"support"}
    yield Principal(role=Role.SUPPORT, reseller_id=reseller.pk), {"support", "reseller"}
    yield Principal(role=Role.SUPPORT), {"support", "operator"}
    yield Principal(role=Role.MEMBER, tenant_id=tenant.pk, mailbox_id=1), set()


def _may(principal: Principal, tenant: Tenant, default: Any) -> bool:
    try:
        permissions.check_content(principal, tenant, default=default)
    except NotAllowed:
        return False
    return True


def test_every_policy_means_what_it_names(acme: Customer, reseller: Reseller) -> None:
    for count in range(len(CONTENT_ROLES) + 1):
        for policy in combinations(CONTENT_ROLES, count):
            for principal, needed in _principals(acme.tenant, reseller):
                acme.tenant.content_roles = list(policy)
                assert _may(principal, acme.tenant, default=CONTENT_ROLES) == (needed <= set(policy))
                acme.tenant.content_roles = None
                assert _may(principal, acme.tenant, default=frozenset(policy)) == (needed <= set(policy))


def test_over_the_api_contents_and_exports_obey_the_policy(
    acme: Customer, globex: Customer, reseller: Reseller
) -> None:
    provisioning.change_tenant(globex.tenant, content_roles=list(CONTENT_ROLES))
    message, foreign = add_message(acme.mailbox), add_message(globex.mailbox)
    programs = {
        "operator": Program(token_text("operator")),
        "reseller": Program(token_text("reseller", reseller=reseller)),
        "tenant-admin": Program(token_text("tenant-admin", tenant=acme.tenant)),
        "domain-admin": Program(token_text("domain-admin", tenant=acme.tenant, domain=acme.domain)),
        "support": Program(token_text("support", tenant=acme.tenant)),
    }
    content, export = f"/mailboxes/an@acme.test/messages/{message.pk}/content/", "/mailboxes/an@acme.test/export/"
    for policy in ([], *([role] for role in programs), None):
        provisioning.change_tenant(acme.tenant, content_roles=policy)
        for role, program in programs.items():
            before = AuditEvent.objects.filter(action__in=("message.read", "mailbox.exported")).count()
            allowed = role in (["tenant-admin"] if policy is None else policy)
            for path, exports in ((content, False), (export, True)):
                answer = program.send("GET", path, Accept="*/*")
                if allowed and (not exports or role in permissions.TABLE["mailboxes"]["export"]):
                    assert answer.status_code == 200, (policy, role, path)
                    assert b"Subject: x" in answer.getvalue()
                    before += 1
                else:
                    assert refusal(answer, 403)["code"] == "not-allowed", (policy, role, path)
            after = AuditEvent.objects.filter(action__in=("message.read", "mailbox.exported")).count()
            assert after == before
            if role != "operator":
                path = f"/mailboxes/an@globex.test/messages/{foreign.pk}/content/"
                assert refusal(program.send("GET", path), 404)
    owner = signed_in(acme.mailbox.user)
    provisioning.change_tenant(acme.tenant, content_roles=[])
    assert owner.get(f"/api/v1{content}").status_code == owner.get(f"/api/v1{export}").status_code == 200


def test_the_hosts_setting_holds_where_the_tenant_says_nothing(acme: Customer) -> None:
    path = f"/mailboxes/an@acme.test/messages/{add_message(acme.mailbox).pk}/content/"
    operator = Program(token_text("operator"))
    assert refusal(operator.send("GET", path), 403)
    with override_settings(MAILHOST_CONTENT_ROLES=frozenset({"operator"})):
        assert operator.send("GET", path).status_code == 200
        provisioning.change_tenant(acme.tenant, content_roles=["tenant-admin"])
        assert refusal(operator.send("GET", path), 403)


def test_the_tenants_admin_says_who_reads_and_nobody_else(acme: Customer, reseller: Reseller) -> None:
    wanted = {"content_roles": ["support", "tenant-admin"]}
    for asker in (Program(token_text("operator")), Program(token_text("reseller", reseller=reseller))):
        assert refusal(asker.send("PATCH", TENANT, wanted), 403)["code"] == "not-allowed"
        assert asker.send("PATCH", TENANT, {"content_roles": None, "name": "Acme"}).status_code == 200  # as it is
        assert refusal(asker.send("PUT", "/tenants/new/", wanted), 403)["code"] == "not-allowed"
        assert refusal(asker.send("POST", "/tenants/", {"slug": "new", **wanted}), 403)["code"] == "not-allowed"
    assert not Tenant.objects.filter(slug="new").exists()

    admin = Program(token_text("tenant-admin", tenant=acme.tenant))
    answer = admin.send("PATCH", TENANT, wanted)
    assert answer.json()["content_roles"] == ["tenant-admin", "support"]
    event = AuditEvent.objects.filter(action="tenant.changed").latest("pk")
    assert (event.role, event.changes) == ("tenant-admin", {"content_roles": [None, ["tenant-admin", "support"]]})
    wrong: list[Any] = [["member"], ["root"], "support", [1], {}]
    for bad in wrong:
        assert refusal(admin.send("PATCH", TENANT, {"content_roles": bad}), 422)
    assert admin.send("PATCH", TENANT, {"content_roles": []}).json()["content_roles"] == []
    assert admin.send("PATCH", TENANT, {"content_roles": None}).json()["content_roles"] is None


def test_a_policy_names_each_role_once(acme: Customer) -> None:
    with principals.acting_as(Principal(role=Role.TENANT_ADMIN, tenant_id=acme.tenant.pk)):
        provisioning.change_tenant(acme.tenant, content_roles=["support", "support", "operator"])
        assert acme.tenant.content_roles == ["operator", "support"]
        with pytest.raises(BadValue, match="'member'"):
            provisioning.change_tenant(acme.tenant, content_roles=["member"])
