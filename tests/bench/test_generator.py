"""The load generator believes nothing: it counts octets, lines and replies."""

import re
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.generator import Measured, load, write_users

from .conftest import Conversation

Peer = Callable[[Conversation], int]
MESSAGES = (b"Subject: 1\r\n\r\n.dot\r\n..\r\n.\r\n\r\nend.\r\n", b"Subject: 2\r\n\r\n", b".\r\n")


def stuffed(message: bytes) -> bytes:
    return re.sub(rb"(?m)^\.", b"..", message)


def maildrop(
    messages: Sequence[bytes] = MESSAGES,
    *,
    sizes: Sequence[int] | None = None,
    stuff: Callable[[bytes], bytes] = stuffed,
    piece: int = 65536,
    greeting: bytes = b"+OK ready\r\n",
) -> Conversation:
    """A POP3 server with these messages that writes `piece` octets at a time."""
    listed = sizes or [len(message) for message in messages]

    def converse(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def say(octets: bytes) -> None:
            for start in range(0, len(octets), piece):
                connection.sendall(octets[start : start + piece])

        say(greeting)
        for line in connection.makefile("rb"):
            match line.split():
                case [b"STAT"]:
                    say(b"+OK %d %d\r\n" % (len(messages), sum(listed)))
                case [b"LIST" | b"UIDL" as keyword]:
                    shown = listed if keyword == b"LIST" else range(len(messages))
                    say(b"+OK\r\n" + b"".join(b"%d %d\r\n" % pair for pair in enumerate(shown, 1)) + b".\r\n")
                case [b"RETR", number]:
                    say(b"+OK\r\n" + stuff(messages[int(number) - 1]) + b".\r\n")
                case [b"QUIT"]:
                    say(b"+OK\r\n")
                    return
                case _:
                    say(b"+OK\r\n")

    return converse


def acceptor(
    taken: list[bytes], *, replies: Sequence[bytes] = (b"250 2.0.0 yes\r\n",), commands: list[bytes] | None = None
) -> Conversation:
    """An LMTP server that keeps the messages as they came, and gives these replies to each."""

    def converse(connection: socket.socket) -> None:
        file = connection.makefile("rb")
        connection.sendall(b"220 ready\r\n")
        for line in file:
            if commands is not None:
                commands.append(line)
            if line.startswith(b"LHLO"):
                connection.sendall(b"250-me\r\n250-PIPELINING\r\n250 SIZE 1000000\r\n")
            elif line == b"DATA\r\n":
                connection.sendall(b"354 go on\r\n")
                message = b""
                while (line := file.readline()) != b".\r\n":
                    message += line
                taken.append(message)
                connection.sendall(b"".join(replies))
            else:
                connection.sendall(b"250 2.0.0 yes\r\n")

    return converse


@pytest.fixture
def run(program: Path, tmp_path: Path) -> Callable[..., Measured]:
    users = write_users(tmp_path / "users", [(f"m{number}@bench.test", "secret") for number in range(30)])

    def run(scenario: str, port: int, **options: Any) -> Measured:
        return load(program, scenario, port=port, users=users, **options)

    return run


def test_only_loopback_is_loaded(program: Path, tmp_path: Path) -> None:
    users = write_users(tmp_path / "users", [("m@bench.test", "secret")])
    for address in ("192.0.2.1", "8.8.8.8", "0.0.0.0", "2001:db8::1", "localhost.example"):
        command = [str(program), "poll", "--host", address, "--port", "110", "--users", str(users), "--each", "1"]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert address in refused.stderr


def test_sessions_are_counted_once_each(run: Callable[..., Measured], peer: Peer) -> None:
    measured = run("poll", peer(maildrop()), connections=3, each=4, messages=3)
    assert (measured.operations, measured.errors, measured.connections) == (12, 0, 3)
    assert 0 < measured.p50_ms <= measured.p99_ms <= measured.max_ms


def test_a_run_bounded_by_time_ends_in_time(run: Callable[..., Measured], peer: Peer) -> None:
    measured = run("poll", peer(maildrop()), connections=2, warmup=0.1, seconds=2)
    assert measured.operations > 0
    assert 2 <= measured.seconds < 10
    assert measured.errors == 0


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 7, 65536])
def test_stuffing_is_undone_wherever_the_octets_are_split(run: Callable[..., Measured], peer: Peer, piece: int) -> None:
    measured = run("fetch", peer(maildrop(piece=piece)), connections=1, each=2)
    assert measured.error_samples == ()
    assert measured.octets == 2 * sum(map(len, MESSAGES))


def test_a_message_of_other_octets_than_listed_is_an_error(run: Callable[..., Measured], peer: Peer) -> None:
    wrong = [len(message) for message in MESSAGES]
    wrong[1] += 1
    measured = run("fetch", peer(maildrop(sizes=wrong)), connections=1, seconds=1)
    assert measured.operations == 0
    assert measured.error_samples == ("RETR: message 2 has 14 octets, LIST said 15",)


def test_a_dot_left_unstuffed_is_an_error(run: Callable[..., Measured], peer: Peer) -> None:
    measured = run("fetch", peer(maildrop([b".a\r\n"], stuff=bytes)), connections=1, seconds=1)
    assert measured.operations == 0
    assert "not stuffed" in measured.error_samples[0]


@pytest.mark.parametrize(
    ("greeting", "why"),
    [
        (b"-ERR no\r\n", "greeting: -ERR no"),
        (b"+OK ready\r\n+OK early\r\n", "USER: more than was asked for"),
        (b"+OK ready\n", "greeting: a line that does not end in CRLF"),
    ],
)
def test_a_wrong_reply_is_an_error_and_quoted(
    run: Callable[..., Measured], peer: Peer, greeting: bytes, why: str
) -> None:
    measured = run("poll", peer(maildrop(greeting=greeting)), connections=1, seconds=1)
    assert measured.operations == 0
    assert measured.errors > 0
    assert why in measured.error_samples


def test_an_unexpected_number_of_messages_is_an_error(run: Callable[..., Measured], peer: Peer) -> None:
    measured = run("poll", peer(maildrop()), connections=1, seconds=1, messages=4)
    assert measured.error_samples == ("STAT: 3 messages instead of 4",)


@pytest.mark.parametrize("octets", [2048, 2049, 2125, 2126, 2127, 8000])
def test_delivered_messages_have_exact_octets_and_differ(run: Callable[..., Measured], peer: Peer, octets: int) -> None:
    taken: list[bytes] = []
    measured = run("deliver", peer(acceptor(taken)), connections=2, each=20, octets=octets)
    assert (measured.operations, measured.errors, measured.octets) == (40, 0, 40 * octets)
    messages = [re.sub(rb"(?m)^\.\.", b".", message) for message in taken]
    assert {len(message) for message in messages} == {octets}
    assert sum(message != plain for message, plain in zip(taken, messages, strict=True)) == 2  # one in twenty
    assert all(message.startswith(b"Received: from ") for message in messages)
    assert len({re.search(rb"\n\tby [^;]* id (\w+)\r", message)[1] for message in messages}) == 40  # type: ignore[index]
    assert len({re.search(rb"Message-ID: (\S+)", message)[1] for message in messages}) == 40  # type: ignore[index]
    assert max(len(line) for message in messages for line in message.split(b"\r\n")) <= 998


def test_one_connection_carries_all_messages_as_postfix_does_it(run: Callable[..., Measured], peer: Peer) -> None:
    commands: list[bytes] = []
    yes = b"250 2.0.0 yes\r\n"
    port = peer(acceptor([], replies=[yes] * 3, commands=commands))
    measured = run("deliver", port, connections=1, each=2, octets=4000, recipients=3)
    assert (measured.operations, measured.errors) == (2, 0)
    envelope = [
        b"MAIL FROM:<sender@bench.example> SIZE=4000\r\n",
        *(b"RCPT TO:<m%d@bench.test>\r\n" % number for number in range(3)),
        b"DATA\r\n",
    ]
    assert commands == [b"LHLO mx.bench.example\r\n", *envelope, b"RSET\r\n", *envelope]


def test_each_recipient_must_be_answered(run: Callable[..., Measured], peer: Peer) -> None:
    replies = [b"250 2.1.5 yes\r\n", b"451 4.3.0 later\r\n", b"250 2.1.5 yes\r\n"]
    measured = run("deliver", peer(acceptor([], replies=replies)), connections=1, seconds=1, recipients=3)
    assert measured.operations == 0
    assert measured.error_samples == ("message: 451 4.3.0 later",)
