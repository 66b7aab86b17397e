"""A pool keeps a few connections busy, grows when they are stuck, and survives the database."""

import asyncio
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest

from mailstore import database
from mailstore.database import Connection, Pool, Unavailable
from tests.servers import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def pool(transactional_db: None) -> AsyncIterator[Pool]:
    pool = Pool(size=4)
    pool.open()
    yield pool
    await pool.close()


async def backend(connection: Connection) -> int:
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    assert row
    return int(row[0])


def sleeping(seconds: float) -> Callable[[Connection], "asyncio.Future[int]"]:
    async def work(connection: Connection) -> int:
        await connection.execute("SELECT pg_sleep(%s)", (seconds,))
        return await backend(connection)

    return work  # type: ignore[return-value] # an awaitable is an awaitable


def kill(*backends: int) -> None:
    with psycopg.connect(database.conninfo(), autocommit=True) as connection:
        for one in backends:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (one,))


async def test_short_work_shares_few_connections(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_STUCK", 30.0)  # else a busy machine, where nothing comes back for a moment
    used = await asyncio.gather(*(pool.run(backend) for _ in range(200)))
    assert len(used) == 200
    assert len(set(used)) <= 2


async def test_work_that_is_stuck_makes_room_for_more_up_to_a_bound(pool: Pool) -> None:
    used = await asyncio.gather(*(pool.run(sleeping(2)) for _ in range(8)))
    assert len(set(used)) == 4


async def test_work_is_done_once_more_after_its_connection_was_lost(pool: Pool) -> None:
    used = set(await asyncio.gather(*(pool.run(sleeping(0.1)) for _ in range(4))))
    kill(*used)
    again = await asyncio.gather(*(pool.run(backend) for _ in range(4)))
    assert not used & set(again)


async def test_work_is_not_done_a_third_time(pool: Pool) -> None:
    tries = 0

    async def lost(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(Unavailable):
        await pool.run(lost)
    assert tries == 2
    assert await pool.run(backend)


async def test_what_work_raises_is_raised_and_costs_no_connection(pool: Pool) -> None:
    async def wrong(connection: Connection) -> None:
        await connection.execute("SELECT 1 / 0")

    used = await pool.run(backend)
    for _ in range(10):
        with pytest.raises(psycopg.errors.DivisionByZero):
            await pool.run(wrong)
    assert await pool.run(backend) == used


async def test_a_connection_left_in_a_transaction_is_not_used_again(pool: Pool) -> None:
    async def half(connection: Connection) -> int:
        await connection.execute("BEGIN")
        return await backend(connection)

    left = await pool.run(half)
    assert left not in await asyncio.gather(*(pool.run(backend) for _ in range(20)))


async def test_a_database_that_is_away_is_said_to_be_once_and_found_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mailstore.database")
    there = database.conninfo()
    monkeypatch.setattr(database, "conninfo", lambda **_: "host=127.0.0.1 port=1 connect_timeout=1")
    monkeypatch.setattr(database, "_PATIENCE", 0.3)
    pool = Pool(size=4)
    pool.open()
    with pytest.raises(Unavailable):
        await pool.run(backend)
    monkeypatch.setattr(database, "conninfo", lambda **_: there)
    monkeypatch.setattr(database, "_PATIENCE", 5.0)
    assert await pool.run(backend)
    await pool.close()
    away, back = caplog.messages
    assert away.startswith("the database is away: ")
    assert back == "the database is back"


async def test_commits_are_durable_whatever_the_servers_default_is(transactional_db: None) -> None:
    async def durability(connection: Connection) -> str:
        [said] = await (await connection.execute("SHOW synchronous_commit")).fetchone() or [""]
        return str(said)

    pool = Pool(size=1)
    with psycopg.connect(database.conninfo(), autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{admin.info.dbname}" SET synchronous_commit = off')
        try:
            assert await pool.run(durability) == "on"
        finally:
            admin.execute(f'ALTER DATABASE "{admin.info.dbname}" RESET synchronous_commit')
            await pool.close()


async def test_who_gave_up_waiting_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "conninfo", lambda **_: "host=127.0.0.1 port=1 connect_timeout=1")
    monkeypatch.setattr(database, "_PATIENCE", 0.01)
    pool = Pool(size=4)
    pool.open()
    for _ in range(3):
        gone = await asyncio.gather(*(pool.run(backend) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(one, Unavailable) for one in gone)
    assert not pool._waiting
    await pool.close()


def is_asleep() -> bool:
    statement = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    with psycopg.connect(database.conninfo()) as connection:
        return connection.execute(statement).fetchone() is not None


async def test_a_closed_pool_leaves_no_connection(transactional_db: None) -> None:
    pool = Pool(size=4)
    pool.open()
    used = await pool.run(backend)
    late = asyncio.create_task(pool.run(sleeping(2)))
    await asyncio.to_thread(eventually, is_asleep)
    await pool.close()
    used_late = await late
    with psycopg.connect(database.conninfo()) as connection:
        for _ in range(1000):
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE pid = ANY (%s)", ([used, used_late],)
            ).fetchall()
            connection.rollback()
            if not rows:
                break
            await asyncio.sleep(0.02)
    assert not rows
