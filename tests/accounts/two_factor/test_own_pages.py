"""What somebody adds, removes and sees of how he signs in; and what who looks after him does."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from accounts import principals, provisioning, scope, tidying
from accounts.database_roles import WORKER
from accounts.models import AuditEvent, AuthenticatorApp, Passkey, RecoveryCode, User, WebSession
from accounts.principals import Principal
from accounts.provisioning import NotAllowed
from accounts.two_factor import factors, gate
from tests.accounts.two_factor.authenticator import Authenticator
from tests.accounts.two_factor.conftest import (
    LOGIN,
    PASSWORD,
    SECOND,
    SECRET,
    SECURITY,
    Browser,
    browser,
    code,
    with_app,
)
from tests.accounts.two_factor.test_signing_in import actions, with_passkey
from tests.fixtures import Customer, as_web

pytestmark = pytest.mark.django_db

AGAIN = "/admin/login/password/"
SESSIONS = "/admin/my-sessions/"


def long_ago(here: Browser) -> None:
    """The password was given more than ten minutes ago."""
    session = here.client.session
    session["password_at"] -= gate.LASTS + 1
    session.save()


def codes_of(answer: Any) -> list[str]:
    return re.findall(r"<code[^>]*>(\S+)</code>", answer.content.decode())


def test_an_app_is_added_with_its_first_code(boss: User, here: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    here.give_password(boss)
    monkeypatch.setattr("accounts.two_factor.totp.new_secret", lambda: SECRET)
    page = here.get(f"{SECURITY}app/")
    assert "GEZD GNBV GY3T QOJQ" in page.content.decode()
    assert 'src="data:image/svg+xml' in page.content.decode()
    assert "no-store" in page["Cache-Control"]
    assert SECRET not in str(dict(here.client.session))
    wrong = here.post(f"{SECURITY}app/", code="000000")
    assert (wrong.status_code, "not the code that the app shows" in wrong.content.decode()) == (422, True)
    assert not AuthenticatorApp.objects.exists()
    key = here.key
    answer = here.post(f"{SECURITY}app/", code=code())
    assert (answer.status_code, len(codes_of(answer)), answer["Cache-Control"]) == (200, 10, page["Cache-Control"])
    assert here.key != key
    assert here.is_in
    assert actions(boss) == ["created", "two_factor_added", "recovery_codes_made"]
    assert here.get(f"{SECURITY}app/").url == SECURITY
    there = browser()
    there.give_password(boss)
    assert there.post(SECOND, code=code()).status_code == 403  # it was shown already
    assert there.post(SECOND, recovery=codes_of(answer)[3]).status_code == 302


def test_a_passkey_is_added_used_and_removed(boss: User, here: Browser) -> None:
    here.give_password(boss)
    key, page = Authenticator(), f"{SECURITY}passkey/"
    assert (
        here.post(page, name="Key", answer=key.make(here.question(page), origin="http://evil.test")).status_code == 422
    )
    unnamed = here.post(page, name=" ", answer=key.make(here.question(page)))
    assert (unnamed.status_code, "name what it is kept on" in unnamed.content.decode()) == (422, True)
    answer = here.post(page, name="Blue <key>", answer=key.make(here.question(page)))
    assert len(codes_of(answer)) == 10
    assert "Blue &lt;key&gt;" in here.get(SECURITY).content.decode()
    again = here.post(page, name="Again", answer=key.make(here.question(page)))
    assert (again.status_code, "known already" in again.content.decode()) == (422, True)
    there = browser()
    there.give_password(boss)
    assert there.post(SECOND, answer=key.sign(there.question(SECOND))).status_code == 302
    [passkey] = Passkey.objects.all()
    asked = here.get(f"{page}{passkey.pk}/remove/").content.decode()
    assert "the password alone lets you in then" in asked
    here.post(f"{page}{passkey.pk}/remove/")
    assert not Passkey.objects.exists()
    assert not RecoveryCode.objects.exists()


def test_an_answer_that_nobody_asked_for_adds_nothing(boss: User, here: Browser) -> None:
    here.give_password(boss)
    key, page = Authenticator(), f"{SECURITY}passkey/"
    answer = key.make(here.question(page))
    there = browser()
    there.give_password(boss)
    assert there.post(page, name="Key", answer=answer).status_code == 422
    assert here.post(page, name="", answer=answer).status_code == 422
    assert here.post(page, name="Key", answer=answer).status_code == 422  # asked once, answered once
    assert not Passkey.objects.exists()


def test_passkeys_need_a_name_or_tls(boss: User, here: Browser, settings: Any) -> None:
    here.give_password(boss)
    page = here.client.get(f"{SECURITY}passkey/", headers={"host": "127.0.0.1"})
    assert "data-question" not in page.content.decode()
    settings.MAILHOST_PUBLIC_URL = "https://mail.example.test"
    assert '"id": "mail.example.test"' in here.question(f"{SECURITY}passkey/")


def test_new_recovery_codes_end_the_old(boss: User, here: Browser) -> None:
    with_app(boss)
    old = factors.new_recovery_codes(boss)
    here.sign_in(boss)
    page = f"{SECURITY}recovery-codes/"
    assert "are good for nothing then" in here.get(page).content.decode()
    assert RecoveryCode.objects.count() == 10
    new = codes_of(here.post(page))
    assert (len(new), set(old) & set(new)) == (10, set())
    there = browser()
    there.give_password(boss)
    assert there.post(SECOND, recovery=old[0]).status_code == 403
    assert there.post(SECOND, recovery=new[0]).status_code == 302


def test_recovery_codes_stand_in_for_something(boss: User, here: Browser) -> None:
    here.give_password(boss)
    assert here.post(f"{SECURITY}recovery-codes/").url == SECURITY
    assert not RecoveryCode.objects.exists()


@pytest.mark.parametrize("page", ["app/", "app/remove/", "passkey/", "passkey/{key}/remove/", "recovery-codes/"])
def test_a_change_asks_for_the_password_again(page: str, boss: User, here: Browser) -> None:
    with_app(boss)
    with_passkey(boss)
    here.sign_in(boss)
    path = SECURITY + page.format(key=Passkey.objects.get().pk)
    long_ago(here)
    before = factors.of(boss)
    assert here.get(path).url == f"{AGAIN}?next={path.replace('/', '%2F')}"
    assert here.post(path).url.startswith(AGAIN)
    assert factors.of(boss) == before
    assert here.get(SECURITY).status_code == 200
    assert here.post(AGAIN, password="wrong", next=path).status_code == 403
    assert here.get(path).status_code == 302
    key = here.key
    answer = here.post(AGAIN, password=PASSWORD, next=path)
    assert (answer.status_code, answer.url, here.key != key) == (302, path, True)
    assert here.get(path).status_code in (200, 302)
    assert AGAIN not in here.get(path).get("Location", "")


@pytest.mark.parametrize(
    "where", ["https://evil.test/", "//evil.test/admin/", "/me/", "/admin/\\evil.test", "javascript:x"]
)
def test_after_the_password_one_goes_on_in_the_admin(where: str, boss: User, here: Browser) -> None:
    here.give_password(boss)
    answer = here.post(AGAIN, password=PASSWORD, next=where)
    assert answer.url == SECURITY or answer.url.startswith("/admin/")
    assert "//" not in answer.url


def test_the_password_is_asked_again_at_the_pace_of_a_sign_in(boss: User, here: Browser) -> None:
    here.give_password(boss)
    statuses = [here.post(AGAIN, password=f"wrong {guess}").status_code for guess in range(16)]
    assert statuses[:4] == [403] * 4
    assert browser().get(AGAIN).url == LOGIN


def test_what_is_anothers_does_not_exist(acme: Customer, globex: Customer, boss: User, here: Browser) -> None:
    other = provisioning.add_staff("boss@globex.test", password=PASSWORD, tenant=globex.tenant)
    colleague = provisioning.add_staff("colleague@acme.test", password=PASSWORD, tenant=acme.tenant)
    for user in (other, colleague):
        with_passkey(user)
    browser().give_password(other)
    here.give_password(boss)
    for passkey in Passkey.objects.all():
        for answer in (here.get, here.post):
            assert answer(f"{SECURITY}passkey/{passkey.pk}/remove/").status_code == 404
    assert Passkey.objects.count() == 2
    there = browser()
    there.give_password(provisioning.add_staff("third@acme.test", password=PASSWORD, tenant=acme.tenant))
    foreign = WebSession.objects.exclude(user=boss)
    assert foreign.count() == 1  # who has a passkey has not signed in
    here.post(SESSIONS, end=str(foreign.get().pk))
    here.post(SESSIONS, end="others")
    assert there.is_in


def test_who_signs_in_again_in_the_same_browser_is_there_once(boss: User, here: Browser) -> None:
    here.give_password(boss)
    here.give_password(boss)
    assert WebSession.objects.filter(user=boss).count() == 1
    assert here.is_in


def test_somebody_sees_where_he_is_signed_in_and_ends_it(boss: User, here: Browser) -> None:
    here.give_password(boss)
    there, third = browser(), browser()
    for one in (there, third):
        one.give_password(boss)
    this = WebSession.objects.earliest("started_at")
    page = here.get(SESSIONS).content.decode()
    assert (page.count("Firefox on Linux"), page.count("End it"), page.count("this browser")) == (3, 2, 1)
    assert str(this.pk) not in page
    here.post(SESSIONS, end=str(this.pk))
    here.post(SESSIONS, end="x" * 40)
    assert here.is_in
    second = WebSession.objects.order_by("started_at")[1]
    here.post(SESSIONS, end=str(second.pk))
    assert [here.is_in, there.is_in, third.is_in] == [True, False, True]
    here.post(SESSIONS, end="others")
    assert [here.is_in, third.is_in] == [True, False]
    assert actions(boss)[-2:] == ["sessions_ended", "sessions_ended"]
    here.client.post("/admin/logout/")
    here.give_password(boss)
    assert "End it" not in here.get(SESSIONS).content.decode()


def test_who_signs_out_leaves_no_row(boss: User, here: Browser) -> None:
    here.give_password(boss)
    here.client.post("/admin/logout/")
    assert not WebSession.objects.exists()


def test_a_session_is_seen_at_most_once_a_minute(boss: User, here: Browser) -> None:
    here.give_password(boss)
    WebSession.objects.update(last_seen_at=timezone.now() - timedelta(minutes=2))
    assert here.is_in
    seen = WebSession.objects.get().last_seen_at
    assert seen > timezone.now() - timedelta(minutes=1)
    assert here.is_in
    assert WebSession.objects.get().last_seen_at == seen


def test_a_changed_password_ends_all_sessions(acme: Customer, boss: User, here: Browser) -> None:
    here.give_password(boss)
    provisioning.set_password(boss, "another password")
    assert not WebSession.objects.exists()
    assert not here.is_in


def test_somebody_changes_his_own_password_and_stays(boss: User, here: Browser) -> None:
    with_app(boss)
    here.sign_in(boss)
    there = browser()
    there.sign_in(boss, at=1)
    page = "/admin/password_change/"
    long_ago(here)
    assert here.get(page).url.startswith(AGAIN)
    here.post(AGAIN, password=PASSWORD, next=page)
    for new, again, said in (
        ("short", "short", "too short"),
        ("a long new password", "another", "not the same"),
        ("a long\nnew password", "a long\nnew password", "control characters"),
    ):
        refused = here.post(page, new=new, again=again)
        assert (refused.status_code, said in refused.content.decode()) == (422, True), said
    assert here.post(page, new="a long new password", again="a long new password").url == "/admin/"
    assert [here.is_in, there.is_in] == [True, False]
    assert [row.second_step for row in WebSession.objects.all()] == ["app"]
    assert actions(boss)[-1] == "password_changed"
    assert browser().give_password(boss, "a long new password").url == SECOND


# --- For others ----------------------------------------------------------------------------------------------------


def row_page(user: User, name: str) -> str:
    return f"/admin/accounts/user/{user.pk}/{name}/"


def test_who_makes_a_login_resets_its_second_step(acme: Customer, boss: User, here: Browser) -> None:
    lost = with_app(provisioning.add_staff("lost@acme.test", password=PASSWORD, tenant=acme.tenant))
    factors.new_recovery_codes(lost)
    there = browser()
    there.sign_in(lost)
    here.give_password(boss)
    asked = here.get(row_page(lost, "reset-two-factor")).content.decode()
    assert "signed out everywhere" in asked
    assert factors.of(lost).any
    here.post(row_page(lost, "reset-two-factor"))
    assert factors.of(lost) == (None, [], 0)
    assert not there.is_in
    event = AuditEvent.objects.get(action="login.two_factor_reset")
    assert (event.user_id, event.target_id, event.through) == (boss.pk, lost.pk, "admin")
    there.give_password(lost)
    assert there.is_in


def test_a_reset_ends_sessions_also_where_nothing_was_left_to_remove(
    acme: Customer, globex: Customer, boss: User, here: Browser
) -> None:
    other = provisioning.add_staff("other@acme.test", password=PASSWORD, tenant=acme.tenant)
    foreign = provisioning.add_staff("boss@globex.test", password=PASSWORD, tenant=globex.tenant)
    there, elsewhere = browser(), browser()
    there.give_password(other)
    elsewhere.give_password(foreign)
    here.give_password(boss)
    call_command("resettwofactor", str(other))
    assert [there.is_in, elsewhere.is_in, here.is_in] == [False, True, True]
    assert actions(other)[-1] == "sessions_ended"
    there.give_password(other)
    with scope.entered(principals.of_user(boss)):  # who was faster removed it all meanwhile
        assert factors.reset(other) is False
        with pytest.raises(NotAllowed):
            factors.reset(boss)
    assert [there.is_in, elsewhere.is_in, here.is_in] == [False, True, True]


def test_nobody_resets_his_own(boss: User, here: Browser) -> None:
    with_app(boss)
    here.sign_in(boss)
    here.post(row_page(boss, "reset-two-factor"))
    assert factors.of(boss).any


def test_who_makes_a_login_ends_its_sessions(acme: Customer, boss: User, here: Browser) -> None:
    other = provisioning.add_staff("other@acme.test", password=PASSWORD, tenant=acme.tenant)
    there = browser()
    there.give_password(other)
    here.give_password(boss)
    page = row_page(other, "web-sessions")
    assert "Firefox on Linux" in here.get(page).content.decode()
    here.post(page)
    assert not there.is_in
    assert here.is_in


@pytest.mark.parametrize("name", ["reset-two-factor", "web-sessions"])
def test_whose_login_does_not_exist_or_may_more_is_left_alone(
    name: str, acme: Customer, globex: Customer, boss: User, here: Browser
) -> None:
    operator = User.objects.create_superuser("root@localhost", PASSWORD)
    foreign = provisioning.add_staff("boss@globex.test", password=PASSWORD, tenant=globex.tenant)
    support = provisioning.add_staff("support@acme.test", password=PASSWORD, tenant=acme.tenant, role="support")
    for user in (operator, foreign, boss):
        browser().give_password(user)
        with_app(user)
    rows = WebSession.objects.count()
    here.sign_in(boss, at=1)
    for user in (operator, foreign):
        assert here.get(row_page(user, name)).status_code in (302, 404)
        assert here.post(row_page(user, name)).status_code in (302, 404)
    there = browser()
    there.give_password(support)
    assert there.post(row_page(boss, name)).status_code == 403
    assert all(factors.of(user).any for user in (operator, foreign, boss))
    assert WebSession.objects.count() == rows + 2


def test_an_operator_who_has_lost_everything_is_helped_by_a_command(here: Browser, db: None) -> None:
    operator = with_app(User.objects.create_superuser("root@localhost", PASSWORD))
    there = browser()
    there.sign_in(operator)
    call_command("resettwofactor", "ROOT@localhost")
    assert not there.is_in
    here.give_password(operator)
    assert here.is_in
    event = AuditEvent.objects.get(action="login.two_factor_reset")
    assert (event.user_id, event.through) == (None, "command")
    with pytest.raises(CommandError, match="Nobody signs in as nobody@localhost"):
        call_command("resettwofactor", "nobody@localhost")


# --- The second wall -----------------------------------------------------------------------------------------------


@contextmanager
def within(principal: Principal) -> Iterator[Any]:
    """What raw SQL of the web's process sees and does in that scope."""
    with as_web(), scope.entered(principal), connection.cursor() as cursor:
        yield cursor


@pytest.mark.parametrize("table", ["authenticatorapp", "passkey", "recoverycode", "websession"])
def test_raw_sql_sees_what_belongs_to_ones_tenant(table: str, acme: Customer, globex: Customer, boss: User) -> None:
    other = provisioning.add_staff("boss@globex.test", password=PASSWORD, tenant=globex.tenant)
    operator = User.objects.create_superuser("root@localhost", PASSWORD)
    for user in (boss, other, operator):
        browser().give_password(user)
        with_app(user)
        with_passkey(user)
        factors.new_recovery_codes(user)
    principal: Any = principals.of(boss)
    with within(principal) as cursor:
        cursor.execute(f"SELECT DISTINCT user_id FROM accounts_{table}")
        assert cursor.fetchall() == [(boss.pk,)]
        cursor.execute(f"DELETE FROM accounts_{table} WHERE user_id <> %s", (boss.pk,))
        assert cursor.rowcount == 0
        with pytest.raises(DatabaseError), transaction.atomic():
            cursor.execute(f"UPDATE accounts_{table} SET user_id = %s", (other.pk,))
    with as_web(), connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM accounts_{table}")
        assert cursor.fetchone() == (0,)


@pytest.mark.parametrize(
    ("statement", "may"),
    [
        ("SELECT FROM accounts_authenticatorapp", False),
        ("SELECT FROM accounts_passkey", False),
        ("DELETE FROM accounts_recoverycode", False),
        (
            "INSERT INTO accounts_websession (id, user_id, browser, second_step) VALUES (gen_random_uuid(), 1, '', '')",
            False,
        ),
        ("DELETE FROM accounts_websession", True),
    ],
)
def test_workers_know_no_secrets(statement: str, may: bool, db: None) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {WORKER}")
        if may:
            cursor.execute(statement)
            return
        with pytest.raises(DatabaseError) as raised:
            cursor.execute(statement)
        assert isinstance(raised.value.__cause__, psycopg.errors.InsufficientPrivilege)
        transaction.set_rollback(True)


def test_what_is_of_a_login_goes_with_it(acme: Customer, boss: User) -> None:
    browser().give_password(boss)
    with_app(boss)
    with_passkey(boss)
    factors.new_recovery_codes(boss)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {WORKER}")  # which sees none of it
        cursor.execute("DELETE FROM accounts_user WHERE id = %s", (boss.pk,))
        cursor.execute("RESET ROLE")
    for model in (AuthenticatorApp, Passkey, RecoveryCode, WebSession):
        assert not model.objects.exists()


def test_old_sessions_are_tidied_away_by_a_worker(boss: User, here: Browser) -> None:
    here.give_password(boss)
    there = browser()
    there.give_password(boss)
    WebSession.objects.filter(pk=WebSession.objects.earliest("started_at").pk).update(
        started_at=timezone.now() - tidying.SIGNED_IN - timedelta(hours=1)
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE django_session SET expire_date = now() - interval '1 day' WHERE session_key = %s", (there.key,)
        )
        cursor.execute(f"SET LOCAL ROLE {WORKER}")
        assert tidying.tidy() == 2
        cursor.execute("RESET ROLE")
    assert [here.is_in, there.is_in] == [False, False]
