"""Brings the catalogues in `locale` to what is said in the code."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import languages
from mailhost import catalogue


class Command(BaseCommand):
    """Its work is to be completed by somebody who speaks the language, and committed; tests prove that it is whole."""

    help = "Write locale/*/LC_MESSAGES/django.po and .mo from the code; needs the tools of GNU gettext."
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """None of its own."""

    def handle(self, *args: Any, **options: Any) -> None:
        for code, _name in languages.NAMES:
            if code != "en":
                try:
                    catalogue.write(code)
                except FileNotFoundError as missing:
                    raise CommandError(f"{missing.filename} is not installed: it is a part of GNU gettext.") from None
                except catalogue.CannotBeWritten as error:
                    raise CommandError(str(error)) from None
