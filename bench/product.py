"""Mailhost as its users start it: `manage.py up` on a private data directory, its mailboxes made by its commands."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import processes
from bench.side import NotAvailable, await_ports, end, free_ports, spawn
from mailhost.embedded import home

PROJECT = Path(__file__).parents[1]
TENANT = "bench"

ASK_DATABASE = """\
import json, sys
from django.db import connection
names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_level", "shared_buffers")
with connection.cursor() as cursor:
    found = {name: cursor.execute(f"SHOW {name}").fetchone()[0] for name in names}
print(json.dumps(found))
"""

MAKE_DEVICES = """\
import json, sys
from accounts import app_passwords
from accounts.models import AppPassword, Mailbox
for address, password in json.load(sys.stdin):
    mailbox = Mailbox.objects.get(address=address)
    app_passwords.create(mailbox, name="other", own_copy=True)
    made, _ = app_passwords.create(mailbox, name="bench", own_copy=True)
    AppPassword.objects.filter(pk=made.pk).update(digest=app_passwords.digest(password))
"""


class Mailhost:
    """One private Mailhost: the whole of `up`, its own PostgreSQL and Redis included."""

    name = "mailhost"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pop3_port, self.lmtp_port, pop3s, http = free_ports(4)
        own = ("MAILHOST_", "DATABASE_URL", "REDIS_URL", "DJANGO_")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(own)} | {
            "MAILHOST_DATA": str(directory),
            "MAILHOST_HTTP": f"127.0.0.1:{http}",
            "MAILHOST_POP3": f"127.0.0.1:{self.pop3_port}",
            "MAILHOST_POP3S": f"127.0.0.1:{pop3s}",
            "MAILHOST_LMTP": f"127.0.0.1:{self.lmtp_port}",
            "MAILHOST_PLAINTEXT_AUTH": "loopback",
            "MAILHOST_THROTTLE": "off",  # fifty clients at one address are what a throttle is there to stop
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, mailboxes: Sequence[tuple[str, str]], *, devices: Sequence[str] = ()) -> None:
        self.directory.mkdir(parents=True)
        log = self.directory.with_suffix(".log")
        command = [sys.executable, str(PROJECT / "manage.py"), "up"]
        self._process = spawn(command, log=log, env=self._environment, cwd=PROJECT)
        await_ports([self.pop3_port, self.lmtp_port], self._process, log=log, seconds=120)
        self._manage("addtenant", TENANT)
        for domain in sorted({address.partition("@")[2] for address, _ in mailboxes}):
            self._manage("adddomain", domain, "--tenant", TENANT)
        lines = "".join(f"{address},{password},100G\n" for address, password in mailboxes)
        self._manage("addmailboxes", "-", standard_input=lines)
        if devices:
            passwords = dict(mailboxes)
            given = json.dumps([(address, passwords[address]) for address in devices])
            self._manage("shell", "--verbosity=0", "-c", MAKE_DEVICES, standard_input=given)

    def roots(self) -> set[int]:
        """`up`, and whatever of ours runs detached from it: the embedded servers and who guards them."""
        found = processes.living_in(self.directory, processes.processes())
        return found | ({self._process.pid} if self._process else set())

    def facts(self) -> dict[str, str]:
        shown = json.loads(self._manage("shell", "--verbosity=0", "-c", ASK_DATABASE).splitlines()[-1])
        git = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--exclude=*"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
        return {"version": commit, "PostgreSQL": shown.pop("server_version"), **shown}

    def stop(self) -> None:
        if self._process:
            end(self._process, roots=self.roots(), seconds=40)
            home.remove(self.directory)  # with its sockets, which may lie elsewhere

    def _manage(self, *arguments: str, standard_input: str | None = None) -> str:
        done = subprocess.run(
            [sys.executable, str(PROJECT / "manage.py"), *arguments],
            input=standard_input,
            capture_output=True,
            text=True,
            env=self._environment,
            cwd=PROJECT,
            check=False,
        )
        if done.returncode:
            raise NotAvailable(f"manage.py {arguments[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout
