"""What Celery does is noted by itself, and what it does not do is told."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from mailstore import background
from mailstore.models import BackgroundRun

pytestmark = pytest.mark.django_db(transaction=True)

WORKER, BEAT = BackgroundRun.Kind.WORKER, BackgroundRun.Kind.BEAT
SCHEDULE = {"purge": timedelta(minutes=5), "imports": timedelta(seconds=10)}


def note(kind: BackgroundRun.Kind, task: str, *, ago: timedelta = timedelta(0), **values: Any) -> None:
    background.note(kind, f"{kind}@here", task, **values)
    BackgroundRun.objects.filter(kind=kind, task=task).update(at=timezone.now() - ago)


def test_without_any_note_nobody_works() -> None:
    found = background.look(SCHEDULE)
    assert (found.asked_at, found.worked_at, found.workers) == (None, None, 0)
    assert found.beat_is_late
    assert found.workers_are_late
    assert not any(task.late for task in found.tasks)


def test_what_was_never_done_is_late_if_it_was_asked_for_long_ago() -> None:
    note(BEAT, "purge")
    assert not any(task.late for task in background.look(SCHEDULE).tasks)
    BackgroundRun.objects.update(first_at=timezone.now() - timedelta(minutes=18))
    assert [(task.name, task.late) for task in background.look(SCHEDULE).tasks] == [("purge", True), ("imports", False)]


def test_a_task_is_late_by_its_own_period() -> None:
    note(BEAT, "imports")
    note(WORKER, "imports", ago=timedelta(minutes=2), seconds=0.5)
    note(WORKER, "purge", ago=timedelta(minutes=16), error="OperationalError")
    found = background.look(SCHEDULE)
    assert not found.beat_is_late
    assert not found.workers_are_late
    assert found.workers == 1
    assert [(task.name, task.late, task.seconds, task.error) for task in found.tasks] == [
        ("purge", False, None, "OperationalError"),
        ("imports", False, 0.5, ""),
    ]
    note(WORKER, "purge", ago=timedelta(minutes=18))
    assert [task.late for task in background.look(SCHEDULE).tasks] == [True, False]


def test_beat_may_ask_while_nobody_works() -> None:
    note(BEAT, "imports")
    note(WORKER, "imports", ago=timedelta(minutes=12))
    found = background.look(SCHEDULE)
    assert (found.beat_is_late, found.workers_are_late, found.workers) == (False, True, 0)


def test_there_is_one_note_for_each_process_and_task() -> None:
    for _ in range(3):
        note(WORKER, "purge", error="x" * 300)
    assert [len(row.error) for row in BackgroundRun.objects.all()] == [200]


def test_without_the_database_nothing_is_noted_and_nothing_fails() -> None:
    connection.cursor().execute("ALTER TABLE mailstore_backgroundrun RENAME TO away")
    try:
        background.note(WORKER, "worker@here", "purge")
    finally:
        connection.cursor().execute("ALTER TABLE away RENAME TO mailstore_backgroundrun")
    background.note(WORKER, "worker@here", "purge")
    assert BackgroundRun.objects.count() == 1


@contextmanager
def celery(*arguments: str) -> Iterator[None]:
    environment = os.environ | {
        "DATABASE_URL": _this_database(),
        "MAILHOST_DATABASE_ROLE": "mailhost_worker",
        "PYTHONPATH": str(settings.BASE_DIR),
    }
    command = [sys.executable, "-m", "celery", "--app=mailhost", "--quiet", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _this_database() -> str:
    values = connection.settings_dict
    host, port = values["HOST"], values["PORT"]
    return f"postgresql://{values['USER']}:{values['PASSWORD']}@/{values['NAME']}?host={host}&port={port}"


def test_celery_notes_what_it_does(tmp_path: Path) -> None:
    with celery("worker", "--pool=threads", "--concurrency=1"), celery("beat", f"--schedule={tmp_path / 'schedule'}"):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            kinds = set(BackgroundRun.objects.values_list("kind", flat=True))
            if kinds == {"worker", "beat"}:
                break
            time.sleep(0.2)
    row = BackgroundRun.objects.filter(kind="worker", task="mailstore.tasks.imports").get()
    assert row.process.startswith("celery@")
    assert row.seconds is not None
    assert row.error == ""
    assert BackgroundRun.objects.filter(kind="beat", process__startswith="beat@").exists()
