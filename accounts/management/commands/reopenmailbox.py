"""`manage.py reopenmailbox`: undoes `closemailbox`."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Reopen a closed mailbox that is not purged yet, with all its mail and its password."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_last_mailbox(options["address"])
        provisioning.reopen_mailbox(mailbox)
        self.stdout.write(f"Mailbox {mailbox}: open.")
