"""`manage.py closetenant`: the end of a tenant's use."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand
from accounts.models import Domain, Mailbox


class Command(ProvisioningCommand):
    help = "Close a tenant: its domains and mailboxes are closed, and its people cannot sign in."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = provisioning.find_tenant(options["slug"])
        if tenant.closed_at is None and not options["yes"]:
            domains = Domain.objects.filter(tenant=tenant, closed_at=None).count()
            mailboxes = Mailbox.objects.open().filter(tenant=tenant).count()
            self.ask(f"Close {tenant} with {domains:,} domains and {mailboxes:,} mailboxes?")
        provisioning.close_tenant(tenant)
        self.stdout.write(f"Tenant {tenant}: closed. It goes when its mail is purged.")
