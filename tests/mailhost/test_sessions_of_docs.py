"""The sessions that the documents show, walked line by line on a running system."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mailhost.test_up import PROJECT, Up, environment, free_ports, running
from tests.servers import data_directory

END = "--- the command has ended ---"


class Step(NamedTuple):
    """A command, and what is shown of its output: `…` stands for anything within a line, or alone for all the rest."""

    command: str
    output: str


def steps(text: str) -> Iterator[Step]:
    """The session in a document: what is indented behind a `$`, up to the next or to what is not indented."""
    for shown in re.findall(r"^    \$ .*(?:\n(?:    .*)?)*", text, re.MULTILINE):
        for one in re.split(r"^    \$ ", shown, flags=re.MULTILINE)[1:]:
            lines = [line.removeprefix("    ") for line in one.rstrip().split("\n")]
            more = next((n for n, line in enumerate(lines[1:], 1) if not line.startswith("> ")), len(lines))
            command = "\n".join([lines[0], *(line.removeprefix("> ") for line in lines[1:more])])
            yield Step(command, "\n".join(lines[more:]))


def pattern(output: str) -> str:
    """The expression that matches what is shown."""
    head, rest = (output[:-1], r"(?s:.*)") if output.endswith("\n…") else (output, "")
    return "[^\n]*".join(map(re.escape, head.split("…"))) + rest


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with data_directory() as path, running(path, free_ports()) as system:
        yield system


@pytest.mark.parametrize(
    ("document", "title"),
    [("README.md", "Your own tenant, from nothing to first mail"), ("docs/api.md", "From nothing to first mail")],
)
def test_the_session_goes_as_it_is_shown(up: Up, document: str, title: str) -> None:
    text = (PROJECT / document).read_text().partition(f"## {title}\n")[2]
    if document == "README.md":
        text = text.partition("\n## ")[0]
    shown = list(steps(text))
    assert len(shown) > 10
    script = "".join(f"{step.command}\necho; echo '{END}'\n" for step in shown)
    for usual, ours in {
        ".venv/bin/python": shlex.quote(sys.executable),
        "127.0.0.1:8000": up.ports["MAILHOST_HTTP"],
        "127.0.0.1:1110": up.ports["MAILHOST_POP3"],
    }.items():
        script = script.replace(usual, ours)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=PROJECT,
        env=environment(Path(up.data), up.ports) | {"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    outputs = done.stdout.split(f"{END}\n")
    for step, output in zip(shown, outputs, strict=False):
        said = output.replace("\r\n", "\n").strip("\n")
        assert re.fullmatch(pattern(step.output), said), f"$ {step.command}\n{said}"
    assert len(outputs) == len(shown) + 1
