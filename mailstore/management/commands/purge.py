"""`manage.py purge`: remove now what Celery would remove in time."""

import signal
import sys
from argparse import ArgumentTypeError
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from mailstore import purging, tasks
from mailstore.purging import Purged, Share

_STRIDE: Final = 100_000
"""Messages between two lines of progress, where there is no terminal for a bar."""


class Command(BaseCommand):
    help = "Remove for good what is past its purging. Can be interrupted, and run beside everything else."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only tell what would go")
        parser.add_argument(
            "--batch", type=_batch, default=purging.BATCH, metavar="N", help="rows in a transaction (%(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        keep = tasks.keep()
        due = purging.forecast(keep)
        if options["dry_run"]:
            self._tell(due, "would go")
            return
        total = sum(share.messages for share in due.values())
        bar = Progress(
            *Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
        )
        bar.disable = not sys.stderr.isatty()
        removed = Purged()
        told = 0
        interrupted = False

        def interrupt(*_: object) -> None:
            """Stop where a transaction ends; the second time, at once."""
            nonlocal interrupted
            interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        def watch(purged: Purged) -> None:
            nonlocal removed, told
            removed = purged
            bar.update(task, completed=purged.messages)
            if bar.disable and purged.messages >= told + _STRIDE:
                told = purged.messages
                self.stdout.write(f"{told:,} of {total:,} messages")
            if interrupted:
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            with bar:
                task = bar.add_task("Messages", total=total)
                purging.purge(keep, batch=options["batch"], thorough=True, watch=watch)
        except KeyboardInterrupt:
            self._tell(removed.tenants, "are gone")
            raise CommandError("interrupted; the rest goes with the next purge", returncode=130) from None
        finally:
            signal.signal(signal.SIGINT, before)
        self._tell(removed.tenants, "are gone")
        self.stdout.write(
            f"also {removed.contents:,} contents, {removed.sessions:,} sessions, {removed.ledger:,} ledger entries, "
            f"{removed.networks:,} networks, {removed.listeners:,} listeners"
        )

    def _tell(self, tenants: dict[str, Share], what: str) -> None:
        """A line for each tenant, and the sum."""
        total = Share()
        for slug, share in sorted(tenants.items()):
            self.stdout.write(f"{slug}: {_amounts(share)}")
            total.messages += share.messages
            total.octets += share.octets
            total.mailboxes += share.mailboxes
        self.stdout.write(f"{_amounts(total)} {what}")


def _amounts(share: Share) -> str:
    return f"{share.messages:,} messages of {share.octets:,} octets, {share.mailboxes:,} mailboxes"


def _batch(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 100_000:
        raise ArgumentTypeError("it must be a whole number from 1 to 100000")
    return int(text)
