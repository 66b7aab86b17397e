"""Being present as a listener: a lock that the database frees when the process dies, a heartbeat, and an open ear."""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from accounts import notices
from mailstore import database
from mailstore.database import Connection

log = logging.getLogger(__name__)

LOCK_SPACE: Final = 0x6D61696C
"""First half of every listener's advisory lock; the second is the listener's id."""

_REGISTER = "INSERT INTO mailstore_listener (kind, host, pid) VALUES (%s, %s, %s) RETURNING id"
_HOLD = "SELECT pg_advisory_lock(%s, %s)"
_RENEW = "UPDATE mailstore_listener SET heartbeat_at = now() WHERE id = %s RETURNING id"
_END_STRAYS = """
UPDATE mailstore_maildropsession SET ended_at = now(), "end" = 'lost'
WHERE listener_id = %(listener)s AND ended_at IS NULL AND id <> ALL (%(sessions)s::uuid[]) AND started_at < %(then)s
"""
# A lock that was free a moment after the database started tells nothing: its holder may be about to come back.
GONE: Final = """(
    listener.id IS NULL
    OR listener.heartbeat_at < now() - %(ttl)s * interval '1 s'
    OR (now() > pg_postmaster_start_time() + interval '3 s'
        AND pg_try_advisory_xact_lock_shared(%(space)s, listener.id))
)"""
"""SQL: whether the process behind `listener` is gone. Killed: its lock is free. Frozen: its heartbeat is old.

The probe is a shared one, since exclusive probes would collide with each other.
"""
_END_SESSIONS_OF_THE_GONE = f"""
UPDATE mailstore_maildropsession session SET ended_at = now(), "end" = 'lost'
FROM mailstore_listener listener
WHERE session.listener_id = listener.id AND session.ended_at IS NULL AND listener.id <> %(listener)s AND {GONE}
"""


Look = Callable[[Connection, Collection[str]], Awaitable[None]]
"""Looks at sessions, because of notices with these payloads (`accounts.notices`)."""


class Presence:
    """One listener process in the database. Made after the fork; needs a connection of its own, without a pooler.

    `sessions` holds the sessions this process has in memory: the owner adds a session's id before it is written and
    removes it once its end is. What the database calls open and is not among them is over. `look` is called as soon as
    a notice comes, and for all sessions when there may have been some that did not.
    """

    def __init__(self, *, kind: str, ttl: float, look: Look | None = None, role: str | None = None) -> None:
        self.ttl = ttl  # seconds without a heartbeat after which this process counts as gone
        self.listener_id: int | None = None  # None until registered
        self.sessions: set[UUID] = set()
        self._kind = kind
        self._look = look
        self._role = role  # of the database
        self._strays = False
        self._renewal = 0.0  # when the heartbeat is due, by the monotonic clock
        self._registered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Register, and stay so. If the database does not answer within five seconds, go on trying behind."""
        self._task = asyncio.create_task(self._stay())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._registered.wait(), 5)

    async def stop(self) -> None:
        """Give up the lock: whatever this process still held is free."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def end_strays(self) -> None:
        """Some session's end could not be written: write it as soon as the database answers."""
        self._strays = True

    async def _stay(self) -> None:
        pause = 0.1
        while True:
            try:
                connection = await AsyncConnection.connect(database.conninfo(role=self._role), autocommit=True)
                async with connection:
                    await self._register(connection)
                    pause = 0.1
                    while True:
                        await self._beat(connection)
            except psycopg.Error as error:
                log.warning("%s listener: the database is away: %s", self._kind, str(error).partition("\n")[0])
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)

    async def _register(self, connection: Connection) -> None:
        """Take this process's lock; at the first time, and if somebody removed its row, under a new id."""
        listener = self.listener_id
        if listener is None or not await (await connection.execute(_RENEW, (listener,))).fetchone():
            row = await (
                await connection.execute(_REGISTER, (self._kind, socket.gethostname(), os.getpid()))
            ).fetchone()
            assert row
            listener = int(row[0])
        await connection.execute(_HOLD, (LOCK_SPACE, listener))
        self.listener_id = listener
        # A restart of the database may have lost ends that were not yet on its disk, and freed other processes' locks.
        await self._end_strays(connection)
        await connection.execute(
            _END_SESSIONS_OF_THE_GONE, {"listener": listener, "ttl": self.ttl, "space": LOCK_SPACE}
        )
        if self._look:
            await connection.execute(f"LISTEN {notices.CHANNEL}")
            await self._look(connection, (notices.EVERY,))
        self._registered.set()

    async def _beat(self, connection: Connection) -> None:
        """Spend a second, or until something is heard or the connection is lost; then see to what is due."""
        hearing = connection.notifies(timeout=min(1.0, self.ttl / 3), stop_after=1)
        heard = {notice.payload async for notice in hearing}
        if heard and self._look:
            await self._look(connection, heard)
        if time.monotonic() >= self._renewal:
            self._renewal = time.monotonic() + self.ttl / 3
            if not await (await connection.execute(_RENEW, (self.listener_id,))).fetchone():
                await self._register(connection)
        if self._strays:
            await self._end_strays(connection)

    async def _end_strays(self, connection: Connection) -> None:
        self._strays = False
        # A session that begins after we looked at what we hold is none, though the statement may find it already.
        row = await (await connection.execute("SELECT now()")).fetchone()
        assert row
        parameters = {"listener": self.listener_id, "sessions": list(self.sessions), "then": row[0]}
        await connection.execute(_END_STRAYS, parameters)
