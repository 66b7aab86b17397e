"""Aliases as a CSV file: address, targets separated by blanks, and when it expires (RFC 3339)."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from accounts import addresses, provisioning
from accounts.models import Alias, Domain, Mailbox
from accounts.provisioning import REFUSALS, UnknownDomain
from accounts.provisioning.lookups import domains_of
from accounts.spreadsheets import tables
from accounts.spreadsheets.reports import BadLines, Problem, Report, counted, problem
from accounts.spreadsheets.tables import Table

COLUMNS: Final = ("address", "targets", "expires_at")
_BATCH: Final = 1000


def read(octets: bytes) -> Table:
    """The table in a file, whose columns need no names in this order. Raises `BadFile`."""
    return tables.read(octets, columns=COLUMNS, usual=COLUMNS)


def check(table: Table, *, update: bool = False, within: QuerySet[Domain] | None = None) -> Report:
    """What `apply` would do, or why not, without doing it."""
    with transaction.atomic():
        report = _carried_out(table, update=update, within=within)
        transaction.set_rollback(True)
    return report


def apply(table: Table, *, update: bool = False, within: QuerySet[Domain] | None = None) -> Report:
    """Add the aliases, all or none; those that exist stay as they are or, to `update`, become what their line says.

    `within`: the domains that exist for whoever asks; None is all. Targets that are no mailboxes there are addresses
    outside. Raises `BadLines`.
    """
    with transaction.atomic():
        report = _carried_out(table, update=update, within=within)
        if report.problems:
            transaction.set_rollback(True)
    if report.problems:
        raise BadLines(report)
    return report


def write(aliases: QuerySet[Alias]) -> Iterator[bytes]:
    """The file of those that take mail, in pieces: expired ones, and targets that are closed, are left out."""
    rows = aliases.filter(Q(expires_at=None) | Q(expires_at__gt=Now())).order_by("address")
    rows = rows.prefetch_related("targets__mailbox")
    cells = (_cells(alias) for alias in rows.iterator(chunk_size=_BATCH))
    return tables.write(COLUMNS, (row for row in cells if row[1]))


def _cells(alias: Alias) -> tuple[str, str, str]:
    targets = sorted(
        target.mailbox.address if target.mailbox else target.address
        for target in alias.targets.all()
        if target.mailbox is None or target.mailbox.closed_at is None
    )
    return alias.address, " ".join(targets), alias.expires_at.isoformat() if alias.expires_at else ""


def _carried_out(table: Table, *, update: bool, within: QuerySet[Domain] | None) -> Report:
    problems = list(table.problems)
    names: dict[str, int] = {}
    rows: list[tuple[int, str, list[str], datetime | None]] = []
    for line in table:
        try:
            name = addresses.alias(line.cells.get("address", ""))
            before = names.setdefault(name, line.number)
            if before != line.number:
                problems.append(
                    Problem(line.number, "address", _("stands in line %(line)s already") % {"line": before})
                )
                continue
        except addresses.BadAddress as error:
            problems.append(Problem(line.number, "address", str(error)))
            continue
        try:
            targets = [addresses.address(text) for text in line.cells.get("targets", "").split()]
        except addresses.BadAddress as error:
            problems.append(Problem(line.number, "targets", str(error)))
            continue
        try:
            rows.append((line.number, name, targets, _time(line.cells.get("expires_at", ""))))
        except ValueError as error:
            problems.append(Problem(line.number, "expires_at", str(error)))
    domains = _domains(names, within)
    known = Alias.objects.filter(address__in=names, domain__in=domains.values())
    existing = set(known.values_list("address", flat=True))
    mailboxes = _mailboxes({target for _, _, targets, _ in rows for target in targets}, within)
    done: list[str] = []
    for number, name, targets, expires_at in rows:
        if name in existing and not update:
            done.append("unchanged")
            continue
        try:
            with transaction.atomic():
                done.append(_put(name, targets, expires_at, domains, mailboxes))
        except REFUSALS as refusal:
            problems.append(problem(number, refusal))
    return counted(done, problems)


def _put(
    name: str,
    targets: list[str],
    expires_at: datetime | None,
    domains: dict[str, Domain],
    mailboxes: dict[str, Mailbox],
) -> str:
    host = addresses.split(name)[1]
    if host not in domains:
        raise UnknownDomain(_("%(host)s is not hosted here") % {"host": host})
    found = {target: mailboxes[target] for target in targets if target in mailboxes}
    alias = Alias.objects.filter(address=name).first()
    before = alias and (alias.expires_at, provisioning.targets_of(alias))
    alias, is_new = provisioning.set_alias(
        name,
        tenant_id=domains[host].tenant_id,
        mailboxes=found.values(),
        outside=[target for target in targets if target not in found],
        expires_at=expires_at,
    )
    if is_new:
        return "created"
    return "unchanged" if before == (alias.expires_at, provisioning.targets_of(alias)) else "changed"


def _domains(names: dict[str, int], within: QuerySet[Domain] | None) -> dict[str, Domain]:
    found = domains_of(names)
    if within is None:
        return found
    seen = set(within.filter(name__in=found).values_list("pk", flat=True))
    return {name: domain for name, domain in found.items() if domain.pk in seen}


def _mailboxes(names: set[str], within: QuerySet[Domain] | None) -> dict[str, Mailbox]:
    found = Mailbox.objects.open().filter(address__in=names)
    if within is not None:
        found = found.filter(domain__in=within)
    return {mailbox.address: mailbox for mailbox in found}


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(_("must be a time such as 2027-01-31 or 2027-01-31T18:00:00Z")) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
