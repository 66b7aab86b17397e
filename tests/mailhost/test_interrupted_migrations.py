"""A migration outside of a transaction that was interrupted, wherever, is run again and ends as if nothing had been."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.state import ProjectState
from django.db.utils import OperationalError
from pytest_django import DjangoDbBlocker

from tests.servers import Servers
from tests.system import System

SCHEMA = """
SELECT table_name, column_name, udt_name, is_nullable, column_default FROM information_schema.columns
WHERE table_schema = 'public'
UNION ALL SELECT conrelid::regclass::text, conname, contype::text, convalidated::text, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT indrelid::regclass::text, indexrelid::regclass::text, '', indisvalid::text,
    pg_get_indexdef(indexrelid)
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid AND relnamespace = 'public'::regnamespace
ORDER BY 1, 2, 3, 5
"""

Statement = Callable[[], Any]


class Killed(Exception):
    """Whoever migrates is gone."""


def schema() -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(SCHEMA)
        return list(cursor.fetchall())


@pytest.fixture
def fresh(db: None) -> list[tuple[Any, ...]]:
    """The schema that migrations make which nobody interrupts."""
    return schema()


@pytest.fixture
def empty(
    fresh: object, private_servers: Servers, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[Servers]:
    """A database without any table, which is Django's meanwhile."""
    with django_db_blocker.unblock(), System(private_servers, tmp_path, count(1), []).models():
        yield private_servers


@contextmanager
def in_use(servers: Servers) -> Iterator[None]:
    """Somebody is writing to every table; who waits for his end is cancelled as soon as he waits."""
    done = Event()
    pid = connection.connection.info.backend_pid

    def cancel_who_waits() -> None:
        with psycopg.connect(servers.urls.postgres, autocommit=True) as watcher:
            while not done.wait(0.01):
                watcher.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'",
                    (pid,),
                )

    with psycopg.connect(servers.urls.postgres) as writer:
        for (table,) in writer.execute(
            "SELECT quote_ident(tablename) FROM pg_tables WHERE tablename ~ '^(accounts|mailstore)_'"
        ).fetchall():
            writer.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE".encode())
        watching = Thread(target=cancel_who_waits)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()


def ends_at(number: int, during: Callable[[Statement], None]) -> Callable[..., Any]:
    """What Django runs each statement by: instead of the one of this number there is `during`, and then no more."""
    numbers = count()

    def run(execute: Callable[..., Any], sql: Any, params: Any, many: Any, context: Any) -> Any:
        if next(numbers) != number:
            return execute(sql, params, many, context)
        during(lambda: execute(sql, params, many, context))
        raise Killed

    return run


def run_again_and_again(
    executor: MigrationExecutor, state: ProjectState, migration: Migration, servers: Servers
) -> int:
    """Run it, each time interrupted a little later, until it ends. Returns how often an invalid index was left."""
    left = 0

    def done(statement: Statement) -> None:
        statement()

    def waiting(statement: Statement) -> None:
        with in_use(servers):
            statement()

    for number in count():
        for during in (waiting, waiting, done):  # also what the attempt after an interrupted one mends
            try:
                with connection.execute_wrapper(ends_at(number, during)):
                    executor.apply_migration(state.clone(), migration)
            except (Killed, OperationalError):
                with connection.cursor() as cursor:
                    cursor.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
                    left += cursor.fetchall()[0][0]
            else:
                return left
    raise AssertionError


def test_each_can_be_run_again_wherever_it_was_interrupted(fresh: object, empty: Servers) -> None:
    executor = MigrationExecutor(connection)
    executor.recorder.ensure_schema()
    state = ProjectState(real_apps=executor.loader.unmigrated_apps)
    left = {}
    for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes()):
        if migration.atomic:
            state = executor.apply_migration(state, migration)
        else:
            left[migration.name] = run_again_and_again(executor, state, migration, empty)
            state = migration.mutate_state(state)
    assert all(left[name] for name in ("0020_message_listed", "0028_kept_unique_id_is_unique", "0039_with_keep_time"))
    assert schema() == fresh
