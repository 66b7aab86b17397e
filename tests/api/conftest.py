"""One running web side for all tests of the API as its clients see it."""

from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests.api.web import Web, running


@pytest.fixture(scope="session")
def web(django_db_blocker: DjangoDbBlocker) -> Iterator[Web]:
    """Two tenants with a row of every kind; its log must be free of faults at the end."""
    with running(django_db_blocker) as web:
        yield web
        log = web.log_file.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") :][:10_000]
