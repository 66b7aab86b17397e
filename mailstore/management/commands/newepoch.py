"""`manage.py newepoch`: what to do after the database was restored from a backup."""

from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection

# By the clock, not by one: the same backup may be restored a second time, and it does not know of the first.
_NEW_EPOCH = """
INSERT INTO mailstore_store AS store (id, epoch) VALUES (1, extract(epoch FROM now())::bigint / 60)
ON CONFLICT (id) DO UPDATE SET epoch = greatest(store.epoch + 1, excluded.epoch)
RETURNING epoch
"""


class Command(BaseCommand):
    help = (
        "After a restore from a backup, before mail comes in again: begin a new epoch, so that no new message gets a "
        "unique-id that was handed out after the backup. Older messages keep theirs."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_NEW_EPOCH)
            [(epoch,)] = cursor.fetchall()
        self.stdout.write(f"epoch {epoch}")
