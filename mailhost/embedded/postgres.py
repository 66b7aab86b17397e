"""PostgreSQL as an embedded server: its cluster, its settings, and how to tell that it is up."""

import os
import re
import secrets
import shutil
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from typing import ClassVar
from urllib.parse import quote

from mailhost.embedded import binaries
from mailhost.embedded.home import EmbeddedError, reachable_program
from mailhost.embedded.parent import die_with_parent
from mailhost.embedded.server import Server

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # For each core a worker of each listener, which has eight and one more. The rest is for web, Celery and commands.
    "max_connections": str(max(200, 100 + 18 * (os.cpu_count() or 1))),
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "128MB",
    "wal_buffers": "16MB",
    # Few, spread checkpoints: each one makes every page it touches go to the log whole again.
    "max_wal_size": "4GB",
    "min_wal_size": "512MB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "wal_compression": "off",
    # Short statements by key: compiling or sharing them out only costs, and containers have little /dev/shm.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "random_page_cost": "1.1",
    # Mailboxes' counters change with every message; dead rows must not pile up.
    "autovacuum_naptime": "10s",
    "timezone": "GMT",  # known without time zone files
    "log_timezone": "GMT",
    "log_line_prefix": "%t ",  # as in what the guardian writes
    "log_min_messages": "log",  # an application's errors are the application's to report
    "log_checkpoints": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
THROW_AWAY = {  # what was committed survives the server's end, but not the machine's
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
}
STARTING_UP = b"57P03"


class Postgres(Server):
    """A PostgreSQL cluster with one superuser and one database, both called mailhost."""

    name: ClassVar[str] = "postgres"
    title: ClassVar[str] = "PostgreSQL"
    # fast: ends the clients' sessions, then writes everything out. immediate: recovers at the next start.
    stop_signals: ClassVar[Sequence[tuple[Signals, float]]] = (
        (Signals.SIGINT, 60),
        (Signals.SIGQUIT, 5),
        (Signals.SIGKILL, 5),
    )

    @property
    def _password(self) -> Path:
        return self.home / "password"

    @property
    def url(self) -> str:
        host = quote(str(self.sockets), safe="")
        return f"postgresql://mailhost:{self._password.read_text()}@/mailhost?host={host}"

    def prepare(self) -> list[str]:
        program = reachable_program(binaries.find(binaries.POSTGRES), self.home, self.account)
        version = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
        major = re.findall(r"\d+", version)[0]
        cluster = self.home / f"postgres-{major}"
        if not cluster.exists():
            for other in self.home.glob("postgres-[0-9]*"):
                if other.suffix != ".unfinished":
                    raise EmbeddedError(
                        f"{other} was made by another PostgreSQL than the installed {major}: install that "
                        "one again, dump the database with pg_dump, and load it into a new MAILHOST_DATA."
                    )
            self._make_cluster(program, cluster)
        self._forget_old_process(cluster)
        settings = SETTINGS | ({} if self.durable else THROW_AWAY) | {"unix_socket_directories": str(self.sockets)}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return [str(program), "-D", str(cluster), *options]

    def _make_cluster(self, program: Path, cluster: Path) -> None:
        """Make the cluster under a temporary name, so that there is a whole one or none."""
        unfinished = cluster.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        self.account.make_directory(unfinished)
        self._password.unlink(missing_ok=True)
        with open(os.open(self._password, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))
        self.account.own(self._password)
        self._run(
            program.with_name("initdb"),
            *("-D", unfinished, "--username=mailhost", f"--pwfile={self._password}", "--auth=scram-sha-256"),
            # The built-in provider: ordering does not change with the machine's C library.
            *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("--no-instructions",) if self.durable else ("--no-instructions", "--no-sync"),
        )
        self._run(program, "--single", "-D", unfinished, "postgres", said=b"CREATE DATABASE mailhost\n")
        unfinished.rename(cluster)
        home = os.open(self.home, os.O_RDONLY)
        os.fsync(home)
        os.close(home)

    def _run(self, *command: str | Path, said: bytes = b"") -> None:
        done = subprocess.run(
            [str(word) for word in command],
            check=False,
            cwd="/",
            preexec_fn=die_with_parent(Signals.SIGKILL),
            input=said,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self.account.for_popen(),
        )
        if done.returncode != 0:
            raise EmbeddedError(f"{Path(command[0]).name} failed: {done.stdout.decode(errors='replace').strip()}")

    def _forget_old_process(self, cluster: Path) -> None:
        """Remove process ids left by kill -9: PostgreSQL refuses to start if another program has that id now.

        The guardian's lock says that no server of this cluster is alive, and PostgreSQL checks shared memory.
        """
        for left in (cluster / "postmaster.pid", self.sockets / ".s.PGSQL.5432.lock"):
            left.unlink(missing_ok=True)

    def answers(self) -> bool:
        parameters = b"user\0mailhost\0database\0mailhost\0\0"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(self.sockets / ".s.PGSQL.5432"))
                client.sendall(struct.pack("!ii", 8 + len(parameters), 3 << 16) + parameters)
                reply = client.recv(1024)
            except OSError:
                return False
        return bool(reply) and STARTING_UP not in reply
