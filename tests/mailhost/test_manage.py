"""Commands start the embedded servers exactly if they need them and the environment names no others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manage import needs_servers
from tests.servers import Servers, processes_of

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "line", ["migrate", "up", "shell", "addtenant acme", "check --database default", "purge --dry-run"]
)
def test_what_looks_into_the_database_needs_servers(line: str) -> None:
    assert needs_servers(line.split())


@pytest.mark.parametrize("line", ["", "check", "makemigrations --check --dry-run", "up --help", "help up", "--version"])
def test_what_only_reads_files_does_not(line: str) -> None:
    assert not needs_servers(line.split())


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=ours | variables, capture_output=True, text=True, check=False)


def test_a_command_alone_starts_the_servers_for_as_long_as_it_needs_them(data: Path) -> None:
    show = "from django.db import connection as c; c.ensure_connection(); print(c.settings_dict['HOST'])"
    done = run("shell", "--no-imports", "-c", show, MAILHOST_DATA=str(data))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str((data / "embedded").resolve() / "run")
    assert not processes_of(data)


def test_only_the_server_that_the_environment_does_not_name_is_embedded(data: Path, private_servers: Servers) -> None:
    show = "import os; print(os.environ['DATABASE_URL'], os.environ['REDIS_URL'])"
    given = private_servers.urls.postgres
    done = run("shell", "--no-imports", "-c", show, MAILHOST_DATA=str(data), DATABASE_URL=given)
    assert done.returncode == 0, done.stderr
    database, redis = done.stdout.split()
    assert database == given
    assert redis.startswith("unix://")
    assert not list((data / "embedded").glob("postgres*"))


def test_a_check_touches_no_server(data: Path) -> None:
    assert run("check", MAILHOST_DATA=str(data)).returncode == 0
    assert not (data / "embedded").exists()


def test_servers_that_cannot_be_used_are_a_sentence_not_a_traceback(data: Path) -> None:
    data.write_text("a file")
    done = run("migrate", MAILHOST_DATA=str(data))
    assert done.returncode != 0
    assert done.stderr.startswith("manage.py: MAILHOST_DATA: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "variables", [{}, {"MAILHOST_WORKERS": "many"}, {"DATABASE_URL": "postgresql://h/d", "REDIS_URL": "redis://h"}]
)
def test_what_keeps_a_delivery_from_beginning_is_temporary_to_the_mta(data: Path, variables: dict[str, str]) -> None:
    data.write_text("a file")
    done = run("deliver", "an@acme.test", MAILHOST_DATA=str(data), **variables)
    assert done.returncode == os.EX_TEMPFAIL, done.stderr
    assert run("migrate", MAILHOST_DATA=str(data), **variables).returncode == 1
