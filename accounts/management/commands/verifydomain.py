"""`manage.py verifydomain`: whether a domain is its tenant's."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts import provisioning, tasks, verification
from accounts.management.command import ProvisioningCommand
from accounts.verification import Finding


class Command(ProvisioningCommand):
    help = "Ask DNS now whether a domain is its tenant's, and say which record shows it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("domain")
        parser.add_argument("--trust", action="store_true", help="ask nobody: the domain is verified, and stays so")

    def handle(self, *args: Any, **options: Any) -> None:
        domain = provisioning.find_domain(options["domain"])
        if options["trust"]:
            verification.trust(domain)
            self.stdout.write(f"Domain {domain}: {domain.state}.")
            return
        finding = verification.check(domain, tasks.verification_config())
        if finding is Finding.FOUND:
            self.stdout.write(f"Domain {domain}: {domain.state}.")
            return
        if verification.is_trusted(domain):
            self.stdout.write(f"Domain {domain}: {domain.state}, taken on trust; DNS is not asked for it.")
            return
        name, text = verification.record(domain)
        why = "DNS does not answer for it" if finding is Finding.UNKNOWN else "its record is missing"
        raise CommandError(f'Domain {domain}: {domain.state}; {why}:\n\n    {name}. IN TXT "{text}"')
