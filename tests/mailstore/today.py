"""A host with a past: statistics, refusals, failed logins and a forecast, as its first page shows them."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from accounts import provisioning
from accounts.models import Domain, FailedLogin, Mailbox
from mailstore import background
from mailstore.models import (
    BackgroundRun,
    DailyStatistics,
    HourlyStatistics,
    PurgeForecast,
    Refusal,
    Rollup,
)
from tests.fixtures import Customer
from tests.mailstore import rows


def of(customer: Customer, *, size: int = 1) -> None:
    """A past of a domain, `size` times that of a small one; added to what the whole host has."""
    now = timezone.now().astimezone(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    spans: tuple[tuple[Any, datetime, timedelta, int], ...] = (
        (HourlyStatistics, hour, timedelta(hours=1), 7 * 24),
        (DailyStatistics, hour.replace(hour=0), timedelta(days=1), 365),
    )
    for model, start, step, steps in spans:
        for whose in ({"tenant": customer.tenant, "domain": customer.domain}, {"tenant": None, "domain": None}):
            model.objects.bulk_create(
                (model(**whose, start=start - number * step, **_counts(number, size)) for number in range(steps)),
                update_conflicts=False,
                ignore_conflicts=True,
            )
    for number, messages in enumerate((41, 12, 0, 77, 30, 8, 22)):
        for whose in ({"tenant": customer.tenant, "domain": customer.domain}, {"tenant": None, "domain": None}):
            values = {"messages": messages * size, "octets": messages * size * 40_000, "mailboxes": number == 3}
            PurgeForecast.objects.get_or_create(**whose, day=(now + timedelta(days=number)).date(), defaults=values)
    Rollup.objects.update_or_create(defaults={"counted_at": now, "stored_at": now})
    refuse(customer, "over quota", 14 * size)
    refuse(customer, "unverified", 3 * size)
    for reason, count in (("password", 27), ("unknown", 6)):
        FailedLogin.objects.create(
            tenant=customer.tenant, domain=customer.domain, mailbox=customer.mailbox,
            subject=f"mailbox {customer.mailbox.pk}", reason=reason, through="pop3", network="203.0.113.0/24",
            client_address="203.0.113.7", hour=hour, count=count, first_at=now, last_at=now,
        )  # fmt: skip


def crowd(customer: Customer) -> None:
    """Mailboxes with little room, an open session, and a domain whose claim lapses soon."""
    for number, percent in enumerate((100, 97, 93, 88, 84, 81)):
        mailbox = customer.add(f"nguyen.thi.{number}", quota_octets=1_000_000_000)
        fill(mailbox, percent)
    rows.add_session(customer.mailbox, rows.add_listener("pop3"), client_address="192.0.2.7")
    domain, _ = provisioning.add_domain(f"new-{customer.tenant}.test", tenant=customer.tenant)
    Domain.objects.filter(pk=domain.pk).update(
        state="pending", created_at=timezone.now() - timedelta(days=26), checked_at=timezone.now()
    )


def fill(mailbox: Mailbox, percent: int) -> None:
    """A mailbox that has used so much of its quota, and whose owner was told."""
    used = (mailbox.quota_octets or 0) * percent // 100
    step = 100 if percent == 100 else percent // 10 * 10
    Mailbox.objects.filter(pk=mailbox.pk).update(used_octets=used, warned_percent=step)


def refuse(customer: Customer, reason: str, count: int, *, ago: timedelta = timedelta(0)) -> None:
    at = timezone.now() - ago
    Refusal.objects.create(
        tenant=customer.tenant, domain=customer.domain, mailbox=customer.mailbox, reason=reason, count=count,
        hour=at.replace(minute=0, second=0, microsecond=0), first_at=at, last_at=at, sender_domain="elsewhere.test",
    )  # fmt: skip


def run_everything() -> None:
    """As if all processes of the host ran."""
    for kind in ("pop3", "lmtp"):
        rows.add_listener(kind, host="mail1.example.net")
    for entry in settings.CELERY_BEAT_SCHEDULE.values():
        background.note(BackgroundRun.Kind.BEAT, "beat@mail1", str(entry["task"]))
        background.note(BackgroundRun.Kind.WORKER, "celery@mail1", str(entry["task"]), seconds=0.1)


def _counts(number: int, size: int) -> dict[str, Any]:
    wave = 1 + math.sin(number / 24 * 2 * math.pi) + (number * 7919 % 11) / 11
    delivered = int(40 * size * wave)
    return {
        "delivered": delivered,
        "delivered_octets": delivered * 35_000,
        "sessions": int(15 * size * wave),
        "fetched": int(delivered * 0.9),
        "removed": int(delivered * 0.7),
        "refused": int(4 * size * ((number * 31) % 7 == 0)),
        "stored_messages": 9_000 * size - 20 * number * size,
        "stored_octets": (9_000 - 20 * number) * size * 35_000,
    }
