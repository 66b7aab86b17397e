"""`manage.py suspend`: a mailbox takes no mail and gives none."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Suspend a mailbox: it takes no mail, and nobody can fetch any, until it is resumed. Nothing is lost."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")
        parser.add_argument("--reason", default="", help="why; its owner reads it")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_mailbox(options["address"])
        provisioning.suspend(mailbox, reason=options["reason"])
        self.stdout.write(f"Mailbox {mailbox}: suspended.")
