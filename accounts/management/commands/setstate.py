"""`manage.py setstate`: what a mailbox can be used for."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand
from accounts.models import Mailbox


class Command(ProvisioningCommand):
    help = "Put a mailbox into a state: active, no-login (receives), no-receive (mail is deferred), suspended."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")
        parser.add_argument("state", choices=Mailbox.State.values)
        parser.add_argument("--reason", default="", help="why; its owner reads it")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_mailbox(options["address"])
        provisioning.set_state(mailbox, options["state"], reason=options["reason"])
        self.stdout.write(f"Mailbox {mailbox}: {mailbox.state}.")
