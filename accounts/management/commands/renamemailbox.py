"""`manage.py renamemailbox`: another address for a mailbox."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Give a mailbox another address, in any domain of its tenant. The old one stays as its alias."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address", help="the mailbox")
        parser.add_argument("new", help="its new address, with which its owner signs in from then on")
        parser.add_argument("--no-alias", action="store_true", help="let the old address go")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_mailbox(options["address"])
        before = mailbox.address
        provisioning.rename_mailbox(mailbox, options["new"], keep_alias=not options["no_alias"])
        self.stdout.write(f"Mailbox {before}: now {mailbox}.")
