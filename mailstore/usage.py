"""How much mail there is, and whose: counted where counters are, estimated where there is too much to count."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from django.db.models import Case, Count, DateTimeField, ExpressionWrapper, F, Q, QuerySet, Sum, Value, When
from django.db.models.functions import Coalesce, Least, Now

from accounts.models import Mailbox
from mailstore.models import Message

COUNTED: Final = 100_000
"""Removed messages of which octets are added up; of more a part stands for the whole."""

Of = Literal["tenant", "domain", "reseller"]

PATHS: Final[dict[Of, str]] = {"tenant": "tenant_id", "domain": "domain_id", "reseller": "tenant__reseller_id"}
"""Where a mailbox says whose it is."""

_FULL: Final = (80, 90, 100)  # percent
_SOON: Final = {"now": timedelta(0), "day": timedelta(days=1), "week": timedelta(days=7)}


@dataclass(frozen=True, kw_only=True)
class Use:
    """What mailboxes have in their maildrops."""

    mailboxes: int = 0  # open ones
    closed: int = 0
    messages: int = 0
    octets: int = 0
    over_80: int = 0  # open mailboxes that have used so many percent of their quota, or more
    over_90: int = 0
    over_100: int = 0


@dataclass(frozen=True, kw_only=True)
class Due:
    """Removed messages."""

    messages: int
    octets: int


@dataclass(frozen=True, kw_only=True)
class Removed(Due):
    """Removed messages that can still be restored, and what of them goes for good until when."""

    exact: bool  # whether all were counted, and the numbers are no estimate
    now: Due
    day: Due
    week: Due


def of_mailboxes(mailboxes: QuerySet[Mailbox]) -> Use:
    """What these mailboxes have."""
    return Use(**mailboxes.order_by().aggregate(**_sums()))


def of_each(mailboxes: QuerySet[Mailbox], of: Of, ids: list[int]) -> dict[int, Use]:
    """What these mailboxes have, for each of these tenants, domains or resellers."""
    path = PATHS[of]
    rows: Any = mailboxes.filter(**{f"{path}__in": ids}).order_by().values(path).annotate(**_sums())
    found = {row.pop(path): Use(**row) for row in rows}
    return {one: found.get(one, Use()) for one in ids}


def removed(mailboxes: QuerySet[Mailbox], *, kept: timedelta) -> Removed:
    """What was removed from these mailboxes, and is kept. `kept` is the host's retention.

    Looks at `COUNTED` messages at most. If there are more, how many is known, and octets are in proportion.
    """
    messages: Any = Message.objects.expunged().filter(mailbox__in=mailboxes.order_by())
    looked_at = messages.order_by().annotate(due_at=due_at(kept)).values("pk", "octets", "due_at")[:COUNTED]
    wanted: dict[str, Any] = {"messages": Count("pk"), "octets_": Coalesce(Sum("octets"), 0)}
    for name, soon in _SOON.items():
        until = Q(due_at__lte=Now() + soon)
        wanted |= {
            f"messages_{name}": Count("pk", filter=until),
            f"octets_{name}": Coalesce(Sum("octets", filter=until), 0),
        }
    found = looked_at.aggregate(**wanted)
    exact = found["messages"] < COUNTED
    part, whole = (1, 1) if exact else (found["messages"], messages.count())

    def due(name: str) -> Due:
        return Due(
            messages=found[f"messages_{name}"] * whole // part, octets=int(found[f"octets_{name}"]) * whole // part
        )

    return Removed(
        messages=found["messages"] * whole // part,
        octets=int(found["octets_"]) * whole // part,
        exact=exact,
        now=due("now"),
        day=due("day"),
        week=due("week"),
    )


def due_at(kept: timedelta) -> Any:
    """When a message goes for good; null for one that is in a maildrop, or must be kept. `kept` as for `removed`."""
    retention = Coalesce("mailbox__retention", "tenant__retention", Value(kept))
    since = Least("expunged_at", "mailbox__closed_at")  # in PostgreSQL, nulls are none of them
    due = ExpressionWrapper(since + retention, output_field=DateTimeField())
    return Case(When(mailbox__legal_hold=True, then=None), default=due)


def _sums() -> dict[str, Any]:
    used = {
        f"over_{percent}": Count(
            "pk",
            filter=Q(closed_at=None, quota_octets__gt=0, used_octets__gte=F("quota_octets") / 100 * percent),
        )
        for percent in _FULL
    }
    return {
        "mailboxes": Count("pk", filter=Q(closed_at=None)),
        "closed": Count("pk", filter=Q(closed_at__isnull=False)),
        "messages": Coalesce(Sum("message_count"), 0),
        "octets": Coalesce(Sum("used_octets"), 0),
        **used,
    }
