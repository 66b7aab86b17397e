"""`manage.py exportaliases`: the aliases as a CSV file."""

from typing import Any

from accounts.management.spreadsheets import ExportCommand
from accounts.models import Alias
from accounts.spreadsheets import aliases


class Command(ExportCommand):
    help = "Write the aliases as a CSV file that importaliases reads. Expired ones are left out."

    def handle(self, *args: Any, **options: Any) -> None:
        self.put(aliases.write(self.narrowed(Alias.objects.all(), options)))
