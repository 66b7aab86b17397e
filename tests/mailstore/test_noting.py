"""What is noted beside the path of the mail is written once a second, and when the process ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import psycopg
import pytest
from psycopg.rows import TupleRow

from mailstore import database, noting
from mailstore.database import Pool
from mailstore.noting import Notes

pytestmark = pytest.mark.django_db(transaction=True)

WRITE = "INSERT INTO noted SELECT * FROM unnest(%(notes)s::text[], %(counts)s::bigint[], %(last)s::text[])"


@pytest.fixture
def admin(transactional_db: None) -> Iterator["psycopg.Connection[TupleRow]"]:
    with psycopg.connect(database.conninfo(), autocommit=True) as connection:
        connection.execute("CREATE TABLE noted (note text, count bigint, last text)")
        yield connection
        connection.execute("DROP TABLE noted")


@pytest.fixture
async def pool(admin: object) -> AsyncIterator[Pool]:
    pool = Pool(size=2)
    pool.open()
    yield pool
    await pool.close()


@pytest.fixture
def notes(pool: Pool) -> Notes[str, str]:
    return Notes(
        pool,
        WRITE,
        lambda counts, last: {
            "notes": [*counts],
            "counts": [*counts.values()],
            "last": [last[note] for note in counts],
        },
        of="things",
    )


def written(admin: "psycopg.Connection[TupleRow]") -> list[TupleRow]:
    return admin.execute("SELECT note, sum(count)::int, max(last) FROM noted GROUP BY note ORDER BY note").fetchall()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 (the database tells nobody)
        await asyncio.sleep(0.01)


def somebody_waits(admin: "psycopg.Connection[TupleRow]") -> bool:
    return bool(admin.execute("SELECT FROM pg_locks WHERE relation = 'noted'::regclass AND NOT granted").fetchall())


async def test_what_is_left_is_written_when_the_process_ends(
    admin: "psycopg.Connection[TupleRow]", notes: Notes[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noting, "_PAUSE", 3600.0)
    notes.start()
    for last in ("1", "2"):
        notes.note("a", last)
    notes.note("b", "3")
    await notes.stop()
    assert written(admin) == [("a", 2, "2"), ("b", 1, "3")]


async def test_a_process_that_ends_while_it_writes_loses_nothing(
    admin: "psycopg.Connection[TupleRow]", notes: Notes[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noting, "_PAUSE", 0.01)
    monkeypatch.setattr(noting, "_LAST", 60.0)
    with psycopg.connect(database.conninfo()) as holder:
        holder.execute("LOCK TABLE noted")
        notes.start()
        notes.note("a", "1")
        await until(lambda: somebody_waits(admin))
        notes.note("a", "2")
        ending = asyncio.create_task(notes.stop())
        await asyncio.sleep(0)  # it has begun
    await ending
    assert written(admin) == [("a", 2, "2")]


async def test_the_end_does_not_wait_for_ever(
    admin: "psycopg.Connection[TupleRow]",
    notes: Notes[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(noting, "_PAUSE", 0.01)
    monkeypatch.setattr(noting, "_LAST", 0.1)
    monkeypatch.setattr(noting, "_GIVEN_UP", 60.0)
    with psycopg.connect(database.conninfo()) as holder:
        holder.execute("LOCK TABLE noted")
        notes.start()
        notes.note("a", "1")
        await until(lambda: somebody_waits(admin))
        notes.note("b", "2")
        await notes.stop()
    assert written(admin) == []
    assert caplog.messages == ["2 things were not noted: the process ends"]


async def test_notes_wait_for_a_database_that_is_away(
    admin: "psycopg.Connection[TupleRow]", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    there = database.conninfo()
    monkeypatch.setattr(noting, "_PAUSE", 0.01)
    monkeypatch.setattr(database, "conninfo", lambda **_: "host=127.0.0.1 port=1 connect_timeout=1")
    monkeypatch.setattr(database, "_PATIENCE", 0.05)
    tried = 0

    def parameters(counts: object, last: object) -> dict[str, list[object]]:
        nonlocal tried
        tried += 1
        return {"notes": [*counts], "counts": [*counts.values()], "last": [*last.values()]}  # type: ignore[misc,attr-defined]

    pool = Pool(size=2)
    pool.open()
    notes: Notes[str, str] = Notes(pool, WRITE, parameters, of="things")
    notes.start()
    notes.note("a", "1")
    await until(lambda: tried >= 3)
    notes.note("a", "2")
    monkeypatch.setattr(database, "_PATIENCE", 60.0)
    monkeypatch.setattr(database, "conninfo", lambda **_: there)
    await until(lambda: written(admin))
    await notes.stop()
    await pool.close()
    assert written(admin) == [("a", 2, "2")]
    assert not [message for message in caplog.messages if "not noted" in message]


async def test_what_the_database_refuses_holds_up_nothing_else(
    admin: "psycopg.Connection[TupleRow]", notes: Notes[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    notes.start()
    notes.note("NUL\0", "1")
    await notes.stop()
    assert caplog.messages == ["1 things were not noted: DataError"]
    assert written(admin) == []
