"""Mail keeps flowing while processes are killed at random: nothing acknowledged is lost, nothing comes twice."""

import contextlib
import os
import random
import signal
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from accounts.models import Mailbox
from mailstore import drift
from tests.fixtures import PASSWORD
from tests.system import Listener, LmtpListener, Pop3Listener, System, elapsed

PATIENCE = 1.0
"""Seconds after which a client hangs up and tries again: what it gave up may be under way still."""


class Mta:
    """Sends messages with a queue id and a trace field, again and again until each recipient's copy is acknowledged."""

    def __init__(self, listener: LmtpListener, name: str, to: list[str], *, seed: int) -> None:
        self._listener = listener
        self._name = name
        self._to = to
        self._chance = random.Random(seed)
        self.acknowledged: dict[str, list[str]] = {}
        self.attempts = 0

    def run(self, over: threading.Event) -> None:
        """Queue and send one message after the other until it is over and the queue is empty."""
        number = 0
        while not over.is_set():
            queue_id = f"{self._name}{number:05}"
            number += 1
            waiting = self._chance.sample(self._to, self._chance.choice([1, 1, 3]))
            self.acknowledged[queue_id] = list(waiting)
            message = self._message(queue_id)
            while waiting:
                self.attempts += 1
                with contextlib.suppress(OSError, AssertionError), self._listener.client(patience=PATIENCE) as client:
                    replies = client.deliver(message, *waiting)
                    assert all(reply[:1] in (b"2", b"4") for reply in replies), replies
                    pairs = zip(waiting, replies, strict=True)
                    waiting = [name for name, reply in pairs if not reply.startswith(b"250")]

    def _message(self, queue_id: str) -> bytes:
        lines = self._chance.choice([1, 20, 400, 6000])
        return (
            f"Received: from here by mta.elsewhere.test id {queue_id}; Mon, 23 Nov 2026 09:00:00 +0000\r\n"
            f"Subject: {queue_id}\r\n\r\n" + f"{queue_id} .all work and no play makes jack a dull boy\r\n" * lines
        ).encode()


class Reader:
    """Downloads and deletes, whatever happens in between. A message may come again after a lost answer to QUIT, but
    under its unique-id."""

    def __init__(self, listener: Pop3Listener, name: str) -> None:
        self._listener = listener
        self.name = name
        self.fetched: dict[bytes, str] = {}  # queue ids by unique-id
        self.faults: list[object] = []

    def run(self, over: threading.Event) -> None:
        """Go on until it is over and nothing is left."""
        deadline = None
        while True:
            last = over.is_set()
            deadline = deadline or (time.monotonic() + 30 if last else None)
            try:
                if self._session() and last:
                    return
            except (OSError, AssertionError) as error:
                # Cut off, or in use by a session of ours that is gone but not yet known to be.
                if deadline and time.monotonic() > deadline:
                    self.faults.append(error)
                    return
                time.sleep(0.05)

    def _session(self) -> bool:
        """Fetch what is there; whether that was nothing."""
        with self._listener.client(patience=PATIENCE) as client:
            told = client.log_in(self.name, PASSWORD)
            assert told.startswith(b"+OK"), told
            unique_ids, sizes = client.unique_ids(), client.sizes()
            for number, (unique_id, octets) in enumerate(zip(unique_ids, sizes, strict=True), 1):
                message = client.retrieve(number)
                header = message.partition(b"\r\n\r\n")[0]
                queue_id = header.rpartition(b"Subject: ")[2].decode()
                if len(message) != octets or self.fetched.setdefault(unique_id, queue_id) != queue_id:
                    self.faults.append((unique_id, queue_id, len(message), octets))
                client.ask(b"DELE %d" % number)
            told = client.ask(b"QUIT")
            assert told.startswith(b"+OK"), told
            return not sizes


def kill_a_worker(listener: Listener, chance: random.Random) -> None:
    workers = listener.workers()
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)


@pytest.mark.parametrize(
    ("seconds", "seed"),
    [(6, 1), *(pytest.param(60, seed, marks=pytest.mark.slow) for seed in (2, 3))],
)
def test_kills_lose_nothing_and_double_nothing(system: System, seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    customers = [system.customer(slug, mailboxes=2) for slug in ("acme", "globex")]
    names = [str(box) for customer in customers for box in Mailbox.objects.filter(tenant=customer.tenant)]
    over, settled = threading.Event(), threading.Event()
    kills = 0
    workers = {"MAILHOST_WORKERS": "4"}
    with system.pop3(**workers) as pop3, system.lmtp(**workers) as lmtp, ThreadPoolExecutor(20) as threads:
        mtas = [Mta(lmtp, name, names, seed=seed) for name in "QRSTUV"]
        readers = [Reader(pop3, name) for name in names]
        sending = [threads.submit(mta.run, over) for mta in mtas]
        reading = [threads.submit(reader.run, settled) for reader in readers]
        try:
            began = time.monotonic()
            while elapsed(began) < seconds:
                time.sleep(chance.uniform(0.01, 0.6))
                what = chance.random()
                if what < 0.6:
                    kill_a_worker(lmtp, chance)
                elif what < 0.9:
                    kill_a_worker(pop3, chance)
                elif seconds > 10:
                    system.restart_postgres(chance.choice([signal.SIGKILL, signal.SIGINT]))
                else:
                    continue
                kills += 1
        finally:
            over.set()
            for each in sending:
                each.result()
            settled.set()
            for each in reading:
                each.result()

    assert [fault for reader in readers for fault in reader.faults] == []
    expected = {(queue_id, to) for mta in mtas for queue_id, tos in mta.acknowledged.items() for to in tos}
    came: dict[tuple[str, str], set[bytes]] = defaultdict(set)
    for reader in readers:
        for unique_id, queue_id in reader.fetched.items():
            came[queue_id, reader.name].add(unique_id)
    attempts = sum(mta.attempts for mta in mtas)
    messages = sum(len(mta.acknowledged) for mta in mtas)
    print(f"{kills} kills, {messages} messages in {attempts} attempts, {len(expected)} copies")
    assert set(came) == expected
    assert {each: len(unique_ids) for each, unique_ids in came.items() if len(unique_ids) > 1} == {}
    assert list(drift.find()) == []
    assert kills > seconds / 2
    assert len(expected) > 4 * seconds
