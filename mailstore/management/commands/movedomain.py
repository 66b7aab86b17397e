"""`manage.py movedomain`: give a domain to another tenant, with everything in it."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning
from accounts.management.command import ProvisioningCommand
from mailstore import moving
from mailstore.moving import Moved


class Command(ProvisioningCommand):
    help = "Give a domain to another tenant: its mailboxes, aliases and all its mail. Says first what would move."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the domain")
        parser.add_argument("tenant", help="the slug of its new tenant")
        parser.add_argument("--dry-run", action="store_true", help="only tell what would move")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        domain = provisioning.find_domain(options["name"])
        tenant = provisioning.find_tenant(options["tenant"])
        if domain.tenant_id == tenant.pk:
            self.stdout.write(f"Domain {domain}: belongs to {tenant} already.")
            return
        what = _told(moving.forecast(domain, to=tenant))
        if options["dry_run"]:
            self.stdout.write(f"Domain {domain}: {what} would move from {domain.tenant} to {tenant}.")
            return
        if not options["yes"]:
            self.ask(f"Move {domain} with {what} from {domain.tenant} to {tenant}?")
        before = domain.tenant
        moved = moving.move_domain(domain, to=tenant)
        self.stdout.write(f"Domain {domain}: moved from {before} to {tenant}, with {_told(moved)}.")


def _told(moved: Moved) -> str:
    """Such as `3 mailboxes (1 closed), 2 aliases, 4.1 GB in 812 messages`."""
    closed = f" ({moved.closed:,} closed)" if moved.closed else ""
    others = f", {moved.domains - 1:,} alias domains" if moved.domains > 1 else ""
    return (
        f"{moved.mailboxes:,} mailboxes{closed}, {moved.aliases:,} aliases{others}, "
        f"{_size(moved.octets)} in {moved.messages:,} messages"
    )


def _size(octets: int) -> str:
    amount, unit = float(octets), "octets"
    for bigger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, bigger
    return f"{amount:.0f} {unit}" if unit == "octets" else f"{amount:.1f} {unit}"
