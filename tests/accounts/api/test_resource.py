"""What holds for every resource, shown with tokens and the audit."""

import json
import threading
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from accounts import tokens
from accounts.api.mailboxes import Mailboxes
from accounts.models import ApiToken, AuditEvent, IdempotencyKey
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer

WANTED = {"name": "sign-up", "role": "tenant-admin", "tenant": "acme", "scopes": ["mailboxes:write"]}


# --- Failures ------------------------------------------------------------------------------------------------------


def test_what_there_is_not_is_said_so(admin: Program) -> None:
    for path in ("/", "/nothing/", "/tokens", "/tokens/../", "/tokens/a%00b/", "/tokens/%ff/"):
        assert refusal(admin.send("GET", path), 404)["code"] == "not-found"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"])
def test_a_method_that_there_is_not_is_refused(admin: Program, method: str) -> None:
    answer = admin.send(method, "/tokens/")
    assert refusal(answer, 405)["code"] == "method-not-allowed"
    assert set(answer["Allow"].split(", ")) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed"),
        (b"\xff", "malformed"),
        (b"NaN", "malformed"),
        (b'{"a": 1, "a": 2}', "malformed"),
        (b"[" * 100_000, "malformed"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "malformed"),
        (b'{"name": ' + b"9" * 10_000 + b"}", "malformed"),
        (b"[]", "invalid"),
        (b"1", "invalid"),
        (b"", "invalid"),
        (b'{"name": "\\u0000"}', "invalid"),
        (b'{"name": "\\ud800"}', "invalid"),
        (b'{"name": {"a": "}}"}}', "invalid"),
    ],
)
def test_a_bad_body_is_refused(admin: Program, body: bytes, code: str) -> None:
    answer = admin.generic("POST", "/api/v1/tokens/", body, content_type="application/json")
    assert refusal(answer, 400 if code == "malformed" else 422)["code"] == code


def test_only_json_goes_in_and_out(admin: Program) -> None:
    answer = admin.post("/api/v1/tokens/", {"name": "x"})
    assert refusal(answer, 415)["code"] == "unsupported-media-type"
    assert refusal(admin.send("GET", "/tokens/", Accept="text/html"), 406)["code"] == "not-acceptable"


def test_a_body_has_a_length_and_is_not_too_long(admin: Program) -> None:
    answer = admin.send("POST", "/tokens/", {"name": "x" * 1024 * 1024})
    assert refusal(answer, 413)["code"] == "too-large"
    answer = admin.generic("POST", "/api/v1/tokens/", b"", headers={"Transfer-Encoding": "chunked"})
    assert refusal(answer, 411)["code"] == "length-required"


def test_a_body_may_be_as_long_as_its_resource_says(admin: Program, acme: Customer) -> None:
    items = {"items": [{"address": "binh@acme.test"}], "atomic": True}
    for padding, status in ((Mailboxes.max_body - 1000, 200), (Mailboxes.max_body, 413)):
        text = json.dumps(items) + " " * padding
        answer = admin.generic("POST", "/api/v1/mailboxes/bulk/", text, content_type="application/json")
        assert answer.status_code == status


def test_each_wrong_field_is_named(admin: Program) -> None:
    problem = refusal(admin.send("POST", "/tokens/", {"role": "king", "scopes": ["x"], "colour": 1, "name": 7}), 422)
    assert problem["code"] == "invalid"
    assert [(error["field"], error["code"]) for error in problem["errors"]] == [("colour", "unknown-field")]
    problem = refusal(admin.send("POST", "/tokens/", {"role": "king", "scopes": ["x"], "name": 7}), 422)
    assert {(error["field"], error["code"]) for error in problem["errors"]} == {
        ("role", "invalid-choice"),
        ("scopes.0", "invalid-choice"),
        ("name", "invalid"),
    }


@pytest.mark.parametrize(
    "query",
    [
        "colour=red", "limit=0", "limit=501", "limit=x", "limit=²", "limit=1&limit=2", "ordering=digest",
        "fields=digest", "fields=", "cursor=x", "count=exact", "dry_run=true", "limit=%00",
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named(admin: Program, query: str) -> None:
    problem = refusal(admin.send("GET", "/tokens/", query=query), 400)
    if problem["code"] != "bad-cursor":
        assert problem["errors"][0]["field"] == query.partition("=")[0]


def test_a_fault_tells_nothing(admin: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(tokens, "revoke", fail)
    admin.raise_request_exception = False
    prefix = admin.read("/tokens/")["items"][0]["prefix"]
    answer = admin.send("DELETE", f"/tokens/{prefix}/")
    assert refusal(answer, 500)["code"] == "fault"
    assert b"secret" not in answer.content


def test_every_problem_says_where_it_is_explained(admin: Program) -> None:
    where = refusal(admin.send("GET", "/nothing/"), 404)["type"]
    assert Program().get(where).json()["code"] == "not-found"
    assert {item["code"] for item in Program().get("/api/problems/").json()["items"]} > {"not-found", "limit-reached"}
    assert refusal(Program().get("/api/problems/nonsense/"), 404)


# --- Lists ---------------------------------------------------------------------------------------------------------


def make(acme: Customer, count: int) -> None:
    for number in range(count):
        token_text("tenant-admin", tenant=acme.tenant)
        ApiToken.objects.filter(pk=ApiToken.objects.latest("pk").pk).update(
            name=f"n{number // 3}", expires_at=timezone.now() if number % 3 else None
        )


def pages(program: Program, path: str, query: str) -> list[Any]:
    found: list[Any] = []
    page = program.read(path, query)
    found += page["items"]
    while page["next"]:
        page = program.read(path, f"{query}&cursor={page['next']}")
        found += page["items"]
    return found


@pytest.mark.parametrize("order", ["id", "-id", "name", "-name", "expires_at", "-expires_at"])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_are_the_whole_list_in_its_order(acme: Customer, admin: Program, order: str, limit: int) -> None:
    make(acme, 7)
    whole = admin.read("/tokens/", f"limit=500&ordering={order}")
    assert whole["next"] is None
    assert len(whole["items"]) == 8
    assert pages(admin, "/tokens/", f"limit={limit}&ordering={order}") == whole["items"]
    field = order.removeprefix("-")
    if field != "id":
        shown = [item[field] for item in whole["items"] if item[field] is not None]
        assert shown == sorted(shown, reverse=order.startswith("-"))


def test_a_cursor_is_of_its_list_and_order(acme: Customer, admin: Program) -> None:
    make(acme, 2)
    cursor = admin.read("/tokens/", "limit=1")["next"]
    for query in (f"ordering=name&cursor={cursor}", f"cursor={cursor[:-1]}x"):
        assert refusal(admin.send("GET", "/tokens/", query=query), 400)["code"] == "bad-cursor"
    assert refusal(admin.send("GET", "/audit-events/", query=f"cursor={cursor}"), 400)["code"] == "bad-cursor"


def test_rows_that_come_and_go_shift_no_page(acme: Customer, admin: Program) -> None:
    make(acme, 4)
    first = admin.read("/tokens/", "limit=2&ordering=id")
    ApiToken.objects.filter(prefix=first["items"][1]["prefix"]).delete()
    token_text("tenant-admin", tenant=acme.tenant)
    rest = admin.read("/tokens/", f"limit=500&ordering=id&cursor={first['next']}")
    assert len(rest["items"]) == 4


def test_lists_are_counted_for_who_asks(acme: Customer, globex: Customer, admin: Program) -> None:
    token_text("tenant-admin", tenant=globex.tenant)
    assert admin.read("/tokens/", "count=estimate")["count"] == {"rows": 1, "exact": True}
    assert "count" not in admin.read("/tokens/")


def test_fields_are_selected(admin: Program) -> None:
    [item] = admin.read("/tokens/", "fields=name,role")["items"]
    assert set(item) == {"name", "role"}


def test_a_page_of_a_large_list_costs_what_it_shows(acme: Customer, globex: Customer, admin: Program) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_auditevent (tenant_id, role, through, action, target_kind, target, changes)"
            " SELECT CASE WHEN number %% 2 = 0 THEN %s ELSE %s END, '', 'system', 'x', 'x', '', '{}'"
            " FROM generate_series(1, 200000) number",
            (acme.tenant.pk, globex.tenant.pk),
        )
        cursor.execute("ANALYZE accounts_auditevent")
    first = admin.read("/audit-events/", "limit=500")
    with Plans() as plans:
        for _ in range(3):
            first = admin.read("/audit-events/", f"limit=500&cursor={first['next']}")
    assert len(plans) == 3
    for plan in plans:
        assert "Index Scan" in plan
        assert "Seq Scan" not in plan
        assert "Sort" not in plan


class Plans(list[str]):
    """How the database carries lists of the audit out."""

    def __enter__(self) -> "Plans":
        def explain(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith('SELECT "accounts_auditevent"'):
                with connection.execute_wrapper(lambda do, *asked: do(*asked)), connection.cursor() as cursor:
                    cursor.cursor.execute(f"EXPLAIN {sql}", params)
                    self.append("\n".join(line for (line,) in cursor.cursor.fetchall()))
            return execute(sql, params, many, context)

        self._wrapper = connection.execute_wrapper(explain)
        self._wrapper.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._wrapper.__exit__(*raised)


# --- Preconditions -------------------------------------------------------------------------------------------------


def test_what_is_known_is_not_sent_again(admin: Program) -> None:
    path = f"/tokens/{admin.read('/tokens/')['items'][0]['prefix']}/"
    tag = admin.send("GET", path)["ETag"]
    answer = admin.send("GET", path, If_None_Match=tag)
    assert (answer.status_code, answer.content, answer["ETag"]) == (304, b"", tag)
    ApiToken.objects.update(name="another")
    answer = admin.send("GET", path, If_None_Match=tag)
    assert answer.status_code == 200
    assert answer["ETag"] != tag


def test_what_was_changed_meanwhile_is_not_written(admin: Program) -> None:
    other = admin.send("POST", "/tokens/", WANTED)
    path = f"/tokens/{other.json()['prefix']}/"
    tag = admin.send("GET", path)["ETag"]
    ApiToken.objects.filter(prefix=other.json()["prefix"]).update(name="another")
    assert refusal(admin.send("DELETE", path, If_Match=tag), 412)["code"] == "changed-meanwhile"
    ApiToken.objects.filter(prefix=other.json()["prefix"]).update(last_used_at=timezone.now())
    fresh = admin.send("GET", path)["ETag"]
    ApiToken.objects.filter(prefix=other.json()["prefix"]).update(last_used_at=timezone.now())
    assert admin.send("DELETE", path, If_Match=f'"x", {fresh}').status_code == 204


def test_a_weak_tag_never_allows_a_write(admin: Program) -> None:
    other = admin.send("POST", "/tokens/", WANTED)
    path = f"/tokens/{other.json()['prefix']}/"
    assert refusal(admin.send("DELETE", path, If_Match=f"W/{admin.send('GET', path)['ETag']}"), 412)
    assert admin.send("DELETE", path, If_Match="*").status_code == 204


# --- Dry runs ------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_happen_and_does_nothing(admin: Program) -> None:
    answer = admin.send("POST", "/tokens/", WANTED, query="dry_run=true", Idempotency_Key="k")
    assert answer.status_code == 200
    assert answer.json() == {
        "dry_run": True,
        "would": {"action": "create", "summary": "makes a token with the role tenant-admin", "counts": {"tokens": 1}},
    }
    assert ApiToken.objects.count() == 1
    assert not AuditEvent.objects.filter(through="api").exists()
    assert not IdempotencyKey.objects.exists()


def test_a_dry_run_is_refused_like_the_real_one(admin: Program) -> None:
    answer = admin.send("POST", "/tokens/", {**WANTED, "tenant": "globex"}, query="dry_run=true")
    assert refusal(answer, 422)["code"] == "unknown-tenant"
    assert refusal(admin.send("POST", "/tokens/", WANTED, query="dry_run=maybe"), 400)


# --- Idempotency ---------------------------------------------------------------------------------------------------


def test_the_same_request_is_carried_out_once(admin: Program) -> None:
    first = admin.send("POST", "/tokens/", WANTED, Idempotency_Key="key-1")
    again = admin.send("POST", "/tokens/", WANTED, Idempotency_Key="key-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert first["Cache-Control"] == "no-store"
    for name in ("Cache-Control", "Content-Type", "Location", "ETag"):
        assert again[name] == first[name]
    assert again["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first
    assert ApiToken.objects.count() == 2


def test_another_request_with_the_same_key_is_refused(admin: Program) -> None:
    admin.send("POST", "/tokens/", WANTED, Idempotency_Key="key-1")
    answer = admin.send("POST", "/tokens/", {**WANTED, "name": "other"}, Idempotency_Key="key-1")
    assert refusal(answer, 422)["code"] == "idempotency-key-reused"


def test_a_refusal_is_kept_too_and_leaves_nothing_else(admin: Program) -> None:
    bad = {**WANTED, "scopes": ["resellers:write"]}
    first = admin.send("POST", "/tokens/", bad, Idempotency_Key="key-1")
    again = admin.send("POST", "/tokens/", bad, Idempotency_Key="key-1")
    assert refusal(first, 422) == refusal(again, 422)
    assert again["Idempotent-Replayed"] == "true"
    assert ApiToken.objects.count() == 1


def test_a_fault_is_not_kept(admin: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(tokens, "make", fail)
        admin.raise_request_exception = False
        assert admin.send("POST", "/tokens/", WANTED, Idempotency_Key="key-1").status_code == 500
    assert not IdempotencyKey.objects.exists()
    assert admin.send("POST", "/tokens/", WANTED, Idempotency_Key="key-1").status_code == 201


def test_keys_belong_to_who_asks(admin: Program, foreign_admin: Program) -> None:
    first = admin.send("POST", "/tokens/", WANTED, Idempotency_Key="key-1")
    other = foreign_admin.send("POST", "/tokens/", {**WANTED, "tenant": "globex"}, Idempotency_Key="key-1")
    assert (first.status_code, other.status_code) == (201, 201)


def test_what_is_shown_once_lies_sealed(admin: Program) -> None:
    text = admin.send("POST", "/tokens/", WANTED, Idempotency_Key="key-1").json()["token"]
    row = IdempotencyKey.objects.get()
    assert text.encode() not in bytes(row.body)
    assert text not in json.dumps(row.headers)


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é"])
def test_a_key_that_is_none_is_refused(admin: Program, key: str) -> None:
    answer = admin.send("POST", "/tokens/", WANTED, Idempotency_Key=key)
    assert refusal(answer, 400)["code"] == "bad-idempotency-key"


@pytest.mark.django_db(transaction=True)
def test_twins_at_the_same_time_are_carried_out_once(acme: Customer) -> None:
    text = token_text("tenant-admin", tenant=acme.tenant)
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(Program(text).send("POST", "/tokens/", WANTED, Idempotency_Key="twins"))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert ApiToken.objects.count() == 2
    assert sorted("Idempotent-Replayed" in answer for answer in answers) == [False, True, True, True]
    connections["default"].close_pool()  # type: ignore[attr-defined]
