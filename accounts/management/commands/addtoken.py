"""`manage.py addtoken`: what a program signs in to the API with."""

from typing import Any

from django.core.management.base import CommandParser

from accounts import permissions, principals, provisioning, tokens
from accounts.management.command import ProvisioningCommand, moment
from accounts.models import Role


class Command(ProvisioningCommand):
    help = "Make an API token, and print it this once. Without a tenant or a reseller it is of the whole host."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what uses it")
        parser.add_argument("--role", choices=Role.values, help="what it is; the usual of whom it is for")
        whose = parser.add_mutually_exclusive_group()
        whose.add_argument("--tenant", metavar="SLUG")
        whose.add_argument("--reseller", metavar="SLUG")
        whose.add_argument("--mailbox", metavar="ADDRESS", help="of its owner")
        parser.add_argument("--domain", action="append", default=[], help="of a domain admin; several times")
        parser.add_argument("--scope", action="append", metavar="SCOPE", help="such as mailboxes:write; several times")
        parser.add_argument("--network", action="append", default=[], help="where it may be used from: 192.0.2.0/24")
        parser.add_argument("--expires", type=moment, metavar="TIME", help="such as 2027-01-31")
        parser.add_argument("--requests-per-minute", type=int, metavar="N")

    def handle(self, *args: Any, **options: Any) -> None:
        mailbox = provisioning.find_mailbox(options["mailbox"]) if options["mailbox"] else None
        tenant = provisioning.find_tenant(options["tenant"]) if options["tenant"] else None
        reseller = provisioning.find_reseller(options["reseller"]) if options["reseller"] else None
        usual = (
            Role.MEMBER if mailbox else Role.TENANT_ADMIN if tenant else Role.RESELLER if reseller else Role.OPERATOR
        )
        role = options["role"] or usual
        token, text = tokens.make(
            by=principals.COMMAND,
            name=options["name"],
            role=role,
            scopes=options["scope"] or permissions.scopes_of(role),
            tenant=tenant,
            reseller=reseller,
            domains=[provisioning.find_domain(name) for name in options["domain"]],
            mailbox=mailbox,
            allowed_networks=options["network"],
            expires_at=options["expires"],
            requests_per_minute=options["requests_per_minute"],
        )
        self.stdout.write(f"Token {token}: added.")
        self.stdout.write(f"Token: {text}")
