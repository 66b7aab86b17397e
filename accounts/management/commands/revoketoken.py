"""`manage.py revoketoken`: the end of an API token."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts import tokens
from accounts.management.command import ProvisioningCommand
from accounts.models import ApiToken


class Command(ProvisioningCommand):
    help = "Revoke an API token: no program can use it any more."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("prefix", help="what can be seen of it: mh_PREFIX_…")

    def handle(self, *args: Any, **options: Any) -> None:
        prefix = tokens.prefix_of(options["prefix"]) or options["prefix"].removeprefix("mh_").strip("_…")
        token = ApiToken.objects.filter(prefix=prefix).first()
        if token is None:
            raise CommandError("There is no such token.")
        tokens.revoke(token)
        self.stdout.write(f"Token {token}: revoked.")
