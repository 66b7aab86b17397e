"""Turning runs into markdown tables: ratios first, then what they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from bench.generator import Measured
from bench.rows import Row

TITLES = {"mailhost": "Mailhost", "tuned": "Dovecot tuned", "default": "Dovecot default"}


@dataclass(frozen=True)
class Run:
    """One run of one row against one side, and what its server used meanwhile."""

    row: str
    side: str
    repetition: int
    measured: Measured
    cpu_seconds: float  # all processes of the server, in the measured time
    memory_octets: int  # proportional set size in the middle of the run
    processes: int
    others_cpu_seconds: float  # of the sides that were not measured: background work that disturbs
    strangers_cpu_seconds: float  # of all else on the machine, the generator not counted: what makes rates rough
    cores: int

    @property
    def rate(self) -> float:
        return self.measured.operations / self.measured.seconds

    @property
    def megabytes(self) -> float:
        """10^6 octets of messages per second; a message to ten recipients counts once."""
        return self.measured.octets / 1e6 / self.measured.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per operation."""
        return 1000 * self.cpu_seconds / self.measured.operations if self.measured.operations else inf

    @property
    def generator_share(self) -> float:
        return self.measured.generator_cpu_seconds / self.measured.seconds


@dataclass(frozen=True)
class Cell:
    """The medians over the repetitions of one row and side."""

    rate: float
    megabytes: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_ms: float
    memory_octets: float
    generator_share: float


def cells(runs: Sequence[Run]) -> dict[tuple[str, str], Cell]:
    """Medians by (row, side); of the longest latencies the longest."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.row, run.side), []).append(run)
    return {
        key: Cell(
            rate=median(run.rate for run in group),
            megabytes=median(run.megabytes for run in group),
            p50_ms=median(run.measured.p50_ms for run in group),
            p99_ms=median(run.measured.p99_ms for run in group),
            max_ms=max(run.measured.max_ms for run in group),
            cpu_ms=median(run.cpu_ms for run in group),
            memory_octets=median(run.memory_octets for run in group),
            generator_share=median(run.generator_share for run in group),
        )
        for key, group in grouped.items()
    }


def ratios(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """Mailhost against each Dovecot: operations per second (more is better), CPU per operation (less is better)."""
    found = cells(runs)
    others = [side for side in ("tuned", "default") if any(key[1] == side for key in found)]
    head = ["", "Mailhost", *(f"× {TITLES[side]}" for side in others), *(f"CPU × {TITLES[side]}" for side in others)]
    lines = [head]
    for row in rows:
        ours = found.get((row.name, "mailhost"))
        line = [row.title, f"{number(ours.rate)} {row.operation}s/s" if ours else "–"]
        line += [_ratio(ours, found.get((row.name, side)), "rate") for side in others]
        line += [_ratio(ours, found.get((row.name, side)), "cpu_ms") for side in others]
        lines.append(line)
    return markdown(lines)


def details(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """Every row and side in absolute numbers of this machine."""
    found = cells(runs)
    lines = [["", "", "per second", "MB/s", "p50 ms", "p99 ms", "max ms", "CPU ms each", "memory MB", "generator"]]
    for row in rows:
        title = row.title
        for side in TITLES:
            if cell := found.get((row.name, side)):
                values = (cell.rate, cell.megabytes, cell.p50_ms, cell.p99_ms, cell.max_ms, cell.cpu_ms)
                memory = f"{cell.memory_octets / 1e6:.0f}"
                line = [title, TITLES[side], *map(number, values), memory, f"{cell.generator_share:.0%}"]
                lines.append(line)
                title = ""
    return markdown(lines)


def troubles(runs: Sequence[Run]) -> list[str]:
    """What a reader must know before he believes the tables: errors, and a machine that was busy otherwise."""
    found = []
    for run in runs:
        if run.measured.errors:
            samples = "; ".join(run.measured.error_samples)
            found.append(f"{run.row}, {TITLES[run.side]}: {run.measured.errors} errors ({samples})")
        elif not run.measured.operations:
            found.append(f"{run.row}, {TITLES[run.side]}: nothing was finished in {run.measured.seconds:.1f} s")
        if run.others_cpu_seconds > 0.05 * run.measured.seconds:
            share = run.others_cpu_seconds / run.measured.seconds
            found.append(f"{run.row}, {TITLES[run.side]}: the other servers used {share:.0%} of one core meanwhile")
    shares = [run.strangers_cpu_seconds / run.measured.seconds / run.cores for run in runs]
    if shares and max(shares) > 0.05:
        found.append(
            f"Other programs used {median(shares):.0%} of the machine (up to {max(shares):.0%}): "
            "the rates and their ratios are rough, CPU per operation less so"
        )
    return found


def _ratio(ours: Cell | None, theirs: Cell | None, what: str) -> str:
    if ours is None or theirs is None or not (ours.rate and theirs.rate):
        return "–"
    return f"{getattr(ours, what) / getattr(theirs, what):.2f}"


def number(value: float) -> str:
    """Three digits that count, without exponents."""
    if value == inf:
        return "–"
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table, first line its head; columns after the first are aligned right where they hold numbers."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    numeric = [all(line[column][:1] in "0123456789–" for line in lines[1:]) for column in range(len(widths))]

    def shown(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (width + 1) + (":" if right else "-") for width, right in zip(widths, numeric, strict=True))
    return "\n".join([shown(lines[0]), f"|{rule}|", *map(shown, lines[1:])])
