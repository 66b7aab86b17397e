"""`manage.py setpassword`: a mailbox's password."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand, add_password_arguments, read_password


class Command(ProvisioningCommand):
    help = "Change the password of a mailbox. It holds from the next login on."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")
        add_password_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_mailbox(options["address"])
        password = read_password(mailbox.address, options)
        provisioning.set_password(mailbox.user, password.text)
        self.stdout.write(f"Mailbox {mailbox}: password changed.")
        if password.generated:
            self.stdout.write(f"Password: {password.text}")
