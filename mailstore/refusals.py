"""Noting which mail was refused, hour by hour, for whoever asks where his mail is."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from django.db import transaction
from django.db.models.functions import Now

from accounts import events
from mailstore.database import Pool
from mailstore.models import Refusal
from mailstore.noting import Notes

TOO_LARGE: Final = "too large"
"""The reason of what was refused whosever it was; a client that says beforehand how large it is names nobody."""

_ANNOUNCED: Final = 500  # in one transaction

_WRITE = """
INSERT INTO mailstore_refusal (
    tenant_id, domain_id, mailbox_id, reason, hour, count, first_at, last_at, sender_domain
)
SELECT domain.tenant_id, domain_id, mailbox_id, reason, date_trunc('hour', now(), 'UTC'), count, now(), now(),
    sender_domain
FROM unnest(
    %(domains)s::bigint[], %(mailboxes)s::bigint[], %(reasons)s::text[], %(counts)s::bigint[], %(senders)s::text[]
) AS noted (domain_id, mailbox_id, reason, count, sender_domain)
JOIN accounts_domain domain ON domain.id = domain_id
ORDER BY domain_id, mailbox_id, reason
ON CONFLICT (domain_id, mailbox_id, reason, hour) DO UPDATE
SET count = mailstore_refusal.count + EXCLUDED.count, last_at = now(), sender_domain = EXCLUDED.sender_domain
"""


class _Refused(NamedTuple):
    domain_id: int
    mailbox_id: int | None
    reason: str


class Refusals:
    """What one process refuses, beside the path of the mail (`Notes`)."""

    def __init__(self, pool: Pool) -> None:
        self._notes = Notes(pool, _WRITE, _parameters, of="refusals")
        self.start, self.stop = self._notes.start, self._notes.stop

    def note(self, domain_id: int, mailbox_id: int | None, reason: str, reverse_path: str) -> None:
        """Note that mail for a domain, or for one mailbox of it, was refused."""
        self._notes.note(_Refused(domain_id, mailbox_id, reason), reverse_path.rpartition("@")[2][:255].lower())


def _parameters(counts: Mapping[_Refused, int], senders: Mapping[_Refused, str]) -> dict[str, Any]:
    return {
        "domains": [refused.domain_id for refused in counts],
        "mailboxes": [refused.mailbox_id for refused in counts],
        "reasons": [refused.reason for refused in counts],
        "counts": list(counts.values()),
        "senders": [senders[refused] for refused in counts],
    }


def announce() -> int:
    """Tell webhooks of mailboxes whose mail is refused, once for each reason and hour. Returns of how many."""
    told = 0
    while batch := _announce_some():
        told += batch
    return told


def _announce_some() -> int:
    with transaction.atomic():
        new = list(
            Refusal.objects.filter(told_at=None, mailbox__closed_at=None, mailbox__isnull=False)
            .select_related("mailbox__domain")
            .select_for_update(skip_locked=True, of=("self",), no_key=True)[:_ANNOUNCED]
        )
        events.emit_many(
            events.Happened(
                "mailbox.delivery_refused",
                refusal.mailbox.tenant_id,
                {
                    "id": refusal.mailbox.pk,
                    "address": refusal.mailbox.address,
                    "external_id": refusal.mailbox.external_id,
                    "reason": refusal.reason,
                },
                refusal.mailbox.domain.name,
            )
            for refusal in new
        )
        Refusal.objects.filter(pk__in=[refusal.pk for refusal in new]).update(told_at=Now())
    return len(new)
