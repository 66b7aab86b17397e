"""Mailboxes and aliases as CSV files over the API."""

import io
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import authenticate

from accounts import permissions, provisioning, spreadsheets
from accounts.api import aliases as aliases_api
from accounts.api import mailboxes as mailboxes_api
from accounts.api.problems import MOST_LINE_ERRORS
from accounts.models import Alias, AuditEvent, Mailbox
from tests.accounts.api.programs import ROLES, Program, refusal, token_text
from tests.fixtures import Customer

HASH = "{SSHA}ODzbSbYbgrHFcSc9WvKqh5sYsWFhYmNk"


def send(
    program: Program, kind: str, file: str | bytes, query: str = "", *, of: str = "text/csv", **headers: str
) -> Any:
    return program.generic(
        "POST", f"/api/v1/{kind}/import/?{query}", file, content_type=of,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )  # fmt: skip


def export(program: Program, kind: str, query: str = "") -> list[str]:
    answer = program.send("GET", f"/{kind}/export/", query=query)
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert f"{kind}.csv" in answer["Content-Disposition"]
    return b"".join(answer.streaming_content).decode().splitlines()


def errors(answer: Any) -> list[tuple[int, str]]:
    problem = refusal(answer, 422)
    assert problem["code"] == "bad-rows"
    assert problem["errors_total"] == len(problem["errors"])
    return [(error["line"], error["field"]) for error in problem["errors"]]


def test_a_file_of_any_spreadsheet_comes_in_and_goes_out(admin: Program, acme: Customer, globex: Customer) -> None:
    file = "\ufeffaddress;name;password;quota\r\nBINH@acme.test;'=Bình;a plain horse;1G\r\nchi@acme.test;'-;;\r\n"
    assert send(admin, "mailboxes", file).json() == {"created": 2, "changed": 0, "unchanged": 0}
    assert provisioning.find_mailbox("binh@acme.test").name == "=Bình"
    assert authenticate(username="binh@acme.test", password="a plain horse")
    shown = export(admin, "mailboxes")
    assert [line.partition(",")[0] for line in shown] == ["address", "an@acme.test", "binh@acme.test", "chi@acme.test"]
    assert "'=Bình" in shown[2]
    assert "password" not in shown[0]
    assert "argon2" not in "".join(shown)
    assert send(admin, "mailboxes", "\n".join(shown), "update=true").json()["unchanged"] == 3


def test_aliases_come_in_and_go_out(admin: Program, acme: Customer, globex: Customer) -> None:
    provisioning.add_alias("sales@globex.test", mailbox=globex.mailbox)
    file = "sales@acme.test,an@acme.test an@elsewhere.example,2999-01-31T00:00:00Z\n'@acme.test,an@acme.test\n"
    assert send(admin, "aliases", file).json() == {"created": 2, "changed": 0, "unchanged": 0}
    shown = export(admin, "aliases")
    assert shown == [
        "address,targets,expires_at",
        "'@acme.test,an@acme.test,",
        "sales@acme.test,an@acme.test an@elsewhere.example,2999-01-31T00:00:00+00:00",
    ]
    assert export(admin, "aliases", "target=an@elsewhere.example") == [shown[0], shown[2]]
    file = "address,targets\nsales@acme.test,an@acme.test\n"
    assert send(admin, "aliases", file).json() == {"created": 0, "changed": 0, "unchanged": 1}
    assert send(admin, "aliases", file, "update=true").json() == {"created": 0, "changed": 1, "unchanged": 0}


def test_those_that_exist_stay_unless_they_are_to_be_updated(admin: Program, acme: Customer) -> None:
    file = "address,name,password_hash\nan@acme.test,An,\nbinh@acme.test,Bình," + HASH
    assert send(admin, "mailboxes", file, "update=false").json() == {"created": 1, "changed": 0, "unchanged": 1}
    assert send(admin, "mailboxes", file, "update=true").json() == {"created": 0, "changed": 2, "unchanged": 0}
    acme.mailbox.refresh_from_db()
    assert acme.mailbox.name == "An"
    assert AuditEvent.objects.filter(action="mailbox.created", mailbox_id__isnull=False, through="api").count() == 1
    for query in ("update=yes", "update=", "atomic=true", "update=true&update=true"):
        assert refusal(send(admin, "mailboxes", file, query), 400)["code"] == "bad-parameter"


def test_all_lines_are_carried_out_or_none(admin: Program, acme: Customer, globex: Customer) -> None:
    file = (
        "address,password,quota,password_hash\n"
        "binh@acme.test,a plain horse,1G,\n"
        "chi@globex.test,a secret cow,1G,\n"
        "dung@acme.test,,much,\n"
        "binh@acme.test,,,\n"
        "em@acme.test,,,{ROT13}a secret hash\n"
        "chi@nowhere.test,,,\n"
    )
    for query in ("", "dry_run=true", "update=true"):
        answer = send(admin, "mailboxes", file, query)
        found = errors(answer)
        assert {(4, "quota"), (5, "address")} <= set(found)
        assert "secret" not in answer.content.decode()
        assert Mailbox.objects.count() == 2
    details = {error["line"]: error["detail"] for error in answer.json()["errors"]}
    assert details[3] == "globex.test is not hosted here."
    assert details[7] == "nowhere.test is not hosted here."
    assert found == [(3, "address"), (4, "quota"), (5, "address"), (6, "password_hash"), (7, "address")]

    file = "x@globex.test,an@acme.test\nsales@acme.test,\nfine@acme.test,an@acme.test\n"
    answer = send(admin, "aliases", file)
    assert errors(answer) == [(1, "address"), (2, "targets")]
    assert answer.json()["errors"][0]["detail"] == "globex.test is not hosted here."
    assert not Alias.objects.exists()


def test_a_dry_run_says_how_many(admin: Program, acme: Customer) -> None:
    for kind, file in (("mailboxes", "binh@acme.test,a plain horse\n"), ("aliases", "sales@acme.test,an@acme.test\n")):
        assert send(admin, kind, file, "dry_run=true").json() == {
            "dry_run": True,
            "would": {
                "action": "import",
                "summary": "1 created, 0 changed, 0 unchanged",
                "counts": {"created": 1, "changed": 0, "unchanged": 0},
            },
        }
    assert Mailbox.objects.count() == 1
    assert not Alias.objects.exists()


def test_a_domain_admin_has_its_domains_alone(program: Callable[[str], Program], acme: Customer) -> None:
    provisioning.add_domain("other.acme.test", tenant=acme.tenant)
    provisioning.add_mailbox("x@other.acme.test", password=None, quota_octets=None)
    asking = program("domain-admin")
    answer = send(asking, "mailboxes", "binh@acme.test,a plain horse\ny@other.acme.test,a plain horse\n")
    assert errors(answer) == [(2, "address")]
    assert answer.json()["errors"][0]["detail"] == "other.acme.test is not hosted here."
    assert errors(send(asking, "aliases", "y@other.acme.test,an@acme.test\n")) == [(1, "address")]
    assert len(export(asking, "mailboxes")) == 2
    assert len(export(program("tenant-admin"), "mailboxes")) == 3
    assert len(export(program("reseller"), "mailboxes", "domain=other.acme.test")) == 2


def test_exports_are_narrowed_as_lists_are(host: Program, acme: Customer, globex: Customer) -> None:
    suspended = acme.add("binh")
    provisioning.set_state(suspended, "suspended", reason="not paid")
    closed = acme.add("chi")
    provisioning.close_mailbox(closed)
    for query, names in {
        "": ["an@acme.test", "an@globex.test", "binh@acme.test"],
        "tenant=globex": ["an@globex.test"],
        "domain=ACME.test": ["an@acme.test", "binh@acme.test"],
        "state=suspended": ["binh@acme.test"],
        "search=an": ["an@acme.test", "an@globex.test"],
        "domain=nowhere.test": [],
        "created_until=0133-05-03T11:07:57-22:55": [],
    }.items():
        assert [line.partition(",")[0] for line in export(host, "mailboxes", query)[1:]] == names
    for query in ("closed=true", "limit=1", "with_hashes=true", "state=x", "created_since=0001-01-01T00:00:00%2B23:00"):
        assert refusal(host.send("GET", "/mailboxes/export/", query=query), 400)["code"] == "bad-parameter"


def test_each_tenants_audit_tells_what_was_taken_along(
    host: Program, admin: Program, acme: Customer, globex: Customer
) -> None:
    acme.add("binh")
    export(host, "mailboxes")
    export(admin, "aliases")  # there are none
    told = AuditEvent.objects.filter(action__endswith="s.exported").order_by("tenant_id")
    assert [(event.action, event.target, event.changes) for event in told] == [
        ("mailboxes.exported", "acme", {"count": 2}),
        ("mailboxes.exported", "globex", {"count": 1}),
    ]
    seen = admin.read("/audit-events/", "action=mailboxes.exported")["items"]
    assert [event["target"] for event in seen] == ["acme"]


@pytest.mark.parametrize("kind", ["mailboxes", "aliases"])
def test_who_may(program: Callable[[str], Program], kind: str) -> None:
    may = {"operator", "reseller", "tenant-admin", "domain-admin"}
    for role in ROLES:
        asking = program(role)
        answers = send(asking, kind, "\n", "dry_run=true"), asking.send("GET", f"/{kind}/export/")
        assert [answer.status_code for answer in answers] == [200 if role in may else 403] * 2, role
        big = send(asking, kind, b"x" * 3 * 2**20, Idempotency_Key=role)  # of those who may not, nothing is read
        assert big.status_code == (422 if role in may else 403), role


def test_updating_needs_what_it_does(acme: Customer) -> None:
    scopes = {"mailboxes:read", "aliases:read"}
    reading = Program(token_text("tenant-admin", tenant=acme.tenant, scopes=scopes))
    assert len(export(reading, "mailboxes")) == 2
    assert refusal(send(reading, "mailboxes", "binh@acme.test,x\n"), 403)["code"] == "not-allowed"
    assert permissions.scope_of("aliases", "list-export") == "aliases:read"


def test_a_retry_is_carried_out_once(admin: Program, acme: Customer) -> None:
    for kind, file in (("mailboxes", "binh@acme.test,a plain horse\n"), ("aliases", "sales@acme.test,an@acme.test\n")):
        first = send(admin, kind, file, Idempotency_Key=kind)
        again = send(admin, kind, file, Idempotency_Key=kind)
        assert again["Idempotent-Replayed"] == "true"
        assert first.json() == again.json() == {"created": 1, "changed": 0, "unchanged": 0}
        for other, query in ((file + "\n", ""), (file, "update=true")):
            assert (
                refusal(send(admin, kind, other, query, Idempotency_Key=kind), 422)["code"] == "idempotency-key-reused"
            )


def test_what_is_no_such_file(admin: Program, acme: Customer) -> None:
    assert refusal(send(admin, "mailboxes", "{}", of="application/json"), 415)
    for file in (b"\xff", b'address\n"', b"address,colour\n", b"\0"):
        assert refusal(send(admin, "mailboxes", file), 422)["code"] in ("bad-file", "bad-rows")
    assert send(admin, "mailboxes", "\n", of="text/csv; charset=utf-8").json()["created"] == 0
    long = admin.generic(
        "POST", "/api/v1/aliases/import/", "x", content_type="text/csv", CONTENT_LENGTH=str(spreadsheets.LIMIT + 1)
    )
    assert refusal(long, 413)["code"] == "too-large"
    broken: dict[str, Any] = {"wsgi.input": io.BytesIO(b"x"), "CONTENT_LENGTH": "2"}
    short = admin.generic("POST", "/api/v1/aliases/import/", "x", content_type="text/csv", **broken)
    assert refusal(short, 400)["code"] == "malformed"


def test_passwords_are_hashed_while_somebody_waits(admin: Program, acme: Customer) -> None:
    file = "".join(f"u{number}@acme.test,a plain horse\n" for number in range(mailboxes_api.MOST_PASSWORDS + 1))
    assert refusal(send(admin, "mailboxes", file), 413)["code"] == "too-large"
    assert Mailbox.objects.count() == 1


def test_domains_are_not_held_for_long(admin: Program, acme: Customer) -> None:
    file = "".join(f"a{number}@acme.test,an@acme.test\n" for number in range(aliases_api.MOST_LINES + 1))
    assert refusal(send(admin, "aliases", file), 413)["code"] == "too-large"
    assert not Alias.objects.exists()


def test_an_answer_tells_only_so_many_errors(admin: Program, acme: Customer) -> None:
    problem = refusal(send(admin, "aliases", "x\n" * (MOST_LINE_ERRORS + 1)), 422)
    assert len(problem["errors"]) == MOST_LINE_ERRORS
    assert problem["errors_total"] == MOST_LINE_ERRORS + 1


def test_ten_thousand_mailboxes_with_hashes_take_seconds(admin: Program, acme: Customer) -> None:
    lines = (f"u{number}@acme.test,{HASH}\n" for number in range(10_000))
    file = "address,password_hash\n" + "".join(lines)
    began = time.monotonic()
    assert send(admin, "mailboxes", file).json()["created"] == 10_000
    assert time.monotonic() - began < 300  # a quarter of an hour, were each hashed
    assert len(export(admin, "mailboxes")) == 10_002


def test_import_and_export_are_no_addresses(admin: Program, acme: Customer) -> None:
    for kind in ("mailboxes", "aliases"):
        for name in ("import", "export"):
            answer = admin.send("PUT", f"/{kind}/{name}/", {})
            assert refusal(answer, 405)["code"] == "method-not-allowed"
            assert answer["Allow"] == ("POST" if name == "import" else "GET, HEAD")
