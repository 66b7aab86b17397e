"""A toy server in processes of its own, and a client with nothing but a socket."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[3]
PATIENCE = 20.0
"""How long a test waits for what must come, in seconds; on a busy machine that is slow to come."""


def eventually(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until this is true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def refuses(address: tuple[str, int] | str) -> bool:
    """Whether nobody listens there."""
    try:
        with Client.to(address):
            return False
    except ConnectionRefusedError:
        return True


class Client:
    """Reads to the end of a reply, and no further."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(PATIENCE)
        self._unread = b""

    @classmethod
    def to(cls, address: tuple[str, int] | str, *, source: str = "") -> Self:
        """Connect to a TCP address, from this one, or to the path of a Unix socket."""
        if isinstance(address, str):
            connected = socket.socket(socket.AF_UNIX)
            try:
                connected.connect(address)
            except OSError:
                connected.close()
                raise
            return cls(connected)
        return cls(socket.create_connection(address, PATIENCE, source_address=(source, 0)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def line(self) -> bytes:
        """The next line, without its ending."""
        while b"\r\n" not in self._unread:
            octets = self.socket.recv(65536)
            assert octets, f"closed after {self._unread!r}"
            self._unread += octets
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line

    def ask(self, line: bytes) -> bytes:
        """The one-line reply to a line."""
        self.send(line + b"\r\n")
        return self.line()

    def rest(self) -> bytes:
        """Everything up to the end of the connection; a reset is one, too."""
        parts = [self._unread]
        self._unread = b""
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            while octets := self.socket.recv(1 << 20):
                parts.append(octets)
        return b"".join(parts)

    def secure(self, context: ssl.SSLContext | None = None, *, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """Begin TLS here."""
        assert not self._unread
        secured = (context or trusting()).wrap_socket(self.socket, server_hostname="localhost", session=session)
        self.socket = secured
        return secured


def trusting() -> ssl.SSLContext:
    """A client's context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Server:
    """The toy, served as production serves: a parent and its workers."""

    def __init__(self, directory: Path, endpoints: tuple[str, ...] = ("",), **settings: Any) -> None:
        """An endpoint is `""` or `"/tls"` for a free port of 127.0.0.1, or what `Endpoint.parse` takes."""
        directory.mkdir(exist_ok=True)
        self.journal = directory / "journal"
        self._log = directory / "log"
        self._reserved: list[socket.socket] = []
        self.endpoints = [self._reserve() + text if text in ("", "/tls") else text for text in endpoints]
        settings = {"workers": 1, "tick_seconds": 0.05, "journal": str(self.journal), **settings}
        self.workers = settings["workers"]
        settings["endpoints"] = self.endpoints
        with self._log.open("wb") as log:
            self.parent = subprocess.Popen(
                [sys.executable, "-m", "tests.mailhost.lineserver.toy", json.dumps(settings)],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _reserve(self) -> str:
        # Bound but not listening, it keeps the port from everyone but us.
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        self._reserved.append(reserved)
        return f"127.0.0.1:{reserved.getsockname()[1]}"

    def __enter__(self) -> Self:
        eventually(lambda: len(self.pids()) >= self.workers or self.parent.poll() is not None)
        return self

    def __exit__(self, *_: object) -> None:
        self.parent.send_signal(signal.SIGCONT)
        self.parent.terminate()
        try:
            self.parent.wait(PATIENCE)
        finally:
            self.parent.kill()
            self.parent.wait()
            for reserved in self._reserved:
                reserved.close()

    def noted(self) -> list[str]:
        """What the dialogues and applications noted."""
        return self.journal.read_text().splitlines() if self.journal.exists() else []

    def settled(self) -> Counter[str]:
        """How often what was noted, once every dialogue is closed."""
        eventually(lambda: self.noted().count("opened") == self.noted().count("closed"))
        return Counter(self.noted())

    def pids(self) -> list[int]:
        """Every worker that ever started."""
        return [int(note.split()[1]) for note in self.noted() if note.startswith("start")]

    def log(self) -> str:
        return self._log.read_text()

    def address(self, endpoint: int = 0) -> tuple[str, int] | str:
        text = self.endpoints[endpoint].removesuffix("/tls")
        if "/" in text:
            return text
        host, _, port = text.rpartition(":")
        return host.strip("[]"), int(port)

    @contextlib.contextmanager
    def client(self, endpoint: int = 0) -> Iterator[Client]:
        """Connected and greeted."""
        with Client.to(self.address(endpoint)) as client:
            if self.endpoints[endpoint].endswith("/tls"):
                client.secure()
            assert client.line() == b"+hello"
            yield client

    def resident(self) -> int:
        """Octets of memory that the first worker has."""
        status = Path(f"/proc/{self.pids()[0]}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def alive(pid: int) -> bool:
    """Whether this process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def short_directory() -> "tempfile.TemporaryDirectory[str]":
    """A directory whose path leaves room for a Unix socket's, which ends at 107 octets."""
    return tempfile.TemporaryDirectory(dir="/tmp")
