"""`manage.py resume`: a suspended mailbox is used again."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Resume a suspended mailbox."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_mailbox(options["address"])
        provisioning.resume(mailbox)
        self.stdout.write(f"Mailbox {mailbox}: active.")
