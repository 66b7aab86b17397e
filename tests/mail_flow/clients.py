"""Real POP3 clients, each run as its users run it: keeping what it fetched on the server, or not."""

import poplib
import shutil
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.fixtures import PASSWORD
from tests.system import Pop3Listener

Door = Literal["plain", "stls", "tls"]
DOORS: Final[tuple[Door, ...]] = ("plain", "stls", "tls")
HOST: Final = "localhost"  # as the certificate says: fetchmail looks at no IP addresses there


@dataclass(frozen=True)
class Owner:
    """Somebody who has a mailbox, a way in to it, and a home directory where a client remembers things."""

    address: str
    door: Door
    listener: Pop3Listener
    ca_file: Path
    home: Path

    @property
    def port(self) -> int:
        return (self.listener.tls_address if self.door == "tls" else self.listener.address)[1]


def poplib_(owner: Owner, *, keep: bool) -> list[bytes]:
    """A program of a few lines, as people write them."""
    seen = _remembered(owner)
    context = ssl.create_default_context(cafile=owner.ca_file)
    if owner.door == "tls":
        session: poplib.POP3 = poplib.POP3_SSL(HOST, owner.port, context=context, timeout=20)
    else:
        session = poplib.POP3(HOST, owner.port, timeout=20)
        if owner.door == "stls":
            session.stls(context)
    session.user(owner.address)
    session.pass_(PASSWORD)
    fetched = []
    for number, unique_id in (line.decode().split() for line in session.uidl()[1]):
        if unique_id not in seen:
            fetched.append(b"".join(line + b"\r\n" for line in session.retr(int(number))[1]))
            seen.append(unique_id)
        if not keep:
            session.dele(int(number))
    session.quit()
    _remember(owner, seen)
    return fetched


def curl(owner: Owner, *, keep: bool) -> list[bytes]:
    """A script around curl, which remembers nothing itself."""
    seen = _remembered(owner)
    scheme = "pop3s" if owner.door == "tls" else "pop3"
    url = f"{scheme}://{HOST}:{owner.port}/"
    options = ["--ssl-reqd"] if owner.door == "stls" else []

    def run(*arguments: str) -> bytes:
        always = ["curl", "--silent", "--show-error", "--max-time", "20", "--cacert", str(owner.ca_file)]
        return _run([*always, "--user", f"{owner.address}:{PASSWORD}", *options, *arguments], owner)

    # Of an empty list curl makes an empty line.
    listed = [line.split() for line in run("--request", "UIDL", url).decode().splitlines() if line]
    fetched = []
    for number, unique_id in listed:
        if unique_id not in seen:
            fetched.append(run(url + number))
            seen.append(unique_id)
    if not keep:
        for number, _ in reversed(listed):  # each in a session of its own, and numbers below stay as they are
            run("--request", "DELE", "--head", url + number)
    _remember(owner, seen)
    return fetched


def fetchmail(owner: Owner, *, keep: bool) -> list[bytes]:
    """fetchmail in its classic way: hands each message to a program."""
    settings = owner.home / "fetchmailrc"
    script, inbox = _mda(owner)
    tls = {
        "plain": "sslproto ''",
        "stls": f'sslproto "TLS1.2+" sslcertck sslcertfile "{owner.ca_file}"',
        "tls": f'ssl sslcertck sslcertfile "{owner.ca_file}"',
    }[owner.door]
    settings.write_text(
        f"poll {HOST} protocol POP3 service {owner.port} uidl no dns timeout 20\n"
        f'  user "{owner.address}" password "{PASSWORD}" {"keep" if keep else "fetchall no keep"} {tls}\n'
        f'  mda "{script}"\n'
    )
    settings.chmod(0o600)
    files = ["--fetchmailrc", settings, "--idfile", owner.home / "ids", "--pidfile", owner.home / "pid"]
    _run(["fetchmail", "--nosyslog", *map(str, files)], owner, fine=(0, 1))  # 1: there was no mail
    return _taken(inbox)


def mpop(owner: Owner, *, keep: bool) -> list[bytes]:
    """mpop into a Maildir."""
    settings, maildir = owner.home / "mpoprc", owner.home / "Maildir"
    for part in ("tmp", "new", "cur"):
        (maildir / part).mkdir(parents=True, exist_ok=True)
    settings.write_text(
        f"account default\nhost {HOST}\nport {owner.port}\nuser {owner.address}\npassword {PASSWORD}\n"
        f"auth {'user' if owner.door == 'plain' else 'on'}\n"
        f"tls {'off' if owner.door == 'plain' else 'on'}\ntls_starttls {'on' if owner.door == 'stls' else 'off'}\n"
        f"tls_trust_file {owner.ca_file}\n"
        f"delivery maildir {maildir}\nreceived_header off\n"
        f"keep {'on' if keep else 'off'}\nuidls_file {owner.home / 'uidls'}\ntimeout 20\n"
    )
    settings.chmod(0o600)
    _run(["mpop", "--quiet", f"--file={settings}"], owner)
    return _taken(maildir / "new")


def getmail(owner: Owner, *, keep: bool) -> list[bytes]:
    """getmail6, which hands each message to a program: as root it would write no Maildir. It has no STLS."""
    settings = owner.home / "getmailrc"
    script, inbox = _mda(owner)
    kind = "SimplePOP3SSLRetriever" if owner.door == "tls" else "SimplePOP3Retriever"
    tls = f"ca_certs = {owner.ca_file}\n" if owner.door == "tls" else ""
    settings.write_text(
        f"[retriever]\ntype = {kind}\nserver = {HOST}\nport = {owner.port}\ntimeout = 20\n{tls}"
        f"username = {owner.address}\npassword = {PASSWORD}\n"
        f"[destination]\ntype = MDA_external\npath = {script}\nallow_root_commands = true\n"
        f"[options]\nread_all = false\ndelete = {'false' if keep else 'true'}\ndelivered_to = false\nreceived = false\n"
    )
    settings.chmod(0o600)
    _run(["getmail", "--quiet", f"--getmaildir={owner.home}", f"--rcfile={settings}"], owner)
    return _taken(inbox)


CLIENTS: Final[dict[str, Callable[..., list[bytes]]]] = {
    "curl": curl,
    "fetchmail": fetchmail,
    "getmail": getmail,
    "mpop": mpop,
    "poplib": poplib_,
}
EXACT: Final = {"curl", "poplib"}
"""Clients that hand on what they got octet by octet; the others write Unix line ends, and add or drop fields."""


def doors(client: str) -> tuple[Door, ...]:
    """The ways in that a client knows."""
    return ("plain", "tls") if client == "getmail" else DOORS


def installed(client: str) -> bool:
    """Whether it is here."""
    return client == "poplib" or shutil.which(client) is not None


def _run(command: list[str], owner: Owner, *, fine: tuple[int, ...] = (0,)) -> bytes:
    environment = {"HOME": str(owner.home), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=owner.home, env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode in fine, (command[0], done.returncode, done.stdout, done.stderr)
    return done.stdout


def _mda(owner: Owner) -> tuple[Path, Path]:
    """A program that takes a message, and the directory where it puts it."""
    script, inbox = owner.home / "mda", owner.home / "inbox"
    inbox.mkdir(exist_ok=True)
    # getmail waits for ever for a program that ends before it begins to wait.
    script.write_text(f'#!/bin/sh\ncat > "$(mktemp {inbox}/XXXXXX)" && sleep 0.1\n')
    script.chmod(0o755)
    return script, inbox


def _taken(directory: Path) -> list[bytes]:
    """The messages that lie there, which are taken away."""
    taken = []
    for file in sorted(directory.iterdir()):
        taken.append(file.read_bytes())
        file.unlink()
    return taken


def _remembered(owner: Owner) -> list[str]:
    file = owner.home / "seen"
    return file.read_text().split() if file.exists() else []


def _remember(owner: Owner, seen: list[str]) -> None:
    (owner.home / "seen").write_text("\n".join(seen))
