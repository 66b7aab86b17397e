"""`make bench`: load Mailhost and Dovecot in turns, and print how they compare."""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from poplib import POP3

from bench import machine, processes, table
from bench.dovecot import Dovecot
from bench.generator import LoadFailed, Measured, NoCompiler, compiled, load, write_users
from bench.product import Mailhost
from bench.rows import ROWS, Row
from bench.side import NotAvailable, Side
from bench.table import TITLES, Run

VAR = Path(__file__).parent / "var"
PASSWORD = "bench-hutech123"
DEVICE_PASSWORD = "bench-bchbd-chbec-hbfch"
"""Of a device with an own copy: what such a password looks like (`accounts.passwords`)."""
WARMING_SESSIONS = 8  # per mailbox: enough that each worker process has met each password


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rows: tuple[Row, ...]
    connections: int
    seconds: float
    warmup: float
    repetitions: int
    cpu: int | None


def main() -> int:
    """Run what was asked for. Exit status 1: something failed, or a reply was wrong; the tables say what."""
    options = _options()
    plan = Plan(
        rows=tuple(row for row in ROWS if not options.only or row.name in options.only),
        connections=options.connections,
        seconds=options.seconds or (2.0 if options.quick else 5.0),
        warmup=0.5 if options.quick else 1.0,
        repetitions=options.repetitions or (1 if options.quick else 3),
        cpu=options.cpu,
    )
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.default_int_handler)
    try:
        program = compiled()
        with _workplace(options.directory) as directory:
            return _compare(plan, program, directory, sides=options.sides, json_path=options.json)
    except (NoCompiler, NotAvailable, LoadFailed) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped; everything it started has ended.", file=sys.stderr)
        return 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute: short runs, one repetition")
    parser.add_argument("--seconds", type=float, metavar="N", help="measured time of each run (5; 2 if --quick)")
    parser.add_argument("--repetitions", type=int, metavar="N", help="runs per row and server (3; 1 if --quick)")
    parser.add_argument("--connections", type=int, default=50, metavar="N", help="connections at once (50)")
    parser.add_argument(
        "--only", action="append", choices=[row.name for row in ROWS], metavar="ROW",
        help=f"this row only; may be repeated ({', '.join(row.name for row in ROWS)})",
    )  # fmt: skip
    parser.add_argument("--sides", nargs="+", choices=list(TITLES), default=list(TITLES), help="servers (all three)")
    parser.add_argument("--json", type=Path, default=VAR / "results.json", metavar="FILE", help="raw results")
    parser.add_argument("--cpu", type=int, metavar="N", help="pin the load generator to this processor")
    parser.add_argument("--directory", type=Path, default=VAR, metavar="DIR", help="where all servers keep their data")
    return parser.parse_args()


@contextlib.contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """A directory for this run, removed afterwards. As root it must be one that other users can reach."""
    parent.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0 and not all(
        each.stat().st_mode & 0o001 for each in [parent.resolve(), *parent.resolve().parents]
    ):
        _say(f"{parent} cannot be reached by the users the servers run as; using /var/tmp")
        parent = Path("/var/tmp")
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=parent)).resolve()
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _compare(plan: Plan, program: Path, directory: Path, *, sides: Sequence[str], json_path: Path) -> int:
    mailboxes = sorted({
        (address, _password(row))
        for row in plan.rows
        for repetition in range(plan.repetitions)
        for address in row.mailboxes(plan.connections, repetition)
    })  # fmt: skip
    facts = {"machine": machine.facts(directory), "load before": {"load": f"{machine.load():.2f}"}}
    absent: list[str] = []
    runs: list[Run] = []
    with contextlib.ExitStack() as stack:
        started: list[Side] = []
        for name in sides:
            side: Side = Mailhost(directory / name) if name == "mailhost" else Dovecot(name, directory / name)
            stack.callback(_unbroken, side.stop)
            try:
                side.start(mailboxes, devices=[address for address, password in mailboxes if password != PASSWORD])
            except NotAvailable as reason:
                if len(sides) == 1 or name == "mailhost":
                    raise
                absent.append(f"{TITLES[name]} was left out: {reason}")
                _say(absent[-1])
                continue
            facts[TITLES[name]] = side.facts()
            started.append(side)
            _say(f"{TITLES[name]} runs")
        bench = _Bench(plan, program, directory, started)
        for row in plan.rows:
            runs += bench.row(row)
    print(_report(plan, facts, runs, absent))
    json_path.parent.mkdir(parents=True, exist_ok=True)
    raw = {"command": sys.argv[1:], "facts": facts, "runs": [dataclasses.asdict(run) for run in runs]}
    json_path.write_text(json.dumps(raw, indent=1) + "\n")
    _say(f"raw results: {json_path}")
    return 1 if any(run.measured.errors or not run.measured.operations for run in runs) else 0


class _Bench:
    """Servers that run, and the mailboxes already filled in them."""

    def __init__(self, plan: Plan, program: Path, directory: Path, sides: Sequence[Side]) -> None:
        self._plan = plan
        self._program = program
        self._sides = sides
        self._lists = directory / "lists"  # beside the servers' directories: the generator is none of theirs
        self._lists.mkdir()
        self._filled: set[Path] = set()

    def row(self, row: Row) -> Iterator[Run]:
        """Measure a row: all sides in turns, each repetition beginning with another one."""
        if row.held:
            self._fill(row)
        for repetition in range(self._plan.repetitions):
            first = repetition % len(self._sides)
            for side in [*self._sides[first:], *self._sides[:first]]:
                run = self._run(row, side, repetition)
                _say(f"{row.name:14} {TITLES[side.name]:16} {table.number(run.rate)} {row.operation}s/s, "
                     f"CPU {table.number(run.cpu_ms)} ms each, {run.measured.errors} errors")  # fmt: skip
                yield run

    def _users(self, row: Row, repetition: int) -> Path:
        addresses = row.mailboxes(self._plan.connections, repetition)
        return write_users(self._lists / addresses[0], [(address, _password(row)) for address in addresses])

    def _fill(self, row: Row) -> None:
        """Give every side the same messages, by LMTP; then see that they are there, and let caches warm up."""
        users = self._users(row, 0)
        connections = row.connections(self._plan.connections)
        for side in self._sides:
            if users not in self._filled:
                filled = load(
                    self._program, "deliver", port=side.lmtp_port, users=users, connections=connections,
                    octets=row.octets, each=row.held + row.removed,
                )  # fmt: skip
                _must_be_clean(filled, f"filling {TITLES[side.name]}")
                if row.removed:
                    _remove(row, side.pop3_port, row.mailboxes(self._plan.connections, 0))
            checked = load(
                self._program, "poll", port=side.pop3_port, users=users, connections=connections,
                messages=row.held, each=WARMING_SESSIONS,
            )  # fmt: skip
            _must_be_clean(checked, f"looking at the mailboxes of {TITLES[side.name]}")
        self._filled.add(users)

    def _run(self, row: Row, side: Side, repetition: int) -> Run:
        os.sync()  # what earlier runs left to be written is not this one's
        roots = {each.name: each.roots() for each in self._sides}
        samples: list[dict[str, processes.Usage]] = []
        busy: list[float] = []
        memory: list[int] = []
        timer = threading.Timer(
            self._plan.warmup + self._plan.seconds / 2, lambda: memory.append(processes.memory_octets(roots[side.name]))
        )

        def sample() -> None:
            busy.append(machine.busy_seconds())
            everyone = processes.processes()
            samples.append({name: processes.usage(pids, everyone) for name, pids in roots.items()})

        timer.start()
        try:
            measured = load(
                self._program, row.scenario,
                port=side.lmtp_port if row.scenario == "deliver" else side.pop3_port,
                users=self._users(row, repetition),
                connections=row.connections(self._plan.connections),
                warmup=self._plan.warmup, seconds=self._plan.seconds, cpu=self._plan.cpu,
                octets=row.octets, recipients=row.recipients, messages=row.held or None,
                at_begin=sample, at_end=sample,
            )  # fmt: skip
        finally:
            timer.cancel()
            timer.join()
        if len(samples) != 2:
            raise LoadFailed(f"{row.name}, {TITLES[side.name]}: the generator gave up: {measured.error_samples}")
        before, after = samples
        spent = {name: after[name].cpu_seconds - before[name].cpu_seconds for name in roots}
        known = sum(spent.values()) + measured.generator_cpu_seconds
        return Run(
            row=row.name,
            side=side.name,
            repetition=repetition,
            measured=measured,
            cpu_seconds=spent.pop(side.name),
            memory_octets=memory[0] if memory else 0,
            processes=after[side.name].count,
            others_cpu_seconds=sum(spent.values()),
            strangers_cpu_seconds=max(0.0, busy[1] - busy[0] - known),
            cores=os.cpu_count() or 1,
        )


def _password(row: Row) -> str:
    return DEVICE_PASSWORD if row.own_copy else PASSWORD


def _remove(row: Row, port: int, addresses: Sequence[str]) -> None:
    """Have the client of each mailbox remove the first messages."""
    for address in addresses:
        client = POP3("127.0.0.1", port, timeout=60)
        client.user(address)
        client.pass_(_password(row))
        for number in range(1, row.removed + 1):
            client.dele(number)
        client.quit()


def _must_be_clean(measured: Measured, what: str) -> None:
    if measured.errors or not measured.operations:
        raise LoadFailed(f"{what}: {measured.errors} errors: {'; '.join(measured.error_samples)}")


def _unbroken(stop: Callable[[], None]) -> None:
    """Stop a side, whatever the terminal sends meanwhile."""
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stop()
    finally:
        signal.signal(signal.SIGINT, kept)


def _report(plan: Plan, facts: dict[str, dict[str, str]], runs: Sequence[Run], absent: Sequence[str]) -> str:
    lines = [
        *([table.ratios(plan.rows, runs), ""] if "Mailhost" in facts else []),
        "Operations per second: more is better. CPU per operation: less is better. "
        f"Medians of {plan.repetitions} runs of {plan.seconds:g} s, servers in turns. "
        "Generator: what the load itself took of one core.",
        "",
        table.details(plan.rows, runs),
        "",
        *(f"- {name}: " + ", ".join(f"{key} {value}" for key, value in found.items()) for name, found in facts.items()),
        *(f"- {each}" for each in [*absent, *table.troubles(runs)]),
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
