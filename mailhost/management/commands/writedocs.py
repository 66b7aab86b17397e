"""Writes the documents that are made from the code: the API's description, its problems, and who may do what."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from accounts import permissions
from accounts.api import problems, schema


class Command(BaseCommand):
    """Its work is to be committed; tests prove that it is current."""

    help = "Write docs/openapi.json, docs/problems.md and docs/roles.md from the code."
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """None of its own."""

    def handle(self, *args: Any, **options: Any) -> None:
        for name, text in documents().items():
            (settings.BASE_DIR / "docs" / name).write_text(text)


def documents() -> dict[str, str]:
    """By name, what the documents ought to say."""
    return {
        "openapi.json": schema.as_json(),
        "problems.md": problems.as_markdown(),
        "roles.md": permissions.as_markdown(),
    }
