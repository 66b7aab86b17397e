"""Writing down what happens too often to be written each time: counted in memory, and written once a second."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Generic, TypeVar

import psycopg

from mailstore.database import Connection, Pool, Unavailable

log = logging.getLogger(__name__)

N = TypeVar("N", bound=Hashable)
L = TypeVar("L")

_PAUSE: Final = 1.0  # seconds between two times that notes are written
_MOST: Final = 1000  # different notes that wait to be written; what comes beyond is not noted


class Notes(Generic[N, L]):
    """What one process has noted and not yet written: a bounded number of notes, beside the path of the mail.

    `parameters` makes of how often each was noted, and of what was last said of it, what `statement` takes. Notes may
    get lost, with the process or while the database is away: they explain, and nothing is decided by them.
    """

    def __init__(
        self,
        pool: Pool,
        statement: str,
        parameters: Callable[[Mapping[N, int], Mapping[N, L]], dict[str, Any]],
        *,
        of: str,
    ) -> None:
        self._pool = pool
        self._statement = statement
        self._parameters = parameters
        self._of = of  # what they are of, for the log
        self._counts: dict[N, int] = {}
        self._last: dict[N, L] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write what is noted."""
        self._task = asyncio.create_task(self._write_again_and_again())

    async def stop(self) -> None:
        """Write what is left."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self._write()

    def note(self, note: N, last: L) -> None:
        """Count one more of these; `last` is what is told of the latest."""
        if note in self._counts or len(self._counts) < _MOST:
            self._counts[note] = self._counts.get(note, 0) + 1
            self._last[note] = last

    async def _write_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            await self._write()

    async def _write(self) -> None:
        if not self._counts:
            return
        counts, last = self._counts, self._last
        self._counts, self._last = {}, {}
        parameters = self._parameters(counts, last)

        async def work(connection: Connection) -> None:
            await connection.execute(self._statement, parameters)

        try:
            await self._pool.run(work)
        except (Unavailable, psycopg.Error) as error:
            log.warning("%s %s were not noted: %s", sum(counts.values()), self._of, type(error).__name__)
