"""`manage.py reopendomain`: undoes `closedomain`, for the domain alone."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Reopen a closed domain. Its mailboxes are reopened each (reopenmailbox)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("domain")

    def handle(self, *args: Any, **options: Any) -> None:
        domain = provisioning.find_domain(options["domain"])
        provisioning.reopen_domain(domain)
        self.stdout.write(f"Domain {domain}: open.")
