"""`manage.py addmailboxes`: many mailboxes from a CSV file, all or none."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from accounts import provisioning, quotas
from accounts.management.command import ProvisioningCommand
from accounts.provisioning import BadRow, BadRows, Row


class Command(ProvisioningCommand):
    help = (
        "Add the mailboxes of a CSV file, one in each line: address,password,quota. All are added, or none if a line "
        "is bad. Those that exist stay as they are."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="a UTF-8 file, or - for standard input; the first line may name the columns")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = list(_rows(_lines(_text(options["file"]))))
        bar = Progress(
            *Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
        )
        bar.disable = not sys.stderr.isatty()
        try:
            with bar:
                task = bar.add_task("Hashing passwords", total=None)
                added, existing = provisioning.add_mailboxes(
                    rows, progress=lambda done, of: bar.update(task, completed=done, total=of)
                )
        except BadRows as refused:
            for line, reason in refused.rows:
                self.stderr.write(f"line {line}: {reason}")
            raise CommandError(f"Nothing was added: {len(refused.rows)} of the lines cannot be.") from None
        self.stdout.write(f"{added} mailboxes added, {existing} existed.")


def _text(name: str) -> str:
    try:
        octets = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}.") from None
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise CommandError(f"{name} is not UTF-8 in line {line}.") from None


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers; without the one that names the columns."""
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    first = True
    try:
        for cells in reader:
            if cells and not (first and cells[0].strip().lower() == "address"):
                yield reader.line_num, cells
            first = False
    except csv.Error as error:
        raise CommandError(f"Line {reader.line_num} is not CSV: {error}.") from None


def _rows(lines: Iterator[tuple[int, list[str]]]) -> Iterator[Row | BadRow]:
    for line, cells in lines:
        if len(cells) not in (2, 3):
            yield BadRow(line, "must be address,password or address,password,quota")
            continue
        quota = cells[2].strip() if len(cells) == 3 else ""
        try:
            octets = quotas.parse(quota) if quota else settings.MAILHOST_DEFAULT_QUOTA
        except ValueError as error:
            yield BadRow(line, str(error))
        else:
            yield Row(line, cells[0].strip(), cells[1], octets)
