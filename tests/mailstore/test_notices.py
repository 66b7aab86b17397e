"""Whose room for mail is used up is told by mail, once each, also where there is no room for anything else."""

import email
import email.policy
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from accounts import limits, provisioning, webhooks
from accounts.database_roles import WORKER
from accounts.models import Allowance, DomainAdmin, Event, Mailbox, Reseller, Role, Tenant, User
from mailstore import drift, notices, tasks
from mailstore.delivery import Outcome
from mailstore.models import Message
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.retain import at_once

pytestmark = pytest.mark.django_db(transaction=True)

QUOTA = 100_000_000


def tell() -> int:
    return notices.tell(hostname="mx.example.test")


def use(mailbox: Mailbox, octets: int) -> None:
    """Let the mailbox use so many octets, in one message."""
    Message.objects.filter(mailbox=mailbox).delete()
    Mailbox.objects.filter(pk=mailbox.pk).update(used_octets=0, message_count=0)
    if octets:
        [made] = post.fill(mailbox, [b"Subject: x\r\n\r\n" + b"x" * 1000 + b"\r\n"])
        Message.objects.filter(pk=made.pk).update(octets=octets)
        Mailbox.objects.filter(pk=mailbox.pk).update(used_octets=octets)


def notice(mailbox: Mailbox) -> EmailMessage:
    """The last message of its maildrop."""
    message = Message.objects.in_maildrop(mailbox).select_related("content").latest("uid")
    parsed = email.message_from_bytes(bytes(message.trace) + bytes(message.content.body), policy=email.policy.SMTP)
    assert isinstance(parsed, EmailMessage)
    return parsed


def subjects(mailbox: Mailbox) -> list[str]:
    told = Message.objects.in_maildrop(mailbox).order_by("uid").values_list("subject", flat=True)
    return [subject for subject in told if subject != "x"]


# --- In whose language ---------------------------------------------------------------------------------------------


def test_each_is_told_in_his_language_and_his_time(acme: Customer, globex: Customer) -> None:
    provisioning.set_language(acme.mailbox.user, language="vi", time_zone="Asia/Ho_Chi_Minh")
    for mailbox in (acme.mailbox, globex.mailbox):
        Mailbox.objects.filter(pk=mailbox.pk).update(quota_octets=QUOTA)
        use(mailbox, QUOTA * 9 // 10)
    assert tell() == 2
    told = notice(acme.mailbox)
    assert told["Subject"] == "Hộp thư an@acme.test của bạn đã dùng 90 %"
    assert (told["Content-Language"], str(told["From"])) == ("vi", "Dịch vụ thư <postmaster@mx.example.test>")
    assert told["Date"].endswith("+0700")
    assert "người gửi sẽ được báo lại" in told.get_content()
    assert notice(globex.mailbox)["Subject"] == "Your mailbox an@globex.test is 90 % full"


def test_who_has_chosen_none_is_told_in_the_host_s_language(acme: Customer, settings: Any) -> None:
    settings.MAILHOST_LANGUAGE, settings.MAILHOST_TIME_ZONE = "vi", "Asia/Ho_Chi_Minh"
    limits.set_limits(acme.domain, max_octets=QUOTA)
    provisioning.change_tenant(acme.tenant, admin_mailbox=acme.mailbox)
    use(acme.mailbox, QUOTA)
    assert tell() == 1
    assert notice(acme.mailbox)["Subject"] == "Chỗ chứa thư của tên miền acme.test đã đầy"


# --- A mailbox's quota ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "told"),
    [
        (79_990_000, None),
        (80_000_000, "Your mailbox small@acme.test is 80 % full"),
        (89_990_000, "Your mailbox small@acme.test is 80 % full"),
        (90_000_000, "Your mailbox small@acme.test is 90 % full"),
        (99_930_000, "Your mailbox small@acme.test is 90 % full"),
        (99_940_000, "Your mailbox small@acme.test is full"),
        (100_000_000, "Your mailbox small@acme.test is full"),
    ],
)
def test_an_owner_is_told_once_how_full_his_mailbox_is(acme: Customer, used: int, told: str | None) -> None:
    mailbox = acme.add("small", quota_octets=QUOTA)
    use(mailbox, used)
    assert tell() == bool(told)
    assert tell() == 0
    assert subjects(mailbox) == ([told] if told else [])


def test_the_notice_is_mail_that_no_program_answers(acme: Customer) -> None:
    mailbox = acme.add("small", quota_octets=QUOTA)
    use(mailbox, 85_000_000)
    before = list(drift.find())
    tell()
    message = notice(mailbox)
    assert message["Return-Path"] == "<>"
    assert message["Delivered-To"] == "small@acme.test"
    assert message["From"] == "Mail service <postmaster@mx.example.test>"
    assert message["To"] == "small@acme.test"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@mx.example.test>")
    assert datetime.now(UTC) - message["Date"].datetime < timedelta(minutes=1)
    assert message.get_content_type() == "text/plain"
    assert "The mailbox small@acme.test takes 81M of the 95M that it may." in message.get_content()
    assert list(drift.find()) == before


def test_a_full_mailbox_has_room_for_its_notice_and_for_nothing_else(acme: Customer) -> None:
    mailbox = acme.add("small", quota_octets=QUOTA)
    use(mailbox, QUOTA)
    assert tell() == 1
    mailbox.refresh_from_db()
    assert mailbox.used_octets > QUOTA
    assert mailbox.message_count == 2
    assert [str(one) for one in post.deliver(post.text(), mailbox)] != [Outcome.STORED]
    assert "New mail finds no room there" in notice(mailbox).get_content()


def test_each_step_is_told_and_again_only_after_it_was_well_below(acme: Customer) -> None:
    mailbox = acme.add("small", quota_octets=QUOTA)
    for used, told in (
        (80_000_000, 1),
        (91_000_000, 1),
        (86_000_000, 0),  # not well below
        (91_000_000, 0),
        (84_000_000, 0),
        (91_000_000, 1),
        (50_000_000, 0),
        (99_950_000, 1),
        (70_000_000, 0),
        (80_000_000, 1),
    ):
        use(mailbox, used)
        assert tell() == told, used
    use(mailbox, 95_000_000)
    assert tell() == 1
    provisioning.change_mailbox(mailbox, quota_octets=None)
    assert tell() == 0
    provisioning.change_mailbox(mailbox, quota_octets=QUOTA)
    assert tell() == 1


def test_who_has_no_quota_or_cannot_read_is_not_told(acme: Customer) -> None:
    use(acme.mailbox, 10**12)
    suspended, closed = acme.add("suspended", quota_octets=QUOTA), acme.add("closed", quota_octets=QUOTA)
    nothing = acme.add("nothing", quota_octets=0)
    for mailbox in (suspended, closed):
        use(mailbox, QUOTA)
    provisioning.suspend(suspended)
    provisioning.close_mailbox(closed)
    assert tell() == 0
    assert not Message.objects.filter(mailbox=nothing).exists()
    provisioning.resume(suspended)
    assert tell() == 1


def test_webhooks_are_told_too_and_only_its_tenants(acme: Customer, globex: Customer) -> None:
    for customer in (acme, globex):
        webhooks.add("https://hooks.example.test/", tenant=customer.tenant, allow_private=False)
    mailbox = acme.add("small", quota_octets=QUOTA)
    Event.objects.all().delete()
    use(mailbox, 85_000_000)
    tell()
    use(mailbox, QUOTA)
    tell()
    first, second = Event.objects.order_by("created_at")
    assert (first.kind, second.kind) == ("mailbox.quota_warning", "mailbox.over_quota")
    assert {first.tenant_id, second.tenant_id} == {acme.tenant.pk}
    assert second.payload == {
        "id": mailbox.pk,
        "address": "small@acme.test",
        "external_id": None,
        "used_octets": QUOTA,
        "quota_octets": QUOTA,
        "percent": 100,
    }


def test_of_many_workers_one_tells(acme: Customer) -> None:
    mailboxes = [acme.add(f"small{number}", quota_octets=QUOTA) for number in range(8)]
    for mailbox in mailboxes:
        use(mailbox, 95_000_000)
    limits.set_limits(acme.tenant, max_octets=8 * 95_000_000)
    Tenant.objects.filter(pk=acme.tenant.pk).update(admin_mailbox=acme.mailbox)
    before = list(drift.find())
    at_once([tell] * 4)
    tell()
    for mailbox in mailboxes:
        assert len(subjects(mailbox)) == 1
    assert subjects(acme.mailbox) == ["The room for mail of the tenant acme is full"]
    assert list(drift.find()) == before


# --- The limit of a domain, a tenant, a reseller -------------------------------------------------------------------


def allow(target: Any, octets: int) -> Allowance:
    limits.set_limits(target, max_octets=octets)
    return limits.of(target)


def test_a_tenants_admin_mailbox_is_told_of_its_limit_also_when_there_is_no_room(
    acme: Customer, globex: Customer
) -> None:
    admin = acme.add("admin")
    Tenant.objects.filter(pk=acme.tenant.pk).update(admin_mailbox=admin)
    use(acme.mailbox, 80_000_000)
    allow(acme.tenant, QUOTA)
    assert (tell(), tell()) == (1, 0)
    use(acme.mailbox, 0)
    use(acme.mailbox, 80_000_000)
    allow(acme.tenant, 80_010_000)
    assert tell() == 1
    assert subjects(admin) == [
        "The room for mail of the tenant acme is 80 % full",
        "The room for mail of the tenant acme is full",
    ]
    assert notice(admin)["To"] == "admin@acme.test"
    assert not Message.objects.filter(mailbox=globex.mailbox).exists()
    allowance = limits.of(acme.tenant)
    assert allowance.octets == limits.used_octets(acme.tenant)


def test_a_full_limit_has_room_for_notices_and_for_nothing_else(acme: Customer) -> None:
    mailbox = acme.add("small", quota_octets=QUOTA)
    use(mailbox, 95_000_000)
    Tenant.objects.filter(pk=acme.tenant.pk).update(admin_mailbox=acme.mailbox)
    allow(acme.tenant, 95_000_000)
    assert tell() == 2
    assert len(subjects(mailbox)) == 1
    assert subjects(acme.mailbox) == ["The room for mail of the tenant acme is full"]
    assert post.deliver(post.text(), mailbox) != [Outcome.STORED]
    assert limits.of(acme.tenant).octets == limits.used_octets(acme.tenant) > 95_000_000


def test_a_domains_admins_are_told_of_its_limit_and_without_any_the_tenants(acme: Customer) -> None:
    admin = acme.add("boss")
    User.objects.filter(pk=admin.user_id).update(role=Role.TENANT_ADMIN)
    use(acme.mailbox, 85_000_000)
    allow(acme.domain, QUOTA)
    assert tell() == 1
    assert subjects(admin) == ["The room for mail of the domain acme.test is 80 % full"]
    looks_after = acme.add("looks-after")
    DomainAdmin.objects.create(tenant=acme.tenant, user_id=looks_after.user_id, domain=acme.domain)
    allow(acme.domain, 94_000_000)
    assert tell() == 1
    assert subjects(looks_after) == ["The room for mail of the domain acme.test is 90 % full"]
    assert len(subjects(admin)) == 1


def test_where_nobody_has_a_mailbox_the_log_is_told(acme: Customer, caplog: pytest.LogCaptureFixture) -> None:
    reseller = Reseller.objects.create(slug="seller", name="Seller")
    limits.open_for(reseller)
    Tenant.objects.filter(pk=acme.tenant.pk).update(reseller=reseller)
    use(acme.mailbox, 85_000_000)
    allow(reseller, QUOTA)
    assert (tell(), tell()) == (0, 0)
    assert [record.message for record in caplog.records if record.name == "mailstore.notices"] == [
        "the reseller seller is 80% full, and nobody who looks after it has a mailbox here"
    ]


def test_a_limit_that_is_emptier_again_is_told_again_later(acme: Customer) -> None:
    Tenant.objects.filter(pk=acme.tenant.pk).update(admin_mailbox=acme.mailbox)
    allow(acme.tenant, QUOTA)
    small = acme.add("small")
    for used, told in ((85_000_000, 1), (70_000_000, 0), (85_000_000, 1)):
        use(small, used)
        Allowance.objects.filter(tenant=acme.tenant, domain=None).update(octets=used)
        assert tell() == told


# --- The task ------------------------------------------------------------------------------------------------------


def test_the_task_tells_in_the_hosts_name(acme: Customer) -> None:
    mailbox = acme.add("small", quota_octets=QUOTA)
    use(mailbox, 85_000_000)
    with override_settings(MAILHOST_HOSTNAME="mail.example.test"):
        tasks.tell_of_quotas.apply().get()
    assert notice(mailbox)["From"].endswith("<postmaster@mail.example.test>")


def test_the_workers_role_may_do_it(acme: Customer) -> None:
    mailbox = acme.add("small", quota_octets=QUOTA)
    use(mailbox, QUOTA)
    allow(acme.tenant, QUOTA)
    Tenant.objects.filter(pk=acme.tenant.pk).update(admin_mailbox=acme.mailbox)
    webhooks.add("https://hooks.example.test/", tenant=acme.tenant, allow_private=False)
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {WORKER}")
        try:
            assert tell() == 2
        finally:
            cursor.execute("RESET ROLE")
    assert set(Event.objects.values_list("kind", flat=True)) == {"mailbox.over_quota", "tenant.warned"}
