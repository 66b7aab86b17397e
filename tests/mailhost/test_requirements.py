"""The lock files: every package pinned with hashes, and no place named to get it from."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def packages(name: str) -> dict[str, str]:
    """Package and version, with the markers if any, to the hashes."""
    text = (PROJECT / name).read_text().replace("\\\n", " ")
    lines = (line.replace(", ", ",") for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split(maxsplit=1) for line in lines)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_package_has_its_version_and_hashes_and_no_url(name: str) -> None:
    assert packages(name)
    for package, rest in packages(name).items():
        assert re.fullmatch(r"[a-z0-9._-]+(\[[a-z0-9,-]+\])?==[0-9][A-Za-z0-9.]*", package)
        assert "--hash=sha256:" in rest
    assert "://" not in (PROJECT / name).read_text()


def test_development_runs_what_is_deployed() -> None:
    assert packages("requirements.txt").items() <= packages("requirements-dev.txt").items()
