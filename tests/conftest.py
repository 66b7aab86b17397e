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
