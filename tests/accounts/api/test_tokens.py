from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import permissions, provisioning, tokens
from accounts.models import ApiToken, AuditEvent, Reseller, Role
from accounts.principals import SYSTEM, of_token
from accounts.provisioning import BadValue
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer


def wanted(**values: Any) -> dict[str, Any]:
    return {"name": "sign-up", "role": "tenant-admin", "tenant": "acme", "scopes": ["mailboxes:write"], **values}


def test_a_tokens_text_is_shown_once_and_works(admin: Program) -> None:
    answer = admin.send("POST", "/tokens/", wanted(scopes=["tokens:read"]))
    assert answer.status_code == 201
    made = answer.json()
    assert made["token"].startswith(f"mh_{made['prefix']}_")
    assert answer["Location"] == f"/api/v1/tokens/{made['prefix']}/"
    assert made["token"] not in str(ApiToken.objects.values())
    shown = Program(made["token"]).read(f"/tokens/{made['prefix']}/")
    assert "token" not in shown
    assert shown["tenant"] == "acme"


def test_making_rotating_and_revoking_is_in_the_audit(admin: Program) -> None:
    made = admin.send("POST", "/tokens/", wanted()).json()
    rotated = admin.send("POST", f"/tokens/{made['prefix']}/rotate/").json()
    assert rotated["prefix"] != made["prefix"]
    assert refusal(Program(made["token"]).send("GET", "/tokens/"), 401)["code"] == "bad-token"
    assert Program(rotated["token"]).send("GET", "/mailboxes/").status_code != 401
    assert admin.send("DELETE", f"/tokens/{rotated['prefix']}/").status_code == 204
    assert refusal(Program(rotated["token"]).send("GET", "/tokens/"), 401)
    events = AuditEvent.objects.filter(token_id__isnull=False).order_by("pk")
    assert [event.action for event in events] == ["token.created", "token.rotated", "token.revoked"]
    assert {event.through for event in events} == {"api"}
    assert {event.client_address for event in events} == {admin.defaults["REMOTE_ADDR"]}
    assert "mh_" not in str(list(events.values()))


def test_a_revoked_token_stays_so(admin: Program) -> None:
    made = admin.send("POST", "/tokens/", wanted()).json()
    admin.send("DELETE", f"/tokens/{made['prefix']}/")
    assert refusal(admin.send("POST", f"/tokens/{made['prefix']}/rotate/"), 422)["code"] == "bad-value"


def test_another_tenants_tokens_do_not_exist(admin: Program, foreign_admin: Program) -> None:
    foreign = foreign_admin.read("/tokens/")["items"][0]["prefix"]
    assert [item["tenant"] for item in admin.read("/tokens/")["items"]] == ["acme"]
    for method, path in [("GET", ""), ("DELETE", ""), ("POST", "rotate/")]:
        assert refusal(admin.send(method, f"/tokens/{foreign}/{path}"), 404)["code"] == "not-found"
    answer = admin.send("POST", "/tokens/", wanted(tenant="globex"))
    assert refusal(answer, 422)["errors"][0]["field"] == "tenant"
    assert answer.content == admin.send("POST", "/tokens/", wanted(tenant="globex")).content
    assert not ApiToken.objects.exclude(revoked_at=None).exists()


@pytest.mark.parametrize("role", sorted(set(Role.values) - {"tenant-admin", "domain-admin", "support", "member"}))
def test_a_tenant_admin_makes_no_stronger_role(admin: Program, reseller: Reseller, role: str) -> None:
    names: dict[str, Any] = {"tenant": None, "scopes": ["tenants:write"]}
    answer = admin.send("POST", "/tokens/", wanted(role=role, **names))
    assert answer.status_code in (403, 422)
    with pytest.raises(tokens.TooStrong):
        tokens.make(
            by=of_token(ApiToken.objects.get()),
            name="x",
            role=role,
            scopes=["tenants:write"],
            reseller=reseller if role == "reseller" else None,
        )


@pytest.fixture
def maker(acme: Customer) -> ApiToken:
    """A token that is limited in every way there is."""
    return tokens.make(
        by=SYSTEM,
        name="limited",
        role="tenant-admin",
        tenant=acme.tenant,
        scopes=["tokens:write", "mailboxes:read"],
        allowed_networks=["192.0.2.0/24"],
        expires_at=timezone.now() + timedelta(days=1),
        requests_per_minute=100,
    ).token


@pytest.mark.parametrize(
    "more",
    [
        {"scopes": ["mailboxes:write"]},
        {"scopes": ["mailboxes:read", "domains:read"]},
        {"allowed_networks": ["192.0.2.0/23"]},
        {"allowed_networks": ["192.0.2.0/25", "198.51.100.1"]},
        {"allowed_networks": ["2001:db8::/32"]},
        {"expires_at": timezone.now() + timedelta(days=2)},
        {"requests_per_minute": 101},
    ],
)
def test_no_token_makes_one_stronger_than_itself(acme: Customer, maker: ApiToken, more: dict[str, Any]) -> None:
    like: dict[str, Any] = {"name": "x", "role": "tenant-admin", "tenant": acme.tenant, "scopes": ["mailboxes:read"]}
    weak = tokens.make(by=of_token(maker), **like).token
    assert (weak.expires_at, weak.allowed_networks) == (maker.expires_at, maker.allowed_networks)
    assert weak.requests_per_minute == 100
    with pytest.raises(tokens.TooStrong):
        tokens.make(by=of_token(maker), **{**like, **more})


def test_no_token_takes_a_stronger_one_over(acme: Customer, maker: ApiToken) -> None:
    text = token_text("tenant-admin", tenant=acme.tenant)
    strong = ApiToken.objects.get(prefix=tokens.prefix_of(text))
    with pytest.raises(tokens.TooStrong):
        tokens.rotate(strong, by=of_token(maker))
    own = tokens.rotate(maker, by=of_token(maker))
    assert tokens.is_text_of(own.token, own.text)


def test_a_tenants_token_is_for_that_tenant_alone(acme: Customer, globex: Customer, reseller: Reseller) -> None:
    maker = ApiToken.objects.get(prefix=tokens.prefix_of(token_text("tenant-admin", tenant=acme.tenant)))
    of_reseller = ApiToken.objects.get(prefix=tokens.prefix_of(token_text("reseller", reseller=reseller)))
    like: dict[str, Any] = {"name": "x", "role": "support", "scopes": ["mailboxes:read"]}
    for by in (maker, of_reseller):
        assert tokens.make(by=of_token(by), tenant=acme.tenant, **like)
        for tenant in (globex.tenant, None):
            with pytest.raises(tokens.TooStrong):
                tokens.make(by=of_token(by), tenant=tenant, **like)
    assert tokens.make(by=of_token(of_reseller), reseller=reseller, **like)


@pytest.mark.parametrize(
    "values",
    [
        {"role": "support", "scopes": ["mailboxes:write"]},  # no support may
        {"role": "operator"},
        {"role": "domain-admin"},  # of which domains?
        {"role": "member", "scopes": ["mailboxes:read"]},
        {"scopes": []},
        {"name": " "},
        {"name": "a\u202eb"},
        {"allowed_networks": ["192.0.2.1/24"]},
        {"allowed_networks": ["fe80::1%eth0"]},
        {"expires_at": timezone.now()},
        {"requests_per_minute": 0},
    ],
)
def test_what_cannot_be_a_token_is_refused(acme: Customer, values: dict[str, Any]) -> None:
    like: dict[str, Any] = {"name": "x", "role": "tenant-admin", "scopes": ["mailboxes:write"]}
    with pytest.raises(BadValue):
        tokens.make(by=SYSTEM, tenant=acme.tenant, **{**like, **values})


def test_domains_and_mailbox_of_a_token_are_its_tenants(acme: Customer, globex: Customer) -> None:
    more: dict[str, Any]
    for more in (
        {"role": "domain-admin", "domains": [globex.domain]},
        {"role": "member", "mailbox": globex.mailbox},
    ):
        with pytest.raises(BadValue):
            tokens.make(by=SYSTEM, name="x", scopes=["mailboxes:read"], tenant=acme.tenant, **more)


def test_the_more_a_role_may_the_stronger_it_is() -> None:
    """Else a token could make one that may what itself may not.

    But for a promise to a tenant, that its own admins alone say who reads its mail: what others make does not.
    """
    for maker, roles in permissions.MAKES.items():
        for role in roles:
            for resource, verbs in permissions.TABLE.items():
                for verb, may in verbs.items():
                    if verb == "content-roles":
                        continue
                    assert role not in may or maker in may, (maker, role, resource, verb)


def test_people_have_no_scopes_and_may_all_that_their_role_may(acme: Customer) -> None:
    browser = Program()
    browser.force_login(provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant))
    assert browser.send("POST", "/tokens/", wanted()).status_code == 201
    assert ApiToken.objects.get().created_by
