"""The one log: columns, colour on terminals only, and what the embedded servers add to their files."""

import io
from pathlib import Path

import pytest

from mailhost.logstream import LogStream, Tail


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_lines_stand_in_columns_without_colour_in_a_file() -> None:
    out = io.StringIO()
    log = LogStream(["web", "worker"], out)
    log.write("web", "one")
    log.write("worker", "two")
    assert [line[8:] for line in out.getvalue().splitlines()] == [" web    | one", " worker | two"]


def test_a_terminal_shows_each_role_in_its_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    log = LogStream(["web", "worker"], out)
    log.write("web", "one")
    log.write("worker", "two")
    first, second = out.getvalue().splitlines()
    assert first.startswith("\x1b[")
    assert first.endswith("\x1b[0m one")
    assert first[:5] != second[:5]


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    LogStream(["web"], out).write("web", "one")
    assert "\x1b" not in out.getvalue()


def test_a_reader_that_went_away_stops_nothing() -> None:
    LogStream(["web"], Gone()).write("web", "one")


def test_a_tail_tells_what_is_new_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    tail = Tail(path)
    assert tail.lines() == []
    with path.open("a") as file:
        file.write("new\nhal")
        file.flush()
        assert tail.lines() == ["new"]
        file.write("f\n")
    assert tail.lines() == ["half"]


def test_a_tail_follows_a_log_that_was_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("a long line from before\n")
    tail = Tail(path)
    path.unlink()
    assert tail.lines() == []
    path.write_text("new\n")
    assert tail.lines() == ["new"]


def test_the_time_in_front_is_not_told_twice(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "log")
    (tmp_path / "log").write_text(
        "2026-11-23 05:20:12 GMT LOG:  ready\n417:M 23 Nov 2026 05:20:12.123 # WARNING\nplain\n"
    )
    assert tail.lines() == ["LOG:  ready", "WARNING", "plain"]
