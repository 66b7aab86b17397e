"""`manage.py importaliases`: many aliases from a CSV file, all or none."""

from accounts.management.spreadsheets import ImportCommand
from accounts.spreadsheets import Report, Table, aliases


class Command(ImportCommand):
    help = (
        "Add the aliases of a CSV file: address, targets (separated by blanks), expires_at. All are added, or none if "
        "a line is bad."
    )
    of = "aliases"

    def read(self, octets: bytes) -> Table:
        return aliases.read(octets)

    def foresee(self, table: Table, *, update: bool) -> Report:
        return aliases.check(table, update=update)

    def carry_out(self, table: Table, *, update: bool) -> Report:
        return aliases.apply(table, update=update)
