"""Data directories for tests that start servers, or all of Mailhost, themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers


@pytest.fixture
def data() -> Iterator[Path]:
    """The name of a data directory: for commands with servers of their own, or for none."""
    with servers.data_directory() as path:
        yield path
