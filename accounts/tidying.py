"""Removing old records that nobody asks for any more: events, answers to repeated requests, sessions of the web."""

from datetime import timedelta
from typing import Any, Final

from django.db import connection

EVENTS: Final = timedelta(days=30)
"""How long events, and what became of them, are kept. Until then they can be sent again."""
ANSWERS: Final = timedelta(hours=24)
"""How long the answer to a request with an `Idempotency-Key` is."""
SIGNED_IN: Final = timedelta(days=14)
"""How long a browser stays signed in to the admin at the most, as Django has it, too."""

_BATCH: Final = 1000

_OLD_EVENTS = """
WITH old AS MATERIALIZED (
    SELECT id FROM accounts_event WHERE created_at < now() - %(age)s
    ORDER BY created_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), deliveries AS (
    DELETE FROM accounts_webhookdelivery WHERE event_id IN (SELECT id FROM old)
)
DELETE FROM accounts_event WHERE id IN (SELECT id FROM old)
"""
_OLD_ANSWERS = """
DELETE FROM accounts_idempotencykey WHERE id IN (
    SELECT id FROM accounts_idempotencykey WHERE created_at < now() - %(age)s
    ORDER BY created_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
"""
_OLD_SIGN_INS = """
DELETE FROM accounts_websession WHERE id IN (
    SELECT id FROM accounts_websession WHERE started_at < now() - %(age)s LIMIT %(batch)s
)
"""
_ENDED_SESSIONS = """
DELETE FROM django_session WHERE session_key IN (
    SELECT session_key FROM django_session WHERE expire_date < now() - %(age)s ORDER BY expire_date LIMIT %(batch)s
)
"""


def tidy(*, batch: int = _BATCH) -> int:
    """Remove what is old, in batches that are a transaction each. Returns how many that were."""
    kinds = (
        (_OLD_EVENTS, EVENTS),
        (_OLD_ANSWERS, ANSWERS),
        (_OLD_SIGN_INS, SIGNED_IN),
        (_ENDED_SESSIONS, timedelta()),
    )
    return sum(_remove(statement, age, batch) for statement, age in kinds)


def _remove(statement: str, age: timedelta, batch: int) -> int:
    parameters: dict[str, Any] = {"age": age, "batch": batch}
    removed = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            found: int = cursor.rowcount
        removed += found
        if found < batch:
            return removed
