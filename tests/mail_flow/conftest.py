"""One running system for all tests of mail flow; who needs listeners with other settings starts some on it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests import servers
from tests.fixtures import Customer
from tests.system import LmtpListener, Pop3Listener, System


@pytest.fixture(scope="session")
def system(django_db_blocker: DjangoDbBlocker) -> Iterator[System]:
    """Servers of its own, migrated, and there to be killed."""
    # Short, because the path of a Unix socket ends at 107 octets; and passable, because Postfix is another user.
    with servers.throw_away() as pair, tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        with django_db_blocker.unblock(), System.on(pair, Path(directory)) as system:
            yield system


@pytest.fixture(autouse=True)
def models(system: System, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The models of these tests are the running system's."""
    with django_db_blocker.unblock(), system.models():
        yield


@pytest.fixture(scope="session")
def pop3(system: System) -> Iterator[Pop3Listener]:
    """A listener that stays; its log must be free of faults at the end."""
    with system.pop3() as listener:
        yield listener
        assert listener.stop() == 0, listener.log
        assert "Traceback" not in listener.log, listener.log


@pytest.fixture(scope="session")
def lmtp(system: System) -> Iterator[LmtpListener]:
    """A listener that stays; its log must be free of faults at the end."""
    with system.lmtp() as listener:
        yield listener
        assert listener.stop() == 0, listener.log
        assert "Traceback" not in listener.log, listener.log


@pytest.fixture
def acme(models: None, system: System) -> Customer:
    """A tenant of this test alone, with an@ its domain."""
    return system.customer("acme")


@pytest.fixture
def globex(models: None, system: System) -> Customer:
    """Another tenant."""
    return system.customer("globex")
