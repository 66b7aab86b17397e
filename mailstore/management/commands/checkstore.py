"""`manage.py checkstore`: recount, and report what differs."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from mailstore import drift


class Command(BaseCommand):
    help = "Recount what the store has counted and measured. Changes nothing; ends with 1 if there is any drift."

    def handle(self, *args: Any, **options: Any) -> None:
        count = 0
        for count, line in enumerate(drift.find(), 1):  # noqa: B007 - the last one is the number of lines
            self.stdout.write(line)
        if count:
            raise CommandError(f"drift in {count} places")
        self.stdout.write("no drift")
