"""Mailboxes as a CSV file.

An empty cell of `password`, `password_hash`, `quota`, `state` or `pop3` says nothing: a new mailbox gets what is usual,
an existing one stays as it is. In the other columns it says that there is none. A state comes with its reason.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from django.db.models import QuerySet
from django.utils.dateparse import parse_duration
from django.utils.duration import duration_string
from django.utils.translation import gettext as _

from accounts import addresses, quotas
from accounts.models import Domain, Mailbox
from accounts.provisioning import bulk
from accounts.provisioning.bulk import Item, Progress
from accounts.spreadsheets import tables
from accounts.spreadsheets.reports import BadLines, Problem, Report, counted, problem
from accounts.spreadsheets.tables import Line, Table
from mailhost import environment

COLUMNS: Final = (
    "address", "password", "password_hash", "quota", "name", "external_id", "state", "state_reason", "pop3",
    "allowed_networks", "retention", "keep_time", "language",
)  # fmt: skip
_USUAL: Final = ("address", "password", "quota")
_SECRET: Final = ("password", "password_hash")
_BATCH: Final = 2000


def read(octets: bytes) -> Table:
    """The table in a file; without a line that names its columns, they are address, password, quota. Raises `BadFile`.

    A mailbox that is named twice is a problem of its second line.
    """
    return tables.read(octets, columns=COLUMNS, usual=_USUAL, as_typed=("password",))


def check(
    table: Table, *, update: bool = False, default_quota: int | None, within: QuerySet[Domain] | None = None
) -> Report:
    """What `apply` would do, or why not, without doing it; no password is hashed."""
    lines, items, problems = _items(table, update=update, default_quota=default_quota)
    results = bulk.check(items, within=within)
    return _report(lines, results, problems)


def apply(
    table: Table,
    *,
    update: bool = False,
    default_quota: int | None,
    within: QuerySet[Domain] | None = None,
    progress: Progress = lambda done, of: None,
) -> Report:
    """Add the mailboxes, all or none; those that exist stay as they are or, to `update`, become what their line says.

    `default_quota` is for new mailboxes whose line says none, in octets. `within`: the domains that exist for whoever
    asks; None is all. `progress`: as for `bulk.apply`. Raises `BadLines`.
    """
    lines, items, problems = _items(table, update=update, default_quota=default_quota)
    if problems:
        raise BadLines(_report(lines, bulk.check(items, within=within), problems))
    try:
        return _report(lines, bulk.apply(items, atomic=True, within=within, progress=progress), [])
    except bulk.NotAll as refused:
        raise BadLines(_report(lines, refused.results, [])) from None


def write(mailboxes: QuerySet[Mailbox], *, with_hashes: bool = False) -> Iterator[bytes]:
    """The file of those that are open, in pieces. Only whoever runs the host may have the hashes of their passwords.

    Reads by a cursor of the database, in the transaction around if there is one: it takes little memory for many.
    """
    columns = [name for name in COLUMNS if name not in _SECRET or (with_hashes and name == "password_hash")]
    rows = mailboxes.filter(closed_at=None).order_by("address").select_related("user")
    if not with_hashes:
        rows = rows.defer("user__password")
    cells = (_cells(mailbox, with_hashes) for mailbox in rows.iterator(chunk_size=_BATCH))
    return tables.write(columns, ([row[name] for name in columns] for row in cells))


def _cells(mailbox: Mailbox, with_hashes: bool) -> dict[str, str]:
    return {
        "address": mailbox.address,
        "quota": quotas.exact(mailbox.quota_octets),
        "name": mailbox.name,
        "external_id": mailbox.external_id or "",
        "state": mailbox.state,
        "state_reason": mailbox.state_reason,
        "pop3": "on" if mailbox.pop3_enabled else "off",
        "allowed_networks": " ".join(mailbox.allowed_networks),
        "retention": _shown(mailbox.retention),
        "keep_time": _shown(mailbox.keep_time),
        "language": mailbox.user.language or "",
        "password_hash": mailbox.user.password if with_hashes and mailbox.user.has_usable_password() else "",
    }


def _report(lines: list[int], results: list[bulk.Result] | Any, problems: list[Problem]) -> Report:
    refused = [
        problem(line, result.refusal) for line, result in zip(lines, results, strict=True) if result.refusal is not None
    ]
    return counted((result.done for result in results), [*problems, *refused])


def _items(table: Table, *, update: bool, default_quota: int | None) -> tuple[list[int], list[Item], list[Problem]]:
    """What is asked for, with the lines where it stands, and what is wrong with the others."""
    lines: list[int] = []
    items: list[Item] = []
    problems = list(table.problems)
    first: dict[str, int] = {}
    for line in table:
        found = list(_wrong(line, named=table.named))
        values: dict[str, Any] = {}
        for column, (field, parse) in _VALUES.items():
            if (text := line.cells.get(column)) is None or (not text and column in _SILENT):
                continue
            try:
                values[field] = parse(text)
            except ValueError as error:
                found.append(Problem(line.number, column, str(error)))
        try:
            before = first.setdefault(addresses.address(line.cells.get("address", "")), line.number)
        except addresses.BadAddress as error:
            found.append(Problem(line.number, "address", str(error)))
        else:
            if before != line.number:
                found.append(Problem(line.number, "address", _("stands in line %(line)s already") % {"line": before}))
        if found:
            problems += found
            continue
        lines.append(line.number)
        items.append(_item(line.cells, values, update=update, default_quota=default_quota))
    return lines, items, problems


def _item(cells: Mapping[str, str], values: dict[str, Any], *, update: bool, default_quota: int | None) -> Item:
    return Item(
        action="put" if update else "add",
        address=cells["address"],
        password=cells.get("password") or None,
        password_hash=cells.get("password_hash") or None,
        values=values,
        defaults={"quota_octets": default_quota},
        state=cells.get("state", "").lower() or None,
        state_reason=cells.get("state_reason", ""),
    )


def _wrong(line: Line, *, named: bool) -> Iterator[Problem]:
    cells = line.cells
    if not named and not cells.get("password"):
        yield Problem(line.number, "password", _("must be address,password or address,password,quota"))
    if (state := cells.get("state", "").lower()) and state not in Mailbox.State.values:
        yield Problem(
            line.number, "state", _("must be one of %(values)s") % {"values": ", ".join(Mailbox.State.values)}
        )
    if cells.get("state_reason") and not state:
        yield Problem(line.number, "state_reason", _("is the reason of a state, and there is none"))


def _switch(text: str) -> bool:
    try:
        return {
            "on": True,
            "yes": True,
            "true": True,
            "1": True,
            "off": False,
            "no": False,
            "false": False,
            "0": False,
        }[text.lower()]
    except KeyError:
        raise ValueError(_("must be on or off")) from None


def _time(text: str) -> timedelta | None:
    try:
        return environment.duration(text) if text else None
    except ValueError:
        pass
    try:
        time = parse_duration(text)
    except (ValueError, OverflowError):
        time = None
    if time is None:
        raise ValueError(_("must be a time such as 14d or 8h"))
    return time


def _shown(time: timedelta | None) -> str:
    if time is None:
        return ""
    seconds = time.total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return duration_string(time)


_VALUES: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "quota": ("quota_octets", quotas.parse),
    "name": ("name", str),
    "external_id": ("external_id", lambda text: text or None),
    "pop3": ("pop3_enabled", _switch),
    "allowed_networks": ("allowed_networks", str.split),
    "retention": ("retention", _time),
    "keep_time": ("keep_time", _time),
    "language": ("language", str.lower),
}
"""By column, the field of the mailbox, and how its value is read."""

_SILENT: Final = ("quota", "pop3")
