import csv
import json
from typing import Any

import pytest

from accounts import audit, principals, provisioning
from accounts.models import ApiToken, AuditEvent
from accounts.principals import Principal
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer


@pytest.fixture
def events(acme: Customer, globex: Customer) -> None:
    """Two events of each tenant."""
    for customer in (acme, globex):
        audit.record("mailbox.suspended", customer.mailbox, {"state": ("active", "suspended")})
        with principals.acting_as(Principal(role="operator", user_id=7, through="admin", address="192.0.2.7")):
            audit.record("domain.changed", customer.domain, {"name": ("=1+1", "b")})


OURS = ("mailbox.suspended", "domain.changed")


def shown_of(program: Program, query: str = "") -> list[Any]:
    """The events above, newest first; not those of how everything else here came to be."""
    found = program.read("/audit-events/", f"limit=500&{query}")["items"]
    return [event for event in found if event["action"] in OURS]


@pytest.mark.usefixtures("events")
def test_each_sees_the_audit_of_what_exists_for_him(admin: Program, host: Program, globex: Customer) -> None:
    assert len(shown_of(host)) == 4
    shown = shown_of(admin)
    assert [event["action"] for event in shown] == ["domain.changed", "mailbox.suspended"]
    assert shown[0]["actor"] == "user 7"
    assert shown[0]["client_address"] == "192.0.2.7"
    assert shown[1]["changes"] == {"state": ["active", "suspended"]}
    foreign = AuditEvent.objects.filter(tenant_id=globex.tenant.pk).first()
    assert foreign
    assert refusal(admin.send("GET", f"/audit-events/{foreign.pk}/"), 404)
    assert refusal(admin.send("GET", f"/audit-events/{10**17}/"), 404)


@pytest.mark.usefixtures("events")
@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("action=mailbox.suspended", 1),
        ("action=mailbox.close", 0),
        ("actor=user%207", 1),
        ("actor=token%207", 0),
        ("actor=king", 0),
        ("mailbox=AN@Acme.TEST", 1),
        ("mailbox=an@globex.test", 0),
        ("mailbox=nonsense", 0),
        ("domain=ACME.test", 2),
        ("domain=globex.test", 0),
        ("tenant=acme", 2),
        ("tenant=globex", 0),
        ("through=admin", 1),
        ("role=operator", 1),
        ("target_kind=domain", 1),
        ("since=2020-01-01T00:00:00Z", 2),
        ("until=2020-01-01T00:00:00Z", 0),
    ],
)
def test_the_audit_is_filtered(admin: Program, query: str, count: int) -> None:
    assert len(shown_of(admin, query)) == count


@pytest.mark.parametrize("query", ["since=yesterday", "through=x", "target_id=x", "target_id=9e99", "action=%00"])
def test_a_filter_that_cannot_be_is_refused(admin: Program, query: str) -> None:
    assert refusal(admin.send("GET", "/audit-events/", query=query), 400)["code"] == "bad-parameter"


def streamed(program: Program, query: str) -> tuple[Any, str]:
    answer = program.send("GET", "/audit-events/export/", query=query)
    assert answer.status_code == 200, answer.content
    return answer, b"".join(answer.streaming_content).decode()


@pytest.mark.usefixtures("events")
def test_the_audit_is_exported(admin: Program) -> None:
    answer, text = streamed(admin, "")
    assert answer["Content-Type"] == "application/x-ndjson"
    found = [json.loads(line)["action"] for line in text.splitlines()]
    assert [action for action in found if action in OURS] == list(OURS)
    answer, text = streamed(admin, "format=csv&action=mailbox.suspended")
    assert answer["Content-Disposition"] == 'attachment; filename="audit.csv"'
    head, row = csv.reader(text.splitlines())
    assert dict(zip(head, row, strict=True))["action"] == "mailbox.suspended"
    assert refusal(admin.send("GET", "/audit-events/export/", query="format=xml"), 400)


def test_nobody_writes_the_audit(host: Program) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert refusal(host.send(method, "/audit-events/", {}), 405)
        assert refusal(host.send(method, "/audit-events/1/", {}), 405)


def test_changes_over_the_api_say_who_and_from_where(admin: Program, acme: Customer) -> None:
    admin.send("POST", "/tokens/", {"name": "x", "role": "support", "tenant": "acme", "scopes": ["mailboxes:read"]})
    [event] = admin.read("/audit-events/", "action=token.created&through=api")["items"]
    token = ApiToken.objects.get(pk=int(event["actor"].removeprefix("token ")))
    assert event["token_prefix"] == token.prefix
    shown = admin.read(f"/tokens/{token.prefix}/")
    assert event["actor"] == f"token {shown['id']}"
    assert json.loads(streamed(admin, "action=token.created&through=api")[1])["token_prefix"] == token.prefix
    assert event["role"] == "tenant-admin"
    assert event["tenant_id"] == acme.tenant.pk
    assert provisioning.find_tenant("acme")


def test_another_ones_token_has_no_prefix(admin: Program, host: Program, acme: Customer) -> None:
    with principals.acting_as(Principal(role="operator", token_id=ApiToken.objects.get(role="operator").pk)):
        audit.record("mailbox.suspended", acme.mailbox)
    ours = "action=mailbox.suspended"
    assert [event["token_prefix"] for event in shown_of(admin, ours)] == [None]
    assert [event["token_prefix"] for event in shown_of(host, ours)] == [ApiToken.objects.get(role="operator").prefix]


def test_who_may_read_no_tokens_sees_no_prefix(acme: Customer, admin: Program) -> None:
    with principals.acting_as(Principal(role="tenant-admin", token_id=ApiToken.objects.get().pk)):
        audit.record("mailbox.suspended", acme.mailbox)
    weak = Program(token_text("tenant-admin", tenant=acme.tenant, scopes=["audit-events:read"]))
    [event] = shown_of(weak, "action=mailbox.suspended")
    assert event["actor"].startswith("token ")
    assert event["token_prefix"] is None
