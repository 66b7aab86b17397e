"""A domain moves to another tenant with everything in it, or stays with everything in it."""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import Sum
from django.utils import timezone

from accounts import limits, principals, provisioning, scope, tokens
from accounts.limits import LimitReached
from accounts.models import (
    AliasTarget,
    ApiToken,
    AppPassword,
    AuditEvent,
    Domain,
    DomainAdmin,
    Event,
    FailedLogin,
    KnownNetwork,
    Mailbox,
    Reseller,
    Role,
    Tenant,
    User,
    Webhook,
)
from accounts.principals import Principal
from accounts.provisioning import BadValue, Taken, UnknownDomain, UnknownTenant
from accounts.tenancy import TenantOwned
from mailstore import drift, moving, retention
from mailstore.delivery import CHUNK_OCTETS, Outcome
from mailstore.models import (
    Content,
    ContentChunk,
    DailyStatistics,
    HourlyStatistics,
    ImportedItem,
    ImportJob,
    MaildropSession,
    Message,
    OwnCopy,
    PurgeForecast,
    Refusal,
)
from mailstore.moving import Busy, Moved, Tied
from tests.fixtures import Customer, as_web
from tests.mailstore import post, rows

pytestmark = pytest.mark.django_db(transaction=True)

LARGE = post.text("large", body="x" * 70 + "\r\n" + ".\r\n" * CHUNK_OCTETS)
STAYS = {"WebhookDelivery", "Webhook", "Event", "ForwardLedger"}
"""Rows of tenants that are about no domain, or about what was."""
SUBDIVIDED = {"Content", "ContentChunk"}


@pytest.fixture(autouse=True)
def nothing_drifts(transactional_db: None) -> Iterator[None]:
    yield
    assert list(drift.find()) == []


@pytest.fixture
def staying(acme: Customer) -> Mailbox:
    """A mailbox of acme in another domain."""
    provisioning.add_domain("acme.example", tenant=acme.tenant)
    mailbox, _ = provisioning.add_mailbox("binh@acme.example", password=None, quota_octets=None)
    return mailbox


def deliver(message: bytes, *to: Mailbox | str) -> None:
    assert post.deliver(message, *to, forward_key=b"key") == [Outcome.STORED] * len(to)


def octets_of(message: Message) -> bytes:
    body = message.content.body
    if body is None:
        body = b"".join(bytes(chunk.octets) for chunk in message.content.chunks.order_by("number"))
    return bytes(message.trace) + bytes(body)


def digests(*mailboxes: Mailbox) -> dict[tuple[int, int], bytes]:
    found = Message.objects.filter(mailbox__in=mailboxes).select_related("content")
    return {(one.mailbox_id, one.uid): hashlib.sha256(octets_of(one)).digest() for one in found}


def counts(target: Reseller | Tenant | Domain) -> tuple[int, int, int, int]:
    found = limits.of(target)
    return found.domains, found.mailboxes, found.aliases, found.octets


def of_everything(customer: Customer, staying: Mailbox) -> list[Mailbox]:
    """Have something of each kind in the customer's domain; returns its mailboxes."""
    tenant, domain, an = customer.tenant, customer.domain, customer.mailbox
    closed = customer.add("closed")
    chi, _ = provisioning.add_mailbox(f"chi@{domain}", password=None, quota_octets=None)
    alias, _ = provisioning.add_alias(f"sales@{domain}", mailbox=an)
    AliasTarget.objects.create(tenant=tenant, alias=alias, address="d@abroad.test")
    deliver(post.text("alone", queue_id="1"), an)
    deliver(post.text("shared in the domain"), an, chi)
    deliver(post.text("shared with who stays"), an, staying)
    deliver(LARGE, an, staying, chi)
    deliver(LARGE, closed)
    deliver(post.text("forwarded"), alias.address)
    provisioning.close_mailbox(closed)
    retention.expunge(Message.objects.filter(mailbox=chi, subject="large"), by=None)
    listener = rows.add_listener("pop3")
    rows.add_session(an, listener)
    rows.add_session(chi, listener, ended_at=timezone.now(), end="quit")
    of_mailbox: dict[str, Any] = {"tenant": tenant, "mailbox": an}
    device = AppPassword.objects.create(**of_mailbox, name="Outlook", digest=b"1")
    seen = Message.objects.in_maildrop(an)[0]
    OwnCopy.objects.create(**of_mailbox, app_password=device, message=seen, removed_at=timezone.now())
    KnownNetwork.objects.create(**of_mailbox, network="192.0.2.0/24", last_login_at=timezone.now())
    ImportedItem.objects.create(**of_mailbox, digest=b"1")
    ImportJob.objects.create(**of_mailbox, source="imap")
    ApiToken.objects.create(**of_mailbox, role="member", name="own", prefix="own", digest=b"1")
    for mailbox in (an, None):
        Refusal.objects.create(
            tenant=tenant, domain=domain, mailbox=mailbox, reason="gone", hour=timezone.now(), count=1,
            first_at=timezone.now(), last_at=timezone.now(), sender_domain="",
        )  # fmt: skip
        FailedLogin.objects.create(
            tenant=tenant, domain=domain, mailbox=mailbox, subject=str(mailbox), reason="password", through="pop3",
            hour=timezone.now(), count=1, first_at=timezone.now(), last_at=timezone.now(),
        )  # fmt: skip
    for model in (HourlyStatistics, DailyStatistics):
        model.objects.create(tenant=tenant, domain=domain, start=timezone.now(), delivered=1)
    PurgeForecast.objects.create(
        tenant=tenant, domain=domain, day=timezone.now().date(), messages=1, octets=1, mailboxes=0
    )
    return [an, chi, closed]


def of_domain(domain: Domain) -> Iterator[tuple[type[TenantOwned], Any]]:
    """The rows of each model that are in a domain."""
    for model in apps.get_models():
        if not issubclass(model, TenantOwned) or model.__name__ in STAYS | SUBDIVIDED:
            continue
        columns = {field.column for field in model._meta.local_fields}
        path = (
            {"pk": domain.pk} if model is Domain
            else {"domain": domain.pk} if "domain_id" in columns
            else {"alias__domain": domain.pk} if model is AliasTarget
            else {"mailbox__domain": domain.pk}
        )  # fmt: skip
        yield model, model.objects.filter(**path)


def test_everything_goes_and_what_others_have_stays(acme: Customer, globex: Customer, staying: Mailbox) -> None:
    mailboxes = of_everything(acme, staying)
    before, kept = digests(*mailboxes), digests(staying)
    there = {model: queryset.count() for model, queryset in of_domain(acme.domain) if model is not DomainAdmin}
    assert all(there.values()), there
    forecast = moving.forecast(acme.domain, to=globex.tenant)

    moved = moving.move_domain(acme.domain, to=globex.tenant)

    assert moved == forecast
    octets = sum(Message.objects.filter(mailbox__in=mailboxes).values_list("octets", flat=True))
    assert moved == Moved(domains=1, mailboxes=3, closed=1, aliases=1, messages=8, octets=octets, names=("acme.test",))
    assert acme.domain.tenant == globex.tenant
    for model, queryset in of_domain(acme.domain):
        assert set(queryset.values_list("tenant", flat=True)) <= {globex.tenant.pk}, model
        assert queryset.count() == there.get(model, 0)
    assert set(User.objects.filter(mailbox__in=mailboxes).values_list("tenant", flat=True)) == {globex.tenant.pk}
    assert (digests(*mailboxes), digests(staying)) == (before, kept)
    for owner in (Content, ContentChunk):
        assert set(owner.objects.values_list("tenant", flat=True)) == {acme.tenant.pk, globex.tenant.pk}
    # Shared by two who go: still one. By one who goes and one who stays: one for each tenant.
    assert (
        Content.objects.filter(tenant=globex.tenant, messages__subject="shared in the domain").distinct().count() == 1
    )
    assert Content.objects.filter(messages__subject="shared with who stays").distinct().count() == 2
    assert Content.objects.filter(messages__subject="large", messages__mailbox__in=mailboxes).distinct().count() == 2


def test_a_retry_of_what_was_stored_before_stores_nothing_after(acme: Customer, globex: Customer) -> None:
    deliver(post.text(queue_id="1"), acme.mailbox)
    moving.move_domain(acme.domain, to=globex.tenant)
    assert post.deliver(post.text(queue_id="1"), acme.mailbox) == [Outcome.ALREADY]
    deliver(post.text(queue_id="2"), acme.mailbox)
    assert set(Message.objects.values_list("tenant", flat=True)) == {globex.tenant.pk}
    assert Message.objects.count() == 2


def test_open_sessions_end(acme: Customer, globex: Customer) -> None:
    session = rows.add_session(acme.mailbox, rows.add_listener("pop3"))
    moving.move_domain(acme.domain, to=globex.tenant)
    session.refresh_from_db()
    assert session.end == MaildropSession.End.ENDED


def test_the_old_tenants_people_and_programs_let_go(acme: Customer, globex: Customer, staying: Mailbox) -> None:
    provisioning.change_tenant(acme.tenant, admin_mailbox=acme.mailbox)
    other = Domain.objects.get(name="acme.example")
    admin = provisioning.add_staff(
        "it@acme.example", password=None, tenant=acme.tenant, role="domain-admin", domains=[acme.domain, other]
    )
    token = ApiToken.objects.create(tenant=acme.tenant, role="domain-admin", name="script", prefix="p", digest=b"1")
    token.domains.set([acme.domain, other])
    moving.move_domain(acme.domain, to=globex.tenant)
    acme.tenant.refresh_from_db()
    assert acme.tenant.admin_mailbox is None
    assert list(DomainAdmin.objects.filter(user=admin).values_list("domain__name", flat=True)) == ["acme.example"]
    assert list(token.domains.values_list("name", flat=True)) == ["acme.example"]


def principal_of(user: User) -> Principal:
    principal = principals.of_user(user)
    assert principal
    return principal


def test_tokens_whose_texts_the_old_tenants_people_know_end(acme: Customer, globex: Customer, staying: Mailbox) -> None:
    """Else they read on what comes to mailboxes that are not theirs any more."""
    one, _ = provisioning.add_reseller("one")
    provisioning.change_tenant(acme.tenant, reseller=one)
    makers = {
        role: provisioning.add_staff(f"{role}@elsewhere.test", password=None, role=role, **whose)
        for role, whose in (
            ("operator", {}),
            ("reseller", {"reseller": one}),
            ("tenant-admin", {"tenant": acme.tenant}),
        )
    }
    known_to = {role: principal_of(user) for role, user in makers.items()} | {"command": principals.COMMAND}
    of_admin = tokens.make(
        by=known_to["tenant-admin"],
        name="admin",
        role="tenant-admin",
        scopes=["messages:read", "tokens:write"],
        tenant=acme.tenant,
    )
    known_to["token"] = principals.of_token(of_admin.token)
    for name, by in known_to.items():
        for mailbox in (acme.mailbox, staying):
            tokens.make(by=by, name=name, role="member", scopes=["messages:read"], mailbox=mailbox)
    moving.move_domain(acme.domain, to=globex.tenant)
    ended = ApiToken.objects.exclude(revoked_at=None)
    assert {token.name for token in ended} == {"reseller", "tenant-admin", "token"}
    assert {token.mailbox for token in ended} == {acme.mailbox}
    told = AuditEvent.objects.filter(action="token.revoked")
    assert {(event.tenant_id, event.target_id) for event in told} == {(acme.tenant.pk, token.pk) for token in ended}


def test_a_reseller_of_both_tenants_keeps_his_tokens(acme: Customer, globex: Customer) -> None:
    one, _ = provisioning.add_reseller("one")
    for customer in (acme, globex):
        provisioning.change_tenant(customer.tenant, reseller=one)
    by = principal_of(provisioning.add_staff("it@one.test", password=None, role="reseller", reseller=one))
    token = tokens.make(by=by, name="x", role="member", scopes=["messages:read"], mailbox=acme.mailbox).token
    moving.move_domain(acme.domain, to=globex.tenant)
    token.refresh_from_db()
    assert (token.tenant, token.revoked_at) == (globex.tenant, None)


def test_owners_are_only_members_of_their_new_tenant(acme: Customer, globex: Customer) -> None:
    provisioning.set_role(acme.mailbox.user, "tenant-admin")
    acme.mailbox.user.user_permissions.set(Permission.objects.all()[:3])
    password = acme.mailbox.user.password
    moving.move_domain(acme.domain, to=globex.tenant)
    user = User.objects.get(pk=acme.mailbox.user_id)
    assert (user.role, user.is_staff, user.tenant, user.password) == (Role.MEMBER, False, globex.tenant, password)
    assert not user.user_permissions.exists()
    assert AuditEvent.objects.filter(action="login.changed", tenant_id=acme.tenant.pk, target_id=user.pk).count() == 2


def test_nobody_learns_of_the_other_tenants_people(acme: Customer, globex: Customer, staying: Mailbox) -> None:
    boss = provisioning.add_staff("boss@acme.example", password=None, tenant=acme.tenant)
    operator = provisioning.add_staff("operator@localhost", password=None)
    post.fill(acme.mailbox, [post.text("a"), post.text("b")])
    post.fill(staying, [post.text("c")])
    for subject, who in (("a", boss), ("b", operator), ("c", acme.mailbox.user)):
        retention.expunge(Message.objects.filter(subject=subject), by=who)
    token = ApiToken.objects.create(
        tenant=acme.tenant, mailbox=acme.mailbox, role="member", name="own", prefix="p", digest=b"1", created_by=boss
    )
    moving.move_domain(acme.domain, to=globex.tenant)
    assert dict(Message.objects.values_list("subject", "expunged_by")) == {"a": None, "b": operator.pk, "c": None}
    token.refresh_from_db()
    assert (token.tenant, token.created_by) == (globex.tenant, None)


def test_alias_domains_come_along(acme: Customer, globex: Customer) -> None:
    provisioning.add_domain("acme.example", tenant=acme.tenant, alias_of=acme.domain)
    moved = moving.move_domain(acme.domain, to=globex.tenant)
    assert (moved.domains, moved.names) == (2, ("acme.example", "acme.test"))
    assert counts(acme.tenant) == (0, 0, 0, 0)
    assert counts(globex.tenant) == (3, 2, 0, 0)
    deliver(post.text(), "an@acme.example")
    [message] = Message.objects.all()
    assert (message.mailbox, message.tenant) == (acme.mailbox, globex.tenant)


def test_what_ties_it_to_its_tenant_is_told_and_nothing_moves(
    acme: Customer, globex: Customer, staying: Mailbox
) -> None:
    chi = acme.add("chi")
    provisioning.set_legal_hold(chi, True)
    provisioning.set_alias("sales@acme.test", tenant_id=acme.tenant.pk, mailboxes=[acme.mailbox, staying])
    provisioning.set_alias("sales@acme.example", tenant_id=acme.tenant.pk, mailboxes=[chi])
    provisioning.change_domain(acme.domain, external_id="1")
    provisioning.change_domain(globex.domain, external_id="1")
    provisioning.change_mailbox(acme.mailbox, external_id="1")
    provisioning.change_mailbox(globex.mailbox, external_id="1")
    for attempt in (moving.forecast, moving.move_domain):
        with pytest.raises(Tied) as refused:
            attempt(acme.domain, to=globex.tenant)
        assert refused.value.reasons == (
            "chi@acme.test is on legal hold",
            "the alias sales@acme.test goes to binh@acme.example, which stays",
            "the alias sales@acme.example, which stays, goes to chi@acme.test",
            "the external_id of acme.test is another domain's there",
            "the external_id of an@acme.test is another mailbox's there",
        )
        assert str(refused.value).startswith("acme.test cannot move: chi@acme.test is on legal hold; ")
    acme.domain.refresh_from_db()
    assert acme.domain.tenant == acme.tenant


def test_an_alias_domain_moves_only_with_the_one_it_stands_for(acme: Customer, globex: Customer) -> None:
    alias, _ = provisioning.add_domain("acme.example", tenant=acme.tenant, alias_of=acme.domain)
    with pytest.raises(Tied, match=r"it is an alias domain of acme\.test"):
        moving.move_domain(alias, to=globex.tenant)


def test_moving_it_where_it_is_changes_nothing(acme: Customer, globex: Customer) -> None:
    moving.move_domain(acme.domain, to=globex.tenant)
    told = AuditEvent.objects.count()
    assert moving.move_domain(acme.domain, to=globex.tenant) == Moved()
    assert AuditEvent.objects.count() == told


def test_it_moves_back(acme: Customer, globex: Customer, staying: Mailbox) -> None:
    mailboxes = of_everything(acme, staying)
    before = digests(*mailboxes)
    moving.move_domain(acme.domain, to=globex.tenant)
    moving.move_domain(acme.domain, to=acme.tenant)
    assert digests(*mailboxes) == before
    assert not Message.objects.filter(tenant=globex.tenant).exists()
    assert not Content.objects.filter(tenant=globex.tenant).exists()


def test_a_closed_domain_and_a_closed_tenant_are_refused(acme: Customer, globex: Customer, staying: Mailbox) -> None:
    closed, _ = provisioning.add_domain("closed.test", tenant=acme.tenant)
    provisioning.close_domain(closed)
    with pytest.raises(UnknownDomain, match=r"closed\.test is closed"):
        moving.move_domain(closed, to=globex.tenant)
    provisioning.close_tenant(globex.tenant)
    with pytest.raises(BadValue, match="globex is closed"):
        moving.move_domain(acme.domain, to=globex.tenant)
    with pytest.raises(UnknownTenant):
        moving.forecast(acme.domain, to=Tenant(pk=10**9, slug="gone"))


# What may be had


@pytest.fixture
def resellers(acme: Customer, globex: Customer) -> tuple[Reseller, Reseller]:
    one, _ = provisioning.add_reseller("one")
    two, _ = provisioning.add_reseller("two")
    provisioning.change_tenant(acme.tenant, reseller=one)
    provisioning.change_tenant(globex.tenant, reseller=two)
    return one, two


def test_it_counts_for_its_new_tenant_and_reseller_and_no_more_for_the_old(
    acme: Customer, globex: Customer, resellers: tuple[Reseller, Reseller]
) -> None:
    one, two = resellers
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    provisioning.close_mailbox(acme.add("closed"))
    for target in (acme.domain, acme.tenant, globex.tenant, one, two):
        limits.set_limits(target, max_octets=10_000)
    [message] = post.fill(acme.mailbox, [post.text()])
    post.fill(globex.mailbox, [post.text()])
    used = {name: Mailbox.objects.get(address=f"an@{name}.test").used_octets for name in ("acme", "globex")}
    assert counts(acme.domain) == (0, 1, 1, message.octets)
    moving.move_domain(acme.domain, to=globex.tenant)
    acme.domain.refresh_from_db()
    assert counts(acme.domain) == (0, 1, 1, message.octets)
    assert counts(acme.tenant) == counts(one) == (0, 0, 0, 0)
    assert counts(globex.tenant) == counts(two) == (2, 2, 1, sum(used.values()))
    deliver(post.text(), acme.mailbox)
    assert counts(globex.tenant)[3] == counts(two)[3] > sum(used.values())


@pytest.mark.parametrize(
    ("limit", "refusal"),
    [
        ({"max_domains": 1}, "may have 1 domain, and would have 2"),
        ({"max_mailboxes": 2}, "may have 2 mailboxes, and would have 3"),
        ({"max_aliases": 0}, "may have 0 aliases, and would have 1"),
        ({"max_octets": 10}, "may have 10 octets, and would have"),
    ],
)
@pytest.mark.parametrize("whose", ["tenant", "reseller"])
def test_the_new_tenants_limits_hold(
    whose: str,
    limit: dict[str, int],
    refusal: str,
    acme: Customer,
    globex: Customer,
    resellers: tuple[Reseller, Reseller],
) -> None:
    acme.add("binh")
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    post.fill(acme.mailbox, [post.text()])
    target = globex.tenant if whose == "tenant" else resellers[1]
    limits.set_limits(target, **limit)
    before = counts(target)
    for attempt in (moving.forecast, moving.move_domain):
        with pytest.raises(LimitReached, match=f"the {whose} {refusal}"):
            attempt(acme.domain, to=globex.tenant)
    assert counts(target) == before
    acme.domain.refresh_from_db()
    assert acme.domain.tenant == acme.tenant


def test_a_full_reseller_may_move_between_its_own_tenants(
    acme: Customer, globex: Customer, resellers: tuple[Reseller, Reseller]
) -> None:
    one, _ = resellers
    provisioning.change_tenant(globex.tenant, reseller=one)
    limits.set_limits(one, max_domains=2, max_mailboxes=2)
    moving.move_domain(acme.domain, to=globex.tenant)
    assert counts(one) == counts(globex.tenant) == (2, 2, 0, 0)


# Who does it, and who is told


def test_a_reseller_moves_within_its_own_row_level_security(
    acme: Customer, globex: Customer, staying: Mailbox, resellers: tuple[Reseller, Reseller]
) -> None:
    one, _ = resellers
    provisioning.change_tenant(globex.tenant, reseller=one)
    mailboxes = of_everything(acme, staying)
    before = digests(*mailboxes)
    with as_web(), scope.entered(principals.Principal(role="reseller", reseller_id=one.pk)):
        assert moving.forecast(acme.domain, to=globex.tenant) == moving.move_domain(acme.domain, to=globex.tenant)
    assert digests(*mailboxes) == before
    assert set(Message.objects.filter(mailbox__in=mailboxes).values_list("tenant", flat=True)) == {globex.tenant.pk}


def test_both_tenants_are_told(acme: Customer, globex: Customer) -> None:
    for tenant in (acme.tenant, globex.tenant):
        Webhook.objects.create(tenant=tenant, url="https://hooks.example.test/", secret="secret")
    [message] = post.fill(acme.mailbox, [post.text()])
    moving.move_domain(acme.domain, to=globex.tenant)
    tenants = {"from_tenant": acme.tenant.pk, "to_tenant": globex.tenant.pk}
    told = tenants | {"mailboxes": 1, "messages": 1, "octets": message.octets}
    for tenant in (acme.tenant, globex.tenant):
        [event] = Event.objects.filter(tenant=tenant)
        assert event.kind == "domain.moved"
        assert event.payload == {"id": acme.domain.pk, "name": "acme.test", "external_id": None} | told
        [audited] = AuditEvent.objects.filter(tenant_id=tenant.pk, action="domain.moved")
        assert (audited.target, audited.changes) == ("acme.test", told)


# Beside others


@contextmanager
def held(statement: str, *parameters: Any) -> Iterator[None]:
    """Another transaction that holds rows."""

    def begin() -> None:
        transaction.set_autocommit(False)
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)

    def end() -> None:
        transaction.rollback()
        connection.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(begin).result()
        try:
            yield
        finally:
            thread.submit(end).result()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT FROM accounts_mailbox WHERE id = %s FOR NO KEY UPDATE",
        "SELECT FROM mailstore_maildropsession WHERE mailbox_id = %s FOR UPDATE",
    ],
)
def test_who_holds_something_for_long_is_not_waited_for(
    statement: str, acme: Customer, globex: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_PATIENCE", 1)
    rows.add_session(acme.mailbox, rows.add_listener("pop3"))
    with held(statement, acme.mailbox.pk):
        with pytest.raises(Busy, match="nothing was moved"):
            moving.move_domain(acme.domain, to=globex.tenant)
        with transaction.atomic():  # what is around goes on
            with pytest.raises(Busy):
                moving.move_domain(acme.domain, to=globex.tenant)
            assert Domain.objects.get(pk=acme.domain.pk).tenant == acme.tenant
    moving.move_domain(acme.domain, to=globex.tenant)


def test_mail_for_other_domains_of_both_tenants_goes_on_meanwhile(
    acme: Customer, globex: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_PATIENCE", 60)
    moves, _ = provisioning.add_domain("moves.test", tenant=acme.tenant)
    goes, _ = provisioning.add_mailbox("an@moves.test", password=None, quota_octets=None)
    [message] = post.fill(goes, [post.text()])
    for target in (acme.tenant, globex.tenant, moves):
        limits.set_limits(target, max_octets=1_000_000)

    def move() -> None:
        try:
            moving.move_domain(moves, to=globex.tenant)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        with held("SELECT FROM mailstore_content WHERE id = %s FOR UPDATE", message.content_id):
            moved = thread.submit(move)
            until_somebody_waits_for_a_row()
            for customer in (acme, globex):
                deliver(post.text(), customer.mailbox)
            provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
            limits.set_limits(globex.tenant, max_octets=2_000_000)
            assert not moved.done()
        moved.result()
    for customer in (acme, globex):
        used = Mailbox.objects.filter(tenant=customer.tenant).aggregate(octets=Sum("used_octets"))["octets"]
        assert counts(customer.tenant)[3] == used > 0
    assert limits.of(Domain.objects.get(pk=moves.pk)).octets == message.octets
    assert counts(globex.tenant)[:3] == (2, 2, 0)
    assert counts(acme.tenant)[:3] == (1, 1, 1)


def until_somebody_waits_for_a_row() -> None:
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'"
                " AND query ~ 'mailstore_content'"
            )
            if cursor.fetchall():
                return
            time.sleep(0.01)


def test_an_id_of_the_callers_that_is_taken_meanwhile_is_a_refusal(acme: Customer, globex: Customer) -> None:
    """Whoever is faster than our look is found by the database."""
    with pytest.raises(Taken, match="external_id"), moving._patiently(acme.domain):
        Domain.objects.create(name="a.test", tenant=acme.tenant, external_id="1")
        Domain.objects.create(name="b.test", tenant=acme.tenant, external_id="1")


def test_what_of_a_tenant_stays_is_known() -> None:
    """A model that is of neither a domain, an alias nor a mailbox, nor of these, needs a thought in `moving`."""
    moving_tables = {table for table, _ in moving._tables()} | {"mailstore_content", "mailstore_contentchunk"}
    owned = {model for model in apps.get_models() if issubclass(model, TenantOwned)}
    assert {model.__name__ for model in owned if model._meta.db_table not in moving_tables} == STAYS


def test_every_reference_within_a_tenant_can_wait_for_the_end_of_a_transaction() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint WHERE contype = 'f' AND cardinality(conkey) > 1"
            " AND (NOT condeferrable OR condeferred)"
        )
        assert cursor.fetchall() == []


# The command


def run(*args: str) -> str:
    output = StringIO()
    call_command("movedomain", *args, stdout=output)
    return output.getvalue()


def test_the_command_says_first_and_moves_then(acme: Customer, globex: Customer) -> None:
    provisioning.close_mailbox(acme.add("closed"))
    deliver(LARGE, acme.mailbox)
    what = "2 mailboxes (1 closed), 0 aliases, 786.6 kB in 1 messages"
    assert run("acme.test", "globex", "--dry-run") == f"Domain acme.test: {what} would move from acme to globex.\n"
    with pytest.raises(CommandError, match="There is no terminal"):
        run("acme.test", "globex")
    assert run("acme.test", "globex", "--yes") == f"Domain acme.test: moved from acme to globex, with {what}.\n"
    assert run("acme.test", "globex", "--yes") == "Domain acme.test: belongs to globex already.\n"
    assert AuditEvent.objects.filter(action="domain.moved", through="command").count() == 2
    provisioning.set_legal_hold(acme.mailbox, True)
    with pytest.raises(CommandError, match=r"acme\.test cannot move: an@acme\.test is on legal hold\."):
        run("acme.test", "acme", "--yes")
