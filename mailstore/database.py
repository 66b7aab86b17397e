"""Connections to the database for the hot paths: async psycopg, made from Django's `DATABASES`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg
from django.db import connections
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

T = TypeVar("T")
Connection = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]

# A row that somebody holds, or a statement that hangs, costs its own caller an answer and nobody else.
_LIMITS = "-c lock_timeout=3s -c statement_timeout=20s -c idle_in_transaction_session_timeout=30s"
# Seconds to wait for a connection before the peer is told to come again.
_PATIENCE = 5.0


class Unavailable(Exception):
    """The database cannot answer now; later it can. Never carries the reason: it is logged, not told."""


def conninfo() -> str:
    """The libpq connection string of Django's default database."""
    settings = connections["default"].settings_dict
    options: dict[str, Any] = {key: value for key, value in settings["OPTIONS"].items() if key != "pool"}
    options["options"] = f"{options.get('options', '')} {_LIMITS}".strip()
    return make_conninfo(
        dbname=settings["NAME"],
        user=settings["USER"] or None,
        password=settings["PASSWORD"] or None,
        host=settings["HOST"] or None,
        port=settings["PORT"] or None,
        connect_timeout=5,
        **options,
    )


def pool(*, size: int) -> Pool:
    """A pool of at most `size` connections in autocommit mode, to be opened after the fork.

    Every statement is prepared at its first use.
    """
    return AsyncConnectionPool(
        conninfo(),
        connection_class=AsyncConnection[TupleRow],
        min_size=min(2, size),
        max_size=size,
        timeout=_PATIENCE,
        reconnect_timeout=float("inf"),
        kwargs={"autocommit": True, "prepare_threshold": 0},
        open=False,
    )


async def attempt(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do `work` on a connection; once more on a fresh one if the first was lost on the way.

    After a restart of the database every connection of the pool is dead, and the first use finds out. Whether the
    lost attempt was committed is unknown, so `work` must be safe to repeat. Raises `Unavailable`.
    """
    try:
        try:
            async with pool.connection() as connection:
                return await work(connection)
        except psycopg.OperationalError as error:
            if isinstance(error, PoolTimeout) or not _lost(error):
                raise
            await pool.check()  # drops the other dead ones
            await asyncio.sleep(0.05)
            async with pool.connection() as connection:
                return await work(connection)
    except PoolTimeout:
        raise Unavailable from None
    except psycopg.OperationalError as error:
        if _lost(error):
            raise Unavailable from error
        raise


def _lost(error: psycopg.OperationalError) -> bool:
    """Whether the connection, not the statement, is what failed."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
