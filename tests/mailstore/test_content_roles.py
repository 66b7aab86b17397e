"""Who may read what is in messages: as the tenant says, or else the host, and never more than the table."""

from collections.abc import Iterator
from importlib import import_module
from itertools import combinations
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from accounts import permissions, principals, provisioning, tokens
from accounts.models import ApiToken, AuditEvent, Reseller, Role, Tenant
from accounts.permissions import CONTENT_ROLES, NotAllowed
from accounts.principals import SYSTEM, Principal
from accounts.provisioning import BadValue
from mailstore.models import Message
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


def _made(by: Program, **wanted: Any) -> Program:
    """A token that `by` makes, with all that its role may."""
    scopes = sorted(permissions.scopes_of(wanted["role"]))
    answer = by.send("POST", "/tokens/", {"name": "x", "scopes": scopes, **wanted})
    assert answer.status_code == 201, answer.content
    return Program(answer.json()["token"])


def _may_read(program: Program, message: Message) -> set[bool]:
    """Whether each of content and export is answered."""
    mailbox = f"/mailboxes/{message.mailbox.address}/"
    answers = [
        program.send("GET", mailbox + path, Accept="*/*") for path in (f"messages/{message.pk}/content/", "export/")
    ]
    assert {answer.status_code for answer in answers} <= {200, 403}
    return {answer.status_code == 200 for answer in answers}


OWN: list[dict[str, Any]] = [
    {"role": "member", "tenant": "acme", "mailbox": "an@acme.test"},
    {"role": "tenant-admin", "tenant": "acme"},
]


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("maker", ["operator", "reseller"])
def test_who_may_not_read_makes_no_token_that_does(
    acme: Customer, globex: Customer, reseller: Reseller, maker: str, own: dict[str, Any]
) -> None:
    """The token is good for all else: the sign-up of a new tenant makes such ones."""
    message, foreign = add_message(acme.mailbox), add_message(globex.mailbox)
    first = Program(token_text("operator"))
    by = first if maker == "operator" else _made(first, role="reseller", reseller=reseller.slug)
    program = _made(by, **own)
    assert program.read("/mailboxes/an@acme.test/messages/")["items"]
    for policy, may in (
        (None, False),
        (["tenant-admin"], False),
        (["tenant-admin", maker], maker == "operator"),
        (["tenant-admin", "operator", "reseller"], True),
        (["tenant-admin"], False),  # what was allowed is not for ever
    ):
        provisioning.change_tenant(acme.tenant, content_roles=policy)
        assert _may_read(program, message) == {may}, policy
    refused = refusal(program.send("GET", f"/mailboxes/an@acme.test/messages/{message.pk}/content/"), 403)
    assert (refused["code"], "the role operator, which made the token" in refused["detail"]) == ("not-allowed", True)
    assert refusal(program.send("GET", f"/mailboxes/an@globex.test/messages/{foreign.pk}/content/"), 404)
    assert not AuditEvent.objects.filter(action="message.read", tenant_id=globex.tenant.pk).exists()


def test_a_token_is_as_far_from_messages_as_whoever_made_its_maker(acme: Customer, reseller: Reseller) -> None:
    message = add_message(acme.mailbox)
    member, admin = OWN
    of_operator = _made(Program(token_text("operator")), **admin)
    assert _may_read(_made(of_operator, **member), message) == {False}
    assert _may_read(_made(_made(of_operator, **admin), **member), message) == {False}
    of_tenant = Program(token_text("tenant-admin", tenant=acme.tenant))
    assert _may_read(_made(of_tenant, **member), message) == {True}
    provisioning.change_tenant(acme.tenant, content_roles=[])
    assert _may_read(_made(of_tenant, **member), message) == {False}
    assert _may_read(Program(token_text("member", mailbox=acme.mailbox)), message) == {True}  # of the host's command


def test_who_rotates_a_token_reads_no_more_than_before(acme: Customer) -> None:
    """Its text is known to whoever rotated it, and to nobody else any more."""
    message = add_message(acme.mailbox)
    operator = Program(token_text("operator"))
    text = token_text("tenant-admin", tenant=acme.tenant)
    assert _may_read(Program(text), message) == {True}
    rotated = operator.send("POST", f"/tokens/{text.split('_')[1]}/rotate/").json()
    assert _may_read(Program(rotated["token"]), message) == {False}
    boss = Program()
    boss.force_login(provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant))
    again = boss.send("POST", f"/tokens/{rotated['prefix']}/rotate/").json()
    assert _may_read(Program(again["token"]), message) == {True}


def test_who_rotates_a_token_is_not_told_again_what_it_made_before(acme: Customer) -> None:
    """However easy to guess the key under which it did: the answer holds a text that reads messages."""
    message = add_message(acme.mailbox)
    text = token_text("tenant-admin", tenant=acme.tenant)
    wanted = {"name": "x", "scopes": sorted(permissions.scopes_of("member")), **OWN[0]}

    def ask(program: Program) -> Any:
        return program.send("POST", "/tokens/", wanted, Idempotency_Key="order-4711")

    made = ask(Program(text)).json()
    assert ask(Program(text)).json() == made
    assert _may_read(Program(made["token"]), message) == {True}
    rotated = Program(token_text("operator")).send("POST", f"/tokens/{text.split('_')[1]}/rotate/").json()
    again = ask(Program(rotated["token"]))
    assert made["token"] not in again.content.decode()
    assert refusal(again, 422)["code"] == "idempotency-key-reused"


@pytest.mark.parametrize("maker", ["operator", "reseller"])
def test_who_may_not_change_the_policy_makes_no_token_that_does(
    acme: Customer, globex: Customer, reseller: Reseller, maker: str
) -> None:
    by = Program(token_text(maker, reseller=reseller if maker == "reseller" else None))
    program = _made(by, **OWN[1])
    wanted = {"content_roles": [*CONTENT_ROLES]}
    for one in (program, _made(program, **OWN[1])):
        assert refusal(one.send("PATCH", TENANT, wanted), 403)["code"] == "not-allowed"
        assert one.send("PATCH", TENANT, {"name": "Acme Ltd"}).status_code == 200
        assert refusal(one.send("PATCH", "/tenants/globex/", wanted), 404)
    acme.tenant.refresh_from_db()
    assert acme.tenant.content_roles is None
    of_tenant = _made(Program(token_text("tenant-admin", tenant=acme.tenant)), **OWN[1])
    assert of_tenant.send("PATCH", TENANT, wanted).status_code == 200


def test_of_tokens_that_there_are_the_audit_says_who_made_them(acme: Customer) -> None:
    """As before these were kept; what the host's command made stays as it was."""
    operator = Program(token_text("operator"))
    _made(_made(operator, **OWN[1]), **OWN[0])
    of_tenant = ApiToken.objects.get(prefix=token_text("tenant-admin", tenant=acme.tenant).split("_")[1])
    _made(Program(tokens.rotate(of_tenant, by=SYSTEM).text), **OWN[0])
    kept = list(ApiToken.objects.order_by("pk").values_list("pk", "told_to"))
    assert [roles for _, roles in kept] == [[], ["operator"], ["operator", "tenant-admin"], [], ["tenant-admin"]]
    ApiToken.objects.update(told_to=[])
    migration = import_module("accounts.migrations.0041_tokens_told_to")
    with connection.cursor() as cursor:
        cursor.execute(migration.Migration.operations[0].sql)
    assert list(ApiToken.objects.order_by("pk").values_list("pk", "told_to")) == kept


def test_a_policy_names_each_role_once(acme: Customer) -> None:
    with principals.acting_as(Principal(role=Role.TENANT_ADMIN, tenant_id=acme.tenant.pk)):
        provisioning.change_tenant(acme.tenant, content_roles=["support", "support", "operator"])
        assert acme.tenant.content_roles == ["operator", "support"]
        with pytest.raises(BadValue, match="'member'"):
            provisioning.change_tenant(acme.tenant, content_roles=["member"])
