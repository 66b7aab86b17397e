"""Who moves here from Dovecot notices nothing: clients fetch nothing again, and everything that comes after."""

import os
import poplib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstore import drift
from mailstore.models import Message
from tests.fixtures import PASSWORD, Customer
from tests.mail_flow import clients
from tests.mail_flow.clients import CLIENTS, Owner
from tests.mail_flow.dovecot import OldServer, Relay, relay
from tests.mailstore import post
from tests.mailstore.importing.sources import maildrop
from tests.system import PROJECT, LmtpListener, Pop3Listener, System

WAYS = ("maildir", "pop3", "imap")


@pytest.fixture(scope="module")
def old() -> Iterator[OldServer]:
    # not tmp_path: its parents are private to us, and Dovecot's processes run as other users
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        server = OldServer(Path(directory) / "dovecot")
        server.begin()
        yield server
        server.stop()


@pytest.fixture(autouse=True)
def what_dovecot_said(old: OldServer) -> Iterator[None]:
    """At last; it stands beside a failure."""
    yield
    with (old.directory / "dovecot.log").open(errors="replace") as log:
        print(*deque(log, maxlen=40), sep="")


@pytest.fixture
def name() -> Iterator[Relay]:
    """The name of the server that clients know."""
    with relay() as made:
        yield made


def where(way: str, old: OldServer, address: str) -> list[str]:
    if way == "maildir":
        return ["--maildir", str(old.maildir(address))]
    port = old.pop3_port if way == "pop3" else old.imap_port
    return [f"--{way}", f"localhost:{port}", "--security", "none", "--password-stdin"]


def begin(system: System, *arguments: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=system.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    process.stdin.write(PASSWORD.encode() + b"\n")
    process.stdin.close()
    process.stdin = None
    return process


def manage(system: System, *arguments: str, code: int = 0) -> str:
    process = begin(system, *arguments)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == code, (output, errors)
    return output.decode()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_fetches_nothing_again(
    client: str,
    way: str,
    system: System,
    pop3: Pop3Listener,
    lmtp: LmtpListener,
    acme: Customer,
    old: OldServer,
    name: Relay,
    tmp_path: Path,
) -> None:
    if not clients.installed(client):
        pytest.skip(f"{client} is not installed")
    address = str(acme.mailbox)
    fetch = CLIENTS[client]
    owner = Owner(address, "plain", name, system.ca_file, tmp_path)  # type: ignore[arg-type] # it has the addresses
    old.deliver(address, *(post.text(f"old {number}") for number in range(3)))
    name.target = old.pop3_port
    assert len(fetch(owner, keep=True)) == 3
    assert fetch(owner, keep=True) == []

    told = manage(system, "import", address, *where(way, old, address))
    assert told == f"{address}: 3 messages came along, 0 had before, 0 cannot.\n"

    name.target = pop3.address[1]
    assert fetch(owner, keep=True) == []
    assert lmtp.deliver(post.text("new"), acme.mailbox)[0].startswith(b"250")
    [new] = fetch(owner, keep=True)
    assert b"Subject: new" in new
    assert fetch(owner, keep=True) == []


def test_all_ways_bring_the_same_and_none_of_it_twice(
    system: System, pop3: Pop3Listener, acme: Customer, old: OldServer
) -> None:
    address = str(acme.mailbox)
    old.deliver(address, *(post.text(f"{number}", body=".\r\n..\r\n" * number) for number in range(20)))
    with pop3.client() as client:
        assert client.log_in(address).startswith(b"+OK")
    theirs = listed(old.pop3_port, address)
    for number, way in enumerate(WAYS):
        told = manage(system, "import", address, *where(way, old, address))
        assert told == (
            f"{address}: {0 if number else 20} messages came along, {20 if number else 0} had before, 0 cannot.\n"
        )
    assert listed(pop3.address[1], address) == theirs
    old.deliver(address, post.text("one more"))
    assert "1 messages came along, 20 had" in manage(system, "import", address, *where("imap", old, address))
    assert listed(pop3.address[1], address) == listed(old.pop3_port, address)


def listed(port: int, address: str) -> list[tuple[bytes, bytes]]:
    """Unique-ids and octets, as a server shows them."""
    session = poplib.POP3("127.0.0.1", port, timeout=20)
    session.user(address)
    session.pass_(PASSWORD)
    found = [(line.split()[1], b"\r\n".join(session.retr(int(line.split()[0]))[1])) for line in session.uidl()[1]]
    session.quit()
    return found


@pytest.mark.parametrize("way", WAYS)
def test_an_import_killed_anywhere_goes_on(way: str, system: System, acme: Customer, old: OldServer) -> None:
    address = str(acme.mailbox)
    messages = [post.text(f"{number}", body="x" * 70 + "\r\n") for number in range(600)]
    old.deliver(address, *messages)
    expected = listed(old.pop3_port, address)
    kills = 0
    for _ in range(4):
        before = Message.objects.filter(mailbox=acme.mailbox).count()
        process = begin(system, "import", address, *where(way, old, address))
        deadline = time.monotonic() + 60
        while process.poll() is None and Message.objects.filter(mailbox=acme.mailbox).count() == before:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
    manage(system, "import", address, *where(way, old, address))
    assert kills
    found = maildrop(acme.mailbox)
    assert [(name.encode(), octets.removesuffix(b"\r\n")) for name, octets in found] == expected
    assert list(drift.find()) == []


@pytest.mark.parametrize("way", ["pop3", "imap"])
def test_a_lost_connection_is_made_again(way: str, system: System, acme: Customer, old: OldServer, name: Relay) -> None:
    address = str(acme.mailbox)
    old.deliver(address, *(post.text(f"{number}", body="x" * 70 + "\r\n") for number in range(100)))
    name.target = old.pop3_port if way == "pop3" else old.imap_port
    name.cut_after = 20_000
    host = f"127.0.0.1:{name.address[1]}"
    told = manage(system, "import", address, f"--{way}", host, "--security", "none", "--password-stdin")
    assert "100 messages came along, 0 had before, 0 cannot" in told
    assert name.cut_after is None


def test_many_mailboxes_move_at_once(system: System, acme: Customer, old: OldServer, tmp_path: Path) -> None:
    boxes = [acme.add(f"m{number}") for number in range(5)]
    for box in boxes:
        old.deliver(str(box), *(post.text(f"{box} {number}") for number in range(10)))
    lines = [f"{box},,{PASSWORD}" for box in boxes] + [f"{boxes[0]},,wrong"]
    listing = tmp_path / "list.csv"
    listing.write_text("address,login,password\n" + "\n".join(lines))
    source = ["--pop3", f"localhost:{old.pop3_port}", "--security", "none"]
    told = manage(system, "import", "--list", str(listing), *source, code=1)
    assert told.endswith("5 of 6 mailboxes are whole; 50 messages came along.\n")
    assert [len(maildrop(box)) for box in boxes] == [10] * 5
    listing.write_text("\n".join(map(str, boxes)))
    template = str(old.directory / "mail" / "{domain}" / "{local_part}" / "Maildir")
    told = manage(system, "import", "--list", str(listing), "--maildir", template, "--jobs", "2")
    assert told.endswith("5 of 5 mailboxes are whole; 0 messages came along.\n")


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_mail_moves_between_two_of_us_over_tls(
    security: str, system: System, pop3: Pop3Listener, acme: Customer, globex: Customer
) -> None:
    post.fill(acme.mailbox, [post.text(f"{number}", body=".x\r\n" * number) for number in range(5)])
    port = (pop3.tls_address if security == "tls" else pop3.address)[1]
    arguments = ["import", str(globex.mailbox), "--pop3", f"localhost:{port}", "--login", str(acme.mailbox)]
    arguments += ["--security", security, "--password-stdin"]
    told = begin(system, *arguments)
    assert told.wait(60) == 1
    assert told.stderr
    assert b"certificate is not to be trusted" in told.stderr.read()
    told.communicate()
    manage(system, *arguments, "--ca-file", str(system.ca_file))
    assert maildrop(globex.mailbox) == maildrop(acme.mailbox)


def test_what_was_moved_out_comes_in_again(system: System, acme: Customer, globex: Customer, tmp_path: Path) -> None:
    post.fill(acme.mailbox, [post.text(f"{number}", body="From here\r\n>From there\r\n") for number in range(5)])
    for format_ in ("mbox", "maildir", "eml"):
        box = globex.add(format_)
        file = tmp_path / format_
        manage(system, "export", str(acme.mailbox), "--format", format_, "--output", str(file))
        manage(system, "import", str(box), "--mbox" if format_ == "mbox" else "--eml", str(file))
        ours, theirs = maildrop(acme.mailbox), maildrop(box)
        assert [octets for _, octets in theirs] == [octets for _, octets in ours]
        assert (theirs == ours) == (format_ == "maildir")


def test_dovecot_shows_the_unique_ids_of_what_was_moved_out(
    system: System, acme: Customer, old: OldServer, tmp_path: Path
) -> None:
    post.fill(acme.mailbox, [post.text(f"{number}") for number in range(5)])
    manage(system, "export", str(acme.mailbox), "--format", "maildir", "--output", str(tmp_path / "out"))
    zipfile.ZipFile(tmp_path / "out").extractall(tmp_path)
    address = str(acme.mailbox)
    old.deliver(address, post.text("first, so that its folder is there"))
    maildir = old.maildir(address)
    owner = maildir.stat()
    shutil.rmtree(maildir)
    shutil.copytree(tmp_path / "Maildir", maildir)
    for path in (maildir, *maildir.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    assert [name.decode() for name, _ in listed(old.pop3_port, address)] == [name for name, _ in maildrop(acme.mailbox)]
