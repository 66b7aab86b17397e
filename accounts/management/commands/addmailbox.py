"""`manage.py addmailbox`: one mailbox."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from accounts import addresses, provisioning
from accounts.management.command import (
    ProvisioningCommand,
    add_password_arguments,
    quota,
    read_password,
)
from accounts.provisioning import InQuarantine, UnknownMailbox


class Command(ProvisioningCommand):
    help = "Add a mailbox. One that exists stays as it is, with its password and quota."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")
        add_password_arguments(parser)
        parser.add_argument(
            "--quota",
            type=quota,
            default=settings.MAILHOST_DEFAULT_QUOTA,
            help="such as 500M, 1G or none; MAILHOST_DEFAULT_QUOTA if not given",
        )
        parser.add_argument("--release", action="store_true", help="give the address away although it is in quarantine")

    def handle(self, *args: Any, **options: Any) -> None:
        address = addresses.address(options["address"])
        try:
            provisioning.find_mailbox(address)
        except UnknownMailbox:
            pass
        else:
            return self._exists(address)
        password = read_password(address, options)
        try:
            _, added = provisioning.add_mailbox(
                address, password=password.text, quota_octets=options["quota"], release=options["release"]
            )
        except InQuarantine as refusal:
            raise CommandError(f"{refusal}. With --release it gets a new owner.") from None
        if not added:
            return self._exists(address)
        self.stdout.write(f"Mailbox {address}: added.")
        if password.generated:
            self.stdout.write(f"Password: {password.text}")
        return None

    def _exists(self, address: str) -> None:
        self.stdout.write(f"Mailbox {address}: exists; its password and quota stay as they are.")
