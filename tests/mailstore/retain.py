"""Time and threads for tests of what is kept how long."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import TypeVar

from django.db import connection
from django.utils import timezone

from accounts.models import Mailbox
from mailstore import retention
from mailstore.models import Message
from mailstore.purging import Keep
from tests.mailstore import post

T = TypeVar("T")

DAY = timedelta(days=1)
KEEP = Keep(retention=14 * DAY, sessions=400 * DAY, ledger=8 * DAY, listener_ttl=timedelta(seconds=90))


def fill(mailbox: Mailbox, *subjects: str) -> list[Message]:
    """Deliver a message with each of these subjects."""
    return post.fill(mailbox, [post.text(subject) for subject in subjects])


def expunge(*messages: Message, ago: timedelta) -> None:
    """Expunge messages, as if that had been some time ago."""
    found = Message.objects.filter(pk__in=[message.pk for message in messages])
    assert retention.expunge(found, by=None).messages == len(messages)
    found.update(expunged_at=timezone.now() - ago)


def moment() -> datetime:
    """By the clock of the database, which says when things happen to messages."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now


def at_once(functions: Sequence[Callable[[], T]]) -> list[T]:
    """Run functions in a thread each, all beginning at the same time."""
    together = Barrier(len(functions))

    def run(function: Callable[[], T]) -> T:
        together.wait()
        try:
            return function()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(functions)) as threads:
        return list(threads.map(run, functions))
