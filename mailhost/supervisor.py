"""Keeping a set of processes running: each that dies is started again, and all end together."""

import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, cast

from mailhost.embedded.parent import die_with_parent
from mailhost.logstream import LogStream

FIRST_PAUSE: Final = 0.5  # seconds before a role that died is started again
LONGEST_PAUSE: Final = 30.0  # seconds, reached by doubling when it dies again soon
LIVED_LONG: Final = 20.0  # seconds of life after which the next pause is the first one again
DRAIN: Final = 45.0  # seconds that roles have to end by themselves; listeners drain for 30
TICK: Final = 0.2  # seconds
LONGEST_LINE: Final = 64 * 1024  # octets

STOPPERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Role:
    """A process that is to run for as long as we do."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)  # besides that of all roles


@dataclass
class _Run:
    """A role and its present process."""

    role: Role
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    pause: float = 0.0
    due: float = 0.0  # when to start it (again)
    unread: bytes = field(default=b"", repr=False)  # of a line that has not ended yet


class Supervisor:
    """Runs roles until it is told to stop. Must be used in the main thread.

    Each role has a session of its own, so that Ctrl-C reaches us alone and roles are asked once, and dies with us,
    whatever kills us.
    """

    def __init__(self, roles: Sequence[Role], *, environment: Mapping[str, str], log: LogStream) -> None:
        self._runs = [_Run(role) for role in roles]
        self._environment = environment
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._stops = 0  # how often we were told to stop

    def run(self, *, every_tick: Callable[[], None]) -> None:
        """Run the roles until SIGINT, SIGTERM or SIGHUP; then end them all and return."""
        waker, wakes = socket.socketpair()
        waker.setblocking(False)
        wakes.setblocking(False)
        self._selector.register(wakes, selectors.EVENT_READ)
        old_fd = signal.set_wakeup_fd(waker.fileno())
        old_handlers = {number: signal.signal(number, self._stop) for number in STOPPERS}
        old_handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            while not self._stops:
                self._start_those_due()
                self._step()
                every_tick()
            self._log.say("\nStopping.")
            self._end_all()
        finally:
            for run in self._runs:
                self._kill(run)
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_fd)
            self._selector.close()
            waker.close()
            wakes.close()

    def _stop(self, *_: object) -> None:
        self._stops += 1

    def _step(self) -> None:
        """Wait for a moment or until something happens; pass on what roles said, and notice who died."""
        for key, _ in self._selector.select(TICK):
            if key.data is None:
                with suppress(BlockingIOError):
                    cast(socket.socket, key.fileobj).recv(4096)
            elif not self._read(key.data):
                self._selector.unregister(key.fileobj)  # it closed its output; we see its end by SIGCHLD
        for run in self._runs:
            if run.process and run.process.poll() is not None:
                self._bury(run)

    def _start_those_due(self) -> None:
        now = time.monotonic()
        for run in self._runs:
            if run.process is None and run.due <= now:
                run.began = now
                run.process = subprocess.Popen(
                    run.role.command,
                    env={**self._environment, **run.role.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with_parent(signal.SIGKILL),
                )
                assert run.process.stdout
                os.set_blocking(run.process.stdout.fileno(), False)
                self._selector.register(run.process.stdout, selectors.EVENT_READ, run)

    def _read(self, run: _Run) -> bool:
        """Pass on what a role said. Returns whether there may be more."""
        assert run.process
        assert run.process.stdout
        try:
            said = os.read(run.process.stdout.fileno(), 65536)
        except BlockingIOError:
            return False
        *lines, run.unread = (run.unread + said).split(b"\n")
        if run.unread and (not said or len(run.unread) > LONGEST_LINE):
            lines.append(run.unread)
            run.unread = b""
        for line in lines:
            if text := line.decode(errors="replace").rstrip():
                self._log.write(run.role.name, text)
        return bool(said)

    def _bury(self, run: _Run) -> None:
        """Clear away what a dead role left, and say when it will be back."""
        assert run.process
        code = run.process.returncode
        self._kill(run)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if self._stops:
            if code not in (0, -signal.SIGTERM):
                self._log.write(run.role.name, how)
            return
        now = time.monotonic()
        run.pause = FIRST_PAUSE if now - run.began > LIVED_LONG else min(max(run.pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        run.due = now + run.pause
        self._log.write(run.role.name, f"{how}; starting it again in {run.pause:.1f} s")

    def _kill(self, run: _Run) -> None:
        """End the role's process and its children, which may hold its port, and pass on their last words."""
        if not run.process:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()
        while self._read(run):
            pass
        assert run.process.stdout
        with suppress(KeyError):
            self._selector.unregister(run.process.stdout)
        run.process.stdout.close()
        run.process = None

    def _end_all(self) -> None:
        """Ask all to end, and wait. Who has not ended in time, or is in the way of a second Ctrl-C, is killed."""
        for run in self._runs:
            if run.process:
                run.process.send_signal(signal.SIGTERM)
        asked = self._stops
        deadline = time.monotonic() + DRAIN
        while any(run.process for run in self._runs) and self._stops == asked and time.monotonic() < deadline:
            self._step()
        for run in self._runs:
            if run.process:
                self._log.write(run.role.name, "has not ended in time; killing it")
