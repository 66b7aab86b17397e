"""`manage.py addalias`: a further address of a mailbox."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Add a further address of a mailbox. One that exists stays as it is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("alias", help="the further address, in any domain of the mailbox's tenant")
        parser.add_argument("address", help="the mailbox")
        parser.add_argument("--release", action="store_true", help="also if the alias is in quarantine")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_mailbox(options["address"])
        alias, is_new = provisioning.add_alias(options["alias"], mailbox=mailbox, release=options["release"])
        self.stdout.write(f"Alias {alias} of {mailbox}: {'added' if is_new else 'exists'}.")
