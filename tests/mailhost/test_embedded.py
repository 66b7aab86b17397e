"""The embedded servers: shared, kept alive whatever is killed, and gone when nobody uses them."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from mailhost import embedded
from mailhost.embedded import home
from mailhost.embedded.binaries import Tree
from tests.servers import Servers, eventually, processes_of

PROJECT = Path(__file__).parents[2]
USER = """
import sys
from pathlib import Path
from mailhost import embedded
with embedded.servers(Path(sys.argv[1]), durable=False) as urls:
    print(urls.postgres, urls.redis, flush=True)
    sys.stdin.read()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another account")


@contextmanager
def another_command(data: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that uses the servers until its standard input ends."""
    command = [sys.executable, "-c", USER, str(data)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        yield process
        process.kill()


def urls_of(command: subprocess.Popen[str]) -> embedded.Urls:
    assert command.stdout
    assert command.stderr
    line = command.stdout.readline()
    assert line, command.stderr.read()
    return embedded.Urls(*line.split())


def guardian_of(data: Path, server: str) -> int:
    [pid] = [pid for pid, line in processes_of(data).items() if f"mailhost.embedded {server}" in line]
    return pid


def test_servers_are_there_for_a_block_and_nothing_of_them_after_it(data: Path) -> None:
    with embedded.servers(data, durable=False) as urls:
        with psycopg.connect(urls.postgres) as connection:
            assert connection.execute("SELECT 'ß' < 'z', upper('ß')").fetchone() == (False, "ß")
        with redis.Redis.from_url(urls.redis) as client:
            assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert processes_of(data)
    assert not processes_of(data)


def test_what_was_written_is_there_at_the_second_start(data: Path) -> None:
    with embedded.servers(data) as urls:
        with psycopg.connect(urls.postgres) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1")
            for safe in ("fsync", "synchronous_commit", "full_page_writes"):
                assert connection.execute(f"SHOW {safe}").fetchone() == ("on",)
        with redis.Redis.from_url(urls.redis) as client:
            client.set("kept", "too")
    began = time.monotonic()
    with embedded.servers(data) as urls:
        assert time.monotonic() - began < 10
        with psycopg.connect(urls.postgres) as connection:
            assert connection.execute("TABLE kept").fetchall() == [(1,)]
        with redis.Redis.from_url(urls.redis) as client:
            assert client.get("kept") == b"too"


def test_only_what_is_wanted_is_started(data: Path) -> None:
    with embedded.servers(data, wanted=["redis"], durable=False) as urls:
        assert urls.postgres == ""
        assert not any("postgres" in line for line in processes_of(data).values())


def test_commands_beside_each_other_share_servers_and_the_last_one_stops_them(data: Path) -> None:
    with another_command(data) as first:
        urls = urls_of(first)
        with another_command(data) as second:
            assert urls_of(second) == urls
            first.communicate("")
            with psycopg.connect(urls.postgres) as connection:
                connection.execute("SELECT 1")
            second.communicate("")
        assert not processes_of(data)


def test_many_first_starts_at_once_make_one_cluster(data: Path) -> None:
    command = [sys.executable, "-c", USER, str(data)]
    several = [subprocess.Popen(command, cwd=PROJECT, stdin=-1, stdout=-1, stderr=-1, text=True) for _ in range(5)]
    try:
        assert len({urls_of(process) for process in several}) == 1
    finally:
        for process in several:
            process.communicate("")
    assert [process.returncode for process in several] == [0] * 5


def test_a_killed_command_leaves_nothing(data: Path) -> None:
    with another_command(data) as command:
        urls_of(command)
        command.kill()
    eventually(lambda: not processes_of(data))


def test_killed_servers_come_back_with_what_was_committed(private_servers: Servers) -> None:
    with psycopg.connect(private_servers.urls.postgres) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1")
    began = time.monotonic()
    private_servers.restart_postgres(signal.SIGKILL)
    private_servers.restart_redis(signal.SIGKILL)
    assert time.monotonic() - began < 15
    with psycopg.connect(private_servers.urls.postgres) as connection:
        assert connection.execute("TABLE kept").fetchall() == [(1,)]


def test_a_killed_server_does_not_wait_for_a_query_that_goes_on_for_hours(private_servers: Servers) -> None:
    busy = "DO $$ BEGIN LOOP END LOOP; END $$"  # never looks whether its postmaster is alive

    def run() -> None:
        with psycopg.connect(private_servers.urls.postgres, autocommit=True) as connection:
            connection.execute(busy)

    def is_running() -> bool:
        with psycopg.connect(private_servers.urls.postgres) as connection:
            found = connection.execute("SELECT 1 FROM pg_stat_activity WHERE query = %s", [busy])
            return found.fetchone() is not None

    with ThreadPoolExecutor() as pool:
        query = pool.submit(run)
        eventually(is_running)
        began = time.monotonic()
        private_servers.restart_postgres(signal.SIGKILL)
        assert time.monotonic() - began < 15
        assert isinstance(query.exception(), psycopg.OperationalError)


@pytest.mark.parametrize("server", ["postgres", "redis"])
def test_a_killed_guardian_takes_its_server_along_and_gets_a_successor(private_servers: Servers, server: str) -> None:
    first = guardian_of(private_servers.data, server)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: first not in processes_of(private_servers.data))
    eventually(
        lambda: any(f"mailhost.embedded {server}" in line for line in processes_of(private_servers.data).values())
    )
    private_servers.wait_for_postgres()
    private_servers.wait_for_redis()


def test_everything_killed_at_once_starts_again(data: Path) -> None:
    with another_command(data) as command:
        urls = urls_of(command)
        with psycopg.connect(urls.postgres) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1")
        for pid in (command.pid, *processes_of(data)):
            with_luck_alive(pid)
    with embedded.servers(data, durable=False) as urls, psycopg.connect(urls.postgres) as connection:
        assert connection.execute("TABLE kept").fetchall() == [(1,)]


def with_luck_alive(pid: int) -> None:
    """Kill a process that may just have been ended by the end of another."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_a_process_id_left_by_a_crash_that_is_now_another_programs_does_not_matter(data: Path) -> None:
    with embedded.servers(data, durable=False):
        pass
    [cluster] = (data / "embedded").glob("postgres-*/")
    account = home.account_for(cluster.parent)
    with subprocess.Popen(["sleep", "60"], **account.for_popen()) as innocent:
        left = cluster / "postmaster.pid"
        left.write_text(f"{innocent.pid}\n{cluster}\n0\n5432\n/nowhere\n\n0 0\nready\n")
        account.own(left)
        with embedded.servers(data, durable=False) as urls, psycopg.connect(urls.postgres) as connection:
            connection.execute("SELECT 1")
        assert innocent.poll() is None
        innocent.kill()


@pytest.mark.parametrize("name", ["with a space, 'quotes' and Ünïcode", "long" * 40])
def test_the_data_directory_may_be_anywhere(data: Path, name: str) -> None:
    data = data.with_name("data") / name
    with embedded.servers(data, durable=False) as urls, psycopg.connect(urls.postgres) as connection:
        connection.execute("SELECT 1")
    assert not processes_of(data)
    home.remove(data)


def test_others_cannot_even_see_the_sockets_and_need_a_password_beyond(private_servers: Servers) -> None:
    sockets = home.socket_directory((private_servers.data / "embedded").resolve())
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert stat.S_IMODE((private_servers.data / "embedded" / "password").stat().st_mode) == 0o600
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(host=str(sockets), user="mailhost", dbname="mailhost")


def test_nothing_listens_on_the_network(private_servers: Servers) -> None:
    with psycopg.connect(private_servers.urls.postgres) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    with redis.Redis.from_url(private_servers.urls.redis) as client:
        assert client.config_get("port")["port"] == "0"


@as_root
def test_where_the_servers_account_cannot_go_its_files_lie_elsewhere(data: Path) -> None:
    data.parent.chmod(0o700)
    with embedded.servers(data, durable=False) as urls, psycopg.connect(urls.postgres) as connection:
        connection.execute("SELECT 1")
    outside = (data / "embedded").resolve()
    assert outside.parent == home.OUTSIDE
    home.remove(data)
    assert not outside.exists()


@as_root
def test_programs_that_the_servers_account_cannot_run_are_copied(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.mkdir()
    account = home.account_for(data)
    hidden = data.parent / "hidden"
    (hidden / "bin").mkdir(parents=True)
    program = hidden / "bin" / "server"
    program.write_text("#!/bin/sh\necho 17\n")
    program.chmod(0o755)
    tree = Tree(hidden, "bin/server", "some-1.0")
    assert home.reachable_program(tree, data, account) == program
    hidden.chmod(0o700)
    data.chmod(0o711)
    copy = home.reachable_program(tree, data, account)
    assert copy != program
    assert subprocess.run([copy], check=True, capture_output=True, **account.for_popen()).stdout == b"17\n"


def test_a_link_to_a_directory_that_is_gone_is_said(data: Path) -> None:
    data.mkdir()
    (data / "embedded").symlink_to("/nonexistent/mailhost")
    with (
        pytest.raises(embedded.EmbeddedError, match="leads to /nonexistent/mailhost, which is gone"),
        embedded.servers(data),
    ):
        pass


def test_a_data_directory_that_is_a_file_is_said(data: Path) -> None:
    data.write_text("")
    with pytest.raises(embedded.EmbeddedError, match="MAILHOST_DATA"), embedded.servers(data):
        pass


def test_a_cluster_of_another_release_is_left_alone_and_said(data: Path) -> None:
    with embedded.servers(data, wanted=["redis"], durable=False):
        (data / "embedded" / "postgres-9").mkdir()
        with (
            pytest.raises(embedded.EmbeddedError, match="postgres-9 was made by another PostgreSQL"),
            embedded.servers(data, durable=False),
        ):
            pass
    assert (data / "embedded" / "postgres-9").is_dir()


def test_a_cluster_that_was_half_made_is_made_again(data: Path) -> None:
    with embedded.servers(data, wanted=["redis"], durable=False):
        for major in range(15, 20):
            half = data / "embedded" / f"postgres-{major}.unfinished"
            half.mkdir()
            (half / "PG_VERSION").write_text("half")
        with embedded.servers(data, durable=False) as urls, psycopg.connect(urls.postgres) as connection:
            connection.execute("SELECT 1")


def test_a_stopped_server_refuses_connections(data: Path) -> None:
    with embedded.servers(data, durable=False) as urls:
        path = urls.redis.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as client, pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        client.connect(path)
