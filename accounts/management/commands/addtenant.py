"""`manage.py addtenant`: a tenant, or its name and admin mailbox."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand


class Command(ProvisioningCommand):
    help = "Add a tenant. If it exists, give it the name and the admin mailbox that are said."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="its short name in commands: small letters, digits and hyphens")
        parser.add_argument("--name", help="its name as people read it")
        parser.add_argument("--admin-mailbox", metavar="ADDRESS", help="receives its mail to postmaster@")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_mailbox(options["admin_mailbox"]) if options["admin_mailbox"] else None
        tenant, added = provisioning.add_tenant(options["slug"], name=options["name"] or "")
        name, admin_mailbox = options["name"] or tenant.name, mailbox or tenant.admin_mailbox
        changed = (name, admin_mailbox) != (tenant.name, tenant.admin_mailbox)
        if changed:
            provisioning.change_tenant(tenant, name=name, retention=tenant.retention, admin_mailbox=admin_mailbox)
        done = "added" if added else "changed" if changed else "exists"
        self.stdout.write(f"Tenant {tenant}: {done}.")
