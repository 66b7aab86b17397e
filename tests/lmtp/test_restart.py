"""The database is killed while deliveries are under way: what was told is true, and a retry makes it whole."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from pytest_django import DjangoDbBlocker

from accounts.models import Mailbox
from mailstore import drift
from mailstore.models import Message
from tests.mailhost.lineserver.running import eventually, short_directory
from tests.mailstore import post
from tests.servers import Servers
from tests.system import LmtpListener, System


@pytest.fixture
def system(private_servers: Servers, django_db_blocker: DjangoDbBlocker) -> Iterator[System]:
    with (
        short_directory() as directory,
        django_db_blocker.unblock(),
        System.on(private_servers, Path(directory)) as system,
        system.models(),
    ):
        yield system


def waiting(connection: psycopg.Connection[tuple[int]], count: int) -> bool:
    """Whether so many deliveries wait for a mailbox."""
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%accounts_mailbox%'"
    ).fetchone()
    return row == (count,)


def handed_over(lmtp: LmtpListener, message: bytes, *to: Mailbox) -> int:
    """Try as an MTA does, and return how often."""
    for attempt in range(1, 20):
        told = [reply[:3] for reply in lmtp.deliver(message, *to)]
        assert set(told) <= {b"250", b"451"}
        if told == [b"250"] * len(to):
            return attempt
    raise AssertionError("it is never taken")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_restart_between_the_dot_and_the_answer(system: System, how: signal.Signals) -> None:
    acme = system.customer("acme", mailboxes=4)
    boxes = list(Mailbox.objects.filter(tenant=acme.tenant).order_by("pk"))
    messages = [post.text(f"{n}", queue_id=f"Q{n}").ljust(1000 + 400_000 * (n % 2)) + b"\r\n" for n in range(4)]
    url = system.servers.urls.postgres
    with system.lmtp() as lmtp:
        with ThreadPoolExecutor() as threads, psycopg.connect(url, autocommit=True) as observer:
            holder = psycopg.connect(url)
            holder.execute("SELECT FROM accounts_mailbox WHERE id = %s FOR UPDATE", [boxes[0].pk])
            # Each for one that is held, and one of its own.
            sending = [
                threads.submit(lmtp.deliver, message, boxes[0], boxes[1 + number])
                for number, message in enumerate(messages)
            ]
            eventually(lambda: waiting(observer, 1) or waiting(observer, 2))  # one of each worker
            system.restart_postgres(how)
            told = [[reply[:3] for reply in each.result()] for each in sending]
            holder.close()
        assert {reply for each in told for reply in each} <= {b"250", b"451"}
        for number, (message, own, (first, second)) in enumerate(zip(messages, boxes[1:], told, strict=True)):
            for box, reply in ((boxes[0], first), (own, second)):
                if reply == b"250":
                    assert Message.objects.filter(mailbox=box, subject=str(number)).exists()
            handed_over(lmtp, message, boxes[0], own)
        assert sorted(message.subject for message in Message.objects.in_maildrop(boxes[0])) == ["0", "1", "2", "3"]
        for number, own in enumerate(boxes[1:]):
            assert [message.subject for message in Message.objects.in_maildrop(own)] == [str(number)]
        assert list(drift.find()) == []
        assert lmtp.stop() == 0
        assert "Traceback" not in lmtp.log, lmtp.log
