"""Whose a domain is: asked of DNS, in real packets."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import dns.rcode
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.test import override_settings
from django.utils import timezone

from accounts import principals, provisioning, scope, tasks, verification, webhooks
from accounts.database_roles import WORKER
from accounts.models import AuditEvent, Domain, Event, User
from accounts.verification import Config, Finding
from tests.accounts.nameserver import NOTHING, NameServer, name_server
from tests.fixtures import Customer

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


@pytest.fixture
def server() -> Iterator[NameServer]:
    with name_server() as made:
        yield made


@pytest.fixture
def pending(acme: Customer) -> Domain:
    Domain.objects.update(state="pending", checked_at=None)
    acme.domain.refresh_from_db()
    return acme.domain


def config(server: NameServer) -> Config:
    return Config(servers=[("127.0.0.1", server.port)], grace=7 * DAY)


def text(domain: Domain) -> str:
    return verification.record(domain)[1]


def ago(domain: Domain, **fields: timedelta) -> None:
    """Let these of its times be so long ago."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        [now] = cursor.fetchone()
    Domain.objects.filter(pk=domain.pk).update(**{name: now - time for name, time in fields.items()})
    domain.refresh_from_db()


# --- What DNS says -------------------------------------------------------------------------------------------------


def test_the_record_may_stand_below_the_domain_or_at_it(pending: Domain, server: NameServer) -> None:
    server.records = {"_mailhost.acme.test": [f'_mailhost.acme.test TXT "{text(pending)}"']}
    assert verification.look(pending, config(server)) is Finding.FOUND
    server.records = {
        "acme.test": [f'acme.test TXT "v=spf1 -all" "{text(pending)}"', f'acme.test TXT "{text(pending)}"']
    }
    assert verification.look(pending, config(server)) is Finding.FOUND


@pytest.mark.parametrize(
    "lines",
    [
        ['acme.test TXT "v=spf1 -all"', 'acme.test TXT "{text}"', 'acme.test TXT "other"'],
        ['acme.test TXT "mailhost-" "verification=" "{token}"'],
        ["acme.test CNAME elsewhere.test.", 'elsewhere.test TXT "{text}"'],
        ["acme.test TXT {text}"],
        ['acme.test TXT " {text} "'],
    ],
)
def test_however_the_record_is_written_it_is_found(pending: Domain, server: NameServer, lines: list[str]) -> None:
    server.records["acme.test"] = [line.format(text=text(pending), token=pending.verification_token) for line in lines]
    assert verification.look(pending, config(server)) is Finding.FOUND


@pytest.mark.parametrize(
    "found",
    [
        dns.rcode.NXDOMAIN,
        NOTHING,
        ['acme.test TXT "mailhost-verification="'],
        ['acme.test TXT "mailhost-verification=0123456789abcdef0123456789abcdef"'],
        ['acme.test TXT "x{text}"'],
        ['acme.test TXT "{text}x"'],
        ['acme.test TXT "{upper}"'],
        ["acme.test CNAME elsewhere.test."],
    ],
)
def test_any_other_answer_means_that_it_is_missing(pending: Domain, server: NameServer, found: Any) -> None:
    if isinstance(found, list):
        found = [line.format(text=text(pending), upper=text(pending).upper()) for line in found]
    server.records["acme.test"] = found
    assert verification.look(pending, config(server)) is Finding.MISSING


@pytest.mark.parametrize("found", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, None])
def test_no_answer_tells_nothing(
    pending: Domain, server: NameServer, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_LOOKUP", 0.5)
    server.records["_mailhost.acme.test"] = found
    assert verification.look(pending, config(server)) is Finding.UNKNOWN
    server.records = {"acme.test": found}
    assert verification.look(pending, config(server)) is Finding.UNKNOWN


def test_a_truncated_answer_is_asked_for_again_over_tcp(pending: Domain, server: NameServer) -> None:
    server.truncating = True
    server.records["_mailhost.acme.test"] = [
        *(f'_mailhost.acme.test TXT "{number:0200}"' for number in range(20)),
        f'_mailhost.acme.test TXT "{text(pending)}"',
    ]
    assert verification.look(pending, config(server)) is Finding.FOUND
    assert ("tcp", "_mailhost.acme.test") in server.asked


def test_a_server_that_is_not_there_tells_nothing(pending: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_LOOKUP", 0.5)
    nobody = Config(servers=[("127.0.0.1", 1)], grace=7 * DAY)
    assert verification.check(pending, nobody) is Finding.UNKNOWN
    assert pending.state == "pending"


def test_the_longest_name_can_be_verified_too(pending: Domain, server: NameServer) -> None:
    name = ".".join(["a" * 61] * 4)[:253]
    Domain.objects.filter(pk=pending.pk).update(name=name)
    pending.refresh_from_db()
    server.records[name] = [f'{name} TXT "{text(pending)}"']
    assert verification.look(pending, config(server)) is Finding.FOUND


# --- What follows from it ------------------------------------------------------------------------------------------


def test_a_pending_domain_is_verified_and_that_is_told(pending: Domain, acme: Customer, server: NameServer) -> None:
    webhooks.add("https://hooks.example.test/", tenant=acme.tenant, allow_private=False)
    assert verification.check(pending, config(server)) is Finding.MISSING
    assert (pending.state, pending.failing_since) == ("pending", None)
    assert pending.checked_at
    server.records["_mailhost.acme.test"] = [f'_mailhost.acme.test TXT "{text(pending)}"']
    assert verification.check(pending, config(server)) is Finding.FOUND
    assert pending.state == "verified"
    assert verification.check(pending, config(server)) is Finding.FOUND
    [event] = Event.objects.all()
    assert (event.kind, event.payload["name"], event.tenant_id) == ("domain.verified", "acme.test", acme.tenant.pk)
    [record] = AuditEvent.objects.filter(action="domain.verified")
    assert (record.changes, record.target) == ({"state": ["pending", "verified"]}, "acme.test")


def test_anothers_token_verifies_nothing(pending: Domain, globex: Customer, server: NameServer) -> None:
    server.records["_mailhost.acme.test"] = [f'_mailhost.acme.test TXT "{text(globex.domain)}"']
    assert verification.check(pending, config(server)) is Finding.MISSING
    assert pending.state == "pending"


def test_a_verified_domain_fails_only_after_the_time_of_grace(
    pending: Domain, acme: Customer, server: NameServer
) -> None:
    webhooks.add("https://hooks.example.test/", tenant=acme.tenant, events=["domain.failing"], allow_private=False)
    Domain.objects.update(state="verified")
    ago(pending, checked_at=2 * DAY)
    verification.check(pending, config(server))
    assert pending.state == "verified"
    assert pending.failing_since
    ago(pending, failing_since=6 * DAY)
    verification.check(pending, config(server))
    assert (pending.state, Event.objects.count()) == ("verified", 0)
    ago(pending, failing_since=7 * DAY)
    verification.check(pending, config(server))
    verification.check(pending, config(server))
    assert pending.state == "failing"
    [event] = Event.objects.all()
    assert datetime.fromisoformat(event.payload["failing_since"]) == pending.failing_since
    assert AuditEvent.objects.get(action="domain.failing").through == "system"
    server.records["acme.test"] = [f'acme.test TXT "{text(pending)}"']
    verification.check(pending, config(server))
    assert list(Domain.objects.filter(pk=pending.pk).values_list("state", "failing_since")) == [("verified", None)]


def test_dns_that_is_away_fails_no_domain(pending: Domain, server: NameServer) -> None:
    Domain.objects.update(state="verified")
    ago(pending, checked_at=2 * DAY, failing_since=30 * DAY)
    server.records = {"_mailhost.acme.test": dns.rcode.SERVFAIL, "acme.test": dns.rcode.SERVFAIL}
    assert verification.check(pending, config(server)) is Finding.UNKNOWN
    assert pending.state == "verified"


def test_what_an_operator_trusts_stays_verified_without_a_record(pending: Domain, server: NameServer) -> None:
    verification.trust(pending)
    assert (pending.state, pending.failing_since) == ("verified", None)
    assert verification.check_due(config(server)) == 0
    assert verification.check(pending, config(server)) is Finding.MISSING
    assert (pending.state, pending.failing_since, pending.checked_at) == ("verified", None, None)


def test_a_token_that_changed_meanwhile_is_not_verified_by_the_old_one(pending: Domain) -> None:
    old = pending.verification_token
    Domain.objects.update(verification_token="f" * 32)
    verification._conclude(pending.pk, old, Finding.FOUND, 7 * DAY)
    pending.refresh_from_db()
    assert pending.state == "pending"


def test_a_tenants_admin_has_it_checked_within_row_level_security(
    pending: Domain, globex: Customer, boss: object, server: NameServer
) -> None:
    Domain.objects.update(state="pending")
    for domain in (pending, globex.domain):
        server.records[domain.name] = [f'{domain.name} TXT "{text(domain)}"']
    with scope.entered(principals.of(User.objects.get(email="boss@acme.test"))):
        assert verification.check(pending, config(server)) is Finding.FOUND
        with pytest.raises(Domain.DoesNotExist):
            verification.check(globex.domain, config(server))
    assert dict(Domain.objects.values_list("name", "state")) == {"acme.test": "verified", "globex.test": "pending"}
    assert AuditEvent.objects.get(action="domain.verified").role == "tenant-admin"


# --- When it is asked for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "age", "checked", "failing", "due"),
    [
        ("pending", timedelta(0), None, None, True),
        ("pending", timedelta(minutes=5), timedelta(minutes=1), None, False),
        ("pending", timedelta(minutes=5), timedelta(minutes=3), None, True),
        ("pending", timedelta(hours=12), timedelta(minutes=50), None, False),
        ("pending", timedelta(hours=12), timedelta(minutes=70), None, True),
        ("pending", 100 * DAY, timedelta(hours=11), None, False),
        ("pending", 100 * DAY, timedelta(hours=13), None, True),
        ("verified", 100 * DAY, timedelta(hours=23), None, False),
        ("verified", 100 * DAY, timedelta(hours=25), None, True),
        ("verified", 100 * DAY, None, None, False),
        ("verified", 100 * DAY, timedelta(minutes=50), DAY, False),
        ("verified", 100 * DAY, timedelta(minutes=70), DAY, True),
        ("failing", 100 * DAY, timedelta(minutes=70), 9 * DAY, True),
    ],
)
def test_a_domain_is_asked_for_when_it_is_due(
    pending: Domain,
    server: NameServer,
    state: str,
    age: timedelta,
    checked: timedelta | None,
    failing: timedelta | None,
    due: bool,
) -> None:
    Domain.objects.update(state=state)
    times = {"created_at": age, "checked_at": checked, "failing_since": failing}
    ago(pending, **{name: time for name, time in times.items() if time is not None})
    assert verification.check_due(config(server)) == due
    assert bool(server.asked) == due
    assert verification.check_due(config(server)) == 0, "of two workers one asks"


def test_the_task_asks_for_all_that_are_due(pending: Domain, globex: Customer, server: NameServer) -> None:
    Domain.objects.update(state="pending", checked_at=None, created_at=F("created_at"))
    for domain in (pending, globex.domain):
        server.records[domain.name] = [f'{domain.name} TXT "{text(domain)}"']
    with override_settings(MAILHOST_DNS_SERVERS=[("127.0.0.1", server.port)]):
        tasks.check_domains.apply().get()
    assert set(Domain.objects.values_list("state", flat=True)) == {"verified"}


def test_the_workers_role_may_do_it_and_what_is_closed_is_left_alone(
    pending: Domain, globex: Customer, server: NameServer
) -> None:
    Domain.objects.update(state="pending", checked_at=None)
    provisioning.close_domain(globex.domain)
    for domain in (pending, globex.domain):
        server.records[domain.name] = [f'{domain.name} TXT "{text(domain)}"']
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {WORKER}")
        try:
            assert verification.check_due(config(server)) == 1
        finally:
            cursor.execute("RESET ROLE")
    assert dict(Domain.objects.values_list("name", "state")) == {"acme.test": "verified", "globex.test": "pending"}


# --- manage.py verifydomain ----------------------------------------------------------------------------------------


def test_the_command_says_which_record_is_missing(pending: Domain, server: NameServer) -> None:
    with override_settings(MAILHOST_DNS_SERVERS=[("127.0.0.1", server.port)]):
        with pytest.raises(CommandError) as refused:
            call_command("verifydomain", "ACME.test")
        assert str(refused.value) == (
            "Domain acme.test: pending; its record is missing:\n\n"
            f'    _mailhost.acme.test. IN TXT "mailhost-verification={pending.verification_token}"'
        )
        server.records["acme.test"] = [f'acme.test TXT "{text(pending)}"']
        out = StringIO()
        call_command("verifydomain", "acme.test", stdout=out)
    assert out.getvalue() == "Domain acme.test: verified.\n"


def test_the_command_can_be_told_to_trust(pending: Domain) -> None:
    call_command("verifydomain", "acme.test", "--trust", stdout=StringIO())
    pending.refresh_from_db()
    assert pending.state == "verified"
    with pytest.raises(CommandError, match="not hosted here"):
        call_command("verifydomain", "nobody.test")


def test_the_command_says_what_was_taken_on_trust(pending: Domain, server: NameServer) -> None:
    verification.trust(pending)
    out = StringIO()
    with override_settings(MAILHOST_DNS_SERVERS=[("127.0.0.1", server.port)]):
        call_command("verifydomain", "acme.test", stdout=out)
    assert out.getvalue() == "Domain acme.test: verified, taken on trust; DNS is not asked for it.\n"


def test_a_claim_that_nobody_shows_to_be_his_lapses(acme: Customer, globex: Customer) -> None:
    old, _ = provisioning.add_domain("old.test", tenant=acme.tenant, verified=False)
    new, _ = provisioning.add_domain("new.test", tenant=acme.tenant, verified=False)
    Domain.objects.exclude(pk=new.pk).update(created_at=timezone.now() - timedelta(days=31))
    assert verification.lapse() == 1
    assert list(Domain.objects.exclude(closed_at=None)) == [old]
    assert verification.lapse() == 0
