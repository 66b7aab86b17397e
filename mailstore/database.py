"""Connections to the database for the hot paths: async psycopg, made from Django's `DATABASES`."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import psycopg
from django.db import connections
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = AsyncConnection[TupleRow]

# A row that somebody holds, or a statement that hangs, costs its own caller an answer and nobody else.
_LIMITS = "-c lock_timeout=3s -c statement_timeout=20s -c idle_in_transaction_session_timeout=30s"
# Each statement here finds its rows by key, whatever the values: planned once, not each time. Measured: looking a
# recipient up costs the server a quarter.
_PLANS = "-c plan_cache_mode=force_generic_plan"
# Whatever is the server's or the role's default: what we say is stored must be.
_DURABLE = "-c synchronous_commit=on"
# A network that swallows everything is noticed by us: the server's limits do not help then. TCP only; seconds, but for
# the last, in milliseconds.
_NETWORK: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_FEW: Final = 2
"""Connections that a pool keeps busy. Two keep PostgreSQL busy; eight cost it half as much processor again."""
_STUCK: Final = 0.05  # seconds in which no connection came back, after which one more is opened
_PATIENCE: Final = 5.0  # seconds to wait for a connection before the peer is told to come again
_PAUSE: Final = 0.25  # seconds between two attempts to connect


class Unavailable(Exception):
    """The database cannot answer now; later it can. Never carries the reason: it is logged, not told."""


def conninfo(*, role: str | None = None, tenant_id: int | None = None) -> str:
    """The libpq connection string of Django's default database; `role` is the database's role to work as.

    The web's role sees the rows of the tenant `tenant_id`, and else none (`accounts.scope`).
    """
    settings = connections["default"].settings_dict
    options: dict[str, Any] = {key: value for key, value in settings["OPTIONS"].items() if key != "pool"}
    given = [options.get("options", ""), _LIMITS, _PLANS, _DURABLE]
    given += [f"-c role={role}"] if role else []
    given += [f"-c mailhost.tenants={{{tenant_id}}}"] if tenant_id else []
    options["options"] = " ".join(given).strip()
    return make_conninfo(
        dbname=settings["NAME"],
        user=settings["USER"] or None,
        password=settings["PASSWORD"] or None,
        host=settings["HOST"] or None,
        port=settings["PORT"] or None,
        **(_NETWORK | options),
    )


class Pool:
    """Connections of one process, in autocommit mode, each lent to one piece of work at a time. Opened after the fork.

    Every statement is prepared at its first use. psycopg's own pool took a tenth of the time of a POP3 session, and
    grows whenever somebody waits; this one keeps `few` connections busy and grows when all of them are stuck. Work that
    waits for the disk wants more of them: PostgreSQL writes the commits of all that wait in one go.
    """

    def __init__(self, *, size: int, few: int = _FEW, role: str | None = None, tenant_id: int | None = None) -> None:
        self._most = size
        self._role = role
        self._tenant_id = tenant_id
        self._few = min(few, size)
        self._count = 0  # connections, also those that are being opened
        self._idle: list[Connection] = []  # the one used last is used next
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._given_back = 0
        self._growth: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._ended = False
        self._away = False  # the database, and that is logged

    def open(self) -> None:
        """Begin to open the first connections; does not wait for the database."""
        for _ in range(self._few):
            self._open_one()

    async def close(self) -> None:
        """Close the connections; one that is lent, as soon as it comes back."""
        self._ended = True
        if self._growth:
            self._growth.cancel()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        self._drop_idle()

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do `work` on a connection; once more on a fresh one if the first was lost on the way.

        After a restart of the database every connection is dead, and the first use finds out. Whether the lost attempt
        was committed is unknown, so `work` must be safe to repeat. Raises `Unavailable`, and what `work` raises.
        """
        try:
            try:
                return await self._lend(self._idle.pop() if self._idle else await self._wait(), work)
            except psycopg.OperationalError as error:
                if not _lost(error):
                    raise
            self._drop_idle()  # they are as dead
            return await self._lend(await self._wait(), work)
        except psycopg.OperationalError as error:
            if _lost(error):
                raise Unavailable from error
            raise

    async def _lend(self, connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await work(connection)
        finally:
            self._given_back += 1
            self._take_back(connection)

    def _take_back(self, connection: Connection) -> None:
        """Give the connection to who waits longest; one that is not as it was is closed instead."""
        if self._ended or connection.pgconn.transaction_status != TransactionStatus.IDLE:
            self._drop(connection)
            return
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(connection)
                return
        self._idle.append(connection)

    async def _wait(self) -> Connection:
        """A connection, when there is one. Raises `Unavailable`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Connection] = loop.create_future()
        self._waiting.append(future)
        if self._count < self._few:
            self._open_one()
        elif self._growth is None and self._count < self._most:
            self._growth = loop.call_later(_STUCK, self._grow, self._given_back)
        timer = loop.call_later(_PATIENCE, self._give_up, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _give_up(self, future: asyncio.Future[Connection]) -> None:
        """It waited long enough. All wait equally long, so who is done stands first."""
        if not future.done():
            future.set_exception(Unavailable())
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()

    def _grow(self, given_back: int) -> None:
        """Open one more if nothing came back since `given_back` was counted, and look again."""
        self._growth = None
        if not self._waiting or self._count >= self._most:
            return
        if self._given_back == given_back:
            self._open_one()
        self._growth = asyncio.get_running_loop().call_later(_STUCK, self._grow, self._given_back)

    def _open_one(self) -> None:
        self._count += 1
        task = asyncio.create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        """Open a connection; while somebody waits for one, try again."""
        try:
            while True:
                try:
                    connection = await AsyncConnection.connect(
                        conninfo(role=self._role, tenant_id=self._tenant_id), autocommit=True, prepare_threshold=0
                    )
                except psycopg.OperationalError as error:
                    if not self._away:
                        self._away = True
                        log.warning("the database is away: %s", str(error).partition("\n")[0])
                    if not any(not future.done() for future in self._waiting):
                        raise
                    await asyncio.sleep(_PAUSE)
                else:
                    if self._away:
                        self._away = False
                        log.info("the database is back")
                    break
        except (psycopg.OperationalError, asyncio.CancelledError):
            self._count -= 1
        else:
            self._take_back(connection)

    def _drop(self, connection: Connection) -> None:
        self._count -= 1
        connection.pgconn.finish()
        if self._waiting and not self._ended and self._count < self._few:
            self._open_one()

    def _drop_idle(self) -> None:
        while self._idle:
            self._drop(self._idle.pop())


def _lost(error: psycopg.OperationalError) -> bool:
    """Whether the connection, not the statement, is what failed."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
