from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.http import HttpRequest
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import clients, provisioning
from accounts.api import rates
from accounts.models import ApiToken
from mailhost import environment
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer, WebClient


def test_without_a_token_nothing_is_answered(db: None) -> None:
    answer = Program().send("GET", "/tokens/")
    assert refusal(answer, 401)["code"] == "unauthenticated"
    assert answer["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header", ["Basic eDp5", "Bearer", "Bearer x", "bearer mh_aaaaaaaa_" + "x" * 43, "Bearer mh_\0", "Token é"]
)
def test_what_is_no_token_of_ours_is_refused(db: None, header: str) -> None:
    answer = Program().send("GET", "/tokens/", Authorization=header)
    assert refusal(answer, 401)["code"] in ("unauthenticated", "bad-token")


def test_a_token_is_known_again_whatever_the_case_of_the_scheme(admin: Program) -> None:
    text = admin.defaults["HTTP_AUTHORIZATION"].replace("Bearer", "bEARER")
    assert admin.send("GET", "/tokens/", Authorization=text).status_code == 200


def test_a_token_with_one_wrong_letter_is_wrong(acme: Customer) -> None:
    text = token_text("tenant-admin", tenant=acme.tenant)
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    assert refusal(Program(wrong).send("GET", "/tokens/"), 401)["code"] == "bad-token"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"revoked_at": timezone.now()}, "bad-token"),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "expired-token"),
        ({"allowed_networks": ["192.0.2.0/24"]}, "wrong-network"),
    ],
)
def test_a_token_that_does_not_hold_any_more_is_refused(admin: Program, change: dict[str, Any], code: str) -> None:
    ApiToken.objects.update(**change)
    assert refusal(admin.send("GET", "/tokens/"), 401)["code"] == code


def test_the_tokens_of_what_is_closed_are_none(acme: Customer) -> None:
    member, admin = token_text("member", mailbox=acme.mailbox), token_text("tenant-admin", tenant=acme.tenant)
    assert Program(member).send("GET", "/tokens/").status_code == 403
    provisioning.close_mailbox(acme.mailbox)
    assert refusal(Program(member).send("GET", "/tokens/"), 401)["code"] == "bad-token"
    assert Program(admin).send("GET", "/tokens/").status_code == 200
    provisioning.reopen_mailbox(acme.mailbox)
    assert Program(member).send("GET", "/tokens/").status_code == 403
    provisioning.close_tenant(acme.tenant)
    assert refusal(Program(admin).send("GET", "/tokens/"), 401)["code"] == "bad-token"


def test_a_token_works_from_its_networks(acme: Customer) -> None:
    text = token_text("tenant-admin", tenant=acme.tenant, allowed_networks=["192.0.2.0/24", "2001:db8::/32"])
    for address, status in [("192.0.2.7", 200), ("192.0.3.7", 401), ("2001:db8::1", 200), ("::ffff:192.0.2.9", 200)]:
        assert Program(text, REMOTE_ADDR=address).send("GET", "/tokens/").status_code == status, address


def test_when_a_token_was_used_is_kept_once_a_minute(admin: Program) -> None:
    admin.read("/tokens/")
    first = ApiToken.objects.get()
    assert first.last_used_at
    assert first.last_used_address == admin.defaults["REMOTE_ADDR"]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        admin.read("/tokens/")
    assert ApiToken.objects.get().last_used_at == first.last_used_at
    assert not [query for query in queries if query["sql"].startswith("UPDATE")]
    ApiToken.objects.update(last_used_at=timezone.now() - timedelta(seconds=61))
    admin.read("/tokens/")
    assert ApiToken.objects.filter(last_used_at__gt=first.last_used_at).exists()


def test_a_token_has_so_many_requests_per_minute(acme: Customer) -> None:
    program = Program(token_text("tenant-admin", tenant=acme.tenant, requests_per_minute=3))
    assert [program.send("GET", "/tokens/").status_code for _ in range(4)] == [200, 200, 200, 429]
    answer = program.send("GET", "/tokens/")
    assert refusal(answer, 429)["code"] == "too-many-requests"
    assert 1 <= int(answer["Retry-After"]) <= 60


def test_without_redis_requests_go_on(acme: Customer, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    monkeypatch.setattr(rates, "_back_at", 0.0)
    rates._redis.cache_clear()
    try:
        program = Program(token_text("tenant-admin", tenant=acme.tenant, requests_per_minute=1))
        assert [program.send("GET", "/tokens/").status_code for _ in range(3)] == [200, 200, 200]
        assert refusal(Program("mh_x").send("GET", "/tokens/"), 401)
    finally:
        rates._redis.cache_clear()


def test_who_guesses_tokens_is_refused_unseen_and_who_used_one_there_is_not(acme: Customer) -> None:
    text = token_text("tenant-admin", tenant=acme.tenant)
    other = token_text("tenant-admin", tenant=acme.tenant)
    owner = Program(text)
    owner.read("/tokens/")
    guesser = Program("mh_aaaaaaaa_" + "x" * 43, REMOTE_ADDR=owner.defaults["REMOTE_ADDR"])
    assert [guesser.send("GET", "/tokens/").status_code for _ in range(30)] == [401] * 30
    answer = guesser.send("GET", "/tokens/")
    assert refusal(answer, 429)["code"] == "too-many-failures"
    assert int(answer["Retry-After"]) > 0
    assert Program(other, REMOTE_ADDR=owner.defaults["REMOTE_ADDR"]).send("GET", "/tokens/").status_code == 429
    owner.read("/tokens/")


def test_who_has_signed_in_to_the_admin_may_ask_too(boss: WebClient) -> None:
    assert boss.get("/api/v1/tokens/").status_code == 200


def test_a_write_of_another_site_is_refused(acme: Customer) -> None:
    browser = Program(enforce_csrf_checks=True)
    browser.force_login(provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant))
    assert refusal(browser.send("POST", "/tokens/", {}), 403)["code"] == "csrf-failed"


def test_owners_of_mailboxes_are_members(acme: Customer) -> None:
    browser = WebClient()
    browser.force_login(acme.mailbox.user)
    assert refusal(browser.get("/api/v1/tokens/"), 403)["code"] == "not-allowed"


def test_signing_in_works_in_the_webs_role(acme: Customer) -> None:
    user = provisioning.add_staff("boss@acme.test", password="hutech123", tenant=acme.tenant)
    browser = WebClient()
    answer = browser.post("/admin/login/?next=/admin/", {"username": "boss@acme.test", "password": "hutech123"})
    assert answer.status_code == 302
    assert browser.get("/admin/").status_code == 200
    user.refresh_from_db()
    assert user.last_login
    wrong = browser.post("/admin/login/", {"username": "boss@acme.test", "password": "wrong"})
    assert wrong.status_code == 200


@pytest.mark.parametrize(
    ("peer", "said", "found"),
    [
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),  # not a proxy of ours: whatever it says
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "192.0.2.1, 203.0.113.9", "203.0.113.9"),  # the first one is the client's own invention
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("", "203.0.113.9", None),
    ],
)
def test_a_proxy_is_believed_if_it_is_ours(peer: str, said: str, found: str | None) -> None:
    request = HttpRequest()
    request.META = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": said}
    address = clients.address_of(request, proxies=environment.networks("10.0.0.0/8"))
    assert (str(address) if address else None) == found


def test_probes_need_no_database() -> None:
    assert Client().get("/healthz").status_code == 200
