"""The two steps into the admin, and that nothing of it is there before the second."""

import re
import time
from typing import Any

import pytest
from django.contrib import admin

from accounts import app_passwords, provisioning
from accounts.models import AppPassword, AuditEvent, AuthenticatorApp, Passkey, RecoveryCode, User, WebSession
from accounts.two_factor import factors, gate, passkeys
from tests.accounts.two_factor.authenticator import Authenticator
from tests.accounts.two_factor.conftest import (
    LOGIN,
    PASSWORD,
    SECOND,
    SECURITY,
    Browser,
    browser,
    code,
    with_app,
)
from tests.accounts.two_factor.test_passkeys import HERE
from tests.fixtures import PASSWORD as OWN_PASSWORD
from tests.fixtures import Customer, WebClient

pytestmark = pytest.mark.django_db


def with_passkey(user: User) -> Authenticator:
    key = Authenticator()
    question = passkeys.ask_to_make(HERE, user, [])
    factors.add_passkey(user, "Telephone", passkeys.made(HERE, question.state, key.make(question.options)))
    return key


def actions(user: User) -> list[str]:
    found = AuditEvent.objects.filter(target_kind="user", target_id=user.pk).order_by("pk")
    return [event.action.removeprefix("login.") for event in found]


def every_url() -> list[str]:
    """An address for each pattern of the admin."""

    def walk(patterns: Any, prefix: str) -> Any:
        for pattern in patterns:
            route = prefix + str(pattern.pattern).lstrip("^")
            if hasattr(pattern, "url_patterns"):
                yield from walk(pattern.url_patterns, route)
            else:
                yield route

    found = set()
    for route in walk(admin.site.urls[0], "/admin/"):
        route = re.sub(r"<(path|int|slug|uuid|str):\w+>", "1", route)
        if "(?P<app_label>" in route:
            route = "/admin/accounts/"
        if "(?P<url>" in route:
            route = "/admin/nowhere/"
        assert "<" not in route, route
        found.add(route)
    return sorted(found)


def test_without_a_second_step_the_password_is_enough(boss: User, here: Browser) -> None:
    answer = here.give_password(boss, then="/admin/accounts/domain/")
    assert (answer.status_code, answer.url) == (302, "/admin/accounts/domain/")
    assert here.is_in
    row = WebSession.objects.get()
    assert (row.user, row.browser_name, row.second_step) == (boss, "Firefox on Linux", "")


def test_a_code_is_asked_for_after_the_password(boss: User, here: Browser) -> None:
    with_app(boss)
    answer = here.give_password(boss, then="/admin/accounts/domain/")
    assert (answer.status_code, answer.url) == (302, SECOND)
    assert not here.is_in
    assert WebSession.objects.count() == 0
    answer = here.post(SECOND, code=code())
    assert (answer.status_code, answer.url) == (302, "/admin/accounts/domain/")
    assert here.is_in
    assert WebSession.objects.get().second_step == "app"


def test_the_key_of_the_session_is_another_after_each_step(boss: User, here: Browser) -> None:
    with_app(boss)
    here.get(LOGIN)
    here.client.session["x"] = 1
    session = here.client.session
    session["planted"] = True
    session.save()
    here.client.cookies["sessionid"] = session.session_key
    keys = [here.key]
    here.give_password(boss)
    keys.append(here.key)
    here.post(SECOND, code=code())
    keys.append(here.key)
    assert len(set(keys)) == 3
    for old in keys[:2]:
        other = browser()
        other.client.cookies["sessionid"] = old
        assert not other.is_in
        assert other.get(SECOND).status_code == 302


@pytest.mark.parametrize("has_given_password", [False, True])
def test_nothing_of_the_admin_is_there_before_the_second_step(
    has_given_password: bool, acme: Customer, boss: User, here: Browser
) -> None:
    with_app(boss)
    for path in every_url():
        if has_given_password:
            here.give_password(boss)
        for answer in (here.get(path), here.post(path)):
            if answer.status_code in (200, 403):  # what can be read without signing in, and where one does it
                assert path in (LOGIN, SECOND, "/admin/jsi18n/", "/admin/logout/"), path
                assert "acme" not in answer.content.decode().replace(str(boss), ""), path
            else:
                assert answer.status_code in (302, 405), path
                after = "/admin/" if path == "/admin/logout/" else LOGIN
                assert answer.status_code == 405 or answer.url.startswith(after), (path, answer.url)
        assert here.client.get("/api/v1/domains/").status_code == 401


def test_an_owners_page_or_an_app_password_gives_nobody_admin_rights(
    acme: Customer, globex: Customer, here: Browser
) -> None:
    """Who looks after his tenant and has a mailbox, and a second step: the owners' pages ask for the password alone."""
    user = with_app(acme.mailbox.user)
    provisioning.set_role(user, "tenant-admin")
    _, device = app_passwords.create(acme.mailbox, name="Laptop", scopes=AppPassword.Scope.values)
    for password in (OWN_PASSWORD, device):
        there = browser()
        assert there.post("/me/sign-in/", address=str(user), password=password).url == "/me/"
        assert there.get("/me/").status_code == 200
        for path in every_url():
            if path not in (LOGIN, "/admin/jsi18n/", "/admin/logout/"):
                assert there.get(path).status_code in (302, 405), path
                assert there.post(path).status_code in (302, 403, 405), path
        for path in ("/api/v1/domains/", f"/api/v1/mailboxes/{globex.mailbox}/", f"/api/v1/mailboxes/{acme.mailbox}/"):
            assert there.client.get(path).status_code == 401
        assert not there.is_in
    assert here.give_password(user, device).status_code == 200  # an app password is none of the admin's
    assert not here.is_in
    assert here.give_password(user, OWN_PASSWORD).url == SECOND
    assert WebSession.objects.count() == 0
    changed = there.post("/me/password/", current=device, new="a long new password", again="a long new password")
    assert changed.status_code == 403


def test_who_must_have_a_second_step_adds_it_before_anything_else(boss: User, here: Browser, settings: Any) -> None:
    settings.MAILHOST_TWO_FACTOR = "required"
    here.give_password(boss)
    for path in every_url():
        for answer in (here.get(path), here.post(path) if path != "/admin/logout/" else here.get(path)):
            if path.startswith((SECURITY, "/admin/login/", "/admin/logout/", "/admin/jsi18n/")):
                assert answer.status_code in (200, 302, 403, 404, 405, 422), path
                assert "changelist" not in answer.content.decode()
            else:
                assert (answer.status_code, answer.url) == (302, SECURITY), path
        assert here.client.get("/api/v1/domains/").status_code == 401
    assert here.get(SECURITY).status_code == 200


def test_who_must_have_a_second_step_goes_on_once_he_has_it(boss: User, here: Browser, settings: Any) -> None:
    settings.MAILHOST_TWO_FACTOR = "required"
    here.give_password(boss)
    key = Authenticator()
    before = here.key
    answer = here.post(f"{SECURITY}passkey/", name="Telephone", answer=key.make(here.question(f"{SECURITY}passkey/")))
    assert answer.status_code == 200
    assert here.key != before
    assert here.is_in
    assert here.client.get("/api/v1/domains/").status_code == 200
    [passkey] = Passkey.objects.all()
    here.post(f"{SECURITY}passkey/{passkey.pk}/remove/")
    assert here.get("/admin/").url == SECURITY


@pytest.mark.parametrize(
    ("setting", "who", "must"),
    [
        ("optional", "operator", False), ("required-operators", "operator", True), ("required", "operator", True),
        ("optional", "boss", False), ("required-operators", "boss", False), ("required", "boss", True),
    ],
)  # fmt: skip
def test_who_must_have_a_second_step(
    setting: str, who: str, must: bool, boss: User, here: Browser, settings: Any
) -> None:
    settings.MAILHOST_TWO_FACTOR = setting
    user = boss if who == "boss" else User.objects.create_superuser("root@localhost", PASSWORD)
    here.give_password(user)
    assert here.is_in is not must


def test_a_code_is_good_once(boss: User, here: Browser) -> None:
    with_app(boss)
    shown = code()
    here.give_password(boss)
    here.post(SECOND, code=shown)
    assert here.is_in
    there = browser()
    there.give_password(boss)
    assert there.post(SECOND, code=shown).status_code == 403
    assert there.post(SECOND, code=code(-1)).status_code == 403  # nor one before it
    assert there.post(SECOND, code=code(1)).status_code == 302


def test_a_wrong_code_lets_nobody_in(boss: User, here: Browser) -> None:
    with_app(boss)
    here.give_password(boss)
    answer = here.post(SECOND, code="000000")
    assert (answer.status_code, "That code is not right" in answer.content.decode()) == (403, True)
    assert here.post(SECOND).status_code == 403
    assert not here.is_in


def test_another_logins_code_is_none(acme: Customer, globex: Customer, boss: User, here: Browser) -> None:
    with_app(boss)
    other = provisioning.add_staff("boss@globex.test", password=PASSWORD, tenant=globex.tenant)
    key = with_passkey(other)
    here.give_password(other)
    assert here.post(SECOND, code=code()).status_code == 403
    foreign = with_passkey(boss)
    assert here.post(SECOND, answer=foreign.sign(here.question(SECOND))).status_code == 403
    assert here.post(SECOND, answer=key.sign(here.question(SECOND))).status_code == 302


def test_a_passkey_opens_what_a_code_does(boss: User, here: Browser) -> None:
    key = with_passkey(boss)
    here.give_password(boss)
    assert here.post(SECOND, answer=key.sign(here.question(SECOND))).status_code == 302
    assert here.is_in
    assert WebSession.objects.get().second_step == "passkey"
    assert Passkey.objects.get().last_used_at


def test_a_question_is_answered_once_and_in_its_session(boss: User, here: Browser) -> None:
    key = with_passkey(boss)
    here.give_password(boss)
    answer = key.sign(here.question(SECOND), signatures=5)
    there = browser()
    there.give_password(boss)
    there.get(SECOND)
    assert there.post(SECOND, answer=answer).status_code == 403
    here.post(SECOND, code="1")  # takes the question away; the page asks another
    assert here.post(SECOND, answer=answer).status_code == 403


def test_a_passkey_whose_count_does_not_grow_is_a_copy(boss: User, here: Browser) -> None:
    key = with_passkey(boss)
    for signatures, status in ((3, 302), (0, 403), (-1, 403), (1, 403), (1, 302)):
        here.give_password(boss)
        answer = here.post(SECOND, answer=key.sign(here.question(SECOND), signatures=signatures))
        assert answer.status_code == status, signatures
        here.client.logout()
    assert actions(boss).count("passkey_cloned") == 3


def test_a_passkey_that_does_not_count_is_taken_each_time(boss: User, here: Browser) -> None:
    key = with_passkey(boss)
    for _ in range(2):
        here.give_password(boss)
        assert here.post(SECOND, answer=key.sign(here.question(SECOND), signatures=0)).status_code == 302
        here.client.logout()


def test_a_recovery_code_is_good_once(boss: User, here: Browser) -> None:
    with_app(boss)
    first, *others = factors.new_recovery_codes(boss)
    here.give_password(boss)
    assert here.post(SECOND, recovery=first.upper().replace("-", " ")).status_code == 302
    assert here.is_in
    there = browser()
    there.give_password(boss)
    assert there.post(SECOND, recovery=first).status_code == 403
    assert RecoveryCode.objects.filter(user=boss).count() == len(others) == 9
    used = AuditEvent.objects.get(action="login.recovery_code_used")
    assert (used.user_id, used.through, used.changes) == (boss.pk, "admin", {"left": 9})
    stored = b"".join(bytes(row.digest) for row in RecoveryCode.objects.all())
    assert not any(other.encode() in stored for other in others)


def test_the_second_step_is_counted_by_login(boss: User) -> None:
    """Whoever knows the password cannot go through the codes, from however many places."""
    with_app(boss)
    for _ in range(10):
        there = browser()
        there.give_password(boss)
        assert there.post(SECOND, code="000000").status_code == 403
    there = browser()
    there.give_password(boss)
    refused = there.post(SECOND, code=code())
    assert (refused.status_code, "Too many codes were wrong" in refused.content.decode()) == (429, True)
    assert AuthenticatorApp.objects.get().last_used_at is None


def test_the_same_wrong_code_counts_each_time(boss: User, here: Browser) -> None:
    with_app(boss)
    here.give_password(boss)
    assert [here.post(SECOND, code="000000").status_code for _ in range(11)] == [403] * 10 + [429]


def test_what_others_fail_at_in_the_same_network_keeps_nobody_from_the_second_step(
    acme: Customer, globex: Customer, boss: User, here: Browser
) -> None:
    """Neither wrong passwords nor wrong codes, from the very same address."""
    with_app(boss)
    other = with_app(provisioning.add_staff("boss@globex.test", password=PASSWORD, tenant=globex.tenant))
    there = Browser(WebClient(**here.client.defaults))
    here.give_password(boss)
    there.give_password(other)
    for number in range(10):
        assert there.post(SECOND, code="000000").status_code == 403
        there.post(LOGIN, username=f"nobody{number}@globex.test", password="wrong")
    for number in range(10, 17):
        there.post(LOGIN, username=f"nobody{number}@globex.test", password="wrong")
    assert there.give_password(User(email="third@globex.test")).status_code == 200  # refused unseen by now
    assert here.post(SECOND, code="000000").status_code == 403
    assert here.post(SECOND, code=code()).status_code == 302


@pytest.mark.parametrize("way", ["passkey", "recovery"])
def test_wrong_codes_lock_nobody_out_of_passkeys_and_recovery_codes(boss: User, here: Browser, way: str) -> None:
    """Nor do wrong ones of these: whoever knows the password cannot keep the owner out."""
    with_app(boss)
    key = with_passkey(boss)
    recovery, *_ = factors.new_recovery_codes(boss)
    there = browser()
    there.give_password(boss)
    assert [there.post(SECOND, code="000000").status_code for _ in range(11)] == [403] * 10 + [429]
    assert {there.post(SECOND, recovery=f"wrong {number}").status_code for number in range(16)} == {403}
    assert {there.post(SECOND, answer=f"wrong {number}").status_code for number in range(16)} == {403}
    here.give_password(boss)
    assert here.post(SECOND, code=code()).status_code == 429
    shown = {"recovery": recovery} if way == "recovery" else {"answer": key.sign(here.question(SECOND))}
    assert here.post(SECOND, **shown).status_code == 302
    assert here.is_in


def test_a_failure_takes_its_time(boss: User, here: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    with_app(boss)
    here.give_password(boss)
    monkeypatch.setattr("accounts.throttle.LONGEST_DELAY", 0.3)
    for _ in range(3):
        here.post(SECOND, code="000000")
    began = time.monotonic()
    here.post(SECOND, code="000000")
    assert time.monotonic() - began >= 0.3


def test_the_password_waits_ten_minutes_for_the_second_step(
    boss: User, here: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_app(boss)
    here.give_password(boss)
    monkeypatch.setattr("time.time", lambda now=time.time: now() + gate.LASTS + 1)
    assert here.get(SECOND).url == LOGIN


@pytest.mark.parametrize("what", ["password", "inactive", "staff"])
def test_what_changes_meanwhile_counts(what: str, boss: User, here: Browser) -> None:
    with_app(boss)
    here.give_password(boss)
    if what == "password":
        provisioning.set_password(boss, "another password")
    else:
        User.objects.filter(pk=boss.pk).update(**{"is_active" if what == "inactive" else "is_staff": False})
    assert here.post(SECOND, code=code()).url == LOGIN
    assert not here.is_in


def test_who_adds_a_second_step_elsewhere_is_out_where_the_password_was_enough(boss: User, here: Browser) -> None:
    there = browser()
    there.give_password(boss)
    assert there.is_in
    with_app(boss)
    assert there.client.get("/api/v1/domains/").status_code == 401
    assert not there.is_in
    here.sign_in(boss)
    assert here.is_in


def test_a_session_without_its_row_is_over(boss: User, here: Browser) -> None:
    here.give_password(boss)
    assert here.client.get("/api/v1/domains/").status_code == 200
    WebSession.objects.all().delete()
    assert here.client.get("/api/v1/domains/").status_code == 401
    assert not here.is_in


def test_where_one_goes_on_is_the_admin(boss: User, here: Browser) -> None:
    with_app(boss)
    here.give_password(boss, then="https://evil.test/")
    assert here.post(SECOND, code=code()).url == "/admin/"


def test_commands_make_logins_that_get_in(here: Browser, db: None) -> None:
    user = User.objects.create_superuser("root@localhost", PASSWORD)
    here.give_password(user)
    assert here.is_in
    with_app(user)
    here.client.logout()
    here.sign_in(user)
    assert here.is_in


def test_a_key_of_the_host_that_has_changed_leaves_recovery_codes(boss: User, here: Browser, settings: Any) -> None:
    factors.add_app(boss, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", code(-1), secret="the one before")
    recovery, *_ = factors.new_recovery_codes(boss)
    here.give_password(boss)
    assert here.post(SECOND, code=code()).status_code == 403
    assert here.post(SECOND, recovery=recovery).status_code == 302


def test_secrets_lie_encrypted(boss: User) -> None:
    with_app(boss)
    sealed = bytes(AuthenticatorApp.objects.get().sealed_secret)
    assert b"GEZDGNBV" not in sealed
    assert b"12345678901234567890" not in sealed
