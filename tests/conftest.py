"""The start of a test run: one pair of throw-away servers for all of it, and Django on top of them.

The servers start, and Django is set up, when this file is imported: before the settings are read, and before any
test module asks for a model. Under pytest-xdist the controller does it, and the workers inherit the URLs; each has
a database of its own. Where the environment names servers, those are used (DATABASE_URL, REDIS_URL).
"""

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import django
import pytest
from django.db import connection
from django.test import TransactionTestCase

from tests import servers
from tests.accounts.nameserver import name_server

_A_TEST: Final = 20
"""Seconds that a test takes, most of them far less."""


def _begin() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    for name in [name for name in os.environ if name.startswith("MAILHOST_")]:
        del os.environ[name]  # tests do not depend on the developer's own settings
    variables = {"postgres": "DATABASE_URL", "redis": "REDIS_URL"}
    wanted = [name for name, variable in variables.items() if not os.environ.get(variable)]
    until_the_end = ExitStack()
    atexit.register(until_the_end.close)
    pair = until_the_end.enter_context(servers.throw_away(wanted))
    os.environ.update({variables[name]: pair.environment[variables[name]] for name in wanted})
    os.environ["MAILHOST_DATA"] = str(pair.data)
    nobody = until_the_end.enter_context(name_server())  # knows no name
    os.environ["MAILHOST_DNS_SERVERS"] = f"127.0.0.1:{nobody.port}"
    (pair.data / "static").mkdir()  # empty, as `up` makes it


_begin()
os.environ["DJANGO_SETTINGS_MODULE"] = "mailhost.settings"
django.setup()

pytest_plugins = ["tests.fixtures"]


def _empty(case: TransactionTestCase) -> None:
    """After a test with transactions of its own, empty the tables that have rows, rather than make all of them anew."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        if cursor.fetchone() != (True,):
            _flush(case)
            return
        tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
        names = [connection.ops.quote_name(table) for table in tables if table not in _FILLED_BY_MIGRATE]
        cursor.execute(" UNION ALL ".join(f"(SELECT '{name}' FROM {name} LIMIT 1)" for name in names))
        deletions = "".join(f"DELETE FROM {name}; " for (name,) in cursor.fetchall())
        # As all of it goes, no reference is to be followed, and nothing to be counted by a trigger.
        cursor.execute(f"BEGIN; SET LOCAL session_replication_role = replica; {deletions} COMMIT")


_FILLED_BY_MIGRATE = {"django_content_type", "auth_permission"}
_flush = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]
TransactionTestCase._fixture_teardown = _empty  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin no test shortly before the turn of an hour: what it sees is of one hour, one day and one month."""
    left = 3600 - time.time() % 3600
    if left < _A_TEST:
        time.sleep(left)


@pytest.fixture
def private_servers() -> Iterator[servers.Servers]:
    """PostgreSQL and Redis for this test alone: empty, not migrated, and there to be killed."""
    with servers.throw_away() as pair:
        yield pair
