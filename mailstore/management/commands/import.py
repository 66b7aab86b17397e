"""`manage.py import`: bring mail along from other servers and from files."""

import argparse
import csv
import getpass
import os
import re
import signal
import ssl
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import connection
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from accounts import audit, principals, provisioning
from accounts.management.command import ProvisioningCommand
from mailstore.importing import eml, imap, maildir, mbox, pop3, unique_ids
from mailstore.importing.arrival import Gone
from mailstore.importing.bring import NoRoom, Progress, Settings, bring
from mailstore.importing.source import Lost, Refused, Source
from mailstore.importing.wire import Security, Target
from mailstore.spool import SpoolFull

MOST_JOBS: Final = 6
"""Each has a connection to the database, and a process may have 8."""

_HOST = re.compile(r"(?:\[(.+)\]|([^:]+))(?::([^:]*))?")
_WAYS: Final = ("maildir", "mbox", "eml", "pop3", "imap")


@dataclass(frozen=True)
class _Work:
    """A mailbox, and where its mail is."""

    address: str
    login: str = ""
    password: str = field(default="", repr=False)
    host: str = ""


@dataclass
class _Outcome:
    """What became of a mailbox's import."""

    progress: Progress = field(default_factory=Progress)
    failure: str = ""
    code: int = 0


class _Stopped(BaseException):
    """Somebody pressed Ctrl-C."""


class Command(ProvisioningCommand):
    help = (
        "Bring a mailbox's mail along, with the unique-ids that POP3 clients know it by, so that they fetch nothing "
        "again. What came along before is left out, so it can be interrupted, repeated, and run beside everything "
        "else; nothing is removed or changed where it comes from. Exit code 0: all of it is here; 1: some of it cannot "
        "come; 75: a server was lost, run it again; 130: interrupted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address", nargs="?", help="the mailbox it comes into")
        ways = parser.add_mutually_exclusive_group(required=True)
        ways.add_argument("--maildir", metavar="PATH", help="with Dovecot's dovecot-uidlist, if there is one")
        ways.add_argument("--mbox", metavar="FILE")
        ways.add_argument("--eml", metavar="PATH", help="a folder of .eml files, or a zip of them or of a Maildir")
        ways.add_argument("--pop3", metavar="HOST[:PORT]")
        ways.add_argument("--imap", metavar="HOST[:PORT]")
        parser.add_argument("--login", default="", help="on that server; default: the address")
        parser.add_argument("--password-stdin", action="store_true", help="read its password from standard input")
        parser.add_argument("--security", choices=get_args(Security), default="tls", help="(%(default)s)")
        parser.add_argument("--ca-file", metavar="FILE", help="who vouches for the server; default: the system's")
        parser.add_argument("--folder", default="INBOX", help="of IMAP (%(default)s)")
        parser.add_argument("--subfolders", action="store_true", help="of a Maildir, too, after its own messages")
        parser.add_argument(
            "--uidl-format",
            type=_uidl_format,
            default=unique_ids.DOVECOT,
            metavar="FORMAT",
            help="of the old server's unique-ids, for --maildir and --imap: such as %%08Xu%%08Xv, or one of "
            f"{', '.join(unique_ids.FORMATS)} (dovecot)",
        )
        parser.add_argument("--no-unique-ids", action="store_true", help="keep none; messages are told by their octets")
        parser.add_argument("--x-uidl", action="store_true", help="take a field X-UIDL for it where there is no other")
        parser.add_argument(
            "--list",
            metavar="FILE",
            help="many mailboxes: a CSV file of address,login,password,host, of which the last may be left out; for "
            "files of address alone, and {address}, {local_part} and {domain} in the path are theirs",
        )
        parser.add_argument(
            "--jobs", type=int, choices=range(1, MOST_JOBS + 1), default=4, help="mailboxes at once (%(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if bool(options["address"]) == bool(options["list"]):
            raise CommandError("Give an address, or a file with --list.")
        options["way"] = next(way for way in _WAYS if options[way])
        if options["ca_file"]:
            try:
                ssl.create_default_context(cafile=options["ca_file"])
            except OSError:
                raise CommandError(f"{options['ca_file']} holds no certificates.") from None
        work = _listed(options) if options["list"] else [self._one(options)]
        outcomes = _Imports(options, work, self._tell).run()
        if options["list"]:
            done = sum(not outcome.code for outcome in outcomes)
            imported = sum(outcome.progress.imported for outcome in outcomes)
            self.stdout.write(f"{done} of {len(outcomes)} mailboxes are whole; {imported:,} messages came along.")
        if codes := {outcome.code for outcome in outcomes} - {0}:
            # Whoever runs it again does so for what may be better then.
            raise CommandError("Not all mail came along.", returncode=max(codes))

    def _one(self, options: dict[str, Any]) -> _Work:
        address = options["address"]
        if options["way"] not in ("pop3", "imap"):
            return _Work(address)
        login = options["login"] or address
        if options["password_stdin"]:
            try:
                password = sys.stdin.buffer.readline(4096).decode().rstrip("\r\n")
            except UnicodeDecodeError:
                raise CommandError("The password on standard input is not UTF-8.") from None
        elif sys.stdin.isatty():
            password = getpass.getpass(f"Password of {login} there: ")
        else:
            raise CommandError("There is no terminal to ask for the password: use --password-stdin.")
        return _Work(address, login, password)

    def _tell(self, work: _Work, outcome: _Outcome) -> None:
        progress = outcome.progress
        for problem in progress.problems:
            self.stderr.write(f"{work.address}: {problem}")
        if outcome.failure:
            self.stderr.write(f"{work.address}: {outcome.failure}")
            if not progress.done:
                return
        self.stdout.write(
            f"{work.address}: {progress.imported:,} messages came along, {progress.skipped:,} had before, "
            f"{progress.failed:,} cannot."
        )


class _Imports:
    """Imports side by side, and how far they are."""

    def __init__(self, options: dict[str, Any], work: list[_Work], tell: Any) -> None:
        self._options = options
        self._work = work
        self._tell = tell
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.disable = not sys.stderr.isatty()

    def run(self) -> list[_Outcome]:
        many = len(self._work) > 1
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            with self._bar:
                whole = self._bar.add_task("Mailboxes", total=len(self._work), visible=many)
                with ThreadPoolExecutor(min(self._options["jobs"], len(self._work) or 1)) as threads:
                    return list(threads.map(partial(self._import, whole), self._work))
        except _Stopped:
            raise CommandError("Interrupted; run it again to go on.", returncode=130) from None
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_: object) -> None:
        """Stop before the next message; the second time, at once."""
        self._stopped.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _import(self, whole: Any, work: _Work) -> _Outcome:
        if self._stopped.is_set():
            raise _Stopped
        outcome = _Outcome()
        bar = self._bar.add_task(work.address, total=None)

        def watch(progress: Progress) -> None:
            outcome.progress = progress
            if self._stopped.is_set():
                raise _Stopped
            self._bar.update(bar, completed=progress.done, total=progress.total)

        try:
            mailbox = provisioning.find_mailbox(work.address)
            with principals.acting_as(principals.COMMAND):
                audit.record("import.started", mailbox, detail={"source": self._options["way"]})
            outcome.progress = bring(_source(work, self._options), mailbox, _settings(self._options), watch=watch)
            outcome.code = 1 if outcome.progress.failed else 0
        except provisioning.REFUSALS as error:
            outcome.failure, outcome.code = f"{error}", 1
        except Refused as error:
            outcome.failure, outcome.code = f"{error}", 1
        except Gone:
            outcome.failure, outcome.code = "the mailbox was closed", 1
        except NoRoom:
            outcome.failure, outcome.code = "there is no room for more: raise its quota, and run it again", 1
        except Lost as error:
            outcome.failure, outcome.code = f"{error}; run it again to go on", os.EX_TEMPFAIL
        except SpoolFull:
            outcome.failure, outcome.code = "the disk of MAILHOST_DATA is full", os.EX_TEMPFAIL
        finally:
            connection.close()
        with self._lock:
            self._bar.remove_task(bar)
            self._bar.advance(whole)
            self._tell(work, outcome)
        return outcome


def _source(work: _Work, options: dict[str, Any]) -> Source:
    way: str = options["way"]
    uidl_format = None if options["no_unique_ids"] else options["uidl_format"]
    if way in ("pop3", "imap"):
        ports = pop3.PORTS if way == "pop3" else imap.PORTS
        host, port = _host(work.host or options[way], ports[options["security"]])
        target = Target(
            host=host,
            port=port,
            security=options["security"],
            login=work.login,
            password=work.password,
            allow_private=True,  # whoever can run commands here reaches them anyway
            context=partial(ssl.create_default_context, cafile=options["ca_file"]),
        )
        return (
            pop3.Pop3(target) if way == "pop3" else imap.Imap(target, folder=options["folder"], uidl_format=uidl_format)
        )
    local_part, _, domain = work.address.rpartition("@")
    text: str = options[way]
    for name, value in {"address": work.address, "local_part": local_part, "domain": domain}.items():
        text = text.replace(f"{{{name}}}", value)
    path = Path(text)
    if way == "maildir":
        return maildir.Maildir(path, uidl_format=uidl_format, subfolders=options["subfolders"])
    if way == "mbox":
        return mbox.Mbox(path, name=text)
    return eml.Folder(path) if path.is_dir() else eml.Zip(path, uidl_format=uidl_format)


def _settings(options: dict[str, Any]) -> Settings:
    directory = settings.MAILHOST_DATA / "spool"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Settings(
        limit=settings.MAILHOST_MAX_MESSAGE,
        directory=str(directory),
        unique_ids=not options["no_unique_ids"],
        x_uidl=options["x_uidl"],
    )


def _host(text: str, port: int) -> tuple[str, int]:
    """A host and its port: `pop.example.test`, `192.0.2.1:110`, `[2001:db8::1]:110`."""
    found = _HOST.fullmatch(text)
    if found is None:
        return text, port  # an IPv6 address, or nothing that can be found
    bracketed, name, digits = found.groups()
    if digits is not None and not (digits.isdecimal() and 0 < int(digits) < 65536):
        raise Refused(f"{text!a} is no host with a port")
    return bracketed or name, int(digits) if digits else port


def _listed(options: dict[str, Any]) -> list[_Work]:
    """The mailboxes of the file: all of it is looked at before anything begins."""
    name = options["list"]
    try:
        lines = Path(name).read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CommandError(f"{name} is not UTF-8.") from None
    return list(_rows(name, lines, remote=options["way"] in ("pop3", "imap")))


def _rows(name: str, lines: list[str], *, remote: bool) -> Iterator[_Work]:
    reader = csv.reader(lines, strict=True)
    try:
        for cells in reader:
            if not cells or (reader.line_num == 1 and cells[0].strip().lower() == "address"):
                continue
            if not 3 <= len(cells) <= 4 if remote else len(cells) != 1:
                wanted = "address,login,password or address,login,password,host" if remote else "an address"
                raise CommandError(f"{name}, line {reader.line_num}: it must be {wanted}. Nothing was done.")
            address, *rest = (cell if number == 2 else cell.strip() for number, cell in enumerate(cells))
            yield _Work(address, *(rest if not remote else [rest[0] or address, *rest[1:]]))
    except csv.Error:
        raise CommandError(f"{name}, line {reader.line_num}: it is not CSV. Nothing was done.") from None


def _uidl_format(text: str) -> str:
    try:
        return unique_ids.check(text)
    except unique_ids.BadFormat as error:
        raise argparse.ArgumentTypeError(str(error)) from None
