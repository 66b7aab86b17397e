"""PostgreSQL and Redis die, restart and hang under running listeners, which are never restarted."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from accounts.models import Mailbox
from mailstore.models import Message
from tests.fixtures import Customer
from tests.mailstore import post
from tests.system import LmtpListener, Pop3Listener, System, add_mailbox, elapsed

DEADLINE = 10.0
"""Seconds after which a client has its answer, whatever has become of the servers."""
ENDS = [signal.SIGKILL, signal.SIGINT]
"""How PostgreSQL ends: killed, or stopped in order ("fast")."""

numbers = count(1)


@pytest.fixture(scope="module")
def listeners(system: System) -> Iterator[tuple[Pop3Listener, LmtpListener]]:
    """One of each, for all of these tests."""
    with system.pop3(MAILHOST_THROTTLE="on") as pop3, system.lmtp() as lmtp:
        yield pop3, lmtp
        # A database that is away is no fault of the program.
        assert "Traceback" not in pop3.log, pop3.log
        assert "Traceback" not in lmtp.log, lmtp.log


@pytest.fixture
def pop3(listeners: tuple[Pop3Listener, LmtpListener]) -> Pop3Listener:
    return listeners[0]


@pytest.fixture
def lmtp(listeners: tuple[Pop3Listener, LmtpListener]) -> LmtpListener:
    return listeners[1]


def letter(name: str, *, octets: int = 300) -> bytes:
    """A message that an MTA queued under this name."""
    line = "all work and no play makes jack a dull boy\r\n"
    return post.text(name, body=line * (octets // len(line)), queue_id=name.replace(" ", ""))


def subjects(mailbox: Mailbox) -> list[str]:
    return [message.subject for message in Message.objects.in_maildrop(mailbox).order_by("uid")]


def handed_over(lmtp: LmtpListener, message: bytes, mailbox: Mailbox) -> None:
    """An MTA tries until it succeeds."""
    deadline = time.monotonic() + DEADLINE
    while not (told := lmtp.deliver(message, mailbox)[0]).startswith(b"250"):
        assert told.startswith(b"451"), told
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


def works(pop3: Pop3Listener, lmtp: LmtpListener, customer: Customer) -> None:
    """Whatever happened before: mail is taken and fetched, by the listeners that run."""
    before = len(subjects(customer.mailbox))
    message = letter(f"works {next(numbers)}")
    handed_over(lmtp, message, customer.mailbox)
    with pop3.open(customer.mailbox, within=DEADLINE) as session:
        assert session.retrieve(before + 1).endswith(message)
        session.ask(b"DELE %d" % (before + 1))
        assert session.ask(b"QUIT").startswith(b"+OK")


def test_without_the_database_everybody_is_told_so_in_time(
    system: System, pop3: Pop3Listener, lmtp: LmtpListener, acme: Customer
) -> None:
    """QUIT removes nothing and does not say it did; mail is deferred, never refused for good."""
    another = acme.add("b")
    post.fill(acme.mailbox, [letter("one"), letter("two")])
    with pop3.session(acme.mailbox) as session, pop3.client() as newcomer, lmtp.client() as mta, lmtp.client() as early:
        session.retrieve(1)
        session.ask(b"DELE 1")
        newcomer.ask(f"USER {acme.mailbox}".encode())
        early.told(b"MAIL FROM:<a@elsewhere.test>")
        mta.told(b"MAIL FROM:<a@elsewhere.test>")
        for mailbox in (acme.mailbox, another):
            assert mta.told(f"RCPT TO:<{mailbox}>".encode()).startswith(b"250")
        assert mta.told(b"DATA").startswith(b"354")
        with system.without_postgres():
            began = time.monotonic()
            session.send(b"QUIT\r\n")
            newcomer.send(b"PASS hutech123\r\n")
            early.send(f"RCPT TO:<{acme.mailbox}>\r\n".encode())
            mta.send(letter("deferred") + b".\r\n")
            assert session.line().startswith(b"-ERR [SYS/TEMP]")
            assert session.rest() == b""
            assert newcomer.line().startswith(b"-ERR [SYS/TEMP]")
            assert early.reply().startswith(b"451 4.3.0")
            assert [mta.reply()[:9] for _ in range(2)] == [b"451 4.3.0"] * 2  # one for each recipient
            print(f"the last was told so after {elapsed(began):.2f} s")
            assert elapsed(began) < DEADLINE
        works(pop3, lmtp, acme)
        assert mta.deliver(letter("deferred"), acme.mailbox, another)[1].startswith(b"250")
    assert subjects(acme.mailbox) == ["one", "two", "deferred"]
    assert subjects(another) == ["deferred"]


@pytest.mark.parametrize("how", ENDS)
def test_a_database_restart_in_the_middle_of_everything(
    system: System, pop3: Pop3Listener, lmtp: LmtpListener, acme: Customer, how: signal.Signals
) -> None:
    """Between RETR and QUIT, within RETR, and within DATA of a small and a large message."""
    large = letter("large", octets=6_000_000)
    arriving = {name: letter(name, octets=octets) for name, octets in (("small", 300), ("big", 3_000_000))}
    reader, inbox = add_mailbox(acme, "reader"), acme.add("inbox")
    post.fill(acme.mailbox, [letter("one", octets=400_000), letter("two", octets=400_000), letter("three")])
    post.fill(reader, [large])
    with ExitStack() as until_the_end:
        session, reading = (until_the_end.enter_context(pop3.session(box)) for box in (acme.mailbox, reader))
        session.retrieve(1)
        session.ask(b"DELE 1")
        reading.send(b"RETR 1\r\n")
        assert reading.line().startswith(b"+OK")
        mtas = [until_the_end.enter_context(lmtp.client()) for _ in arriving]
        for mta, message in zip(mtas, arriving.values(), strict=True):
            mta.told(b"MAIL FROM:<binh@elsewhere.test>")
            assert mta.told(f"RCPT TO:<{inbox}>".encode()).startswith(b"250")
            mta.told(b"DATA")
            mta.send(message[: len(message) // 2])

        system.restart_postgres(how)

        for mta, message in zip(mtas, arriving.values(), strict=True):
            mta.send(message[len(message) // 2 :] + b".\r\n")
        told = [mta.reply() for mta in mtas]
        assert session.retrieve(2).endswith(letter("two", octets=400_000))
        session.ask(b"DELE 2")
        goodbye = session.ask(b"QUIT")
        # Either the whole message comes, or the connection ends without the end of one.
        with contextlib.suppress(ConnectionError):
            assert reading.octets().endswith(large)

    assert goodbye.startswith((b"+OK POP3 server signing off", b"-ERR [SYS/TEMP]")), goodbye
    assert subjects(acme.mailbox) == ["three"] if goodbye.startswith(b"+OK") else ["one", "two", "three"]
    assert subjects(reader) == ["large"]
    assert {reply[:3] for reply in told} <= {b"250", b"451"}, told
    stored = {name for name, reply in zip(arriving, told, strict=True) if reply.startswith(b"250")}
    assert set(subjects(inbox)) == stored
    # An MTA that tries again makes no second copy.
    for message in arriving.values():
        handed_over(lmtp, message, inbox)
    assert sorted(subjects(inbox)) == sorted(arriving)
    works(pop3, lmtp, acme)


def test_what_was_acknowledged_outlives_a_kill_at_once(
    system: System, pop3: Pop3Listener, lmtp: LmtpListener, acme: Customer
) -> None:
    """A delivery's 250 and the +OK of a QUIT that removed something come after their commits."""
    removed, kept = letter("removed"), letter("kept")
    handed_over(lmtp, removed, acme.mailbox)
    with pop3.session(acme.mailbox) as session, lmtp.client() as mta:
        session.retrieve(1)
        session.ask(b"DELE 1")
        [told] = mta.deliver(kept, acme.mailbox)
        assert session.ask(b"QUIT").startswith(b"+OK")
        system.restart_postgres()
    assert told.startswith(b"250")
    assert subjects(acme.mailbox) == ["kept"]
    for message in (removed, kept):  # lost answers would make an MTA do this
        handed_over(lmtp, message, acme.mailbox)
    assert subjects(acme.mailbox) == ["kept"]


def test_without_redis_everything_goes_on(
    system: System, pop3: Pop3Listener, lmtp: LmtpListener, acme: Customer
) -> None:
    with system.without_redis():
        for _ in range(2):
            began = time.monotonic()
            works(pop3, lmtp, acme)
            assert elapsed(began) < DEADLINE
        with pop3.client() as client:
            assert client.log_in(acme.mailbox, "wrong").startswith(b"-ERR [AUTH]")
    works(pop3, lmtp, acme)


def test_a_redis_that_hangs_delays_a_login_but_little(
    system: System, pop3: Pop3Listener, lmtp: LmtpListener, acme: Customer
) -> None:
    pid = system.servers.redis_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pop3.session(acme.mailbox) as session:
            print(f"signed in after {elapsed(began):.2f} s")
            assert elapsed(began) < 5
            session.ask(b"QUIT")
    finally:
        os.kill(pid, signal.SIGCONT)


def test_guessing_is_slowed_without_redis_too(system: System, pop3: Pop3Listener, acme: Customer) -> None:
    with system.without_redis(), pop3.client(source="127.0.7.1") as client:
        took = []
        for number in range(4):
            began = time.monotonic()
            assert client.log_in(acme.mailbox, f"guess{number}").startswith(b"-ERR [AUTH]")
            took.append(elapsed(began))
    assert took[-1] > min(took) + 0.9
