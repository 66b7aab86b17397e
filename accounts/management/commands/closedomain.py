"""`manage.py closedomain`: the end of a domain's use."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Close a domain: its mailboxes are closed, its aliases removed, and nothing of it takes mail."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("domain")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        domain = provisioning.find_domain(options["domain"])
        mailboxes = domain.mailboxes.filter(closed_at=None).count()
        if domain.closed_at is None and not options["yes"]:
            self.ask(f"Close {domain} with {mailboxes:,} mailboxes?")
        provisioning.close_domain(domain)
        self.stdout.write(f"Domain {domain}: closed. It can be reopened until its mail is purged.")
