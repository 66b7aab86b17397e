"""Limits of time and number."""

import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mailhost.lineserver.running import Client, Server, eventually


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[str, str]) -> Iterator[Server]:
    """Allows three strangers per address, and half a second of silence."""
    with Server(
        tmp_path_factory.mktemp("strict"),
        ("", "/tls"),
        tls=certificate,
        connections_per_address=3,
        idle_limit=0.5,
        established=False,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[str, str]) -> Iterator[Server]:
    """Allows half a second to log in."""
    directory = tmp_path_factory.mktemp("hurried")
    with Server(directory, ("", "/tls"), tls=certificate, login_seconds=0.5, established=False) as running:
        yield running


def test_an_idle_client_is_told_and_closed(strict: Server) -> None:
    with strict.client() as client:
        started = time.monotonic()
        assert client.ask(b"login") == b"+in"
        assert client.rest() == b"-bye IDLE\r\n"
        assert 0.5 <= time.monotonic() - started < 3


def test_who_says_something_now_and_then_is_not_idle(tmp_path: Path) -> None:
    with Server(tmp_path / "server", idle_limit=1.5) as server, server.client() as client:
        for _ in range(8):
            time.sleep(0.25)
            assert client.ask(b"say x") == b"+x"
        client.send(b"data 100\r\n")
        assert client.line() == b"+go on"
        for _ in range(100):
            time.sleep(0.02)
            client.send(b"x")
        assert client.line().startswith(b"+took")


def test_a_line_that_never_ends_is_silence(strict: Server) -> None:
    with strict.client() as client:
        client.ask(b"login")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                client.send(b"x")
                time.sleep(0.1)
            pytest.fail("it was never closed")


def test_a_client_that_waits_for_its_reply_is_not_idle(strict: Server) -> None:
    with strict.client() as client:
        client.send(b"login\r\nslowly 1.2 x\r\nsay y\r\n")
        assert [client.line(), client.line(), client.line()] == [b"+in", b"+x", b"+y"]


def test_time_to_log_in_is_not_prolonged_by_talk(hurried: Server) -> None:
    started = time.monotonic()
    with hurried.client() as client:
        replies = []
        while (reply := client.ask(b"say x")) == b"+x":
            replies.append(reply)
            time.sleep(0.05)
        assert reply == b"-bye IDLE"
        assert 0.5 <= time.monotonic() - started < 3


def test_a_handshake_counts_as_time_to_log_in(hurried: Server) -> None:
    with Client.to(hurried.address(1)) as client:
        assert client.rest() == b""


def test_strangers_from_one_address_are_limited_until_they_are_known(strict: Server) -> None:
    strict.settled()
    with contextlib.ExitStack() as stack:
        known = [stack.enter_context(strict.client()) for _ in range(3)]
        for client in known:
            assert client.ask(b"login") == b"+in"
        for _ in range(3):
            stack.enter_context(strict.client())
        refused = stack.enter_context(Client.to(strict.address()))
        assert refused.rest() == b"-bye TOO_MANY\r\n"
        refused_in_tls = stack.enter_context(Client.to(strict.address(1)))
        assert refused_in_tls.rest() == b""
        elsewhere = stack.enter_context(Client.to(strict.address(), source="127.0.0.9"))
        assert elsewhere.line() == b"+hello"
    strict.settled()
    with strict.client(), strict.client(), strict.client(1):
        pass


def test_connections_in_all_are_limited(tmp_path: Path) -> None:
    with Server(tmp_path / "server", max_connections=5) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(server.client())
            assert stack.enter_context(Client.to(server.address())).rest() == b"-bye TOO_MANY\r\n"
        server.settled()
        with server.client() as client:
            assert client.ask(b"say x") == b"+x"
        eventually(lambda: "Refused 1 connections" in server.log())


def test_two_thousand_at_once_are_served(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2500:
        pytest.skip("the limit of open files is too low")
    if soft != resource.RLIM_INFINITY and soft < 2500:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2500, hard))
    try:
        before = server.resident()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client.to(server.address())) for _ in range(2000)]
            for number, client in enumerate(clients):
                client.send(b"say %d\r\nslowly 0.2 x\r\n" % number)
            for number, client in enumerate(clients):
                assert [client.line(), client.line(), client.line()] == [b"+hello", b"+%d" % number, b"+x"]
            assert server.resident() - before < 2000 * 16 * 1024
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    server.settled()
