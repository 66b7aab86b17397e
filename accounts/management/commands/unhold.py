"""`manage.py unhold`: undoes `hold`."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Release a mailbox from legal hold: what is due is purged again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_last_mailbox(options["address"])
        provisioning.set_legal_hold(mailbox, False)
        self.stdout.write(f"Mailbox {mailbox}: not on legal hold.")
