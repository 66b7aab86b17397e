"""Postfix as an operator would run it, made from docker/postfix, with its own directories and on loopback only."""

import contextlib
import os
import re
import shutil
import signal
import smtplib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mailhost.lineserver.running import alive
from tests.system import PROJECT, Address

EXAMPLE = PROJECT / "docker" / "postfix"


@dataclass(frozen=True)
class Postfix:
    """A running instance."""

    directory: Path
    address: Address
    """Where it takes mail over SMTP."""

    @classmethod
    @contextmanager
    def running(cls, directory: Path, address: Address, *, domains: list[str], **settings: str) -> "Iterator[Postfix]":
        """Start one in this empty directory, for these hosted domains; `settings` are added to main.cf."""
        config, queue, data = (directory / name for name in ("config", "queue", "data"))
        for each in (config, queue, data):
            each.mkdir()
        shutil.chown(data, "postfix")
        for file in ("main.cf", "master.cf"):
            shutil.copy(EXAMPLE / file, config)
        ours = {
            "queue_directory": str(queue),
            "data_directory": str(data),
            "maillog_file": str(directory / "log"),
            "maillog_file_prefixes": str(directory),
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "virtual_mailbox_domains": " ".join(domains),
            # A test has no minute to wait. Times under two seconds find messages that are still being deferred.
            "queue_run_delay": "1s",
            "minimal_backoff_time": "2s",
            "maximal_backoff_time": "4s",
            "address_verify_poll_delay": "1s",
            "in_flow_delay": "0s",
            **settings,
        }
        postfix = cls(directory, address)
        # In place of the one at port 25.
        postfix._run("postconf", "-MX", "smtp/inet")
        service = f"{address[0]}:{address[1]}"
        postfix._run("postconf", "-M", f"{service}/inet={service} inet n - n - - smtpd")
        postfix._run("postconf", *(f"{name}={value}" for name, value in ours.items()))
        postfix._run("postfix", "start")
        try:
            yield postfix
        finally:
            postfix._stop()

    def send(self, message: bytes, *to: object, sender: str = "") -> None:
        """Queue a message as a program on this machine does."""
        self._run("sendmail", "-i", "-f", sender, *map(str, to), stdin=message)

    def smtp(self) -> smtplib.SMTP:
        """A connection as from another server."""
        return smtplib.SMTP(*self.address, timeout=20)

    def flush(self) -> None:
        """Try now what waits."""
        self._run("postqueue", "-f")

    def queue(self) -> list[str]:
        """What waits, a line of JSON for each message."""
        return self._run("postqueue", "-j").splitlines()

    def wait_until_empty(self, seconds: float = 40) -> None:
        """Wait until everything is delivered or bounced."""
        deadline = time.monotonic() + seconds
        while left := self.queue():
            assert time.monotonic() < deadline, (left[0][:500], self.log[-2000:])
            time.sleep(0.1)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def _run(self, command: str, *arguments: str, stdin: bytes = b"") -> str:
        option = {"sendmail": "-C"}.get(command, "-c")
        line = [f"/usr/sbin/{command}", option, str(self.directory / "config"), *arguments]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        done = subprocess.run(line, input=stdin, env=environment, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout.decode()

    def _stop(self) -> None:
        """End the master, and with it all that it started."""
        pid = int((self.directory / "queue" / "pid" / "master.pid").read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if alive(pid):
            os.kill(pid, signal.SIGKILL)

    def status_of(self, recipient: object) -> list[str]:
        """What became of each attempt to deliver to a recipient, as its log tells: sent, deferred or bounced."""
        return re.findall(rf"to=<{re.escape(str(recipient))}>.* status=(\w+)", self.log)
