"""Sending events to webhooks: signed, to where may be sent, again and again until it worked or three days are over.

Driven from the database. A webhook is claimed as a whole, for a minute (`held_until`), and its events are sent one by
one: an endpoint that is slow, or dead, holds up no other. Whoever is killed may have sent something that is sent
again; its id tells.
"""

import json
import logging
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection, transaction

from accounts import audit, webhooks
from accounts.endpoint import Answer, Config, Endpoint, Parcel, Result
from accounts.models import Webhook

log = logging.getLogger(__name__)

MOST_ATTEMPTS: Final = 13
"""After 30 seconds, then three times as long each time, at most 12 hours: 69 hours in all, give or take a fifth."""

_DELAY = "least(30 * 3 ^ attempts, 43200) * (0.8 + 0.4 * random()) * interval '1 second'"
_SILENCE: Final = timedelta(minutes=15)  # the longest time for which an endpoint that does not answer is left alone
_THREADS: Final = 16  # endpoints at a time
_LEASE: Final = timedelta(seconds=60)
_TURN: Final = 20.0  # seconds after which a webhook is given back: with the last request, well within the lease
_POLL: Final = 1.0  # seconds between two looks for more, while something is being sent

# The webhook that has waited longest first. It is locked only for this statement: the lease keeps others away.
_CLAIM = """
UPDATE accounts_webhook webhook SET held_until = clock_timestamp() + %(lease)s
FROM (
    SELECT due.id FROM accounts_webhook due
    WHERE due.enabled AND (due.held_until IS NULL OR due.held_until <= now()) AND EXISTS (
        SELECT FROM accounts_webhookdelivery delivery
        WHERE delivery.webhook_id = due.id AND delivery.state = 'pending' AND delivery.next_attempt_at <= now()
    )
    ORDER BY due.held_until NULLS FIRST
    LIMIT %(most)s
    FOR NO KEY UPDATE SKIP LOCKED
) claimed
WHERE webhook.id = claimed.id
RETURNING webhook.id
"""
_RELEASE = "UPDATE accounts_webhook SET held_until = %(until)s WHERE id = %(webhook)s AND held_until = %(lease)s"
_HOLD = """
UPDATE accounts_webhook SET held_until = now() + least(30 * 3 ^ %(attempts)s, %(longest)s) * interval '1 second'
WHERE id = %(webhook)s AND held_until = %(lease)s
"""
# Asked before each attempt: what was disabled, removed or taken over meanwhile is not sent.
_NEXT = """
SELECT delivery.id, delivery.attempts, event.id, event.kind, event.created_at, event.payload, tenant.slug
FROM accounts_webhook webhook
JOIN accounts_webhookdelivery delivery ON delivery.webhook_id = webhook.id
JOIN accounts_event event ON event.id = delivery.event_id
JOIN accounts_tenant tenant ON tenant.id = event.tenant_id
WHERE webhook.id = %(webhook)s AND webhook.enabled AND webhook.held_until = %(lease)s
    AND delivery.state = 'pending' AND delivery.next_attempt_at <= now()
ORDER BY delivery.next_attempt_at, delivery.id
LIMIT 1
"""
_DELIVERED = """
UPDATE accounts_webhookdelivery
SET state = 'delivered', attempts = attempts + 1, delivered_at = now(), next_attempt_at = NULL,
    last_status = %(status)s, last_error = ''
WHERE id = %(delivery)s AND state = 'pending'
"""
_FAILED = f"""
UPDATE accounts_webhookdelivery
SET attempts = attempts + 1, last_status = %(status)s, last_error = %(error)s,
    state = CASE WHEN attempts + 1 >= %(most)s OR %(for_good)s THEN 'failed' ELSE 'pending' END,
    next_attempt_at = CASE WHEN attempts + 1 >= %(most)s OR %(for_good)s THEN NULL ELSE now() + {_DELAY} END
WHERE state = 'pending' AND
"""
_ONE_FAILED = f"{_FAILED} id = %(delivery)s"
# Nobody answers there: that holds for all that is due. So a dead endpoint costs one attempt, not one for each event.
_ALL_FAILED = f"{_FAILED} webhook_id = %(webhook)s AND next_attempt_at <= now()"


_sending = threading.Lock()


def send(config: Config, *, budget: timedelta) -> int:
    """Send what is due, until nothing is or the time is over. Returns how many events were delivered.

    One run in each process is enough: it finds what others are asked to send meanwhile.
    """
    delivered = 0
    deadline = time.monotonic() + budget.total_seconds()
    while time.monotonic() < deadline and _sending.acquire(blocking=False):
        try:
            run = _Run(config, deadline)
            run.drain()
        finally:
            _sending.release()
        delivered += run.delivered
        if not run.claimed:
            break
    return delivered


class _Run:
    """Threads speak HTTP; the database is spoken to by the one that started them."""

    def __init__(self, config: Config, deadline: float) -> None:
        self.delivered = 0
        self.claimed = 0
        self._config = config
        self._deadline = deadline
        self._turns: dict[Future[Answer], _Turn] = {}

    def drain(self) -> None:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="webhook") as threads:
            while True:
                if time.monotonic() < self._deadline and (free := _THREADS - len(self._turns)):
                    for turn in _claimed(free, self._config, self._deadline):
                        self.claimed += 1
                        self._go_on(turn, threads)
                if not self._turns:
                    return
                done, _ = wait(self._turns, timeout=_POLL, return_when=FIRST_COMPLETED)
                for future in done:
                    turn = self._turns.pop(future)
                    answer = future.result()
                    self.delivered += answer.result is Result.DELIVERED
                    if turn.conclude(answer):
                        self._go_on(turn, threads)

    def _go_on(self, turn: "_Turn", threads: ThreadPoolExecutor) -> None:
        parcel = turn.next()
        if parcel is None:
            turn.release()
        else:
            self._turns[threads.submit(turn.endpoint.post, parcel)] = turn


def _claimed(most: int, config: Config, deadline: float) -> "list[_Turn]":
    with connection.cursor() as cursor:
        parameters: dict[str, Any] = {"lease": _LEASE, "most": most}
        cursor.execute(_CLAIM, parameters)
        ids = [webhook for (webhook,) in cursor.fetchall()]
    ends = min(deadline, time.monotonic() + _TURN)
    return [_Turn(webhook, config, ends) for webhook in Webhook.objects.filter(pk__in=ids)] if ids else []


class _Turn:
    """A webhook that is claimed, and what is sent to it meanwhile."""

    def __init__(self, webhook: Webhook, config: Config, ends: float) -> None:
        assert webhook.held_until is not None
        self.endpoint = Endpoint(webhook.url, webhooks.keys(webhook), config)
        self._webhook = webhook
        self._lease: datetime = webhook.held_until
        self._ends = ends
        self._current: Parcel | None = None

    def next(self) -> Parcel | None:
        """What is to be sent now; None if nothing is due, or others are to have their turn."""
        if time.monotonic() > self._ends:
            return None
        with connection.cursor() as cursor:
            cursor.execute(_NEXT, {"webhook": self._webhook.pk, "lease": self._lease})
            row = cursor.fetchone()
        self._current = _parcel(row) if row else None
        return self._current

    def conclude(self, answer: Answer) -> bool:
        """Write what became of the attempt. Returns whether more can be sent there."""
        assert self._current is not None
        parameters: dict[str, Any] = {
            "webhook": self._webhook.pk,
            "delivery": self._current.delivery_id,
            "attempts": self._current.attempts,
            "lease": self._lease,
            "longest": _SILENCE.total_seconds(),
            "status": answer.status,
            "error": answer.error[:200],
            "most": MOST_ATTEMPTS,
            "for_good": answer.result is Result.GONE,
        }
        with transaction.atomic(), connection.cursor() as cursor:
            match answer.result:
                case Result.DELIVERED:
                    cursor.execute(_DELIVERED, parameters)
                    return True
                case Result.REFUSED:
                    cursor.execute(_ONE_FAILED, parameters)
                    return True
                case Result.AWAY:
                    cursor.execute(_ALL_FAILED, parameters)
                    cursor.execute(_HOLD, parameters)
                case Result.GONE:
                    cursor.execute(_ONE_FAILED, parameters)
                    if Webhook.objects.filter(pk=self._webhook.pk, enabled=True).update(enabled=False):
                        audit.record("webhook.changed", self._webhook, {"enabled": (True, False)})
        self.endpoint.close()
        log.info("webhook %s: %s", self._webhook.pk, answer.error)
        return False

    def release(self) -> None:
        """Give the webhook back."""
        self.endpoint.close()
        with connection.cursor() as cursor:
            cursor.execute(_RELEASE, {"until": None, "webhook": self._webhook.pk, "lease": self._lease})


def _parcel(row: tuple[Any, ...]) -> Parcel:
    delivery_id, attempts, event_id, kind, created_at, payload, tenant = row
    told = {
        "id": str(event_id),
        "type": kind,
        "created_at": created_at.isoformat(),
        "tenant": tenant,
        "data": json.loads(payload),
    }
    return Parcel(delivery_id, attempts, str(event_id), json.dumps(told).encode())
