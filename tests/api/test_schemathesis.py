"""The API against its own description: schemathesis, with every check on, under an operator's and a tenant's token."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from accounts import tokens
from tests.api.web import Web
from tests.system import PROJECT

# What has the right form may still mean something that cannot be: which of these that is, `strictness` looks at.
# And a precondition that fails is told before anybody looks at the body.
CHECKS = """
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 411, 412, 413, 415, 422]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 409, 412, 413, 422, 503]
"""
STARTED = "from schemathesis.cli import schemathesis; schemathesis()"

QUICK = ("--phases=examples,fuzzing", "--max-examples=2", "--no-shrink", "--seed=1")
LONG = ("--phases=examples,coverage,fuzzing,stateful", "--max-examples=50")


def findings(web: Web, token: str, directory: Path, *options: str) -> str:
    """What it finds wrong; nothing if it passes."""
    (directory / "schemathesis.toml").write_text(CHECKS)
    command = [
        sys.executable, "-c", STARTED, f"--config-file={directory / 'schemathesis.toml'}",
        "run", str(PROJECT / "docs" / "openapi.json"), f"--url={web.url}", f"--header=Authorization: Bearer {token}",
        "--checks=all", "--no-color", "--continue-on-failure", "--request-timeout=30", *options,
    ]  # fmt: skip
    kept = " ".join(str(tokens.prefix_of(text)) for text in (web.operator, web.admin))
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.api.strictness", "KEPT_TOKENS": kept, "PYTHONPATH": str(PROJECT)
    }  # fmt: skip
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("role", ["operator", "admin"])
@pytest.mark.parametrize(
    "options", [pytest.param(QUICK, id="quick"), pytest.param(LONG, id="long", marks=pytest.mark.slow)]
)
def test_the_api_is_as_it_is_described(web: Web, role: str, options: tuple[str, ...], tmp_path: Path) -> None:
    found = findings(web, getattr(web, role), tmp_path, *options)
    assert not found, found
