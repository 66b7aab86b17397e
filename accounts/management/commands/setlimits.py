"""`manage.py setlimits`: how much a reseller, a tenant or a domain may have."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import limits, provisioning, quotas
from accounts.management.command import ProvisioningCommand, count, quota
from accounts.models import Domain, Reseller, Tenant


class Command(ProvisioningCommand):
    help = (
        "Set how much a reseller, a tenant or a domain may have; without a limit to set, show what it may have and has."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("kind", choices=["reseller", "tenant", "domain"])
        parser.add_argument("name", help="its slug, or the domain")
        for what in ("domains", "mailboxes", "aliases"):
            parser.add_argument(f"--{what}", type=count, default=False, metavar="N", help="a number, or none")
        parser.add_argument(
            "--octets", type=quota, default=False, metavar="SIZE", help="of all its mail together, such as 50G, or none"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        find: Any = {
            "reseller": provisioning.find_reseller,
            "tenant": provisioning.find_tenant,
            "domain": provisioning.find_domain,
        }
        target: Reseller | Tenant | Domain = find[options["kind"]](options["name"])
        said = {name: options[name.removeprefix("max_")] for name in limits.FIELDS}
        limits.set_limits(target, **{name: limit for name, limit in said.items() if limit is not False})
        allowance = limits.of(target)
        self.stdout.write(f"{options['kind'].capitalize()} {target}:")
        for what in ("domains", "mailboxes", "aliases"):
            most = getattr(allowance, f"max_{what}")
            has = str(getattr(allowance, what))
            self.stdout.write(f"  {what}: {limits.told(has, None if most is None else str(most))}")
        most = None if allowance.max_octets is None else quotas.exact(allowance.max_octets)
        self.stdout.write(f"  octets: {limits.told(quotas.rounded(limits.used_octets(target)), most)}")
