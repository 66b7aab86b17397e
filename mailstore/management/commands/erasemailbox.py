"""`manage.py erasemailbox`: a mailbox and all its mail, gone at once."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts import provisioning, quotas
from accounts.management.command import ProvisioningCommand
from mailstore import purging, tasks


class Command(ProvisioningCommand):
    help = "Remove a mailbox for good, with all its mail, at once: there is no way back. What is on legal hold stays."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_last_mailbox(options["address"])
        if not options["yes"]:
            size = quotas.rounded(mailbox.used_octets)
            self.ask(f"Remove {mailbox} for good, with {size} in {mailbox.message_count:,} messages?")
        purging.erase(mailbox)
        if not purging.erase_now(tasks.keep(), mailbox.pk):
            raise CommandError(f"{mailbox} is in use: it is closed, and goes with the next purge.")
        self.stdout.write(f"Mailbox {mailbox}: gone.")
