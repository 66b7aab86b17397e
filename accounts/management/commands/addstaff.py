"""`manage.py addstaff`: somebody without a mailbox who looks after something."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand, add_password_arguments, read_password
from accounts.models import Role


class Command(ProvisioningCommand):
    help = "Add somebody without a mailbox who may use the admin: an operator, a reseller, or staff of a tenant."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("login", help="an address, which needs no mailbox here")
        add_password_arguments(parser)
        parser.add_argument("--role", choices=[role for role in Role.values if role != Role.MEMBER], help="what it is")
        whose = parser.add_mutually_exclusive_group()
        whose.add_argument("--tenant", metavar="SLUG", help="whose staff it is")
        whose.add_argument("--reseller", metavar="SLUG", help="whose staff it is")
        parser.add_argument(
            "--domain", action="append", default=[], help="what a domain admin looks after; can be given several times"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = provisioning.find_tenant(options["tenant"]) if options["tenant"] else None
        reseller = provisioning.find_reseller(options["reseller"]) if options["reseller"] else None
        domains = [provisioning.find_domain(name) for name in options["domain"]]
        password = read_password(options["login"], options)
        user = provisioning.add_staff(
            options["login"],
            password=password.text,
            tenant=tenant,
            reseller=reseller,
            role=options["role"],
            domains=domains,
        )
        self.stdout.write(f"Login {user}: added as {user.get_role_display().lower()}.")
        if password.generated:
            self.stdout.write(f"Password: {password.text}")
