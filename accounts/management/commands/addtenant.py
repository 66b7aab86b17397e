"""`manage.py addtenant`: a tenant, or what is to be changed of it."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Add a tenant. If it exists, give it what is said."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="its short name in commands: small letters, digits and hyphens")
        parser.add_argument("--name", help="its name as people read it")
        parser.add_argument("--admin-mailbox", metavar="ADDRESS", help="receives its mail to postmaster@")
        parser.add_argument("--reseller", metavar="SLUG", help="who owns it; without one it is the host's own")
        parser.add_argument("--external-id", metavar="ID", help="what your own system calls it")

    def handle(self, *args: Any, **options: Any) -> None:
        said: dict[str, Any] = {
            field: options[field] for field in ("name", "external_id") if options[field] is not None
        }
        if options["reseller"]:
            said["reseller"] = provisioning.find_reseller(options["reseller"])
        mailbox = provisioning.find_mailbox(options["admin_mailbox"]) if options["admin_mailbox"] else None
        tenant, added = provisioning.add_tenant(options["slug"], **said)
        said |= {"admin_mailbox": mailbox} if mailbox else {}
        changed = provisioning.change_tenant(tenant, **said)
        done = "added" if added else "changed" if changed else "exists"
        self.stdout.write(f"Tenant {tenant}: {done}.")
