"""What several resources show and take in the same form: limits, times, names."""

from datetime import timedelta
from typing import Any

from django.db.models import Sum
from rest_framework import serializers

from accounts import limits, permissions, quotas
from accounts.api.serializers import Strict, Text, Whole
from accounts.models import Allowance, Domain, Mailbox, Reseller, Tenant
from accounts.principals import Principal

_MOST = 2**63 - 1


class Seconds(Whole):
    """A time in whole seconds."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": 0, "max_value": 36500 * 86400, "help_text": "Seconds.", **options})

    def run_validation(self, data: Any = serializers.empty) -> Any:
        value = super().run_validation(data)
        return timedelta(seconds=value) if isinstance(value, int) else value

    def to_representation(self, value: Any) -> int:
        return int(value.total_seconds())


class Days(Seconds):
    """A time in whole days, said in seconds."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": 86400, **options})


class LimitsWanted(Strict):
    """How much it may have; null is no limit. What is not named stays."""

    max_domains = Whole(required=False, allow_null=True, min_value=0, max_value=_MOST)
    max_mailboxes = Whole(required=False, allow_null=True, min_value=0, max_value=_MOST)
    max_aliases = Whole(required=False, allow_null=True, min_value=0, max_value=_MOST)
    max_octets = Whole(required=False, allow_null=True, min_value=0, max_value=_MOST)


class LimitsShown(serializers.ModelSerializer[Allowance]):
    """How much it may have; null is no limit."""

    class Meta:
        model = Allowance
        fields = ("max_domains", "max_mailboxes", "max_aliases", "max_octets")
        read_only_fields = fields


class HasShown(serializers.ModelSerializer[Allowance]):
    """How much it has."""

    octets = serializers.SerializerMethodField(
        help_text="Counted only while `max_octets` is a number; null without. `/usage/` counts them in any case."
    )

    class Meta:
        model = Allowance
        fields = ("domains", "mailboxes", "aliases", "octets")
        read_only_fields = fields

    def get_octets(self, allowance: Allowance) -> int | None:
        return None if allowance.max_octets is None else allowance.octets


class ExternalId(Text):
    """What the caller's own system calls something."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **{
                "max_length": 200,
                "required": False,
                "allow_null": True,
                "allow_blank": True,
                "help_text": "What your own system calls it.",
                **options,
            }
        )


def set_limits(
    target: Reseller | Tenant | Domain, wanted: dict[str, int | None] | None, *, resource: str, by: Principal
) -> None:
    """Give it the limits that a body names, if it names any. Raises `NotAllowed`."""
    if not wanted:
        return
    permissions.check(by, resource, "limits")
    limits.set_limits(target, **wanted)


def closing(what: str, **of: Any) -> tuple[str, dict[str, int]]:
    """What closing these means, in a sentence and in numbers: `closes 3 mailboxes, 4.1 GB in 812 messages`."""
    found = Mailbox.objects.open().filter(**of)
    counts = found.aggregate(octets=Sum("used_octets"), messages=Sum("message_count"))
    numbers = {
        "mailboxes": found.count(),
        "messages": int(counts["messages"] or 0),
        "octets": int(counts["octets"] or 0),
    }
    return (
        f"closes {what}{plural(numbers['mailboxes'], 'mailbox')}, {octets(numbers['octets'])} in "
        f"{plural(numbers['messages'], 'message')}",
        numbers,
    )


def plural(count: int, noun: str) -> str:
    """`1 mailbox`, `2 mailboxes`, `3 messages`."""
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith('x') else 's'}"


def octets(count: int) -> str:
    """`4.1 GB`."""
    text = quotas.rounded(count)
    amount = text.rstrip("KMGT")
    return f"{amount} {text[len(amount) :]}B"
