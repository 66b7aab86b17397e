"""Everything at once: migrates, then runs web, POP3, LMTP, Celery worker and beat until Ctrl-C."""

import ipaddress
import os
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connections

from accounts.models import User
from mailhost import demo
from mailhost.embedded.locks import Lock, take
from mailhost.lineserver import Endpoint
from mailhost.logstream import LogStream, Tail
from mailhost.supervisor import Role, Supervisor

LISTENING = ("MAILHOST_HTTP", "MAILHOST_POP3", "MAILHOST_POP3S", "MAILHOST_LMTP")
PATIENCE = 20.0  # seconds after which it is said what does not answer yet


class Command(BaseCommand):
    """The one command that runs the whole system."""

    help = "Run the whole system in the foreground: web, POP3, LMTP, Celery worker and beat. Ctrl-C ends it."

    def handle(self, *args: Any, **options: Any) -> None:
        with ExitStack() as until_the_end:
            until_the_end.callback(_only_one(settings.MAILHOST_DATA).release)
            addresses = {name: getattr(settings, name) for name in LISTENING}
            self.stdout.write(f"Starting Mailhost on {settings.MAILHOST_DATA} ...")
            self.stdout.flush()
            with _reserved(addresses):
                try:
                    call_command("migrate", verbosity=0, interactive=False)
                except OperationalError as error:
                    raise CommandError(f"The database does not answer: {str(error).splitlines()[0]}") from None
                trial = self._demo() if all(map(_is_local, addresses.values())) else None
                if not User.objects.filter(is_superuser=True).exists():
                    self.stdout.write("Nobody can sign in to the admin yet: make an operator with createsuperuser.")
                settings.STATIC_ROOT.mkdir(exist_ok=True)  # empty: files are found in the packages
                connections.close_all()
                connections["default"].close_pool()  # type: ignore[attr-defined] # its threads would look for a database that we do not need
            roles = _roles(settings.MAILHOST_DATA)
            log = LogStream([*(role.name for role in roles), "postgres", "redis"])
            supervisor = Supervisor(roles, environment=_environment(), log=log)
            supervisor.run(every_tick=_Watch(log, addresses, trial))

    def _demo(self) -> demo.Demo | None:
        """Make the demo in an empty database; find it in one where it still is as it was made."""
        if made := demo.create_demo():
            if made.operator:  # told at once, whatever becomes of this start: it cannot be told again
                self.stdout.write(
                    f"The operator of the admin is {made.operator} with the password {made.operator_password}\n"
                    "(which is not shown again)."
                )
                self.stdout.flush()
            return made
        user = User.objects.filter(email=demo.ADDRESS).first()
        if user and user.check_password(demo.PASSWORD):
            return demo.Demo(demo.ADDRESS, demo.PASSWORD, operator=None, operator_password=None)
        return None


def _only_one(data: Path) -> Lock:
    lock = take(data / "up.lock")
    if lock is None:
        raise CommandError(f"Mailhost already runs on {data}. For a second one set MAILHOST_DATA and other ports.")
    return lock


@contextmanager
def _reserved(addresses: Mapping[str, Endpoint]) -> Iterator[None]:
    """Hold all addresses while we prepare, so that one that is taken is refused at once. Raises `CommandError`."""
    with ExitStack() as until_the_end:
        for name, address in addresses.items():
            try:
                if address.path:
                    _check_path(address.path)
                else:
                    until_the_end.enter_context(_bound(address))
            except OSError as error:
                raise CommandError(f"{name} is {address}, where we cannot listen: {error.strerror or error}.") from None
        yield


def _bound(address: Endpoint) -> socket.socket:
    [family, kind, protocol, _, where], *_ = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(where)
        listener.listen(1)  # two sockets that do not listen may share an address
    except BaseException:
        listener.close()
        raise
    return listener


def _check_path(path: Path) -> None:
    """Raise `OSError` if something answers at a Unix socket's path, or if it is no socket's."""
    if not path.parent.is_dir():
        raise OSError("its directory does not exist")
    if path.exists() and not path.is_socket():
        raise OSError("something else has this path")
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return
    raise OSError("another server answers there")


def _is_local(address: Endpoint) -> bool:
    """Tell whether only this machine can reach an address."""
    if address.path or address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def _environment() -> dict[str, str]:
    """Return what the roles find in their environment: ours, and what goes without saying in the foreground."""
    environment = dict(os.environ)
    if not environment.get("MAILHOST_PLAINTEXT_AUTH"):
        environment["MAILHOST_PLAINTEXT_AUTH"] = "loopback"
    paths = [str(settings.BASE_DIR), environment.get("PYTHONPATH", "")]
    return environment | {
        "MAILHOST_DATA": str(settings.MAILHOST_DATA),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
    }


def _roles(data: Path) -> list[Role]:
    manage = [sys.executable, str(settings.BASE_DIR / "manage.py")]
    celery = [sys.executable, "-m", "celery", "--app=mailhost", "--no-color", "--quiet"]
    return [
        Role("web", [sys.executable, "-m", "gunicorn", "mailhost.wsgi", *_gunicorn_options()], _as("mailhost_web")),
        Role("pop3", [*manage, "runpop3"]),
        Role("lmtp", [*manage, "runlmtp"]),
        # Threads: little memory, and the database's pool is shared. Purging waits for the database anyway.
        Role(
            "worker",
            [*celery, "worker", "--pool=threads", "--concurrency=4", "--loglevel=INFO", *CELERY_ALONE],
            _as("mailhost_worker"),
        ),
        Role(
            "beat",
            [*celery, "beat", "--loglevel=WARNING", f"--schedule={data / 'beat-schedule'}", "--pidfile="],
            _as("mailhost_worker"),
        ),
    ]


def _as(role: str) -> dict[str, str]:
    """The environment of a process that works as that role of the database."""
    return {"MAILHOST_DATABASE_ROLE": role}


CELERY_ALONE = ("--without-gossip", "--without-mingle", "--without-heartbeat")  # there are no others to talk to


def _gunicorn_options() -> list[str]:
    return [
        f"--bind={settings.MAILHOST_HTTP}",
        "--worker-class=gthread",
        f"--workers={min(settings.MAILHOST_WORKERS, 2)}",  # managing mail is little work beside mail itself
        "--threads=8",
        "--log-level=warning",
        "--no-control-socket",
    ]


class _Watch:
    """Called again and again: passes on what the embedded servers log, and says when everything answers."""

    def __init__(self, log: LogStream, addresses: Mapping[str, Endpoint], trial: demo.Demo | None) -> None:
        self._log = log
        self._addresses = addresses
        self._trial = trial
        self._silent = dict(addresses)  # who does not answer yet
        self._began = time.monotonic()
        self._warned = False
        self._tails = {
            name: Tail(settings.MAILHOST_DATA / "embedded" / f"{name}.log") for name in ("postgres", "redis")
        }

    def __call__(self) -> None:
        for name, tail in self._tails.items():
            for line in tail.lines():
                self._log.write(name, line)
        if not self._silent:
            return
        self._silent = {name: address for name, address in self._silent.items() if not _answers(name, address)}
        if not self._silent:
            self._announce()
        elif not self._warned and time.monotonic() - self._began > PATIENCE:
            self._warned = True
            self._log.say(
                "\n".join(f"{name} ({address}) does not answer yet." for name, address in self._silent.items())
            )

    def _announce(self) -> None:
        pop3, pop3s = self._addresses["MAILHOST_POP3"], self._addresses["MAILHOST_POP3S"]
        lines = [
            "",
            "Mailhost is running. Ctrl-C stops it.",
            "",
            f"  Web    http://{self._addresses['MAILHOST_HTTP']}/me/ (mailboxes' owners), /admin/ (administration)",
            f"  POP3   {pop3} (plain and STLS), {pop3s} (TLS)",
            f"  LMTP   {self._addresses['MAILHOST_LMTP']}",
            f"  Data   {settings.MAILHOST_DATA}",
            "",
        ]
        if self._trial:
            lines += self._how_to_try(self._trial)
        self._log.say("\n".join(lines))

    def _how_to_try(self, trial: demo.Demo) -> list[str]:
        if _environment()["MAILHOST_PLAINTEXT_AUTH"] == "never":
            url = f"--insecure pop3s://{self._addresses['MAILHOST_POP3S']}/1"  # nobody vouches for our certificate
        else:
            url = f"pop3://{self._addresses['MAILHOST_POP3']}/1"
        return [
            f"  There is a demo mailbox {trial.address} with the password {trial.password}. Try:",
            "",
            f"    curl -u {trial.address}:{trial.password} {url}",
            "",
        ]


def _answers(name: str, address: Endpoint) -> bool:
    """Tell whether the server behind a variable's address speaks."""
    try:
        with _connected(address) as client:
            if name == "MAILHOST_HTTP":
                client.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            elif settings.MAILHOST_PROXY_NETWORKS:
                return True  # it may want to hear from a proxy first
            if name == "MAILHOST_POP3S":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                with context.wrap_socket(client) as secure:
                    return secure.recv(64).startswith(b"+OK")
            return client.recv(64).startswith((b"HTTP/1.", b"+OK", b"220 "))
    except OSError:
        return False


def _connected(address: Endpoint) -> socket.socket:
    if not address.path:
        return socket.create_connection((address.host, address.port), timeout=0.5)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(0.5)
    try:
        client.connect(str(address.path))
    except OSError:
        client.close()
        raise
    return client
