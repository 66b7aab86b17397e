"""`manage.py exportmailboxes`: the mailboxes as a CSV file."""

from typing import Any

from django.core.management.base import CommandParser

from accounts.management.spreadsheets import ExportCommand
from accounts.models import Mailbox
from accounts.spreadsheets import mailboxes


class Command(ExportCommand):
    help = "Write the open mailboxes as a CSV file that importmailboxes reads."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--with-hashes", action="store_true", help="also the hashes of the passwords: keep such a file as a secret"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        rows = self.narrowed(Mailbox.objects.all(), options)
        self.put(mailboxes.write(rows, with_hashes=options["with_hashes"]))
