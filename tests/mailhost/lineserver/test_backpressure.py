"""Clients that ask and do not read: they cost little, and not for ever."""

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mailhost.lineserver.running import Client, Server, eventually

MIB = 1 << 20


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[str, str]) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("impatient")
    with Server(directory, ("", "/tls"), tls=certificate, stall_seconds=0.5) as running:
        yield running


@contextlib.contextmanager
def that_takes_little(server: Server, endpoint: int = 0) -> Iterator[Client]:
    """A client with a small receive buffer, so that what it leaves unread soon stands at the server."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.connect(server.address(endpoint))
    with Client(small) as client:
        if endpoint:
            client.secure()
        assert client.line() == b"+hello"
        yield client


@pytest.mark.parametrize("endpoint", [0, 1])
@pytest.mark.parametrize("line", [b"stream 16\r\n", b"blob 50000\r\n"])
def test_a_hundred_thousand_commands_and_nothing_read_cost_bounded_memory(
    server: Server, endpoint: int, line: bytes
) -> None:
    with server.client(endpoint) as other, that_takes_little(server, endpoint) as client:
        before = server.resident()
        client.socket.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            client.send(line * 100_000)
            client.send(line * 1_000_000)
        assert server.resident() - before < 8 * MIB
        started = time.monotonic()
        assert other.ask(b"say hello") == b"+hello"
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("endpoint", [0, 1])
def test_a_slow_reader_gets_everything_in_constant_memory(server: Server, endpoint: int) -> None:
    with that_takes_little(server, endpoint) as client:
        before = server.resident()
        client.send(b"stream 400\r\nsay done\r\n")
        received = bytearray()
        peak = 0
        while not received.endswith(b".\r\n+done\r\n"):
            received += client.socket.recv(200_000)
            if len(received) % 50 == 0:
                peak = max(peak, server.resident())
        assert received == b"x" * 65536 * 400 + b".\r\n+done\r\n"
        assert peak - before < 8 * MIB


@pytest.mark.parametrize("endpoint", [0, 1])
@pytest.mark.parametrize("command", [b"stream 999\r\n", b"blob 9000000\r\nquit\r\n", b"blob 9000000\r\n"])
def test_who_reads_nothing_at_all_is_cut_off(impatient: Server, endpoint: int, command: bytes) -> None:
    before = impatient.settled()
    with that_takes_little(impatient, endpoint) as client:
        client.send(command)
        eventually(lambda: impatient.noted().count("closed") == before["closed"] + 1)
    assert impatient.settled()["reset"] == before["reset"] + command.startswith(b"stream")


def test_who_reads_a_little_now_and_then_is_not_cut_off(tmp_path: Path) -> None:
    with Server(tmp_path / "server", stall_seconds=2) as server, that_takes_little(server) as client:
        client.send(b"stream 60\r\n")
        started = time.monotonic()
        while time.monotonic() - started < 3:
            assert client.socket.recv(16384)
            time.sleep(0.05)
        client.send(b"quit\r\n")
        assert client.rest().endswith(b".\r\n+bye\r\n")


def test_the_client_may_go_in_the_middle_of_a_stream(server: Server) -> None:
    before = server.settled()
    for _ in range(10):
        with that_takes_little(server) as client:
            client.send(b"stream 999\r\n")
            client.socket.recv(1)
    assert server.settled()["reset"] == before["reset"] + 10


def test_a_step_learns_of_a_broken_connection_by_its_next_send(server: Server) -> None:
    before, log = server.settled(), server.log()
    with server.client() as client:
        client.send(b"drip 1\r\n")
        time.sleep(0.03)
        client.send(b"say x\r\n")  # From here on the server does not read, and sees a reset only as it writes.
        time.sleep(0.03)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.settled()["reset"] == before["reset"] + 1
    assert "Traceback" not in server.log().removeprefix(log)  # it is no fault
