"""`manage.py closemailbox`: the end of a mailbox's use."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import addresses, provisioning
from accounts.management.command import ProvisioningCommand
from accounts.models import Mailbox
from accounts.provisioning import UnknownMailbox


class Command(ProvisioningCommand):
    help = "Close a mailbox: nobody can use it any more, and after the retention it is purged with its mail."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")

    def handle(self, *args: Any, **options: Any) -> None:
        address = addresses.address(options["address"])
        try:
            provisioning.close_mailbox(provisioning.find_mailbox(address))
        except UnknownMailbox:
            if not Mailbox.objects.filter(address=address).exists():
                raise
        self.stdout.write(f"Mailbox {address}: closed. The address is in quarantine until the mailbox is purged.")
