"""`manage.py removealias`: the end of a further address."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import addresses, provisioning
from accounts.management.command import ProvisioningCommand
from accounts.models import Alias


class Command(ProvisioningCommand):
    help = "Remove an alias. One that is not there is no error."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("alias")

    def handle(self, *args: Any, **options: Any) -> None:
        name = addresses.alias(options["alias"])
        for alias in Alias.objects.filter(address=name):
            provisioning.remove_alias(alias)
        self.stdout.write(f"Alias {name}: removed.")
