"""`manage.py audit`: who changed what, for people and for programs."""

import csv
import json
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandParser
from django.utils.timezone import localtime

from accounts import provisioning
from accounts.management.command import ProvisioningCommand, moment
from accounts.models import AuditEvent
from accounts.spreadsheets.tables import guarded

_COLUMNS = (
    "id", "at", "user_id", "token_id", "role", "through", "client_address", "action", "target_kind", "target_id",
    "target", "tenant_id", "reseller_id", "domain_id", "mailbox_id", "changes",
)  # fmt: skip
_BATCH = 2000


class Command(ProvisioningCommand):
    help = "Show the audit, the latest first: who changed what. People are named by the ids of their rows."

    def add_arguments(self, parser: CommandParser) -> None:
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--csv", action="store_true", help="as a CSV file")
        form.add_argument("--json", action="store_true", help="as JSON, an object in each line")
        parser.add_argument("--tenant", metavar="SLUG")
        parser.add_argument("--domain")
        parser.add_argument("--mailbox", metavar="ADDRESS", help="open, or closed and not purged yet")
        parser.add_argument("--action", help="such as mailbox.suspended")
        parser.add_argument("--through", choices=AuditEvent.Through.values)
        parser.add_argument("--since", type=moment, metavar="TIME", help="such as 2027-01-31")
        parser.add_argument("--until", type=moment, metavar="TIME", help="up to then")
        parser.add_argument("--last", type=int, metavar="N", help="no more than these")

    def handle(self, *args: Any, **options: Any) -> None:
        events = _found(options).order_by("-pk")
        if options["last"] is not None:
            events = events[: max(options["last"], 0)]
        rows = events.values(*_COLUMNS).iterator(chunk_size=_BATCH)
        if options["csv"]:
            table = csv.writer(self.stdout)
            table.writerow(_COLUMNS)
            table.writerows([guarded(_text(row[column])) for column in _COLUMNS] for row in rows)
            return
        for row in rows:
            self.stdout.write(json.dumps(row, default=_text, ensure_ascii=False) if options["json"] else _line(row))


def _found(options: dict[str, Any]) -> Any:
    wanted: dict[str, Any] = {}
    if options["tenant"]:
        wanted["tenant_id"] = provisioning.find_tenant(options["tenant"]).pk
    if options["domain"]:
        wanted["domain_id"] = provisioning.find_domain(options["domain"]).pk
    if options["mailbox"]:
        wanted["mailbox_id"] = provisioning.find_last_mailbox(options["mailbox"]).pk
    for option, lookup in (
        ("action", "action"),
        ("through", "through"),
        ("since", "at__gte"),
        ("until", "at__lt"),
    ):
        if options[option]:
            wanted[lookup] = options[option]
    return AuditEvent.objects.filter(**wanted)


def _line(row: dict[str, Any]) -> str:
    who = f"token {row['token_id']}" if row["token_id"] else f"user {row['user_id']}" if row["user_id"] else "somebody"
    where = f" from {row['client_address']}" if row["client_address"] else ""
    what = row["target"] or f"{row['target_kind']} {row['target_id']}"
    changes = f" {json.dumps(row['changes'], ensure_ascii=False)}" if row["changes"] else ""
    at = f"{localtime(row['at']):%Y-%m-%d %H:%M:%S}"
    return f"{at} {row['action']} {what} by {who} through {row['through']}{where}{changes}"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):  # as the API writes it
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
