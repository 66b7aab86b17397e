"""Mail from a file in mbox format (RFC 4155; mboxrd, where `>From ` was `From `)."""

import re
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Self

from django.utils.translation import gettext_noop as noop

from mailstore.importing.sentences import Sentence
from mailstore.importing.source import Item, Refused, Unreadable, Write

_PIECE: Final = 64 * 1024
_FROM = re.compile(rb"From \S+ +(.{10,60}?)\s*\Z", re.DOTALL)
_QUOTED = re.compile(rb">(?=>*From )")


class Mbox:
    """An mbox file. A message begins where a line `From ` follows an empty one.

    Refusals call it `name`: its own, without the directory, if none is given.
    """

    def __init__(self, path: Path, *, name: str = "") -> None:
        self._path = path
        self._name = name or path.name
        self._file: BinaryIO | None = None
        self._open = ExitStack()
        self._starts = array("q")  # of their From lines, and the end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def open(self) -> int:
        """Look through it once; how many messages there are. Raises `Refused`."""
        try:
            self._file = self._open.enter_context(self._path.open("rb"))
            self._starts = _starts(self._file)
        except OSError as error:
            raise Refused(
                noop("%(name)s cannot be read: %(strerror)s"), name=self._name, strerror=error.strerror
            ) from None
        if len(self._starts) == 1 and self._starts[0]:
            raise Refused(noop("%(name)s is no mbox: it does not begin with From"), name=self._name)
        return len(self._starts) - 1

    def items(self) -> Iterator[Item]:
        """The messages in their order."""
        assert self._file
        for number in range(len(self._starts) - 1):
            self._file.seek(self._starts[number])
            line = self._file.readline(_PIECE)
            yield Item(
                name=Sentence(noop("message %(number)s"), {"number": number + 1}),
                date=_date(line),
                read=partial(self._read, self._starts[number], self._starts[number + 1]),
            )

    def _read(self, start: int, end: int, write: Write) -> None:
        file = self._file
        assert file
        try:
            file.seek(start)
            _rest_of_line(file, file.readline(_PIECE))
            begins, empty = True, b""
            while (left := end - file.tell()) > 0:
                line = file.readline(min(left, _PIECE))
                write(empty)  # the last one belongs to the format
                empty = b""
                if begins and line in (b"\n", b"\r\n"):
                    empty = line
                else:
                    write(_QUOTED.sub(b"", line, count=1) if begins and line.startswith(b">") else line)
                begins = line.endswith(b"\n")
        except OSError as error:
            raise Unreadable(noop("it cannot be read: %(strerror)s"), strerror=error.strerror) from None


def _starts(file: BinaryIO) -> "array[int]":
    found = array("q")
    place, after_empty, begins = 0, True, True
    while line := file.readline(_PIECE):
        if begins and after_empty and line.startswith(b"From "):
            found.append(place)
        elif begins and not found and line.strip():
            return array("q", [1])
        after_empty = begins and line in (b"\n", b"\r\n")
        begins = line.endswith(b"\n")
        place += len(line)
    found.append(place)
    return found


def _rest_of_line(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(_PIECE)


def _date(line: bytes) -> datetime | None:
    found = _FROM.match(line)
    if not found:
        return None
    try:
        date = parsedate_to_datetime(found[1].decode("ascii", "replace"))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)  # RFC 4155
