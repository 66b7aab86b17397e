"""CSV as spreadsheets make it: octets become lines with named columns, and back (RFC 4180).

UTF-8, with or without a byte order mark, any line ends; cells are separated by commas, semicolons or tabs.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from django.utils.translation import gettext as _

from accounts import addresses
from accounts.provisioning import Refused
from accounts.spreadsheets.reports import Problem

LIMIT: Final = 64 * 2**20
"""Octets of a file."""
MOST_LINES: Final = 250_000

_SEPARATORS: Final = (",", ";", "\t")
_LINES_OF_CHUNK: Final = 500

# A spreadsheet takes a cell that begins so for a formula, and carries it out. An apostrophe before it makes it text.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_GUARDED: Final = re.compile(r"'+[=+\-@\t\r]")


class BadFile(Refused):
    """The file cannot be read; the text says why, and where."""


class Line(NamedTuple):
    """The cells of one line, of which the file may have fewer than columns."""

    number: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A file's lines, besides the one that names the columns, and those that cannot be lines of it."""

    columns: tuple[str, ...]
    named: bool
    """Whether a line names the columns; else they are those that everybody expects."""
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    problems: tuple[Problem, ...]

    def __iter__(self) -> Iterator[Line]:
        for number, cells in self.rows:
            yield Line(number, dict(zip(self.columns, cells, strict=False)))

    def __len__(self) -> int:
        return len(self.rows)


def read(octets: bytes, *, columns: Sequence[str], usual: Sequence[str], as_typed: Sequence[str] = ()) -> Table:
    """A file that has some of `columns`, in any order, or else `usual` ones without a line that names them.

    Cells lose the blanks around them and what `guarded` adds, unless they are `as_typed`. Raises `BadFile`.
    """
    if len(octets) > LIMIT:
        raise BadFile(_("the file has more than %(size)s MB") % {"size": LIMIT // 2**20})
    text = _text(octets)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), strict=True)
    found: list[tuple[int, tuple[str, ...]]] = []
    problems: list[Problem] = []
    names: tuple[str, ...] | None = None
    named = False
    number = 1
    try:
        for cells in reader:
            line, number = number, reader.line_num + 1
            if not any(cells):
                continue
            if names is None:
                named = _names_columns(cells)
                names = _columns(cells, columns) if named else tuple(usual)
                if named:
                    continue
            while len(cells) > len(names) and not cells[-1].strip():
                cells.pop()
            if len(cells) > len(names):
                text = _("has %(number)s cells, but the columns are %(columns)s")
                problems.append(Problem(line, "", text % {"number": len(cells), "columns": ", ".join(names)}))
                continue
            if len(found) >= MOST_LINES:
                raise BadFile(_("the file has more than %(most_lines)s lines") % {"most_lines": MOST_LINES})
            read_cells = zip(cells, names, strict=False)
            found.append((line, tuple(cell if name in as_typed else _bare(cell) for cell, name in read_cells)))
    except csv.Error as error:
        raise BadFile(_("line %(number)s is not CSV: %(error)s") % {"number": number, "error": error}) from None
    return Table(names or tuple(usual), named, tuple(found), tuple(problems))


def write(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[bytes]:
    """The file of these rows, in pieces; cells are `guarded`."""
    rows = iter(rows)
    chunk: list[Sequence[str]] = [columns]
    while chunk:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([guarded(cell) for cell in row] for row in chunk)
        yield text.getvalue().encode()
        chunk = list(islice(rows, _LINES_OF_CHUNK))


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula. `read` undoes it."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _bare(cell: str) -> str:
    cell = cell.strip(" ")
    return cell[1:] if _GUARDED.match(cell) else cell


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise BadFile(_("the file is not UTF-8 in line %(line)s") % {"line": line}) from None


def _separator(text: str) -> str:
    """With which of the separators the first line names columns, or begins with an address."""
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    for separator in _SEPARATORS:
        try:
            [cells] = csv.reader([first.rstrip("\n")], delimiter=separator)
        except (csv.Error, ValueError):
            continue
        if _names_columns(cells) or (len(cells) > 1 and _is_address(cells[0])):
            return separator
    return _SEPARATORS[0]


def _names_columns(cells: Sequence[str]) -> bool:
    return "address" in map(_name, cells) and not any("@" in cell for cell in cells)


def _columns(cells: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    names = [_name(cell) for cell in cells]
    while names and not names[-1]:
        names.pop()
    for name in names:
        if name not in known:
            raise BadFile(
                _("there is no column %(name)r: the columns are %(columns)s")
                % {"name": name[:40], "columns": ", ".join(known)}
            )
        if names.count(name) > 1:
            raise BadFile(_("the column %(name)s stands there twice") % {"name": name})
    return tuple(names)


def _name(cell: str) -> str:
    return cell.strip().lower().replace(" ", "_").replace("-", "_")


def _is_address(cell: str) -> bool:
    try:
        addresses.alias(_bare(cell))
    except addresses.BadAddress:
        return False
    return True
