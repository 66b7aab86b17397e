"""A private Dovecot keeps what it is given, gives it back, and leaves no process behind."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import processes
from bench.dovecot import Dovecot
from bench.generator import load, write_users
from bench.side import NotAvailable

MAILBOXES = [(f"m{number}@bench.test", "secret") for number in range(2)]


@pytest.fixture(params=["tuned", "default"])
def dovecot(request: pytest.FixtureRequest) -> Iterator[Dovecot]:
    # not tmp_path: its parents are private to us, and Dovecot's processes run as other users
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        side = Dovecot(request.param, Path(directory) / "dovecot")
        try:
            side.start(MAILBOXES)
        except NotAvailable as reason:
            side.stop()
            pytest.skip(str(reason))
        yield side
        side.stop()


def test_messages_come_back_as_they_were_listed(dovecot: Dovecot, program: Path, tmp_path: Path) -> None:
    users = write_users(tmp_path / "users", MAILBOXES)
    filled = load(program, "deliver", port=dovecot.lmtp_port, users=users, connections=2, each=3, octets=4000)
    assert (filled.operations, filled.error_samples) == (6, ())
    fetched = load(program, "fetch", port=dovecot.pop3_port, users=users, connections=2, each=2, messages=3)
    assert (fetched.operations, fetched.error_samples) == (4, ())
    assert fetched.octets > 2 * 6 * 4000  # each copy has its trace lines before it


def test_durability_is_not_weakened(dovecot: Dovecot) -> None:
    assert dovecot.facts()["mail_fsync"] == "optimized"  # Dovecot's default


def test_nothing_is_left_when_it_is_stopped(dovecot: Dovecot) -> None:
    before = processes.tree(dovecot.roots(), processes.processes())
    assert len(before) > 3
    dovecot.stop()
    alive = [process for pid in before if (process := processes.read(pid)) and process.state != "Z"]
    assert alive == []
