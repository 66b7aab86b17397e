"""Noting what Celery does, and telling when it does nothing: a queue that stands still says nothing by itself.

Each worker notes when it last did a task, and beat when it last asked for one. These are notes: work goes on without.
"""

import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from celery.signals import beat_embedded_init, beat_init, before_task_publish, task_postrun, task_prerun
from django.db import Error, close_old_connections, connection
from django.db.models.functions import Now

from mailstore.models import BackgroundRun

log = logging.getLogger(__name__)

SLACK: Final = timedelta(minutes=2)
"""How much longer than three of its periods a task may stay away before it is late."""

_NOTE = """
INSERT INTO mailstore_backgroundrun (kind, process, task, at, seconds, error)
VALUES (%(kind)s, %(process)s, %(task)s, now(), %(seconds)s, %(error)s)
ON CONFLICT (process, task) DO UPDATE SET at = now(), seconds = EXCLUDED.seconds, error = EXCLUDED.error
"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something that is to be done again and again."""

    name: str
    every: timedelta
    done_at: datetime | None = None
    seconds: float | None = None
    error: str = ""
    late: bool = False


@dataclass(frozen=True, kw_only=True)
class Background:
    """What Celery did last; `now` is the database's clock."""

    now: datetime
    asked_at: datetime | None  # by beat
    worked_at: datetime | None
    workers: int  # that did something lately
    tasks: tuple[Task, ...]
    beat_is_late: bool
    workers_are_late: bool


def look(schedule: Mapping[str, timedelta]) -> Background:
    """How Celery does, if it is to do these tasks in these periods."""
    rows = list(BackgroundRun.objects.annotate(now=Now()).order_by("at"))
    now = rows[0].now if rows else _now()
    asked = [row for row in rows if row.kind == BackgroundRun.Kind.BEAT]
    worked = [row for row in rows if row.kind == BackgroundRun.Kind.WORKER]
    last = {row.task: row for row in worked}
    asked_first = {row.task: row.first_at for row in reversed(asked)}
    often = min(schedule.values(), default=timedelta(0))

    def is_late(at: datetime | None, every: timedelta) -> bool:
        return at is None or now - at > 3 * every + SLACK

    def task(name: str, every: timedelta) -> Task:
        if row := last.get(name):
            late = is_late(row.at, every)
            return Task(name=name, every=every, done_at=row.at, seconds=row.seconds, error=row.error, late=late)
        # Never done, it can still be that beat has not asked for it yet, as in the first hour of all.
        return Task(name=name, every=every, late=name in asked_first and is_late(asked_first[name], every))

    asked_at, worked_at = max((row.at for row in asked), default=None), max((row.at for row in worked), default=None)
    return Background(
        now=now,
        asked_at=asked_at,
        worked_at=worked_at,
        workers=len({row.process for row in worked if not is_late(row.at, often)}),
        tasks=tuple(task(name, every) for name, every in schedule.items()),
        beat_is_late=is_late(asked_at, often),
        workers_are_late=is_late(worked_at, often),
    )


def note(kind: BackgroundRun.Kind, process: str, task: str, *, seconds: float | None = None, error: str = "") -> None:
    """Note that a process has just done a task, or has asked for it. If the database is away, nothing is noted."""
    values = {"kind": kind, "process": process[:300], "task": task[:100], "seconds": seconds, "error": error[:200]}
    try:
        with connection.cursor() as cursor:
            cursor.execute(_NOTE, values)
    except Error as failure:
        connection.close_if_unusable_or_obsolete()
        log.warning("what Celery did was not noted: %s", type(failure).__name__)


def _now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        now: datetime = cursor.fetchone()[0]
    return now


# --- What Celery calls ---------------------------------------------------------------------------------------------

_began: dict[str, float] = {}  # by the id of a task that runs here


def listen() -> None:
    """Have Celery tell what it does. For each of its processes."""
    task_prerun.connect(_note_begin)
    task_postrun.connect(_note_end)
    for beat_begins in (beat_init, beat_embedded_init):
        beat_begins.connect(_listen_to_beat)


def _note_begin(task_id: str, **_: Any) -> None:
    _began[task_id] = time.monotonic()


def _note_end(task_id: str, task: Any, retval: Any = None, state: str | None = None, **_: Any) -> None:
    began = _began.pop(task_id, None)
    if task.request.is_eager:
        return  # called like a function
    error = type(retval).__name__ if state == "FAILURE" else ""
    seconds = time.monotonic() - began if began is not None else None
    note(BackgroundRun.Kind.WORKER, task.request.hostname, task.name, seconds=seconds, error=error)


def _listen_to_beat(**_: Any) -> None:
    before_task_publish.connect(_note_asked)


def _note_asked(sender: str, **_: Any) -> None:
    note(BackgroundRun.Kind.BEAT, f"beat@{socket.gethostname()}", sender)
    close_old_connections()  # else nobody does, in beat
