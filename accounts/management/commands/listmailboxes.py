"""`manage.py listmailboxes`: which mailboxes there are, for people and for programs."""

import json
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandParser

from accounts import provisioning, quotas
from accounts.management.command import ProvisioningCommand
from accounts.models import Mailbox

_COLUMNS = ("ADDRESS", "TENANT", "STATE", "QUOTA", "USED", "MESSAGES", "LAST LOGIN")


class Command(ProvisioningCommand):
    help = "List the mailboxes; closed ones too, until they are purged."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="as a JSON array, with sizes in octets")
        parser.add_argument("--tenant", metavar="SLUG", help="only this tenant's")
        parser.add_argument("--domain", help="only those of this domain")

    def handle(self, *args: Any, **options: Any) -> None:
        mailboxes = Mailbox.objects.select_related("tenant", "domain").order_by("address", "id")
        if options["tenant"]:
            mailboxes = mailboxes.filter(tenant=provisioning.find_tenant(options["tenant"]))
        if options["domain"]:
            mailboxes = mailboxes.filter(domain=provisioning.find_domain(options["domain"]))
        if options["json"]:
            self._write_json(mailboxes.iterator())
        else:
            self._write_table(mailboxes.iterator())

    def _write_table(self, mailboxes: Iterator[Mailbox]) -> None:
        rows = [_COLUMNS, *(_cells(mailbox) for mailbox in mailboxes)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def _write_json(self, mailboxes: Iterator[Mailbox]) -> None:
        """One mailbox in each line, as they come: there may be many."""
        separator = "["
        for mailbox in mailboxes:
            self.stdout.write(f"{separator}{json.dumps(_values(mailbox), ensure_ascii=False)}", ending="")
            separator = ",\n"
        self.stdout.write("[]" if separator == "[" else "]")


def _cells(mailbox: Mailbox) -> tuple[str, ...]:
    return (
        mailbox.address,
        mailbox.tenant.slug,
        _state(mailbox),
        quotas.rounded(mailbox.quota_octets),
        quotas.rounded(mailbox.used_octets),
        str(mailbox.message_count),
        f"{mailbox.last_login_at:%Y-%m-%d %H:%M}" if mailbox.last_login_at else "never",
    )


def _values(mailbox: Mailbox) -> dict[str, object]:
    return {
        "address": mailbox.address,
        "tenant": mailbox.tenant.slug,
        "domain": mailbox.domain.name,
        "state": _state(mailbox),
        "quota_octets": mailbox.quota_octets,
        "used_octets": mailbox.used_octets,
        "messages": mailbox.message_count,
        "last_login_at": mailbox.last_login_at and mailbox.last_login_at.isoformat(),
        "last_login_address": mailbox.last_login_address,
        "created_at": mailbox.created_at.isoformat(),
        "closed_at": mailbox.closed_at and mailbox.closed_at.isoformat(),
    }


def _state(mailbox: Mailbox) -> str:
    return "closed" if mailbox.closed_at else mailbox.state
