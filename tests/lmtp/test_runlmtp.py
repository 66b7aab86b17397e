"""`manage.py runlmtp` does what its settings say, in processes of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from accounts import provisioning
from lmtp.management.commands.runlmtp import announced
from lmtp.session import Config
from mailhost import health
from mailstore import drift
from mailstore.models import Listener, Message
from tests.fixtures import Customer
from tests.mailhost.lineserver.running import PATIENCE, eventually, short_directory
from tests.mailstore import post
from tests.servers import free_port
from tests.system import Lmtp, children, resident

PROJECT = Path(__file__).parents[2]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_drifts(transactional_db: None) -> Iterator[None]:
    yield
    assert list(drift.find()) == []


@contextmanager
def running(directory: Path, **variables: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """It runs on the tests' database, at a Unix socket unless it is told another address."""
    parameters = connection.get_connection_params()
    address = variables.setdefault("MAILHOST_LMTP", str(directory / "lmtp"))
    ours = {
        "DATABASE_URL": "postgresql:///{dbname}?host={host}&user={user}&password={password}".format(**parameters),
        "REDIS_URL": settings.REDIS_URL,
        "MAILHOST_DATA": str(directory),
        "MAILHOST_WORKERS": "2",
        "MAILHOST_HOSTNAME": "mail.acme.test",
        "MAILHOST_DEFAULT_DOMAIN": "acme.test",
    }
    environment = os.environ | ours | variables
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "runlmtp"],
            cwd=PROJECT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(
            lambda: process.poll() is not None or Listener.objects.count() == int(environment["MAILHOST_WORKERS"])
        )
        yield address, process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
    log_text = (directory / "log").read_text()
    assert process.returncode == 0, log_text
    assert "Traceback" not in log_text, log_text


@contextmanager
def client_of(address: str) -> Iterator[Lmtp]:
    host, _, port = address.rpartition(":")
    with Lmtp.to(address if "/" in address else (host, int(port))) as client:
        assert client.reply().startswith(b"220 ")
        assert client.told(b"LHLO mta.elsewhere.test").startswith(b"250")
        yield client


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as name:
        yield Path(name)


def test_it_listens_on_tcp_and_is_seen_to(directory: Path, acme: Customer) -> None:
    port = free_port()
    with running(directory, MAILHOST_LMTP=f"127.0.0.1:{port}") as (address, process):
        with client_of(address) as client:
            assert client.deliver(post.text(), "an@acme.test", "postmaster") == [
                b"250 2.1.5 Delivered",
                b"550 5.1.1 No such mailbox",
            ]
        workers = children(process.pid)
        assert {listener.pid for listener in Listener.objects.all()} == set(workers)
        assert {listener.kind for listener in Listener.objects.all()} == {"lmtp"}
        assert health.check()["lmtp"] == "ok"
    [stored] = Message.objects.in_maildrop(acme.mailbox)
    assert b"\tby mail.acme.test with LMTP id " in bytes(stored.trace)


def test_it_listens_at_a_path_that_its_group_may_use(directory: Path, acme: Customer) -> None:
    with running(directory) as (address, _):
        assert Path(address).stat().st_mode & 0o777 == 0o660
        with client_of(address) as client:
            assert client.deliver(post.text(), "an@acme.test") == [b"250 2.1.5 Delivered"]
            assert client.told(b"LHLO again").split(b"\n")[0] == b"250-mail.acme.test"
    assert not Path(address).exists()


def test_it_does_what_its_settings_say(directory: Path, acme: Customer) -> None:
    suspended, full = acme.add("suspended"), acme.add("full", quota_octets=1)
    provisioning.suspend(suspended)
    given = {
        "MAILHOST_MAX_MESSAGE": "2K",
        "MAILHOST_SUSPENDED_REPLY": "550",
        "MAILHOST_OVER_QUOTA_REPLY": "452",
        "MAILHOST_SUBADDRESS": "none",
        "MAILHOST_HOSTNAME": "thư.test",
    }
    with running(directory, **given) as (address, _), client_of(address) as client:
        told = client.told(b"LHLO again").split(b"\n")
        assert told[0] == b"250-xn--th-e0a.test"
        assert b"250-SIZE 2048" in told
        assert client.deliver(post.text(), suspended, full, "an+x@acme.test", "an@acme.test") == [
            b"550 5.2.1 Mailbox is disabled",
            b"452 4.2.2 Mailbox is full, try again later",
            b"550 5.1.1 No such mailbox",
            b"250 2.1.5 Delivered",
        ]
        assert client.deliver(b"x" * 2047 + b"\r\n", "an@acme.test") == [
            b"552 5.3.4 Message is larger than this server takes"
        ]


def test_it_trusts_a_proxy_to_say_who_comes(directory: Path, acme: Customer) -> None:
    port = free_port()
    given = {"MAILHOST_LMTP": f"127.0.0.1:{port}", "MAILHOST_PROXY_NETWORKS": "127.0.0.0/8"}
    with running(directory, **given), Lmtp.to(("127.0.0.1", port)) as client:
        client.send(b"PROXY TCP4 192.0.2.9 127.0.0.1 4242 24\r\n")
        assert client.reply().startswith(b"220 ")
        client.told(b"LHLO mta")
        assert client.deliver(post.text(), "an@acme.test") == [b"250 2.1.5 Delivered"]
    [stored] = Message.objects.in_maildrop(acme.mailbox)
    assert b"Received: from mta ([192.0.2.9])\r\n" in bytes(stored.trace)


@pytest.mark.parametrize("line", [b"\r\n", b"x" * 998 + b"\r\n", b"\n"])
def test_many_large_messages_at_once_take_little_memory(directory: Path, acme: Customer, line: bytes) -> None:
    many, octets = 8, 12_000_000
    message = line * (octets // len(line))

    def send(number: int) -> bytes:
        with client_of(str(directory / "lmtp")) as client:
            for command in (b"MAIL FROM:<>", b"RCPT TO:<an@acme.test>", b"DATA"):
                client.told(command)
            client.send(message + b"\r\n.\r\n")
            return client.reply()

    with running(directory, MAILHOST_WORKERS="1") as (_, process), ThreadPoolExecutor(many) as threads:
        [worker] = children(process.pid)
        send(0)
        before, most = resident(worker), 0
        sending = [threads.submit(send, number) for number in range(many)]
        while not all(each.done() for each in sending):
            most = max(most, resident(worker))
            time.sleep(0.01)
        assert [each.result() for each in sending] == [b"250 2.1.5 Delivered"] * many
        assert most - before < many * 3_000_000
        assert not list((directory / "spool").iterdir())


def test_where_it_cannot_listen_it_says_so(directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "runlmtp"],
        cwd=PROJECT,
        env=os.environ | {"MAILHOST_LMTP": str(directory / "nowhere" / "lmtp"), "MAILHOST_DATA": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "nowhere/lmtp" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("hostname", "said"),
    [
        ("mail.acme.test", "mail.acme.test"),
        ("vm", "vm"),
        ("my_host", "my_host"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("thư.test", "xn--th-e0a.test"),
        ("two words", "localhost"),
        ("evil\r\n250 x", "localhost"),
        ("", "localhost"),
        ("x" * 256, "localhost"),
    ],
)
def test_it_calls_itself_by_a_name_that_can_be_said(hostname: str, said: str) -> None:
    assert announced(hostname) == said
    assert Config(host=said, message_limit=1)
