"""The tables say what was measured: medians, ratios, and what to distrust."""

import dataclasses

from bench import table
from bench.generator import Measured
from bench.rows import ROWS, Row
from bench.table import Run

POLL = ROWS[0]


def run(side: str, operations: int, *, row: Row = POLL, cpu_seconds: float = 1.0, **other: object) -> Run:
    measured = Measured(
        seconds=2.0, operations=operations, octets=operations * 1000, errors=0, p50_ms=5, p99_ms=9, max_ms=12,
        generator_cpu_seconds=0.2, connections=50, error_samples=(),
    )  # fmt: skip
    made = Run(row.name, side, 0, measured, cpu_seconds, 50_000_000, 7, 0.0, 0.0, 2)
    return dataclasses.replace(made, **other)  # type: ignore[arg-type]


def test_ratios_are_of_medians() -> None:
    runs = [
        run("mailhost", 400, cpu_seconds=0.4),
        run("mailhost", 100, cpu_seconds=9),
        run("mailhost", 420, cpu_seconds=0.42),
        run("tuned", 200, cpu_seconds=0.5),
        run("default", 50, cpu_seconds=1),
    ]
    head, _, line = table.ratios([POLL], runs).splitlines()
    assert [cell.strip() for cell in head.split("|")[2:4]] == ["Mailhost", "× Dovecot tuned"]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [POLL.title, "200 sessions/s", "2.00", "8.00", "0.40", "0.05"]


def test_a_side_that_is_not_there_leaves_no_column() -> None:
    runs = [run("mailhost", 400), run("tuned", 200)]
    assert "default" not in table.ratios([POLL], runs)
    assert "default" not in table.details([POLL], runs)


def test_details_have_one_line_for_each_side_of_a_row() -> None:
    lines = table.details([POLL], [run("tuned", 200), run("mailhost", 400)]).splitlines()
    assert len(lines) == 4
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["Mailhost", "Dovecot tuned"]
    assert [cell.strip() for cell in lines[2].split("|")[3:11]] == [
        "200", "0.20", "5.00", "9.00", "12.0", "2.50", "50", "10%",
    ]  # fmt: skip


def test_errors_idle_runs_and_disturbance_are_told() -> None:
    wrong = dataclasses.replace(run("tuned", 9).measured, errors=2, error_samples=("RETR: -ERR",))
    runs = [
        run("mailhost", 100),
        run("tuned", 9, measured=wrong),
        run("default", 0),
        run("mailhost", 9, others_cpu_seconds=0.5),
    ]
    assert table.troubles(runs) == [
        "poll, Dovecot tuned: 2 errors (RETR: -ERR)",
        "poll, Dovecot default: nothing was finished in 2.0 s",
        "poll, Mailhost: the other servers used 25% of one core meanwhile",
    ]


def test_a_busy_machine_is_told() -> None:
    quiet = [run("mailhost", 100, strangers_cpu_seconds=0.1)]
    assert table.troubles(quiet) == []
    [told] = table.troubles([*quiet, run("tuned", 100, strangers_cpu_seconds=1.0)])
    assert "14% of the machine (up to 25%)" in told


def test_what_finished_nothing_has_no_ratio() -> None:
    line = table.ratios([POLL], [run("mailhost", 400), run("tuned", 0)]).splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")][2:] == ["–", "–"]
    assert "–" in table.details([POLL], [run("tuned", 0)])


def test_no_two_connections_share_a_mailbox() -> None:
    for row in ROWS:
        addresses = row.mailboxes(50, 0)
        assert len(set(addresses)) == len(addresses) == row.connections(50) * row.recipients


def test_a_delivering_run_has_fresh_mailboxes() -> None:
    for row in ROWS:
        shared = set(row.mailboxes(50, 0)) & set(row.mailboxes(50, 1))
        assert bool(shared) == (row.scenario != "deliver")


def test_numbers_show_three_digits() -> None:
    shown = [table.number(value) for value in (0, 0.1234, 1.234, 12.34, 123.4, 12345.6)]
    assert shown == ["0", "0.12", "1.23", "12.3", "123", "12,346"]
