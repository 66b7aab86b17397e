"""Where the embedded servers' files are, and which account may read them.

PostgreSQL refuses to run as root. So for root the servers run as `postgres`, or else `nobody`, and live in a
directory which that account can reach: below the data directory if possible, else outside, with a link.
"""

import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from mailhost.embedded.binaries import Tree
from mailhost.embedded.locks import take

OUTSIDE = Path("/var/lib")
SOCKET_PATH_LIMIT = 107  # octets in sockaddr_un, less the NUL
LONGEST_SOCKET_NAME = ".s.PGSQL.5432.lock"


class EmbeddedError(Exception):
    """An embedded server cannot be used; says why, in a sentence for the operator."""


class Account(NamedTuple):
    """The account that runs the servers."""

    uid: int
    gid: int

    def for_popen(self) -> dict[str, Any]:
        """Return what `subprocess` needs to run something as this account."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can(self, test: str, path: Path) -> bool:
        """Tell what `test` says about a path for this account: -x, -r."""
        script = ["/bin/sh", "-c", f'test {test} "$1"', "sh", str(path)]
        return subprocess.run(script, check=False, cwd="/", **self.for_popen()).returncode == 0

    def own(self, path: Path) -> None:
        """Give this account a file or directory that we have just made."""
        if self.uid != os.geteuid():
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def make_directory(self, path: Path) -> None:
        """Make a directory that is this account's alone, in one that nobody else can change."""
        path.mkdir(mode=0o700, exist_ok=True)
        self.own(path)

    def owns_privately(self, path: Path) -> bool:
        """Tell whether a path is a directory of this account that no other can open."""
        try:
            found = path.lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(found.st_mode) and found.st_uid == self.uid and not found.st_mode & 0o077


def account_for(home: Path) -> Account:
    """Choose the account: our own; for root the owner of what is there already, else postgres or nobody."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    for made in (*sorted(home.glob("postgres-*")), *sorted(home.glob("redis"))):
        owner = made.stat()
        if owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedError("PostgreSQL does not run as root, and there is no account `postgres` or `nobody` to run it as.")


def open_home(data: Path) -> Path:
    """Return the directory of the servers' files, made if it is missing. Raises `EmbeddedError`."""
    try:
        if not data.is_dir():
            data.mkdir(parents=True, exist_ok=True)
            data.chmod(0o711 if os.geteuid() == 0 else 0o700)
        lock = take(data / "embedded.lock", wait=True)
        assert lock is not None
        try:
            return _open_home(data / "embedded")
        finally:
            lock.release()
    except OSError as error:
        raise EmbeddedError(f"MAILHOST_DATA: {error.filename or data} cannot be used: {error.strerror}.") from error


def _open_home(link: Path) -> Path:
    if not link.is_symlink() and not link.exists():
        if os.geteuid() != 0:
            link.mkdir(mode=0o700)
        elif account_for(link).can("-x", link.parent):
            link.mkdir()
            link.chmod(0o711)
        else:
            outside = Path(tempfile.mkdtemp(prefix="mailhost-", dir=OUTSIDE))
            outside.chmod(0o711)
            link.symlink_to(outside)
    if not link.exists():
        raise EmbeddedError(
            f"{link} leads to {link.readlink()}, which is gone. "
            "Restore that directory, or remove the link to start afresh."
        )
    home = link.resolve()
    _make_socket_directory(home, account_for(home))
    return home


def remove(data: Path) -> None:
    """Remove a data directory whose servers have stopped, and what lies outside of it."""
    home = (data / "embedded").resolve()
    if (home / "sockets").is_symlink():
        shutil.rmtree(socket_directory(home), ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(data, ignore_errors=True)


def reachable_program(tree: Tree, home: Path, account: Account) -> Path:
    """Return the path of a server's program that the account can run; copies the tree where it cannot."""
    if account.can("-x", tree.path):
        return tree.path
    copy = home / tree.release
    if not copy.exists():
        unfinished = home / f"{tree.release}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(tree.root, unfinished, symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        unfinished.rename(copy)
    return copy / tree.program


def _make_socket_directory(home: Path, account: Account) -> None:
    """Make the private directory of the Unix sockets, elsewhere if their paths would pass 107 octets.

    It stays when the last server stops: whoever starts the next may be waiting for that end, with its path in hand.
    """
    beside = home / "run"
    note = home / "sockets"
    fits = len(os.fsencode(beside / LONGEST_SOCKET_NAME)) <= SOCKET_PATH_LIMIT
    if fits and re.fullmatch(
        r"[\w./+-]+", str(beside), re.ASCII
    ):  # in PostgreSQL's setting, other characters mean something
        account.make_directory(beside)
    elif not (note.is_symlink() and account.owns_privately(note.readlink())):
        short = Path(tempfile.mkdtemp(prefix="mailhost-", dir="/tmp"))  # TMPDIR may be long itself
        account.own(short)
        note.unlink(missing_ok=True)
        note.symlink_to(short)


def socket_directory(home: Path) -> Path:
    """Return the directory of the Unix sockets, the same one for as long as it exists."""
    note = home / "sockets"
    return note.readlink() if note.is_symlink() else home / "run"
