"""The running system for end-to-end tests: listeners in processes of their own, on servers of their own."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Self

import redis
import trustme
from django.core.management import call_command
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg.conninfo import conninfo_to_dict

from accounts import provisioning, throttle
from accounts.models import Mailbox
from mailstore.models import MaildropSession
from tests.fixtures import PASSWORD, Customer
from tests.mailhost.lineserver.running import PATIENCE, Client, alive, eventually
from tests.servers import Servers

PROJECT = Path(__file__).parents[1]
Address = tuple[str, int]


class Pop3(Client):
    """A POP3 client that does nothing by itself."""

    def many(self, line: bytes) -> list[bytes]:
        """The lines of a multi-line reply, un-stuffed."""
        self.send(line + b"\r\n")
        return self.body().split(b"\r\n")[:-1]

    def body(self) -> bytes:
        """The octets of the multi-line reply that comes next, un-stuffed (RFC 1939 section 3)."""
        first = self.line()
        assert first.startswith(b"+OK"), first
        return self.octets()

    def octets(self) -> bytes:
        """What follows the first line of a multi-line reply, un-stuffed. Raises `ConnectionError` if it has no end."""
        received = bytearray(b"\r\n" + self._unread)
        end = received.find(b"\r\n.\r\n")
        while end < 0:
            octets = self.socket.recv(1 << 20)
            if not octets:
                raise ConnectionAbortedError(f"closed within a reply, after {len(received)} octets")
            searched = max(0, len(received) - 4)
            received += octets
            end = received.find(b"\r\n.\r\n", searched)
        self._unread = bytes(received[end + 5 :])
        return bytes(received[: end + 2]).replace(b"\r\n..", b"\r\n.")[2:]

    def log_in(self, mailbox: Mailbox | str, password: str = PASSWORD) -> bytes:
        """The reply to PASS."""
        assert self.ask(f"USER {mailbox}".encode()).startswith(b"+OK")
        return self.ask(f"PASS {password}".encode())

    def taste(self, octets: int) -> None:
        """Read so much and no more, to be made sense of later."""
        self._unread += self.socket.recv(octets)

    def retrieve(self, number: int) -> bytes:
        """A message's octets."""
        self.send(b"RETR %d\r\n" % number)
        return self.body()

    def sizes(self) -> list[int]:
        """What LIST says of each message."""
        return [int(line.split()[1]) for line in self.many(b"LIST")]

    def unique_ids(self) -> list[bytes]:
        """What UIDL says of each message."""
        return [line.split()[1] for line in self.many(b"UIDL")]


class Lmtp(Client):
    """An LMTP client that does nothing by itself."""

    def reply(self) -> bytes:
        """The next reply, its lines joined."""
        lines = [self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(self.line())
        return b"\n".join(lines)

    def told(self, line: bytes) -> bytes:
        """The reply to a line."""
        self.send(line + b"\r\n")
        return self.reply()

    def deliver(self, message: bytes, *to: Mailbox | str, reverse_path: str = "binh@elsewhere.test") -> list[bytes]:
        """Hand a message over, and return the last reply for each recipient."""
        told = self.told(f"MAIL FROM:<{reverse_path}>".encode())
        assert told.startswith(b"250"), told
        replies = [self.told(f"RCPT TO:<{one}>".encode()) for one in to]
        accepted = [index for index, reply in enumerate(replies) if reply.startswith(b"250")]
        if not accepted:
            self.told(b"RSET")
            return replies
        told = self.told(b"DATA")
        assert told.startswith(b"354"), told
        self.send(stuffed(message))
        for index in accepted:
            replies[index] = self.reply()
        return replies


def stuffed(message: bytes) -> bytes:
    """A message that ends in CRLF, as DATA sends it."""
    return (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


class Listener:
    """One `manage.py runpop3` or `runlmtp`: a parent process and its workers. A context manager."""

    command: str

    def __init__(self, system: "System", variables: dict[str, str]) -> None:
        self._system = system
        self._environment = system.environment | variables
        self.log_file = system.directory / f"{self.command}-{next(system.numbers)}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process
        return self._process

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", self.command],
                cwd=PROJECT,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait(self.answers)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end, and return its exit code."""
        self.process.send_signal(how)
        return self.process.wait(60)

    def end(self) -> None:
        """Make sure that it has ended."""
        if self._process is None:
            return
        if self._process.poll() is None:
            for worker in self.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Stop it in order and start it again at the same address."""
        assert self.stop() == 0, self.log
        self.start()

    def workers(self) -> list[int]:
        """The process ids of its workers."""
        return children(self.process.pid)

    def answers(self) -> bool:
        """Whether a connection is greeted."""
        raise NotImplementedError

    def resident(self) -> int:
        """Octets of memory that the largest worker has."""
        return max(map(resident, self.workers()))

    def _wait(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)


class Pop3Listener(Listener):
    """A running `manage.py runpop3`, in clear and with implicit TLS."""

    command = "runpop3"

    def __init__(self, system: "System", variables: dict[str, str]) -> None:
        self.address, self.tls_address = system.port(), system.port()
        super().__init__(
            system, {"MAILHOST_POP3": _text(self.address), "MAILHOST_POP3S": _text(self.tls_address)} | variables
        )

    def answers(self) -> bool:
        try:
            with Client.to(self.address) as client:
                # Behind a proxy it does not speak first.
                return "MAILHOST_PROXY_NETWORKS" in self._environment or client.line().startswith(b"+OK")
        except (OSError, AssertionError):
            return False

    @contextmanager
    def client(self, *, tls: bool = False, source: str = "", patience: float = PATIENCE) -> Iterator[Pop3]:
        """Connected and greeted; waits for each reply so many seconds."""
        with Pop3.to(self.tls_address if tls else self.address, source=source) as client:
            client.socket.settimeout(patience)
            if tls:
                client.secure(self._system.trusting())
            assert client.line() == b"+OK POP3 server ready"
            yield client

    @contextmanager
    def session(self, mailbox: Mailbox | str) -> Iterator[Pop3]:
        """Signed in."""
        with self.client() as client:
            told = client.log_in(mailbox)
            assert told.startswith(b"+OK"), told
            yield client

    def open(self, mailbox: Mailbox | str, *, within: float = PATIENCE, password: str = PASSWORD) -> Pop3:
        """Signed in, after as many attempts as that takes."""
        deadline = time.monotonic() + within
        while True:
            told = b"no connection"
            try:
                client = Pop3.to(self.address)
                try:
                    client.line()
                    told = client.log_in(mailbox, password)
                    if told.startswith(b"+OK"):
                        return client
                except BaseException:
                    client.socket.close()
                    raise
                client.socket.close()
            except (OSError, AssertionError):
                pass
            assert time.monotonic() < deadline, told
            time.sleep(0.05)


class LmtpListener(Listener):
    """A running `manage.py runlmtp`, on a TCP port or a Unix socket."""

    command = "runlmtp"

    def __init__(self, system: "System", variables: dict[str, str]) -> None:
        self.address: Address | str = variables.get("MAILHOST_LMTP") or system.port()
        if not isinstance(self.address, str):
            variables = {"MAILHOST_LMTP": _text(self.address)} | variables
        super().__init__(system, variables)

    def answers(self) -> bool:
        try:
            with Client.to(self.address) as client:
                return client.line().startswith(b"220 ")
        except (OSError, AssertionError):
            return False

    @contextmanager
    def client(self, *, patience: float = PATIENCE) -> Iterator[Lmtp]:
        """Connected, greeted and introduced; waits for each reply so many seconds."""
        with Lmtp.to(self.address) as client:
            client.socket.settimeout(patience)
            assert client.reply().startswith(b"220 ")
            assert client.told(b"LHLO mta.elsewhere.test").startswith(b"250")
            yield client

    def deliver(self, message: bytes, *to: Mailbox | str, reverse_path: str = "binh@elsewhere.test") -> list[bytes]:
        """Hand one message over on a connection of its own, and return the last reply for each recipient."""
        with self.client() as client:
            return client.deliver(message, *to, reverse_path=reverse_path)


@dataclass(frozen=True)
class System:
    """Migrated servers, and what listeners need to run on them.

    The models of the test's process work on them, too: within `models`.
    """

    servers: Servers
    directory: Path
    numbers: "count[int]"
    reserved: list[socket.socket]

    @classmethod
    @contextmanager
    def on(cls, servers: Servers, directory: Path) -> "Iterator[System]":
        """Migrate and certify."""
        authority = trustme.CA()
        # fetchmail wants a common name beside the others.
        pair = authority.issue_cert("localhost", "127.0.0.1", "::1", common_name="localhost")
        pair.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
        pair.private_key_pem.write_to_path(str(directory / "key.pem"))
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        system = cls(servers, directory, count(1), [])
        with system.models():
            call_command("migrate", verbosity=0, interactive=False)
        yield system
        for each in system.reserved:
            each.close()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of listeners: two workers, no throttle, passwords in clear from this machine."""
        return self.servers.environment | {
            "MAILHOST_TLS_CERT": str(self.directory / "cert.pem"),
            "MAILHOST_TLS_KEY": str(self.directory / "key.pem"),
            "MAILHOST_PLAINTEXT_AUTH": "loopback",
            "MAILHOST_THROTTLE": "off",
            "MAILHOST_WORKERS": "2",
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def ca_file(self) -> Path:
        """Who vouches for the listeners' certificate, which names localhost."""
        return self.directory / "ca.pem"

    def trusting(self) -> ssl.SSLContext:
        """A client's context that checks the listeners' certificate."""
        return ssl.create_default_context(cafile=self.ca_file)

    def pop3(self, **variables: str) -> Pop3Listener:
        """A POP3 listener, to be started, with these further settings."""
        return Pop3Listener(self, variables)

    def lmtp(self, **variables: str) -> LmtpListener:
        """An LMTP listener, to be started, with these further settings."""
        return LmtpListener(self, variables)

    def port(self) -> Address:
        """A free port, kept from everyone who does not share it on purpose, as our listeners do."""
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        self.reserved.append(reserved)
        return "127.0.0.1", int(reserved.getsockname()[1])

    @contextmanager
    def models(self) -> Iterator[None]:
        """Have the models read and write here, not in the database of the other tests."""
        parameters = conninfo_to_dict(self.servers.urls.postgres)
        ours = dict(connections["default"].settings_dict) | {
            "NAME": parameters.pop("dbname"),
            "USER": parameters.pop("user", ""),
            "PASSWORD": parameters.pop("password", ""),
            "HOST": parameters.pop("host", ""),
            "PORT": parameters.pop("port", ""),
            "OPTIONS": parameters,  # no pool: it would be shared with theirs
        }
        # The settings are for connections that an event loop makes.
        theirs, their_settings = connections["default"], connections.settings["default"]
        connections.settings["default"] = ours
        connections["default"] = wrapper = DatabaseWrapper(ours, "default")
        try:
            yield
        finally:
            wrapper.close()
            connections["default"], connections.settings["default"] = theirs, their_settings

    def customer(self, slug: str, *, mailboxes: int = 0) -> Customer:
        """A tenant with a domain that no other test has, an@ it, and u1@, u2@ ... with the same password."""
        slug = f"{slug}-{next(self.numbers)}"
        tenant, _ = provisioning.add_tenant(slug)
        domain, _ = provisioning.add_domain(f"{slug}.test", tenant=tenant)
        mailbox, _ = provisioning.add_mailbox(f"an@{domain}", password=PASSWORD, quota_octets=None)
        customer = Customer(tenant, domain, mailbox)
        for number in range(1, mailboxes + 1):
            add_mailbox(customer, f"u{number}")
        return customer

    # Servers that go away.

    @contextmanager
    def without_postgres(self, how: signal.Signals = signal.SIGKILL) -> Iterator[None]:
        """End PostgreSQL, and keep it from being started again meanwhile."""
        try:
            with self._without(self.servers.postgres_pid(), how):
                yield
        finally:
            self.servers.wait_for_postgres()
            connections["default"].close()

    @contextmanager
    def without_redis(self, how: signal.Signals = signal.SIGKILL) -> Iterator[None]:
        """End Redis, and keep it from being started again meanwhile."""
        try:
            with self._without(self.servers.redis_pid(), how):
                yield
        finally:
            self.servers.wait_for_redis()

    def restart_postgres(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End PostgreSQL and wait until it answers again. SIGINT lets it end in order."""
        self.servers.restart_postgres(how)
        connections["default"].close()

    @contextmanager
    def frozen_postgres(self) -> Iterator[None]:
        """Stop all of PostgreSQL's processes: connections stay, and nothing is answered."""
        postmaster = self.servers.postgres_pid()
        frozen = [postmaster]
        os.kill(postmaster, signal.SIGSTOP)
        for child in children(postmaster):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
                frozen.append(child)
        try:
            yield
        finally:
            for pid in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextmanager
    def _without(self, server: int, how: signal.Signals) -> Iterator[None]:
        guardian = parent_of(server)
        os.kill(guardian, signal.SIGSTOP)
        try:
            family = [server, *children(server)]
            os.kill(server, how)
            eventually(lambda: not any(map(alive, family)))
            yield
        finally:
            os.kill(guardian, signal.SIGCONT)


def _text(address: Address) -> str:
    host, port = address
    return f"{host}:{port}"


def add_mailbox(customer: Customer, local_part: str) -> Mailbox:
    """One more mailbox, with the password of the customer's first; hashed once, so that a hundred are quickly made."""
    mailbox = customer.add(local_part)
    mailbox.user.password = customer.mailbox.user.password
    mailbox.user.save(update_fields=["password"])
    return mailbox


def holder(mailbox: Mailbox) -> int:
    """The process id of the worker that holds a maildrop."""
    return MaildropSession.objects.select_related("listener").get(mailbox=mailbox, ended_at=None).listener.pid


def failures(system: System, client: str) -> int:
    """How many failures of a client are counted by all workers."""
    _, host, _ = throttle._buckets("", ip_address(client), known=False)
    with redis.Redis.from_url(system.servers.urls.redis) as connection:
        return int(connection.get(host.key) or 0)


def children(pid: int) -> list[int]:
    """The process ids of a process's children, zombies left out."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(each) for each in found if alive(int(each))]


def parent_of(pid: int) -> int:
    """The process id of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def resident(pid: int) -> int:
    """Octets of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def elapsed(since: float) -> float:
    """Seconds since a time of the monotonic clock."""
    return time.monotonic() - since
