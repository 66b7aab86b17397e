"""`manage.py adddomain`: a domain of a tenant."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand
from accounts.provisioning.domains import SEPARATORS


class Command(ProvisioningCommand):
    help = "Add a domain, whose mail is then hosted here. One that exists stays as it is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("domain")
        parser.add_argument("--tenant", metavar="SLUG", required=True, help="whose it is")
        parser.add_argument("--alias-of", metavar="DOMAIN", help="its addresses are those of that domain")
        parser.add_argument(
            "--subaddress",
            choices=[*SEPARATORS[1:], "none"],
            metavar="SEPARATOR",
            help="such as +, or none; if not given, the host's",
        )
        parser.add_argument(
            "--unverified", action="store_true", help="it has yet to be shown, in DNS, that it is the tenant's"
        )
        parser.add_argument("--external-id", metavar="ID", help="what your own system calls it")

    def handle(self, *args: Any, **options: Any) -> None:
        domain, added = provisioning.add_domain(
            options["domain"],
            tenant=provisioning.find_tenant(options["tenant"]),
            alias_of=provisioning.find_domain(options["alias_of"]) if options["alias_of"] else None,
            subaddress="" if options["subaddress"] == "none" else options["subaddress"],
            external_id=options["external_id"],
            verified=not options["unverified"],
        )
        self.stdout.write(f"Domain {domain}: {'added' if added else 'exists'}.")
