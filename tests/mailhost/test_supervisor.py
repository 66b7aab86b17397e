"""Roles are started again when they die, and all end together."""

import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mailhost import supervisor
from mailhost.logstream import LogStream
from mailhost.supervisor import Role, Supervisor
from tests.servers import eventually, is_alive

LIMIT = 30  # seconds


def run_until(true: Callable[[str], bool], *roles: Role) -> str:
    """Run roles until something is true of what was logged, then stop; return all that was logged."""
    out = io.StringIO()
    deadline = time.monotonic() + LIMIT

    def look() -> None:
        assert time.monotonic() < deadline, out.getvalue()
        if true(out.getvalue()):
            os.kill(os.getpid(), signal.SIGTERM)

    log = LogStream([role.name for role in roles], out)
    Supervisor(roles, environment=os.environ, log=log).run(every_tick=look)
    return out.getvalue()


def shell(name: str, script: str) -> Role:
    return Role(name, ["/bin/sh", "-c", script])


def said_in(log: str, role: str) -> list[str]:
    lines = [line.partition(" | ") for line in log.splitlines()]
    return [text for head, _, text in lines if head[9:].strip() == role]


def test_what_roles_say_stands_in_one_log_with_their_names() -> None:
    log = run_until(
        lambda log: "here" in log and "there" in log,
        shell("web", "echo here; exec sleep 60"),
        shell("worker", "echo there >&2; exec sleep 60"),
    )
    assert said_in(log, "web") == ["here"]
    assert said_in(log, "worker") == ["there"]
    assert len({line.index("|") for line in log.splitlines() if "|" in line}) == 1


def test_a_role_that_was_killed_is_started_again_soon() -> None:
    began = time.monotonic()
    log = run_until(lambda log: log.count("I am up") == 2, shell("pop3", "echo I am up; sleep 0.1; kill -9 $$"))
    assert time.monotonic() - began < 10
    assert "was killed by SIGKILL; starting it again in 0.5 s" in said_in(log, "pop3")


def test_a_role_that_dies_again_and_again_waits_longer_each_time() -> None:
    log = run_until(lambda log: "in 2.0 s" in log, shell("lmtp", "exit 3"))
    assert said_in(log, "lmtp") == [
        f"ended with exit code 3; starting it again in {pause} s" for pause in ("0.5", "1.0", "2.0")
    ]


def test_a_role_that_lived_long_is_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LIVED_LONG", 0.2)
    log = run_until(lambda log: log.count("in 0.5 s") == 2, shell("lmtp", "sleep 0.3; exit 3"))
    assert "in 1.0 s" not in log


def test_what_a_dead_role_left_running_is_ended_before_it_is_started_again(tmp_path: Path) -> None:
    """Else the children of a killed gunicorn would keep its port."""
    script = f"sleep 1000 & echo $! >> {tmp_path}/children; sleep 0.1; kill -9 $$"
    run_until(lambda log: log.count("killed by") == 2, shell("web", script))
    children = [int(line) for line in (tmp_path / "children").read_text().split()]
    eventually(lambda: not any(map(is_alive, children)))


def test_roles_are_asked_to_end_and_waited_for() -> None:
    log = run_until(
        lambda log: "ready" in log,
        shell("pop3", "trap 'sleep 0.5; echo drained; exit 0' TERM; echo ready; while :; do sleep 0.1; done"),
    )
    assert said_in(log, "pop3") == ["ready", "drained"]


def test_a_role_that_does_not_end_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "DRAIN", 0.5)
    began = time.monotonic()
    log = run_until(lambda log: "ready" in log, shell("pop3", "trap '' TERM; echo ready; while :; do sleep 0.1; done"))
    assert time.monotonic() - began < 15
    assert said_in(log, "pop3") == ["ready", "has not ended in time; killing it"]


def test_a_second_ctrl_c_does_not_wait() -> None:
    """Signals of one kind that come together may be one, so the second comes when the first was seen."""
    out = io.StringIO()
    began = time.monotonic()

    class Impatient(LogStream):
        def say(self, text: str = "") -> None:
            super().say(text)
            if "Stopping" in text:
                signal.setitimer(signal.ITIMER_REAL, 0.5)

    role = shell("pop3", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    old = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        Supervisor([role], environment=os.environ, log=Impatient(["pop3"], out)).run(
            every_tick=lambda: os.kill(os.getpid(), signal.SIGINT) if "ready" in out.getvalue() else None
        )
    finally:
        signal.signal(signal.SIGALRM, old)
    assert time.monotonic() - began < 15


def test_roles_end_with_us_even_if_we_are_killed(tmp_path: Path) -> None:
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from mailhost.logstream import LogStream
from mailhost.supervisor import Role, Supervisor
from tests.servers import eventually, is_alive
roles = [Role("web", ["/bin/sh", "-c", "echo $$ > {tmp_path}/pid; exec sleep 1000"])]
def kill_us():
    if os.path.exists("{tmp_path}/pid") and os.path.getsize("{tmp_path}/pid"):
        os.kill(os.getpid(), 9)
Supervisor(roles, environment=os.environ, log=LogStream(["web"])).run(every_tick=kill_us)
"""
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", script]) == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not is_alive(pid))


def test_a_role_that_says_much_without_a_line_end_does_not_fill_memory() -> None:
    log = run_until(
        lambda log: "done" in log,
        shell("web", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo done; exec sleep 60"),
    )
    assert all(len(line) <= supervisor.LONGEST_LINE + 65536 for line in said_in(log, "web"))
    assert sum(line.count("x") for line in said_in(log, "web")) == 1000000
