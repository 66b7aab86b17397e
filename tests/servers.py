"""Embedded servers for tests: thrown away afterwards, quick instead of durable, and there to be killed."""

import atexit
import os
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from mailhost import embedded
from mailhost.embedded import home
from mailhost.embedded.locks import take

PREFIX = "mailhost-tests-"
LEFT_BEHIND = 3600  # seconds after which a directory whose servers nobody uses is a killed run's


@dataclass(frozen=True)
class Servers:
    """PostgreSQL and Redis that no other test uses."""

    data: Path
    urls: embedded.Urls

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command that is to use them."""
        return os.environ | {
            "MAILHOST_DATA": str(self.data),
            "DATABASE_URL": self.urls.postgres,
            "REDIS_URL": self.urls.redis,
        }

    def postgres_pid(self) -> int:
        """The postmaster's process id."""
        [file] = (self.data / "embedded").glob("postgres-*/postmaster.pid")
        return int(file.read_text().split()[0])

    def redis_pid(self) -> int:
        """The Redis server's process id."""
        with redis.Redis.from_url(self.urls.redis) as client:
            return int(client.info("server")["process_id"])

    def restart_postgres(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End PostgreSQL and wait until it answers again. SIGINT lets it end in order."""
        os.kill(self.postgres_pid(), how)
        self.wait_for_postgres()

    def wait_for_postgres(self, seconds: float = 30) -> None:
        """Wait until PostgreSQL answers a query of a new connection."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with psycopg.connect(self.urls.postgres) as connection:
                    connection.execute("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def restart_redis(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End Redis and wait until it answers again."""
        os.kill(self.redis_pid(), how)
        self.wait_for_redis()

    def wait_for_redis(self, seconds: float = 30) -> None:
        """Wait until Redis answers a new connection."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with redis.Redis.from_url(self.urls.redis, retry=None) as client:
                    client.ping()
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return


@contextmanager
def throw_away(wanted: Collection[str] = ("postgres", "redis")) -> Iterator[Servers]:
    """Make a data directory with servers of its own, and remove it afterwards."""
    _sweep()
    data = Path(tempfile.mkdtemp(prefix=PREFIX))
    data.chmod(0o711)  # the servers' account passes through
    try:
        with embedded.servers(data, wanted=wanted, durable=False) as urls:
            yield Servers(data, urls)
    finally:
        home.remove(data)


@contextmanager
def data_directory() -> Iterator[Path]:
    """Name a directory that the servers' account can make and reach; afterwards nothing may run on it."""
    path = Path(tempfile.mkdtemp(prefix=PREFIX))
    path.chmod(0o711)
    try:
        yield path / "data"
        eventually(lambda: not processes_of(path / "data"))
    finally:
        _remove(path)


def processes_of(data: Path) -> dict[int, str]:
    """Guardians, servers and whatever servers started: what names the data directory or works in it."""
    place = str((data / "embedded").resolve())
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            works_in = os.readlink(process / "cwd")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f" {place} " in line or works_in.startswith(place):
            found[int(process.name)] = line
    return found


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    """A free port on loopback. Bound until the run ends, it is kept from all but servers that set SO_REUSEADDR."""
    reserved = socket.socket(family)
    atexit.register(reserved.close)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    return int(reserved.getsockname()[1])


def is_alive(pid: int) -> bool:
    """Tell whether a process runs. One that nobody has waited for yet, as in a container without init, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


def _remove(path: Path) -> None:
    """Remove what is there, and what data directories in it have outside of them: a short one for sockets."""
    for each in list(path.rglob("embedded")):
        home.remove(each.parent)
    shutil.rmtree(path, ignore_errors=True)


def _sweep() -> None:
    """Remove what test runs left that were killed."""
    for data in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        found = data.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
        if ours and time.time() - found.st_mtime > LEFT_BEHIND:
            users = data / "embedded" / "postgres.users"
            unused = take(users) if users.exists() else None
            if unused or not users.exists():
                _remove(data)
            if unused:
                unused.release()
