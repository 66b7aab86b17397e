"""`manage.py adddomain`: a domain of a tenant."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Add a domain, whose mail is then hosted here."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("domain")
        parser.add_argument("--tenant", metavar="SLUG", required=True, help="whose it is")

    def handle(self, *args: Any, **options: Any) -> None:
        domain, added = provisioning.add_domain(options["domain"], tenant=provisioning.find_tenant(options["tenant"]))
        self.stdout.write(f"Domain {domain}: {'added' if added else 'exists'}.")
