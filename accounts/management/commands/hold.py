"""`manage.py hold`: no purge removes a mailbox's mail."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = (
        "Put a mailbox, open or closed, on legal hold: no purge removes any of its mail until it is released (unhold)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_last_mailbox(options["address"])
        provisioning.set_legal_hold(mailbox, True)
        self.stdout.write(f"Mailbox {mailbox}: on legal hold.")
