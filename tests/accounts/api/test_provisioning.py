"""Tenants, domains, mailboxes and aliases over the API."""

import hashlib
import re
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts import events, limits, provisioning, webhooks
from accounts.models import Alias, AuditEvent, Domain, Mailbox, Reseller, Tenant
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer


def test_a_tenant_from_nothing(host: Program) -> None:
    assert host.send("PUT", "/tenants/initech/", {"name": "Initech", "external_id": "c-7"}).status_code == 201
    made = host.send("POST", "/domains/", {"name": "Initech.TEST.", "tenant": "initech"})
    assert made.status_code == 201
    assert made["Location"] == "/api/v1/domains/initech.test/"
    assert made.json()["state"] == "verified"
    body = {"address": "Bill@Initech.test", "password": "red stapler", "quota_octets": 1024, "name": "Bill"}
    made = host.send("POST", "/mailboxes/", body)
    assert made.status_code == 201
    assert made["Location"] == "/api/v1/mailboxes/bill@initech.test/"
    assert "password" not in made.json()
    mailbox = Mailbox.objects.get(address="bill@initech.test")
    assert mailbox.user.check_password("red stapler")
    assert mailbox.quota_octets == 1024
    body = {"address": "@initech.test", "targets": ["bill@initech.test", "boss@example.com"]}
    assert host.send("POST", "/aliases/", body).status_code == 201
    assert {event.through for event in AuditEvent.objects.exclude(token_id=None)} == {"api"}


def test_put_brings_to_a_state_whatever_was(admin: Program) -> None:
    path = "/mailboxes/binh@acme.test/"
    assert admin.send("PUT", path, {"name": "Bình"}).status_code == 201
    assert admin.send("PUT", path, {"name": "Bình"}).status_code == 200
    again = admin.send("PUT", path, {"state": "suspended", "state_reason": "not paid"})
    assert (again.json()["name"], again.json()["state"], again.json()["state_reason"]) == (
        "Bình", "suspended", "not paid",
    )  # fmt: skip
    assert refusal(admin.send("PUT", path, {"address": "other@acme.test"}), 422)["errors"][0]["code"] == "differs"
    assert admin.send("PUT", path, {"address": "BINH@acme.test", "state": "active"}).json()["state"] == "active"


def test_a_name_in_any_spelling_is_the_same(admin: Program, acme: Customer) -> None:
    for path in (
        "/mailboxes/AN@ACME.test/",
        "/mailboxes/an%40acme.test/",
        "/domains/ACME.TEST./",
        "/domains/acme.test/",
    ):
        assert admin.send("GET", path).status_code == 200
    for path in ("/mailboxes/an/", "/mailboxes/a n@acme.test/", "/domains/-/", "/domains/%00/", "/tenants/ACME/"):
        assert refusal(admin.send("GET", path), 404)


def test_if_none_match_creates_only(admin: Program) -> None:
    path = "/mailboxes/binh@acme.test/"
    assert admin.send("PUT", path, {}, If_None_Match="*").status_code == 201
    assert refusal(admin.send("PUT", path, {}, If_None_Match="*"), 412)["code"] == "changed-meanwhile"


def test_a_write_with_a_tag_of_before_is_refused(admin: Program, acme: Customer) -> None:
    path = f"/mailboxes/{acme.mailbox}/"
    tag = admin.send("GET", path)["ETag"]
    Mailbox.objects.update(used_octets=7, last_login_at=timezone.now())  # mail that arrives is no change
    changed = admin.send("PATCH", path, {"name": "An"}, If_Match=tag)
    assert changed.status_code == 200
    assert refusal(admin.send("PATCH", path, {"name": "Ann"}, If_Match=tag), 412)
    assert admin.send("PATCH", path, {"name": "Ann"}, If_Match=changed["ETag"]).status_code == 200


def test_what_closing_would_take_is_said_first(admin: Program, host: Program, acme: Customer) -> None:
    acme.add("binh")
    Mailbox.objects.update(used_octets=1024, message_count=2)
    would = host.send("DELETE", "/tenants/acme/", query="dry_run=true").json()["would"]
    assert would == {
        "action": "close",
        "summary": "closes 1 domain and 2 mailboxes, 2 KB in 4 messages",
        "counts": {"domains": 1, "mailboxes": 2, "messages": 4, "octets": 2048},
    }
    would = admin.send("DELETE", "/domains/acme.test/", query="dry_run=true").json()["would"]
    assert would["summary"] == "closes 1 domain and 2 mailboxes, 2 KB in 4 messages"
    would = admin.send("DELETE", "/mailboxes/an@acme.test/", query="dry_run=true").json()["would"]
    assert would["summary"] == "closes 1 mailbox, 1 KB in 2 messages"
    assert Mailbox.objects.open().count() == 2
    for method, path, body in [
        ("PUT", "/mailboxes/new@acme.test/", {}),
        ("PATCH", "/mailboxes/an@acme.test/", {"name": "x"}),
        ("POST", "/mailboxes/an@acme.test/rename/", {"address": "new@acme.test"}),
        ("PUT", "/aliases/new@acme.test/", {"targets": ["an@acme.test"]}),
        ("POST", "/mailboxes/bulk/", {"items": [{"address": "new@acme.test"}]}),
    ]:
        answer = admin.send(method, path, body, query="dry_run=true")
        assert answer.json()["dry_run"] is True, answer.content
        assert answer.json()["would"]["summary"]
    assert set(Mailbox.objects.values_list("address", "name")) == {("an@acme.test", ""), ("binh@acme.test", "")}


def test_a_mailbox_is_closed_and_reopened(admin: Program, acme: Customer) -> None:
    path = "/mailboxes/an@acme.test/"
    assert admin.send("DELETE", path).status_code == 204
    assert admin.send("DELETE", path).status_code == 204
    assert admin.read(path)["closed_at"]
    assert admin.read("/mailboxes/")["items"] == []
    assert len(admin.read("/mailboxes/", "closed=true")["items"]) == 1
    assert refusal(admin.send("PATCH", path, {"name": "x"}), 409)["code"] == "closed"
    assert refusal(admin.send("POST", "/mailboxes/", {"address": "an@acme.test"}), 409)["code"] == "in-quarantine"
    assert admin.send("POST", f"{path}reopen/").json()["closed_at"] is None
    assert admin.read("/mailboxes/")["items"][0]["address"] == "an@acme.test"


def test_a_mailbox_is_renamed(admin: Program, acme: Customer) -> None:
    answer = admin.send("POST", "/mailboxes/an@acme.test/rename/", {"address": "Anna@acme.test"})
    assert answer.json()["address"] == "anna@acme.test"
    assert Alias.objects.get().address == "an@acme.test"
    answer = admin.send("POST", "/mailboxes/anna@acme.test/rename/", {"address": "x@globex.test"})
    assert refusal(answer, 422)["code"] == "unknown-domain"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"address": "x"}, "bad-address", "address"),
        ({"address": "x@nowhere.test"}, "unknown-domain", "address"),
        ({"address": "x@globex.test"}, "unknown-domain", "address"),
        ({"address": "an@acme.test"}, "taken", "address"),
        ({"address": "x@acme.test", "password": "a\nb"}, "bad-password", None),
        ({"address": "x@acme.test", "password_hash": "{NOPE}x"}, "bad-hash", None),
        ({"address": "x@acme.test", "quota_octets": -1}, "invalid", "quota_octets"),
        ({"address": "x@acme.test", "quota_octets": True}, "invalid", "quota_octets"),
        ({"address": "x@acme.test", "quota_octets": 2**63}, "invalid", "quota_octets"),
        ({"address": "x@acme.test", "retention": 10**12}, "invalid", "retention"),
        ({"address": "x@acme.test", "allowed_networks": ["x"]}, "bad-value", "allowed_networks"),
        ({"address": "x@acme.test", "state": "dead"}, "invalid", "state"),
        ({"address": "x@acme.test", "colour": "red"}, "invalid", "colour"),
        ({}, "invalid", "address"),
    ],
)
def test_what_cannot_be_a_mailbox_is_refused_by_name(
    admin: Program, globex: Customer, body: Any, code: str, field: str | None
) -> None:
    answer = admin.send("POST", "/mailboxes/", body)
    problem = refusal(answer, 409 if code == "taken" else 422)
    assert problem["code"] == code
    if field:
        assert problem["errors"][0]["field"] == field
    assert Mailbox.objects.count() == 2


def test_a_foreign_domain_is_taken_and_no_more_is_said(admin: Program, globex: Customer) -> None:
    problem = refusal(admin.send("POST", "/domains/", {"name": "globex.test"}), 409)
    assert problem["code"] == "domain-taken"
    assert "globex" not in str(problem).replace("globex.test", "")
    assert refusal(admin.send("PUT", "/domains/globex.test/", {}), 409)["code"] == "domain-taken"


def test_a_tenants_domain_is_pending_until_it_is_shown(admin: Program, host: Program) -> None:
    made = admin.send("POST", "/domains/", {"name": "new.test"}).json()
    assert (made["state"], made["tenant"]) == ("pending", "acme")
    assert made["record"]["text"]
    assert refusal(admin.send("POST", "/domains/new.test/verify/"), 403)
    assert host.send("POST", "/domains/new.test/verify/").json()["state"] == "verified"


def test_limits_are_kept_and_given_by_who_may(admin: Program, host: Program, acme: Customer) -> None:
    body = {"limits": {"max_mailboxes": 1}}
    assert refusal(admin.send("PATCH", "/tenants/acme/", body), 403)["code"] == "not-allowed"
    shown = host.send("PATCH", "/tenants/acme/", body).json()
    assert (shown["limits"]["max_mailboxes"], shown["has"]["mailboxes"]) == (1, 1)
    problem = refusal(admin.send("POST", "/mailboxes/", {"address": "x@acme.test"}), 409)
    assert problem["code"] == "limit-reached"
    assert limits.of(acme.tenant).max_mailboxes == 1
    assert AuditEvent.objects.filter(action="tenant.limited").exists()


def test_a_reseller_makes_tenants_of_its_own(reseller: Reseller, globex: Customer) -> None:
    program = Program(token_text("reseller", reseller=reseller))
    made = program.send("POST", "/tenants/", {"slug": "initech", "limits": {"max_domains": 2}})
    assert made.status_code == 201, made.content
    assert made.json()["reseller"] == "reseller"
    assert {item["slug"] for item in program.read("/tenants/")["items"]} == {"acme", "initech"}
    assert program.send("POST", "/domains/", {"name": "initech.test", "tenant": "initech"}).status_code == 201
    assert refusal(program.send("POST", "/domains/", {"name": "x.test", "tenant": "globex"}), 422)
    taken = program.send("POST", "/tenants/", {"slug": "globex"})
    assert refusal(taken, 409)["code"] == "taken"
    assert refusal(program.send("PATCH", "/tenants/acme/", {"reseller": None}), 403)


def test_the_host_and_each_reseller_have_a_plan_of_one_slug(host: Program, reseller: Reseller, acme: Customer) -> None:
    other, _ = provisioning.add_reseller("other")
    own, elsewhere = (Program(token_text("reseller", reseller=one)) for one in (reseller, other))
    ids = []
    for program, limit in ((host, 1), (own, 2), (elsewhere, 3)):
        made = program.send("POST", "/plans/", {"slug": "small", "limits": {"max_mailboxes": limit}})
        assert made.status_code == 201, made.content
        ids.append(made.json()["id"])
        assert made["Location"] == f"/api/v1/plans/{ids[-1]}/"
        assert refusal(program.send("POST", "/plans/", {"slug": "small"}), 409)["code"] == "taken"
    assert [plan["id"] for plan in host.read("/plans/", "slug=small")["items"]] == ids
    assert [plan["id"] for plan in host.read("/plans/", "slug=small&reseller=other")["items"]] == ids[2:]
    assert [plan["id"] for plan in own.read("/plans/", "slug=small")["items"]] == [ids[1]]
    assert refusal(own.send("PATCH", f"/plans/{ids[2]}/", {"name": "Mine"}), 404)
    assert own.send("PATCH", "/tenants/acme/", {"plan": "small"}).json()["limits"]["max_mailboxes"] == 2
    assert refusal(own.send("DELETE", f"/plans/{ids[1]}/"), 409)["code"]
    assert elsewhere.send("DELETE", f"/plans/{ids[2]}/").status_code == 204


def test_a_domain_admin_stays_in_its_domains(acme: Customer) -> None:
    other, _ = provisioning.add_domain("other.test", tenant=acme.tenant)
    provisioning.add_mailbox("binh@other.test", password=None, quota_octets=None)
    program = Program(token_text("domain-admin", tenant=acme.tenant, domain=acme.domain))
    assert [item["address"] for item in program.read("/mailboxes/")["items"]] == ["an@acme.test"]
    assert [item["name"] for item in program.read("/domains/")["items"]] == ["acme.test"]
    assert program.send("PUT", "/mailboxes/new@acme.test/", {}).status_code == 201
    assert refusal(program.send("PUT", "/mailboxes/new@other.test/", {}), 404)
    answer = program.send("POST", "/mailboxes/", {"address": "new@other.test"})
    assert refusal(answer, 422)["code"] == "unknown-domain"
    answer = program.send("POST", "/mailboxes/an@acme.test/rename/", {"address": f"an@{other}"})
    assert refusal(answer, 422)["code"] == "unknown-domain"
    answer = program.send("POST", "/mailboxes/bulk/", {"items": [{"address": "new2@other.test"}]})
    assert answer.json()["results"][0]["problem"]["code"] == "unknown-domain"
    assert not Mailbox.objects.filter(address__startswith="new2").exists()


@pytest.mark.parametrize(
    ("path", "query", "found"),
    [
        ("/mailboxes/", "search=AN", ["an@acme.test"]),
        ("/mailboxes/", "search=x", []),
        ("/mailboxes/", "search=@acme.test", ["an@acme.test", "binh@acme.test"]),
        ("/mailboxes/", "domain=globex.test", []),
        ("/mailboxes/", "tenant=globex", []),
        ("/mailboxes/", "state=suspended", ["binh@acme.test"]),
        ("/mailboxes/", "external_id=u-7", ["binh@acme.test"]),
        ("/mailboxes/", "used_percent=80", ["binh@acme.test"]),
        ("/mailboxes/", "used_percent=91", []),
        ("/mailboxes/", "never_logged_in=true", ["an@acme.test"]),
        ("/mailboxes/", "last_login_since=2020-01-01T00:00:00Z", ["binh@acme.test"]),
        ("/mailboxes/", "created_until=2020-01-01T00:00:00Z", []),
        ("/mailboxes/", "ordering=-address", ["binh@acme.test", "an@acme.test"]),
        ("/mailboxes/", "ordering=last_login_at", ["binh@acme.test", "an@acme.test"]),
        ("/aliases/", "target=an@acme.test", ["sales@acme.test"]),
        ("/aliases/", "target=an@globex.test", []),
        ("/aliases/", "target=out@example.com", ["sales@acme.test"]),
        ("/aliases/", "expired=true", []),
        ("/aliases/", "domain=acme.test", ["sales@acme.test"]),
    ],
)
def test_lists_are_filtered(
    admin: Program, acme: Customer, globex: Customer, path: str, query: str, found: Any
) -> None:
    binh = acme.add("binh", quota_octets=100)
    Mailbox.objects.filter(pk=binh.pk).update(
        state="suspended", external_id="u-7", used_octets=90, last_login_at=timezone.now()
    )
    for customer in (acme, globex):
        provisioning.set_alias(
            f"sales@{customer.domain}",
            tenant_id=customer.tenant.pk,
            mailboxes=[customer.mailbox],
            outside=["out@example.com"],
        )
    assert [item["address"] for item in admin.read(path, query)["items"]] == found


def test_many_are_written_at_once(admin: Program, acme: Customer) -> None:
    items = [
        {"address": "binh@acme.test", "password": "abcdefgh"},
        {"address": "an@acme.test", "name": "An", "action": "update"},
        {"address": "chi@globex.test"},
        {"address": "dung@acme.test", "action": "close"},
        {"address": "AN@acme.test"},
    ]
    results = admin.send("POST", "/mailboxes/bulk/", {"items": items}).json()["results"]
    assert [(result["done"], result["problem"] and result["problem"]["code"]) for result in results] == [
        ("created", None),
        ("changed", None),
        (None, "unknown-domain"),
        (None, "unknown-mailbox"),
        (None, "address-taken"),
    ]
    binh = Mailbox.objects.get(address="binh@acme.test")
    assert binh.quota_octets == 2**30
    assert binh.user.check_password("abcdefgh")


def test_many_are_written_all_or_none(admin: Program, acme: Customer, globex: Customer) -> None:
    items = [{"address": "binh@acme.test"}, {"address": "chi@globex.test"}]
    problem = refusal(admin.send("POST", "/mailboxes/bulk/", {"atomic": True, "items": items}), 409)
    assert problem["code"] == "not-all"
    assert [result["problem"] and result["problem"]["code"] for result in problem["results"]] == [
        None, "unknown-domain",
    ]  # fmt: skip
    assert not Mailbox.objects.filter(address="binh@acme.test").exists()


def test_a_password_needs_its_verb_and_a_hold_too(acme: Customer) -> None:
    program = Program(token_text("domain-admin", tenant=acme.tenant, domain=acme.domain))
    assert program.send("PATCH", "/mailboxes/an@acme.test/", {"password": "abcdefgh"}).status_code == 200
    acme.mailbox.user.refresh_from_db()
    assert acme.mailbox.user.check_password("abcdefgh")
    assert refusal(program.send("PATCH", "/mailboxes/an@acme.test/", {"legal_hold": True}), 403)


def test_a_new_password_ends_open_sessions_unless_it_says_otherwise(admin: Program, acme: Customer) -> None:
    user, path = acme.mailbox.user, "/mailboxes/an@acme.test/"
    assert admin.send("PATCH", path, {"password": "abcdefgh", "keep_sessions": True}).status_code == 200
    kept = hashlib.sha256(user.password.encode()).digest()
    user.refresh_from_db()
    assert bytes(user.former_password or b"") == kept
    assert admin.send("PATCH", path, {"password": "hgfedcba"}).status_code == 200
    user.refresh_from_db()
    assert user.former_password is None


def test_an_alias_is_written_by_its_address(admin: Program, acme: Customer) -> None:
    path = "/aliases/@acme.test/"
    made = admin.send("PUT", path, {"targets": ["AN@acme.test", "out@example.com"]})
    assert (made.status_code, made.json()["targets"]) == (201, ["an@acme.test", "out@example.com"])
    changed = admin.send("PATCH", path, {"expires_at": "2099-01-01T00:00:00Z"}).json()
    assert changed["targets"] == ["an@acme.test", "out@example.com"]
    assert admin.send("PUT", path, {"targets": ["an@acme.test"]}).json()["targets"] == ["an@acme.test"]
    assert refusal(admin.send("PUT", "/aliases/x@acme.test/", {}), 422)["errors"][0]["field"] == "targets"
    assert refusal(admin.send("PUT", path, {"targets": ["x"]}), 422)["errors"][0]["field"] == "targets.0"
    assert admin.send("DELETE", path).status_code == 204
    assert refusal(admin.send("DELETE", path), 404)


def test_a_list_of_many_mailboxes_reads_a_page(admin: Program, acme: Customer, globex: Customer) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            "INSERT INTO accounts_mailbox (tenant_id, domain_id, user_id, address, name, state, state_reason,"
            " legal_hold, used_octets, message_count, next_uid, pop3_enabled, allowed_networks, warned_percent)"
            " SELECT CASE WHEN n %% 2 = 0 THEN %s ELSE %s END, CASE WHEN n %% 2 = 0 THEN %s ELSE %s END, 1000000 + n,"
            " 'n' || n || '@x.test', '', 'active', '', false, 0, 0, 1, true, '{}', 0"
            " FROM generate_series(1, 50000) n",
            (acme.tenant.pk, globex.tenant.pk, acme.domain.pk, globex.domain.pk),
        )
        cursor.execute("SET LOCAL session_replication_role = origin")
        cursor.execute("ANALYZE accounts_mailbox")
    plans: list[str] = []

    def explain(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('SELECT "accounts_mailbox"') and "LIMIT" in sql and "EXPLAIN" not in sql:
            with connection.cursor() as cursor:
                cursor.cursor.execute(f"EXPLAIN {sql}", params)
                plans.append("\n".join(line for (line,) in cursor.cursor.fetchall()))
        return execute(sql, params, many, context)

    page = admin.read("/mailboxes/", "limit=100")
    with connection.execute_wrapper(explain):
        page = admin.read("/mailboxes/", f"limit=100&cursor={page['next']}")
    assert len(page["items"]) == 100
    [plan] = plans
    assert "Index Scan using mailbox_listed" in plan
    assert re.search(r"Index Cond: .*address\)::text >= 'n", plan), plan
    assert "Seq Scan on accounts_mailbox" not in plan
    assert Tenant.objects.count() == 2
    assert Domain.objects.count() == 2


def test_a_delivery_shows_its_event_as_it_is_sent(admin: Program, acme: Customer, globex: Customer) -> None:
    for customer in (acme, globex):
        webhooks.add("https://example.com/", tenant=customer.tenant, allow_private=False)
        events.emit("mailbox.created", tenant_id=customer.tenant.pk, domain=customer.domain.name, payload={"id": 1})
    [webhook] = admin.read("/webhooks/")["items"]
    path = f"/webhooks/{webhook['id']}/deliveries/"
    [delivery] = admin.read(path, "type=mailbox.created")["items"]
    assert set(delivery["event"]) == {"id", "type", "data", "created_at"}
    assert (delivery["event"]["type"], delivery["event"]["data"]) == ("mailbox.created", {"id": 1})
    assert admin.read(path, "type=mailbox.closed")["items"] == []
