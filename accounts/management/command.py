"""What the commands that provision have in common: how they answer, and how they come by a password."""

import argparse
import getpass
import os
import sys
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError
from psycopg import errors

from accounts import passwords, principals, provisioning, quotas


class ProvisioningCommand(BaseCommand):
    """A command whose refusals are one line on standard error, and exit code 1."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            with principals.acting_as(principals.COMMAND):
                return super().execute(*args, **options)
        except provisioning.REFUSALS as refusal:
            raise CommandError(f"{refusal}.") from None
        except OperationalError as error:
            raise CommandError(f"The database does not answer: {_first_line(error)}") from None
        except ProgrammingError as error:
            if not isinstance(error.__cause__, errors.UndefinedTable | errors.UndefinedColumn):
                raise
            raise CommandError("The database is not up to date: run `manage.py migrate` first.") from None
        except BrokenPipeError:  # whoever reads has seen enough: `… | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None

    def ask(self, question: str) -> None:
        """Go on only if whoever sits at the terminal says yes. Raises `CommandError`."""
        if not sys.stdin.isatty():
            raise CommandError("There is no terminal to ask whether it is meant: use --yes.")
        self.stdout.write(f"{question} [y/N] ", ending="")
        self.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was done.")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def quota(text: str) -> int | None:
    """For `add_argument(type=…)`."""
    try:
        return quotas.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(text: str) -> int | None:
    """A limit, or none, for `add_argument(type=…)`."""
    if text.lower() == "none":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise argparse.ArgumentTypeError("it must be a whole number, or none")
    return int(text)


class Password(NamedTuple):
    """A password, and whether its owner must be told."""

    text: str
    generated: bool


def add_password_arguments(parser: CommandParser) -> None:
    """The ways to give a password. There is none to put it on the command line, where every process can see it."""
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    ways.add_argument("--generate", action="store_true", help="make a password, and print it")


def read_password(address: str, options: dict[str, Any]) -> Password:
    """The password for `address`, in the way that was chosen; asked for twice on a terminal. Raises `BadPassword`."""
    if options["generate"]:
        return Password(passwords.generated(), generated=True)
    if options["password_stdin"]:
        text = _read_line()
    elif sys.stdin.isatty():
        text = getpass.getpass(f"Password for {address}: ")
        passwords.check(text)
        if getpass.getpass("Again: ") != text:
            raise CommandError("The two passwords differ.")
    else:
        raise CommandError("There is no terminal to ask for a password: use --password-stdin or --generate.")
    passwords.check(text)
    return Password(text, generated=False)


def moment(text: str) -> datetime:
    """A time such as `2027-01-31` or `2027-01-31T18:00:00Z`, for `add_argument(type=…)`. Without a zone it is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("it must be a time such as 2027-01-31 or 2027-01-31T18:00:00Z") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _read_line() -> str:
    try:
        text = sys.stdin.buffer.read(64 * 1024).decode()
    except UnicodeDecodeError:
        raise passwords.BadPassword("the password on standard input is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")
