"""Noting which mail was refused, hour by hour, for whoever asks where his mail is."""

import asyncio
import contextlib
import logging
from typing import Final, NamedTuple

import psycopg
from django.db import transaction
from django.db.models.functions import Now

from accounts import events
from mailstore.database import Connection, Pool, Unavailable
from mailstore.models import Refusal

log = logging.getLogger(__name__)

_PAUSE: Final = 1.0  # seconds between two times that notes are written
_MOST: Final = 1000  # different notes that wait to be written; what comes beyond is not noted
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


class _Note(NamedTuple):
    domain_id: int
    mailbox_id: int | None
    reason: str


class Refusals:
    """What one process has refused and not yet written: a bounded number of notes, beside the path of the mail.

    Notes may get lost, with the process or while the database is away: they explain, and nothing is decided by them.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._counts: dict[_Note, int] = {}
        self._senders: dict[_Note, str] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write what is noted."""
        self._task = asyncio.create_task(self._write_again_and_again())

    async def stop(self) -> None:
        """Write what is left."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self._write()

    def note(self, domain_id: int, mailbox_id: int | None, reason: str, reverse_path: str) -> None:
        """Note that mail for a domain, or for one mailbox of it, was refused."""
        note = _Note(domain_id, mailbox_id, reason)
        if note in self._counts or len(self._counts) < _MOST:
            self._counts[note] = self._counts.get(note, 0) + 1
            self._senders[note] = reverse_path.rpartition("@")[2][:255].lower()

    async def _write_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            await self._write()

    async def _write(self) -> None:
        if not self._counts:
            return
        counts, senders = self._counts, self._senders
        self._counts, self._senders = {}, {}
        parameters = {
            "domains": [note.domain_id for note in counts],
            "mailboxes": [note.mailbox_id for note in counts],
            "reasons": [note.reason for note in counts],
            "counts": list(counts.values()),
            "senders": [senders[note] for note in counts],
        }

        async def work(connection: Connection) -> None:
            await connection.execute(_WRITE, parameters)

        try:
            await self._pool.run(work)
        except (Unavailable, psycopg.Error) as error:
            log.warning("%s refusals were not noted: %s", sum(counts.values()), type(error).__name__)


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
