"""`manage.py export`: hand a mailbox's mail out."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from django.core.management.base import CommandError, CommandParser
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn

from accounts import audit, principals, provisioning
from accounts.management.command import ProvisioningCommand
from mailstore import exporting


class Command(ProvisioningCommand):
    help = "Write a mailbox's mail to a file or to standard output, while everything else goes on."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")
        parser.add_argument("--format", choices=exporting.FORMATS, default="mbox", help="(%(default)s)")
        parser.add_argument("--output", type=Path, metavar="FILE", help="a file that is not there yet")
        parser.add_argument("--removed", action="store_true", help="also what was removed and can be restored")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_mailbox(options["address"])
        output: Path | None = options["output"]
        if output is None and sys.stdout.isatty():
            raise CommandError("Mail is not for terminals: use --output, or redirect standard output.")
        bar = Progress(TextColumn("{task.description}"), DownloadColumn(), console=Console(stderr=True), transient=True)
        bar.disable = not sys.stderr.isatty()
        octets = 0
        with principals.acting_as(principals.COMMAND):
            audit.record("mailbox.exported", mailbox, detail={"format": options["format"]})
        with ExitStack() as until_the_end:
            file = until_the_end.enter_context(_new(output)) if output else sys.stdout.buffer
            until_the_end.enter_context(bar)
            task = bar.add_task(str(mailbox), total=None)
            for piece in exporting.FORMATS[options["format"]](mailbox, removed=options["removed"]):
                file.write(piece)
                octets += len(piece)
                bar.update(task, completed=octets)
            file.flush()
            if output:
                os.fsync(file.fileno())
        self.stderr.write(f"{mailbox}: {octets:,} octets written.")


def _new(path: Path) -> IO[bytes]:
    """A file for us alone: it holds somebody's mail."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from None
