"""The guardian of one server: keeps it alive for as long as somebody uses it, then stops it and ends."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from mailhost.embedded.home import EmbeddedError
from mailhost.embedded.locks import Lock, take
from mailhost.embedded.parent import die_with_parent, inherit_orphans
from mailhost.embedded.server import Server

NOT_NEEDED, FAILED, ALREADY_GUARDED = range(3)  # exit codes

TICK = 0.1  # seconds between two looks whether anybody still uses the server
STARTING_TICK = 0.02
LONGEST_PAUSE = 5.0  # seconds before a server that dies again and again is started once more
LIVED_LONG = 10.0  # seconds after which a server's end is no longer a failed start
FIRST_STARTS = 3  # that may fail before we give up on a server that has never answered
STOPPERS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def guard(server: Server) -> int:
    """Guard a server until nobody uses it or we are told to stop. Returns the exit code."""
    lock = _take_patiently(server)
    if lock is None:
        return ALREADY_GUARDED
    inherit_orphans()  # what a killed postmaster leaves becomes ours to end
    try:
        return _Guardian(server, lock).run()
    except (EmbeddedError, LookupError, OSError, subprocess.SubprocessError) as error:
        _log(f"{server.title} cannot be started: {error}")
        return FAILED


class _Guardian:
    def __init__(self, server: Server, lock: Lock) -> None:
        self.server = server
        self.lock = lock
        self.was_ready = False
        self.told_to_stop = False
        self.alarm, self.ears = socket.socketpair()  # written to by signals, read by us

    def run(self) -> int:
        """Start the server, again and again if need be, until it is not wanted."""
        self._listen_to_signals()
        pause = 0.0
        failures = 0
        while True:
            began = time.monotonic()
            process = self._start()
            wanted = self._watch(process)
            _end_remains()
            if not wanted:
                return NOT_NEEDED
            code = process.returncode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            failures += 1
            if failures == FIRST_STARTS and not self.was_ready:
                _log(f"{self.server.title} {how} each time it was started")
                return FAILED
            lived_long = time.monotonic() - began > LIVED_LONG
            _log(f"{self.server.title} {how}; starting it again")
            time.sleep(pause)
            pause = 0.0 if lived_long else min(max(pause * 2, 0.25), LONGEST_PAUSE)

    def _start(self) -> subprocess.Popen[bytes]:
        command = self.server.prepare()
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            umask=0o077,
            # While any process of the server lives, also one without its parent, nobody starts another.
            pass_fds=(self.lock.fd,),
            preexec_fn=die_with_parent(self.server.stop_signals[0][0]),
            **self.server.account.for_popen(),
        )

    def _watch(self, process: subprocess.Popen[bytes]) -> bool:
        """Watch the server until it dies (True) or has been stopped because it is not wanted (False)."""
        ready: Lock | None = None
        try:
            while process.poll() is None:
                if ready is None and self.server.answers():
                    ready = take(self.server.ready_lock, wait=True)
                    self.was_ready = True
                self._wait(TICK if ready else STARTING_TICK)
                if self.told_to_stop or take(self.server.users_lock):
                    # Holding the users' lock, we keep newcomers waiting until the server has ended.
                    self._stop(process)
                    return False
            return True
        finally:
            if ready:
                ready.release()

    def _listen_to_signals(self) -> None:
        def stop(*_: object) -> None:
            self.told_to_stop = True

        for number in STOPPERS:
            signal.signal(number, stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # noticed by its octet
        for end in (self.alarm, self.ears):
            end.setblocking(False)
        signal.set_wakeup_fd(self.alarm.fileno())

    def _wait(self, seconds: float) -> None:
        """Wait until time is up or a signal comes."""
        if select.select([self.ears], [], [], seconds)[0]:
            self.ears.recv(4096)

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        for stop_signal, seconds in self.server.stop_signals:
            process.send_signal(stop_signal)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                _log(f"{self.server.title} did not end within {seconds:.0f} s of {stop_signal.name}")
            else:
                return


def _take_patiently(server: Server) -> Lock | None:
    """Take the guardian's lock. Others look at it for an instant, so that one refusal means nothing."""
    for _ in range(10):
        if lock := take(server.guardian_lock):
            return lock
        time.sleep(0.01)
    return None


def _end_remains() -> None:
    """End what a killed server left: it holds the shared memory, and nobody will ask it anything again."""
    try:
        remains = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except FileNotFoundError:  # they end by themselves, though later
        remains = []
    for pid in remains:
        os.kill(int(pid), signal.SIGKILL)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _log(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} GMT {text}", file=sys.stderr, flush=True)
