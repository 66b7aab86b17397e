"""`manage.py addreseller`: who sells mail hosting."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Add a reseller, who owns tenants. One that exists is given the name and the id that are said."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="its short name in commands: small letters, digits and hyphens")
        parser.add_argument("--name", help="its name as people read it")
        parser.add_argument("--external-id", metavar="ID", help="what your own system calls it")

    def handle(self, *args: Any, **options: Any) -> None:
        said = {field: options[field] for field in ("name", "external_id") if options[field] is not None}
        reseller, added = provisioning.add_reseller(options["slug"], **said)
        changed = not added and bool(said) and provisioning.change_reseller(reseller, **said)
        self.stdout.write(f"Reseller {reseller}: {'added' if added else 'changed' if changed else 'exists'}.")
