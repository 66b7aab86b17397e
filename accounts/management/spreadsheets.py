"""What the commands that read and write CSV files have in common."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from accounts import provisioning
from accounts.management.command import ProvisioningCommand
from accounts.models import Domain
from accounts.provisioning.bulk import Progress as Told
from accounts.spreadsheets import LIMIT, BadLines, Report, Table


class ImportCommand(ProvisioningCommand):
    """Reads a file, and carries it out; with `--dry-run`, says only what would be done."""

    of: str

    def read(self, octets: bytes) -> Table:
        """The table in the file. Raises `BadFile`."""
        raise NotImplementedError

    def foresee(self, table: Table, *, update: bool) -> Report:
        """What would be done."""
        raise NotImplementedError

    def carry_out(self, table: Table, *, update: bool) -> Report:
        """Do it. Raises `BadLines`."""
        raise NotImplementedError

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="a UTF-8 file, or - for standard input; the first line may name the columns")
        parser.add_argument("--update", action="store_true", help="also give those that exist what their lines say")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")

    def handle(self, *args: Any, **options: Any) -> None:
        table = self.read(_octets(options["file"]))
        report = (self.foresee if options["dry_run"] else self._done)(table, update=options["update"])
        for problem in report.problems:
            self.stderr.write(str(problem))
        if report.problems:
            raise BadLines(report)
        counts = f"{report.created} {self.of} added, {report.changed} changed, {report.unchanged} left as they are."
        self.stdout.write(f"Would be: {counts}" if options["dry_run"] else counts)

    def _done(self, table: Table, *, update: bool) -> Report:
        try:
            return self.carry_out(table, update=update)
        except BadLines as refused:
            return refused.report


class ExportCommand(ProvisioningCommand):
    """Writes a file to standard output."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--tenant", metavar="SLUG", help="only this tenant's")
        parser.add_argument("--domain", help="only those of this domain")

    def narrowed(self, rows: Any, options: dict[str, Any]) -> Any:
        """Those of the tenant or domain that was named."""
        if options["tenant"]:
            rows = rows.filter(tenant=provisioning.find_tenant(options["tenant"]))
        if options["domain"]:
            domain: Domain = provisioning.find_domain(options["domain"])
            rows = rows.filter(domain=domain)
        return rows

    def put(self, chunks: Iterable[bytes]) -> None:
        """Write the octets as they are, and as they come."""
        for chunk in chunks:
            self.stdout.write(chunk.decode(), ending="")


@contextmanager
def progress_bar(title: str) -> Iterator[Told]:
    """A bar on standard error, if that is a terminal."""
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True), transient=True)
    bar.disable = not sys.stderr.isatty()
    with bar:
        task = bar.add_task(title, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _octets(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(LIMIT + 1)
        with Path(name).open("rb") as file:
            return file.read(LIMIT + 1)
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}.") from None
