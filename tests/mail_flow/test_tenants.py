"""Two tenants at once: every message is fetched once, octet by octet, by the one it was for."""

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from accounts.models import Mailbox
from mailstore.models import Message
from tests.fixtures import PASSWORD, Customer
from tests.system import LmtpListener, Pop3Listener, System

TRACE = re.compile(
    rb"Return-Path: <sender@elsewhere\.test>\r\n"
    rb"Delivered-To: (\S+)\r\n"
    rb"Received: from mta\.elsewhere\.test \(\[127\.0\.0\.1\]\)\r\n\tby \S+ with LMTP id \S+;\r\n\t[^\r\n]+\r\n"
)
SECONDS = 60  # by then it is over, or something is stuck


def letters(count: int, *, seed: int) -> Iterator[bytes]:
    """Different messages: short and long, with dots, bare CRs, NULs, 8-bit octets, empty lines and no header."""
    chance = random.Random(seed)
    lines = [b".", b"..", b".hidden", b"", b"", b"text", b"a\0b", b"a\rb", bytes(range(128, 256)), b"x" * 2000]
    for number in range(count):
        header = chance.choice([b"", b"Subject: %d of %d\r\n" % (number, seed)])
        body = b"".join(chance.choice(lines) + b"\r\n" for _ in range(chance.choice([0, 1, 5, 50])))
        if number % 12 == 7:
            body *= 4 + 400_000 // max(1, len(body))  # it lies in chunks
        yield header + b"\r\n%d.%d\r\n" % (seed, number) + body


def test_nothing_crosses_and_everything_is_fetched_once(system: System, pop3: Pop3Listener, lmtp: LmtpListener) -> None:
    customers = [system.customer(slug, mailboxes=3) for slug in ("acme", "globex")]
    mailboxes = [box for customer in customers for box in Mailbox.objects.filter(tenant=customer.tenant)]
    names = [str(mailbox) for mailbox in mailboxes]
    sent: dict[str, Counter[bytes]] = {name: Counter() for name in names}
    fetched: dict[str, Counter[bytes]] = {name: Counter() for name in names}
    deadline = time.monotonic() + SECONDS
    delivered = threading.Event()

    def send(seed: int) -> list[tuple[str, bytes]]:
        """Deliver to one, two or all at once, of both tenants; several messages in one connection."""
        chance = random.Random(seed)
        done = []
        with lmtp.client() as client:
            for message in letters(40, seed=seed):
                to = chance.sample(names, chance.choice([1, 1, 2, len(names)]) if len(message) < 99_999 else 2)
                replies = client.deliver(message, *to, reverse_path="sender@elsewhere.test")
                assert [reply[:3] for reply in replies] == [b"250"] * len(to)
                done += [(name, message) for name in to]
        return done

    def fetch(name: str) -> None:
        """Download and delete, again and again, until nothing comes any more."""
        while True:
            last = delivered.is_set()
            with pop3.client() as client:
                assert client.log_in(name, PASSWORD).startswith(b"+OK")
                sizes = client.sizes()
                for number, octets in enumerate(sizes, 1):
                    message = client.retrieve(number)
                    assert len(message) == octets
                    trace = TRACE.match(message)
                    assert trace, message[:300]
                    assert trace[1].decode() == name
                    fetched[name][message[trace.end() :]] += 1
                    assert client.ask(b"DELE %d" % number).startswith(b"+OK")
                assert client.ask(b"QUIT").startswith(b"+OK")
            if last and not sizes:
                return
            assert time.monotonic() < deadline

    with ThreadPoolExecutor(len(names) + 4) as threads:
        fetching = [threads.submit(fetch, name) for name in names]
        try:
            for done in threads.map(send, range(4)):
                for name, message in done:
                    sent[name][message] += 1
        finally:
            delivered.set()
        for each in fetching:
            each.result()

    assert fetched == sent
    assert sum(map(Counter.total, sent.values())) > 200
    assert not Message.objects.in_maildrop().filter(mailbox__in=mailboxes).exists()


def test_the_same_local_part_in_two_domains_is_two_mailboxes(
    pop3: Pop3Listener, lmtp: LmtpListener, acme: Customer, globex: Customer
) -> None:
    """One message to both: each has a copy, removes its own, and knows nothing of the other's."""
    message = b"Subject: to both\r\n\r\nhello\r\n"
    replies = lmtp.deliver(message, acme.mailbox, globex.mailbox)
    assert [reply[:3] for reply in replies] == [b"250"] * 2
    with pop3.session(acme.mailbox) as here, pop3.session(globex.mailbox) as there:
        assert set(here.unique_ids()).isdisjoint(there.unique_ids())
        here.ask(b"DELE 1")
        assert here.ask(b"QUIT").startswith(b"+OK")
        copy = there.retrieve(1)
        assert copy.endswith(message)
        assert str(acme.domain).encode() not in copy
    with pop3.client() as client:
        assert client.log_in(f"an@{globex.domain}", "not this one's").startswith(b"-ERR [AUTH]")
