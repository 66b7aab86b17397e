"""What became of a file's lines, or would: counts, and what is wrong with which line."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from django.utils.translation import gettext as _

from accounts.addresses import BadAddress
from accounts.hashes import BadHash
from accounts.passwords import BadPassword
from accounts.provisioning import AddressTaken, BadValue, InQuarantine, Refused, Taken, UnknownDomain, UnknownMailbox


class Problem(NamedTuple):
    """A line of which nothing can be made: in which column it is wrong, if in one, and why."""

    line: int
    column: str
    reason: str

    def __str__(self) -> str:
        where = _("line %(line)s") % {"line": self.line}
        return ": ".join(part for part in (where, self.column, self.reason) if part)


@dataclass(frozen=True, kw_only=True)
class Report:
    """How many were created, changed, and stay as they are. With problems nothing was done."""

    created: int = 0
    changed: int = 0
    unchanged: int = 0
    problems: tuple[Problem, ...] = ()


class BadLines(Refused):
    """Some lines cannot be carried out, and none was. `report` says which, and why."""

    def __init__(self, report: Report) -> None:
        self.report = report
        lines = len({problem.line for problem in report.problems})
        text = _("nothing was done: %(number)s of the lines cannot be")
        super().__init__(text % {"number": lines})


def counted(done: Iterable[str | None], problems: Iterable[Problem] = ()) -> Report:
    """The report on lines with which this was done: `created`, `changed`, `unchanged`."""
    done = list(done)
    return Report(
        created=done.count("created"),
        changed=done.count("changed"),
        unchanged=done.count("unchanged"),
        problems=tuple(sorted(problems)),
    )


_COLUMNS: Final = {"quota_octets": "quota", "pop3_enabled": "pop3"}
_OF_ADDRESS: Final = (AddressTaken, InQuarantine, UnknownDomain, UnknownMailbox, BadAddress)


def problem(line: int, refusal: Exception) -> Problem:
    """What a refusal is in a report."""
    column = ""
    if isinstance(refusal, BadValue):
        column = _COLUMNS.get(refusal.field, refusal.field)
    elif isinstance(refusal, _OF_ADDRESS):
        column = "address"
    elif isinstance(refusal, BadPassword):
        column = "password"
    elif isinstance(refusal, BadHash):
        column = "password_hash"
    elif isinstance(refusal, Taken):
        column = "external_id"
    return Problem(line, column, str(refusal))
