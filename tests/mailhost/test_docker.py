"""What the image holds and what starts in it, as far as it can be told without building it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

PROJECT = Path(__file__).parents[2]
DOCKERFILE = (PROJECT / "docker/Dockerfile").read_text()
COPIED = {source for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for source in line.split()}
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker/compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}


def test_the_image_holds_all_that_runs_and_nothing_else_is_sent_to_the_builder() -> None:
    packages = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    assert {"manage.py", "requirements.txt", "locale", "templates", *packages} == COPIED
    ignored = (PROJECT / "docker/Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == COPIED
    assert "*" in ignored


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["shell", "-v0", "-c", "import mailhost.wsgi, mailhost.celery"],
        ["findstatic", "-v0", "admin-mailhost/admin.css"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_is_copied_is_enough_to_begin(arguments: list[str], tmp_path: Path) -> None:
    app, data = tmp_path / "app", tmp_path / "data"
    (data / "static").mkdir(parents=True)  # as the Dockerfile makes it
    app.mkdir()
    for name in COPIED:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, app / name)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAILHOST_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *arguments],
        cwd=app, capture_output=True, text=True, timeout=120, check=False,
        env=environment | {"MAILHOST_DATA": str(data), "PYTHONPATH": str(app)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(app) in done.stdout or arguments[0] != "findstatic"


def test_its_settings_are_the_readmes() -> None:
    readme = (PROJECT / "README.md").read_text()
    for service in OURS.values():
        for name in service["environment"]:
            assert f"`{name}`" in readme


@pytest.mark.parametrize("name", OURS)
def test_each_service_starts_something_that_is_there(name: str) -> None:
    command = OURS[name]["command"]
    if command[0] == "python":
        assert command[1] == "manage.py"
        assert command[2] in get_commands()
    else:
        assert (Path(sys.executable).parent / command[0]).exists()
    roles = {"web": "mailhost_web", "worker": "mailhost_worker", "beat": "mailhost_worker"}
    assert OURS[name]["environment"].get("MAILHOST_DATABASE_ROLE") == roles.get(name)
