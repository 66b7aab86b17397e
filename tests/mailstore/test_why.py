"""Why somebody cannot sign in, or gets no mail: each reason is told, with what helps, to whoever may know."""

import html
import re
from datetime import timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest
from django.conf import settings as configured
from django.contrib.auth.hashers import make_password
from django.db import connection
from django.db.models import F
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from redis import Redis

from accounts import app_passwords, limits, permissions, provisioning, throttle
from accounts.addresses import BadAddress
from accounts.models import (
    Alias,
    AuditEvent,
    Domain,
    FailedLogin,
    KnownNetwork,
    Mailbox,
    Role,
    User,
)  # fmt: skip
from accounts.principals import Principal
from mailstore import why, why_pages
from mailstore.models import MaildropSession, Refusal
from mailstore.why import Config, Finding, Severity
from tests.fixtures import Customer, signed_in, stranger
from tests.mailstore.rows import add_failed_login, add_listener, add_message, add_session
from tests.mailstore.test_admin_pages import somebody

pytestmark = pytest.mark.django_db

OPERATOR = Principal(role=Role.OPERATOR)
ROLES = [role for role in Role if role != Role.MEMBER]
HOUR = timedelta(hours=1)


def config(**values: Any) -> Config:
    given: dict[str, Any] = {
        "subaddress": "+", "default_domain": "acme.test", "unverified": "receive", "forwards": False, "puts_off": False,
        "redis_url": configured.REDIS_URL, "listener_ttl": timedelta(seconds=90), **values,
    }  # fmt: skip
    return Config(**given)


def look(address: object, who: Principal = OPERATOR, **values: Any) -> dict[str, Finding]:
    return {one.code: one for one in why.findings(str(address), who, config(**values))}


def of(customer: Customer, role: str = Role.TENANT_ADMIN, **values: Any) -> Principal:
    return Principal(role=role, tenant_id=customer.tenant.pk, **values)


def change(mailbox: Mailbox, **values: Any) -> None:
    Mailbox.objects.filter(pk=mailbox.pk).update(**values)


def actions(finding: Finding) -> list[str]:
    return [action.name for action in finding.actions]


# --- What was typed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("  An@Acme.TEST ", "an@acme.test"),
        ("mailto:an@acme.test?subject=help%20me", "an@acme.test"),
        ("mailto:an%2Bx@acme.test", "an+x@acme.test"),
        ("Nguyễn An <an@acme.test>;", "an@acme.test"),
        ("(an@acme.test).", "an@acme.test"),
        ('"an@acme.test",', "an@acme.test"),
        ("an@münchen.test", "an@xn--mnchen-3ya.test"),
        ("an", "an@acme.test"),
    ],
)
def test_an_address_is_understood_however_it_was_pasted(text: str, address: str) -> None:
    assert why.typed(text, default_domain="acme.test") == address


@pytest.mark.parametrize("text", ["", "@", "a b@acme.test", "<>", "mailto:", "a@b@c", "\0@acme.test", "x" * 10_000])
def test_what_is_no_address_is_said_to_be_none(text: str) -> None:
    with pytest.raises(BadAddress):
        why.typed(text, default_domain="acme.test")


# --- The address ---------------------------------------------------------------------------------------------------


def test_all_is_well(acme: Customer) -> None:
    change(acme.mailbox, last_login_at=timezone.now(), last_login_address="192.0.2.7")
    add_message(acme.mailbox, reverse_path="binh@elsewhere.test")
    found = look(acme.mailbox)
    assert set(found) == {"last-login", "login-well", "last-mail", "mail-well"}
    assert "from 192.0.2.7" in found["last-login"].text
    assert "from binh@elsewhere.test" in found["last-mail"].text
    assert not {one.severity for one in found.values()} & {Severity.WRONG, Severity.WARNING}


def test_an_unknown_address_is_told_with_what_was_meant(acme: Customer, globex: Customer) -> None:
    acme.add("thanh.nguyen")
    found = look("thanh.ngyuen@acme.test")["unknown-address"]
    assert found.severity == Severity.WRONG
    assert found.facts["similar"] == ["thanh.nguyen@acme.test"]
    assert actions(found) == ["look", "add-mailbox"]
    assert look("an@acme.tset")["unknown-domain"].facts["similar"] == ["an@acme.test"]


def test_who_tries_an_unknown_address_is_told(acme: Customer) -> None:
    now = timezone.now()
    FailedLogin.objects.create(
        tenant=acme.tenant, domain=acme.domain, subject=f"domain {acme.domain.pk}", address="ann@acme.test",
        reason="unknown", through="pop3", network="192.0.2.0/24", hour=now, count=12, first_at=now, last_at=now,
    )  # fmt: skip
    assert "failed 12 times, from 192.0.2.0/24 through POP3" in look("ann@acme.test")["tried"].text
    assert "tried" not in look("anna@acme.test")


def test_a_closed_mailbox_can_be_reopened(acme: Customer) -> None:
    provisioning.close_mailbox(acme.mailbox)
    found = look(acme.mailbox)
    assert next(iter(found)) == "closed"
    assert actions(found["closed"]) == ["reopen", "mailbox"]
    assert "unknown-address" not in found


def test_aliases_subaddresses_and_catch_alls_are_followed_as_deliveries_do(acme: Customer, settings: Any) -> None:
    settings.MAILHOST_FORWARD_SMTP = "127.0.0.1:25"
    provisioning.set_alias("sales@acme.test", tenant_id=acme.tenant.pk, mailboxes=[acme.mailbox], outside=["x@y.test"])
    found = look("sales@acme.test")
    assert "its mail goes to an@acme.test, x@y.test" in found["alias"].text
    assert "sign in as an@acme.test" in found["not-a-login"].text
    assert found["no-forwarding"].severity == Severity.WRONG
    assert "no-forwarding" not in look("sales@acme.test", forwards=True)
    assert {"never", "mail-well"} <= found.keys()  # of the mailbox behind it
    assert "sign in as an@acme.test" in look("an+bills@acme.test")["not-a-login"].text
    assert "goes to an@acme.test" in look("an+bills@acme.test")["goes-to"].text
    provisioning.add_alias("@acme.test", mailbox=acme.mailbox)
    assert "The catch-all of acme.test takes its mail" in look("anything@acme.test")["alias"].text
    provisioning.add_domain("acme.example", tenant=acme.tenant, alias_of=acme.domain)
    found = look("an@acme.example")
    assert found["alias-domain"].actions[0].key == "an@acme.test"


def test_aliases_that_lead_nowhere_are_told(acme: Customer) -> None:
    alias, _ = provisioning.add_alias("old@acme.test", mailbox=acme.mailbox)
    Alias.objects.filter(pk=alias.pk).update(expires_at=timezone.now() - HOUR)
    assert actions(look("old@acme.test")["alias-expired"]) == ["alias"]
    Alias.objects.filter(pk=alias.pk).update(expires_at=None)
    provisioning.close_mailbox(acme.mailbox)
    assert look("old@acme.test")["alias-empty"].severity == Severity.WRONG


def test_a_domain_and_a_tenant_that_are_closed_or_not_verified_are_told(acme: Customer) -> None:
    Domain.objects.filter(pk=acme.domain.pk).update(state="pending")
    found = look(acme.mailbox, unverified="refuse")["domain-unverified"]
    assert (found.severity, actions(found)) == (Severity.WRONG, ["check-domain"])
    assert look(acme.mailbox)["domain-unverified"].severity == Severity.NOTE
    provisioning.close_domain(acme.domain)
    found_ = look(acme.mailbox)
    assert actions(found_["domain-closed"]) == ["reopen-domain"]
    assert "closed" in found_
    provisioning.close_tenant(acme.tenant)
    assert "tenant-closed" in look(acme.mailbox)


def test_a_login_without_a_mailbox_is_told(acme: Customer, globex: Customer) -> None:
    boss = provisioning.add_staff("boss@nowhere.test", password=None, tenant=acme.tenant)
    User.objects.filter(pk=boss.pk).update(is_active=False)
    found = look(boss, of(acme))
    assert {"staff", "inactive", "no-password"} == found.keys()
    assert look(boss, of(globex)).keys() == {"unknown-domain"}


def test_a_second_step_that_failed_is_told_with_its_reset(acme: Customer) -> None:
    boss = provisioning.add_staff("boss@nowhere.test", password=None, tenant=acme.tenant)
    row = add_failed_login(acme.mailbox, reason="second-step", through="admin")
    FailedLogin.objects.filter(pk=row.pk).update(mailbox=None, domain=None, user=boss, subject=f"login {boss.pk}")
    found = look(boss, of(acme))["failed-second-step"]
    assert found.text.startswith(
        "The password was right, but the second step failed. It came from 192.0.2.7 through the"
    )
    assert [(one.name, one.key) for one in found.actions] == [("second-step", boss.pk)]
    assert actions(look(boss, of(acme, Role.SUPPORT))["failed-second-step"]) == []


# --- Signing in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "code", "action"),
    [
        ({"state": "suspended", "state_reason": "not paid"}, "login-off", "resume"),
        ({"state": "no-login"}, "login-off", "resume"),
        ({"pop3_enabled": False}, "pop3-off", "enable-pop3"),
        ({"allowed_networks": ["192.0.2.0/24"]}, "networks", "networks"),
    ],
)
def test_what_the_mailbox_says_against_a_login_is_told(
    acme: Customer, values: dict[str, Any], code: str, action: str
) -> None:
    change(acme.mailbox, **values)
    found = look(acme.mailbox)[code]
    assert actions(found) == [action]
    assert values.get("state_reason", "") in found.text


def test_wrong_passwords_are_told_with_their_network_and_count_less_after_a_login(acme: Customer) -> None:
    now = timezone.now()
    for hours in (1, 2):
        add_failed_login(
            acme.mailbox, count=7, hour=now - hours * HOUR, last_at=now - hours * HOUR, first_at=now - hours * HOUR
        )
    found = look(acme.mailbox)["failed-password"]
    assert found.text.startswith("A wrong password, 14 times. They came from 192.0.2.0/24 through POP3, the last on ")
    assert found.text.endswith("from 192.0.2.7.")
    assert (found.severity, actions(found)) == (Severity.WARNING, ["set-password", "failed-logins"])
    change(acme.mailbox, last_login_at=now)
    assert look(acme.mailbox)["failed-password"].severity == Severity.NOTE
    FailedLogin.objects.update(hour=F("hour") - timedelta(days=8))
    assert "failed-password" not in look(acme.mailbox)


def test_an_app_password_is_named_for_who_may_know_devices(acme: Customer) -> None:
    device, _ = app_passwords.create(acme.mailbox, name="Outlook office")
    add_failed_login(acme.mailbox, reason="app-expired", app_password_id=device.pk, count=2)
    found = look(acme.mailbox, of(acme))["failed-app-expired"]
    assert found.text.startswith("The password of “Outlook office” has expired, and was still used 2 times.")
    assert actions(found) == ["app-password", "failed-logins"]
    found = look(acme.mailbox, of(acme, Role.SUPPORT))["failed-app-expired"]
    assert "Outlook" not in found.text
    assert actions(found) == ["failed-logins"]


@pytest.mark.parametrize("reason", FailedLogin.Reason.values)
@pytest.mark.parametrize("count", [1, 3])
def test_every_reason_has_its_sentence(acme: Customer, reason: str, count: int) -> None:
    add_failed_login(acme.mailbox, reason=reason, count=count)
    text = look(acme.mailbox)[f"failed-{reason}"].text
    assert "%" not in text
    assert ("3" in text) == (count == 3) or "192.0.2.7" in text


def test_a_login_or_a_password_that_is_not_there_is_told(acme: Customer) -> None:
    assert "no-password" not in look(acme.mailbox)
    User.objects.filter(pk=acme.mailbox.user_id).update(is_active=False, password=make_password(None))
    found = look(acme.mailbox)
    assert {"inactive", "no-password"} <= found.keys()
    assert actions(found["no-password"]) == ["login", "set-password"]


def test_a_session_that_holds_the_maildrop_is_told_with_whether_it_lives(acme: Customer) -> None:
    listener = add_listener("pop3")
    device, _ = app_passwords.create(acme.mailbox, name="Outlook office")
    session = add_session(acme.mailbox, listener, client_address="198.51.100.4", app_password_id=device.pk)
    found = look(acme.mailbox)["in-use"]
    assert "in use by “Outlook office” from 198.51.100.4 since" in found.text
    assert "Its listener is alive" in found.text
    assert [(one.name, one.key) for one in found.actions] == [("end-session", session.pk)]
    type(listener).objects.update(heartbeat_at=timezone.now() - timedelta(minutes=5))
    found = look(acme.mailbox)["in-use"]
    assert "takes the maildrop over" in found.text
    assert found.severity == Severity.NOTE


@pytest.fixture
def attacker() -> IPv4Address:
    """Where nobody has failed before."""
    return stranger()


def fail_often(address: str, client: IPv4Address, often: int) -> None:
    redis = Redis.from_url(configured.REDIS_URL)
    for bucket in throttle._buckets(address, client, known=False):
        redis.set(bucket.key, often, ex=600)


def test_who_is_refused_unseen_now_is_told_and_can_be_let_in_at_this_mailbox_alone(
    acme: Customer, globex: Customer, attacker: IPv4Address, boss: Client
) -> None:
    fail_often("an@acme.test", attacker, 15)
    fail_often("an@globex.test", attacker, 15)
    for customer in (acme, globex):
        add_failed_login(customer.mailbox, client_address=str(attacker), network=throttle.near(attacker))
    found = look(acme.mailbox)["throttled"]
    assert f"Too many logins have failed from {attacker}" in found.text
    assert actions(found) == ["let-in"]
    link = reverse("admin:why_act", args=["let-in", found.actions[0].key])
    assert str(attacker) in boss.get(link).content.decode()
    assert not KnownNetwork.objects.exists()
    assert boss.post(f"{link}?address=an@acme.test").url == "/admin/why/?address=an%40acme.test"  # type: ignore[attr-defined]
    assert "throttled" not in look(acme.mailbox)
    assert "throttled" in look(globex.mailbox)
    network = KnownNetwork.objects.get()
    left = network.last_login_at + timedelta(days=30) - timezone.now()
    assert (network.mailbox, round(left / HOUR)) == (acme.mailbox, 24)
    assert AuditEvent.objects.get(action="mailbox.let_in").mailbox_id == acme.mailbox.pk
    assert not throttle.refusing(redis_url=configured.REDIS_URL, address="an@acme.test", clients=[])


def test_an_address_of_ipv4_within_ipv6_is_let_in_as_what_it_is(acme: Customer, boss: Client) -> None:
    boss.post(reverse("admin:why_act", args=["let-in", f"{acme.mailbox.pk}/::ffff:192.0.2.1"]))
    assert KnownNetwork.objects.get().network == "192.0.2.0/24"


def test_redis_that_is_away_is_told_soon(acme: Customer) -> None:
    add_failed_login(acme.mailbox)
    began = timezone.now()
    found = look(acme.mailbox, redis_url="redis://127.0.0.1:1/0")
    assert "cannot be told" in found["throttle-unknown"].text
    assert timezone.now() - began < timedelta(seconds=2)


# --- Mail ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "code", "action"),
    [
        ({"state": "suspended"}, "mail-off", "resume"),
        ({"state": "no-receive"}, "mail-off", "resume"),
        ({"quota_octets": 1000, "used_octets": 1000}, "full", "quota"),
        ({"quota_octets": 1000, "used_octets": 950}, "nearly-full", "quota"),
    ],
)
def test_what_the_mailbox_says_against_mail_is_told(
    acme: Customer, values: dict[str, Any], code: str, action: str
) -> None:
    change(acme.mailbox, **values)
    found = look(acme.mailbox)
    assert actions(found[code]) == [action]
    assert "mail-well" not in found


def test_limits_that_are_shared_are_told_to_who_may_know_them(acme: Customer) -> None:
    change(acme.mailbox, used_octets=100)
    limits.set_limits(acme.tenant, max_octets=50)
    assert "The tenant acme has no room left: all its mail takes 100 of 50." in look(acme.mailbox)["pool-full"].text
    domain_admin = of(acme, Role.DOMAIN_ADMIN, domain_ids=[acme.domain.pk])
    assert look(acme.mailbox, domain_admin)["pool-full"].text == "The tenant has no room left for mail."


def test_refused_mail_is_told_with_reasons_and_senders(acme: Customer) -> None:
    now = timezone.now()
    for number, hour in enumerate((now, now - HOUR)):
        Refusal.objects.create(
            tenant=acme.tenant, domain=acme.domain, mailbox=acme.mailbox, reason="over quota", hour=hour, count=2,
            first_at=hour, last_at=hour, sender_domain=f"s{number}.test",
        )  # fmt: skip
    found = look(acme.mailbox)["refused"]
    assert found.text.startswith("4 messages for an@acme.test were refused, the last on ")
    assert "from s0.test, s1.test: no room" in found.text
    assert found.severity == Severity.WARNING


# --- Who may know --------------------------------------------------------------------------------------------------


def page(client: Client, address: str) -> str:
    response = client.get(reverse("admin:why"), {"address": address})
    assert response.status_code == 200
    return re.sub(r'name="csrfmiddlewaretoken" value="[^"]*"', "", response.content.decode())


@pytest.mark.parametrize("role", [role for role in ROLES if role != Role.OPERATOR])
def test_what_is_anothers_is_answered_like_what_is_nowhere(acme: Customer, globex: Customer, role: str) -> None:
    client = somebody(role, acme)
    change(globex.mailbox, state="suspended", state_reason="secret")
    add_failed_login(globex.mailbox)
    add_session(globex.mailbox, add_listener("pop3"))
    provisioning.add_staff("boss@globex.test", password=None, tenant=globex.tenant)
    for name in ("an", "nobody", "boss"):
        theirs, nowhere = page(client, f"{name}@globex.test"), page(client, f"{name}@golbex.test")
        assert theirs.replace("globex", "golbex") == nowhere
        assert "is not hosted here" in theirs


def test_who_looks_after_one_domain_knows_nothing_of_the_others_of_its_tenant(acme: Customer) -> None:
    provisioning.add_domain("acme.example", tenant=acme.tenant)
    other, _ = provisioning.add_mailbox("binh@acme.example", password=None, quota_octets=None)
    provisioning.set_alias("both@acme.test", tenant_id=acme.tenant.pk, mailboxes=[acme.mailbox, other], outside=[])
    admin = of(acme, Role.DOMAIN_ADMIN, domain_ids=[acme.domain.pk])
    assert look(other, admin).keys() == {"unknown-domain"}
    found = look("both@acme.test", admin)
    assert found["alias"].text.endswith("goes to an@acme.test, 1 further mailbox.")
    assert "binh" not in str(found)


@pytest.mark.parametrize("role", ROLES)
def test_only_what_somebody_may_do_is_offered(acme: Customer, role: str) -> None:
    client = somebody(role, acme)
    change(acme.mailbox, state="suspended", pop3_enabled=False, quota_octets=1, used_octets=1)
    session = add_session(acme.mailbox, add_listener("pop3"))
    add_failed_login(acme.mailbox)
    shown = page(client, "an@acme.test")
    offered = {
        "end-session": (session.pk, reverse("admin:why_act", args=["end-session", session.pk])),
        "resume": (acme.mailbox.pk, reverse("admin:why_act", args=["resume", acme.mailbox.pk])),
        "enable-pop3": (acme.mailbox.pk, reverse("admin:why_act", args=["enable-pop3", acme.mailbox.pk])),
    }
    for name, (_, link) in offered.items():
        resource, verb, _title = why.ACTIONS[name]
        may = role in permissions.TABLE[resource][verb]
        assert (link in shown) == may, name
        assert client.get(link).status_code == (200 if may else 403)
    may_change = role in permissions.TABLE["mailboxes"]["password"]
    assert ("#id_password" in shown) == may_change


def test_the_owner_of_a_mailbox_has_no_such_page(acme: Customer) -> None:
    client = signed_in(acme.mailbox.user)
    assert client.get(reverse("admin:why")).status_code == 302
    User.objects.filter(pk=acme.mailbox.user_id).update(is_staff=True)
    assert client.get(reverse("admin:why")).status_code == 403


# --- The pages -----------------------------------------------------------------------------------------------------


def test_what_helps_is_asked_for_and_then_done(acme: Customer, boss: Client) -> None:
    session = add_session(acme.mailbox, add_listener("pop3"))
    change(acme.mailbox, state="suspended", pop3_enabled=False)
    for name, key, done in (
        ("end-session", session.pk, "The session has ended."),
        ("resume", acme.mailbox.pk, "The mailbox is active."),
        ("enable-pop3", acme.mailbox.pk, "POP3 is on."),
    ):
        link = reverse("admin:why_act", args=[name, key]) + "?address=an%40acme.test"
        assert link in page(boss, "an@acme.test").replace("&amp;", "&")
        before = AuditEvent.objects.count()
        assert "an@acme.test" in boss.get(link).content.decode()
        assert AuditEvent.objects.count() == before  # a look changes nothing
        assert done in boss.post(link, follow=True).content.decode()
        assert AuditEvent.objects.count() > before
    acme.mailbox.refresh_from_db()
    assert (acme.mailbox.state, acme.mailbox.pop3_enabled) == ("active", True)
    assert not MaildropSession.objects.filter(ended_at=None).exists()
    provisioning.close_mailbox(acme.mailbox)
    boss.post(reverse("admin:why_act", args=["reopen", acme.mailbox.pk]))
    assert Mailbox.objects.open().filter(pk=acme.mailbox.pk).exists()
    provisioning.close_domain(acme.domain)
    boss.post(reverse("admin:why_act", args=["reopen-domain", acme.domain.pk]))
    assert Domain.objects.get(pk=acme.domain.pk).closed_at is None


def test_what_is_refused_is_said_and_nothing_is_done(acme: Customer, boss: Client) -> None:
    provisioning.close_mailbox(acme.mailbox)
    provisioning.add_mailbox("an@acme.test", password=None, quota_octets=None, release=True)
    answer = boss.post(reverse("admin:why_act", args=["reopen", acme.mailbox.pk]))
    assert "already" in answer.content.decode()


@pytest.mark.parametrize("name", ["end-session", "resume", "enable-pop3", "reopen", "reopen-domain", "let-in"])
def test_nothing_is_done_to_what_is_anothers(acme: Customer, globex: Customer, boss: Client, name: str) -> None:
    change(globex.mailbox, state="suspended", pop3_enabled=False)
    session = add_session(globex.mailbox, add_listener("pop3"))
    key: Any = {"end-session": session.pk, "reopen-domain": globex.domain.pk}.get(name, globex.mailbox.pk)
    nowhere: Any = "00000000-0000-0000-0000-000000000000" if name == "end-session" else 999_999
    before = AuditEvent.objects.count()
    for method in (boss.get, boss.post):
        theirs, nothing = (
            method(reverse("admin:why_act", args=[name, f"{one}/192.0.2.7" if name == "let-in" else one]))
            for one in (key, nowhere)
        )
        assert (theirs.status_code, nothing.status_code) == (404, 404)
        assert "globex" not in theirs.content.decode()
    assert AuditEvent.objects.count() == before
    assert not KnownNetwork.objects.exists()


@pytest.mark.parametrize(
    "path",
    ["x/1/", "resume/x/", "resume/99999999999999999999/", "end-session/1/", "let-in/1/", "let-in/1/x/", "resume/%00/"],
)
def test_no_address_is_answered_with_a_fault(acme: Customer, boss: Client, path: str) -> None:
    assert boss.get(f"/admin/why/{path}").status_code == 404


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>@acme.test',
        "'onfocus=alert(1) x@acme.test",
    ],
)
def test_what_is_typed_is_shown_as_text(acme: Customer, boss: Client, text: str) -> None:
    shown = page(boss, text)
    assert text not in shown
    assert html.escape(text) in shown


def test_texts_of_others_are_shown_as_text(acme: Customer, boss: Client) -> None:
    change(acme.mailbox, state="suspended", state_reason="<b>x</b>")
    device, _ = app_passwords.create(acme.mailbox, name="<i>phone</i>")
    add_failed_login(acme.mailbox, reason="app-revoked", app_password_id=device.pk)
    add_message(acme.mailbox, reverse_path="<s>@x.test", sender="<s>")
    shown = page(boss, "an@acme.test")
    assert not any(tag in shown for tag in ("<b>x", "<i>phone", "<s>"))


def test_a_mailbox_leads_there_and_back(acme: Customer, globex: Customer, boss: Client) -> None:
    assert reverse("admin:accounts_mailbox_messages", args=[acme.mailbox.pk]) in page(boss, "an@acme.test")
    assert reverse("admin:why") in boss.get(reverse("admin:index")).content.decode()
    row = reverse("admin:accounts_mailbox_why", args=[acme.mailbox.pk])
    assert boss.get(row).url == "/admin/why/?address=an%40acme.test"  # type: ignore[attr-defined]
    foreign = reverse("admin:accounts_mailbox_why", args=[globex.mailbox.pk])
    assert "globex" not in boss.get(foreign, follow=True).content.decode()


def test_a_look_needs_few_questions_however_much_there_is(acme: Customer, boss: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(boss, "an@acme.test")
        return len(captured)

    add_session(acme.mailbox, add_listener("pop3"))
    add_message(acme.mailbox)
    add_failed_login(acme.mailbox)
    before = queries()
    now = timezone.now()
    for number in range(40):
        add_failed_login(acme.mailbox, network=f"10.0.{number}.0/24", client_address=f"10.0.{number}.1")
        add_message(acme.mailbox)
        acme.add(f"an{number}")
        Refusal.objects.create(
            tenant=acme.tenant, domain=acme.domain, mailbox=acme.mailbox, reason="gone", sender_domain="x.test",
            hour=now - number * HOUR, count=1, first_at=now, last_at=now,
        )  # fmt: skip
    assert queries() == before
    assert before <= 33


def test_it_speaks_vietnamese_dates_and_all_without_a_fault(acme: Customer, boss: Client) -> None:
    answer = boss.get(reverse("admin:why"), {"address": "an@acme.test"}, HTTP_ACCEPT_LANGUAGE="vi")
    assert answer.status_code == 200


def test_every_action_has_its_page() -> None:
    assert why.ACTIONS.keys() | {why.LOOK} == why_pages._PAGES.keys() | why_pages._ACTS.keys()
    assert not why_pages._PAGES.keys() & why_pages._ACTS.keys()
