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
_LAST: Final = 2.0  # seconds that the last writing takes at most, when the process ends
_GIVEN_UP: Final = 1.0  # seconds that giving it up takes at most: the database is told
_MOST: Final = 1000  # different notes that wait to be written; what comes beyond is not noted


class Notes(Generic[N, L]):
    """What one process has noted and not yet written: a bounded number of notes, beside the path of the mail.

    `parameters` makes of how often each was noted, and of what was last said of it, what `statement` takes. While the
    database is away they wait, and a process that ends writes what is left; one that is killed loses a second's. They
    explain, and nothing is decided by them.
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
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write what is noted."""
        self._task = asyncio.create_task(self._write_again_and_again())

    async def stop(self) -> None:
        """Write what is left, if the database takes it within `_LAST` seconds."""
        if self._task:
            self._ending.set()  # what is being written is not torn away
            await asyncio.wait([self._task], timeout=_LAST)
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_GIVEN_UP)
            self._lose(self._counts, "the process ends")

    def note(self, note: N, last: L) -> None:
        """Count one more of these; `last` is what is told of the latest."""
        if note in self._counts or len(self._counts) < _MOST:
            self._counts[note] = self._counts.get(note, 0) + 1
            self._last[note] = last

    async def _write_again_and_again(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE):
                    await self._ending.wait()
            await self._write()
        await self._write()  # what was noted meanwhile

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
        except Unavailable:
            self._keep(counts, last)
        except asyncio.CancelledError:
            self._keep(counts, last)
            raise
        except psycopg.Error as error:
            self._lose(counts, type(error).__name__)

    def _keep(self, counts: Mapping[N, int], last: Mapping[N, L]) -> None:
        """Put back what could not be written, before what was noted meanwhile."""
        for note, count in counts.items():
            if note in self._counts or len(self._counts) < _MOST:
                self._counts[note] = self._counts.get(note, 0) + count
                self._last.setdefault(note, last[note])

    def _lose(self, counts: Mapping[N, int], why: str) -> None:
        if counts:
            log.warning("%s %s were not noted: %s", sum(counts.values()), self._of, why)
