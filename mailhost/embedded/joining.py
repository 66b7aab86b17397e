"""How a command uses the embedded servers: joins those that run or starts them, and keeps them guarded."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from mailhost.embedded import guardian
from mailhost.embedded.home import EmbeddedError, open_home
from mailhost.embedded.locks import Lock, is_owned, take
from mailhost.embedded.postgres import Postgres
from mailhost.embedded.redis import Redis
from mailhost.embedded.server import Server

SERVERS: dict[str, type[Server]] = {server.name: server for server in (Postgres, Redis)}
START_LIMIT = 180.0  # seconds; recovery after a crash reads the whole log again
STOP_LIMIT = 90.0  # seconds
LOOK = 0.01  # seconds between two looks at a server that starts or stops
WATCH = 0.25  # seconds between two looks at a guardian while all is well
LONGEST_LOG = 5_000_000  # octets after which a log is put aside at the next start


class Urls(NamedTuple):
    """Where the servers are reached; empty for one that was not wanted."""

    postgres: str
    redis: str


@contextmanager
def servers(data: Path, *, wanted: Collection[str] = tuple(SERVERS), durable: bool = True) -> Iterator[Urls]:
    """Use embedded servers for the length of a `with` block; the last one to leave stops them.

    `wanted` names them: postgres, redis. Raises `EmbeddedError` if one cannot be used.
    """
    home = open_home(data)
    uses = {name: _Use(SERVERS[name](home, durable=durable)) for name in wanted}
    with ExitStack() as leaving:
        for use in uses.values():
            leaving.callback(use.wait_until_stopped)
        for use in uses.values():
            leaving.callback(use.leave)
            use.begin()
        for use in uses.values():
            use.wait_until_ready()
        leaving.enter_context(_watching(uses.values()))
        yield Urls(*(uses[name].server.url if name in uses else "" for name in ("postgres", "redis")))


class _Use:
    """This process's use of one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.lock: Lock | None = None
        self.guardian: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Say that we use the server, after waiting for a guardian that is just stopping it."""
        try:
            self.lock = take(self.server.users_lock, shared=True, wait=True)
        except PermissionError as error:
            raise EmbeddedError(
                f"{error.filename} is another user's: run the command as that user, or set MAILHOST_DATA."
            ) from None

    def leave(self) -> None:
        if self.lock:
            self.lock.release()

    def ensure_guardian(self) -> None:
        """Start a guardian if there is none. Raises `EmbeddedError` if the one we started gave up."""
        if self.guardian and (code := self.guardian.poll()) is not None:
            self.guardian = None
            if code == guardian.FAILED:
                raise EmbeddedError(self._last_words())
        if self.guardian is None and not is_owned(self.server.guardian_lock):
            self.guardian = self._start_guardian()

    def _start_guardian(self) -> subprocess.Popen[bytes]:
        log = self.server.log
        if log.exists() and log.stat().st_size > LONGEST_LOG:
            log.replace(log.with_suffix(".log.1"))
        project = Path(__file__).parents[2]
        durability = "durable" if self.server.durable else "fast"
        with log.open("ab") as stderr:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "mailhost.embedded",
                    self.server.name,
                    str(self.server.home),
                    durability,
                ],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                cwd=project,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "PYTHONPATH": str(project),
                    "LC_ALL": "C.UTF-8",
                },
                start_new_session=True,  # Ctrl-C is for the command, which ends when it is done
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while not self._is_ready():
            self.ensure_guardian()
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{self.server.title} did not start within {START_LIMIT:.0f} s. {self._last_words()}"
                )
            time.sleep(LOOK)

    def _is_ready(self) -> bool:
        """Tell whether the server is ready; a guardian that is being killed may hold its lock a little longer."""
        return is_owned(self.server.ready_lock) and self.server.answers() and is_owned(self.server.ready_lock)

    def wait_until_stopped(self) -> None:
        """After leaving: wait for the server's end, unless others use it."""
        deadline = time.monotonic() + STOP_LIMIT
        while time.monotonic() < deadline and is_owned(self.server.guardian_lock):
            if self._is_used_by_others():
                return
            time.sleep(LOOK)
        if self.guardian and not is_owned(self.server.guardian_lock):
            self.guardian.wait()

    def _is_used_by_others(self) -> bool:
        if alone := take(self.server.users_lock):
            alone.release()
            return False
        return not is_owned(self.server.users_lock)  # as its guardian does while it stops the server

    def _last_words(self) -> str:
        lines = self.server.log.read_text(errors="replace").splitlines()[-5:]
        return "\n  ".join([f"{self.server.title} does not run; {self.server.log} ends with:", *lines])


@contextmanager
def _watching(uses: Collection[_Use]) -> Iterator[None]:
    """Start a new guardian whenever one died, in a thread."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH):
            for use in uses:
                try:
                    use.ensure_guardian()
                except EmbeddedError as error:
                    print(error, file=sys.stderr)

    thread = threading.Thread(target=watch, name="embedded-servers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
