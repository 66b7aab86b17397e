"""The one log of a running system: lines of many processes, each with its time and role, in columns."""

import os
import re
import sys
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92)
# Embedded servers put the time before each line themselves: PostgreSQL and guardians, Redis.
OWN_TIME = re.compile(r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d GMT |\d+:[A-Z] \d\d \w{3} \d{4} [\d:.]{12} [-.*#] )")


class LogStream:
    """Writes lines to a terminal or file. Colour is for terminals only."""

    def __init__(self, roles: Collection[str], out: IO[str] | None = None) -> None:
        self._out = out or sys.stdout
        self._width = max(map(len, roles))
        colourful = self._out.isatty() and not os.environ.get("NO_COLOR")
        self._colours = {role: COLOURS[n % len(COLOURS)] for n, role in enumerate(roles) if colourful}

    def write(self, role: str, line: str) -> None:
        """Write a line that a role said."""
        head = f"{datetime.now():%H:%M:%S} {role:<{self._width}} |"
        if role in self._colours:
            head = f"\x1b[{self._colours[role]}m{head}\x1b[0m"
        self.say(f"{head} {line}")

    def say(self, text: str = "") -> None:
        """Write something to the operator, as it stands."""
        with suppress(OSError):  # whoever read it has gone away; that is no reason to stop
            print(text, file=self._out, flush=True)


class Tail:
    """What is added to a log file from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def lines(self) -> list[str]:
        """Return the whole lines that are new, without the time in front."""
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:  # the old file was put aside
                    self._offset = 0
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        new = new[: new.rfind(b"\n") + 1]
        self._offset += len(new)
        return [OWN_TIME.sub("", line) for line in new.decode(errors="replace").splitlines()]
