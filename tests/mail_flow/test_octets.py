"""Any octets, however they come and however slowly they are read: framing, memory and other clients survive."""

import contextlib
import random
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from mailstore.models import Message
from tests.fixtures import Customer
from tests.mailstore import post
from tests.system import Listener, LmtpListener, Pop3, Pop3Listener, System, add_mailbox, elapsed

MIB = 1024 * 1024


@contextmanager
def watched(listener: Listener, *, growth: int) -> Iterator[None]:
    """No worker's memory may grow by more than so many octets meanwhile."""
    before, worst, over = listener.resident(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            worst.append(listener.resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    print(f"the largest worker grew by {max(worst) / MIB:.1f} MiB from {before / MIB:.1f} MiB")
    assert max(worst) < growth


def serves(listener: Pop3Listener, customer: Customer) -> None:
    """Somebody else gets in, and soon."""
    began = time.monotonic()
    with listener.session(customer.mailbox) as session:
        assert session.ask(b"QUIT").startswith(b"+OK")
    assert elapsed(began) < 5


@pytest.fixture(scope="module")
def one(system: System) -> Iterator[Pop3Listener]:
    """A listener with one worker, in which all of this must happen beside each other."""
    with system.pop3(MAILHOST_WORKERS="1") as listener:
        yield listener
        assert "Traceback" not in listener.log, listener.log


# What is sent.


def test_an_overlong_line_is_refused_once_and_none_of_it_is_executed(one: Pop3Listener, acme: Customer) -> None:
    post.fill(acme.mailbox, [post.text()])
    with one.session(acme.mailbox) as client:
        client.send(b"NOOP " + b"x" * 1000 + b" DELE 1\r\nSTAT\r\n")
        assert client.line().startswith(b"-ERR")
        assert client.line().startswith(b"+OK 1 ")


def test_a_line_without_an_end_is_cut_off(one: Pop3Listener) -> None:
    with one.client() as client:
        with contextlib.suppress(OSError):
            for _ in range(1000):
                client.send(b"x" * 1000)
        assert set(client.rest().split(b"\r\n")) <= {b"-ERR line too long", b""}


@pytest.mark.parametrize(
    "line", [b"DELE 1\0", b"DELE \x001", b"DELE\xff1", b"RETR 1\x1b[A", b"\0\0\0\0", b"LIST 1\x85", "DELE １".encode()]
)
def test_octets_that_no_command_has_are_an_error(one: Pop3Listener, acme: Customer, line: bytes) -> None:
    post.fill(acme.mailbox, [post.text()])
    with one.session(acme.mailbox) as client:
        assert client.ask(line).startswith(b"-ERR")
        assert client.ask(b"STAT").startswith(b"+OK 1 ")


def test_it_is_the_same_however_it_is_split(one: Pop3Listener, acme: Customer) -> None:
    dialogue = f"USER {acme.mailbox}\r\nPASS hutech123\r\nSTAT\r\nNOOP\r\nDELE 2\r\nLIST\r\nTOP 1 1\r\nRSET\r\nQUIT\r\n"
    octets = dialogue.encode()
    post.fill(acme.mailbox, [post.text("one", body=".\r\n..\r\n"), post.text("two")])
    seen = set()
    chance = random.Random(2)
    for cuts in [[], range(1, len(octets)), *(sorted(chance.sample(range(len(octets)), 9)) for _ in range(6))]:
        with one.client() as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            begin = 0
            for end in [*cuts, len(octets)]:
                client.send(octets[begin:end])
                begin = end
                if len(cuts) < 10:
                    time.sleep(0.01)
            seen.add(client.rest())
    [replies] = seen
    assert replies.count(b"\r\n") > 15


def test_500_commands_in_one_packet_are_answered_in_order(one: Pop3Listener, acme: Customer) -> None:
    messages = post.fill(
        acme.mailbox, [post.text(f"message {number}", body="x" * number + "\r\n") for number in range(20)]
    )
    with one.session(acme.mailbox) as client:
        numbers = [1 + number * 7 % 20 for number in range(500)]
        client.send(b"".join(b"LIST %d\r\n" % number for number in numbers))
        expected = [b"+OK %d %d" % (number, messages[number - 1].octets) for number in numbers]
        assert [client.line() for _ in numbers] == expected


def test_noise_breaks_nothing(one: Pop3Listener, acme: Customer) -> None:
    chance = random.Random(1939)
    words = [b"USER an", b"PASS x", b"AUTH PLAIN", b"AUTH LOGIN", b"*", b"=", b"STLS", b"CAPA", b"RETR 1", b"QUIT", b""]
    with watched(one, growth=20 * MIB):
        for _ in range(60):
            with one.client() as client, contextlib.suppress(OSError):
                for _ in range(chance.randrange(20)):
                    noise = chance.randbytes(chance.randrange(400))
                    client.send(chance.choice([noise, chance.choice(words) + b"\r\n", b"\r\n" * 50, b"\0" * 300]))
    serves(one, acme)


# What is not read.


def test_who_asks_for_everything_and_reads_nothing_costs_one_buffer(one: Pop3Listener, acme: Customer) -> None:
    greedy = add_mailbox(acme, "greedy")
    post.fill(greedy, [post.text("in one piece", body="x" * 78 + "\r\n"), post.text(body="line\r\n" * 30_000)])
    post.fill(greedy, [post.text("large", body="all work and no play\r\n" * 50_000)])
    with watched(one, growth=24 * MIB), one.session(greedy) as client:
        client.socket.settimeout(0.5)
        asking = b"RETR 3\r\nRETR 2\r\nTOP 3 99999\r\nUIDL\r\n" * 10_000
        with pytest.raises(TimeoutError):  # at some point it takes no more commands either
            client.send(asking * 20)
        for _ in range(5):
            serves(one, acme)
        time.sleep(0.5)


def test_a_50_mb_message_comes_in_and_goes_out_in_bounded_memory(
    system: System, one: Pop3Listener, lmtp: LmtpListener, acme: Customer
) -> None:
    line = b"all work and no play makes jack a dull boy".ljust(76, b".") + b"\r\n"
    message = post.text("50 MB") + line * (50_000_000 // len(line))
    with watched(lmtp, growth=24 * MIB):
        assert lmtp.deliver(message, acme.mailbox)[0].startswith(b"250")
    with watched(one, growth=24 * MIB), Pop3(slow_socket(one)) as client:
        client.line()
        client.log_in(acme.mailbox)
        client.send(b"RETR 1\r\n")
        octets = Message.objects.get(mailbox=acme.mailbox).octets
        assert client.line() == b"+OK %d octets" % octets
        for _ in range(20):
            time.sleep(0.03)
            client.taste(20_000)
        received = client.octets()
        assert len(received) == octets
        assert received.endswith(message)


def test_32_mb_of_empty_lines_come_in_in_bounded_memory(lmtp: LmtpListener, acme: Customer) -> None:
    """A server that made a list of lines took forty times the message."""
    message = post.text("nothing") + b"\r\n" * (16 * MIB)
    began = time.monotonic()
    with watched(lmtp, growth=24 * MIB):
        assert lmtp.deliver(message, acme.mailbox)[0].startswith(b"250")
    print(f"it took {elapsed(began):.1f} s")
    assert Message.objects.get(mailbox=acme.mailbox).octets > len(message)


def test_a_message_over_the_limit_is_refused_and_the_connection_stays(system: System, acme: Customer) -> None:
    with system.lmtp(MAILHOST_MAX_MESSAGE="1M") as listener, listener.client() as client:
        assert client.told(b"MAIL FROM:<> SIZE=2000000").startswith(b"552 5.3.4")
        assert client.deliver(post.text() + b"x\r\n" * MIB, acme.mailbox)[0].startswith(b"552 5.3.4")
        assert client.deliver(post.text("small"), acme.mailbox)[0].startswith(b"250")
    assert [message.subject for message in Message.objects.in_maildrop(acme.mailbox)] == ["small"]


def slow_socket(listener: Pop3Listener) -> socket.socket:
    """A connection on which hardly anything is on its way unread."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    client.connect(listener.address)
    return client


# How many come.


def test_2000_connections_at_once(system: System, acme: Customer) -> None:
    crowd = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < crowd + 500:
        pytest.skip(f"the limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, crowd + 500), hard))
    with system.pop3() as listener, ExitStack() as until_the_end, watched(listener, growth=64 * MIB):
        began = time.monotonic()
        clients = []
        for number in range(crowd):
            clients.append(Pop3.to(listener.address, source=f"127.4.{number % 16}.1"))
            until_the_end.enter_context(clients[-1])
        assert {client.line() for client in clients} == {b"+OK POP3 server ready"}
        print(f"{crowd} were greeted after {elapsed(began):.2f} s")
        serves(listener, acme)
        for client in clients:
            client.send(b"CAPA\r\nQUIT\r\n")
        assert all(b"signing off" in client.rest() for client in clients)
