"""`manage.py addalias`: a further address, of a mailbox or of many."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import addresses, provisioning
from accounts.management.command import ProvisioningCommand, moment
from accounts.models import Alias, Mailbox


class Command(ProvisioningCommand):
    help = "Add a further address of mailboxes, or of addresses outside. One that exists gets further targets."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("alias", help="the further address; @ and a domain is what no other takes")
        parser.add_argument("target", nargs="+", help="a mailbox of the same tenant, or an address outside")
        parser.add_argument("--expires", type=moment, metavar="TIME", help="from then on it takes no mail: 2027-01-31")
        parser.add_argument("--release", action="store_true", help="also if the alias is in quarantine")

    def handle(self, *args: Any, **options: Any) -> None:
        name = addresses.alias(options["alias"])
        targets = [addresses.address(text) for text in options["target"]]
        found = {mailbox.address: mailbox for mailbox in Mailbox.objects.open().filter(address__in=targets)}
        tenant_id = provisioning.find_domain(addresses.split(name)[1]).tenant_id
        existing = Alias.objects.filter(address=name, tenant_id=tenant_id).first()
        before = provisioning.targets_of(existing) if existing else []
        kept = Mailbox.objects.open().filter(alias_targets__alias=existing) if existing else ()
        alias, is_new = provisioning.set_alias(
            name,
            tenant_id=tenant_id,
            mailboxes={*kept, *found.values()},
            outside={text for text in [*before, *targets] if text not in found} - {one.address for one in kept},
            expires_at=options["expires"] or (existing.expires_at if existing else None),
            release=options["release"],
        )
        after = provisioning.targets_of(alias)
        done = "added" if is_new else "exists" if before == after else "changed"
        self.stdout.write(f"Alias {alias} of {', '.join(after)}: {done}.")
