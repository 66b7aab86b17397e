"""`manage.py importmailboxes`: many mailboxes from a CSV file, all or none."""

from django.conf import settings

from accounts.management.spreadsheets import ImportCommand, progress_bar
from accounts.spreadsheets import Report, Table, mailboxes


class Command(ImportCommand):
    help = (
        f"Add the mailboxes of a CSV file, with any of the columns {', '.join(mailboxes.COLUMNS)}; without a line that "
        "names them: address,password,quota. All are added, or none if a line is bad."
    )
    of = "mailboxes"

    def read(self, octets: bytes) -> Table:
        return mailboxes.read(octets)

    def foresee(self, table: Table, *, update: bool) -> Report:
        return mailboxes.check(table, update=update, default_quota=settings.MAILHOST_DEFAULT_QUOTA)

    def carry_out(self, table: Table, *, update: bool) -> Report:
        with progress_bar("Hashing passwords") as progress:
            return mailboxes.apply(
                table, update=update, default_quota=settings.MAILHOST_DEFAULT_QUOTA, progress=progress
            )
