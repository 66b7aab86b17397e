"""CPU and memory of a server that consists of many processes, read from /proc."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """One process as /proc/PID/stat shows it; `cpu_seconds` includes the children it has waited for."""

    pid: int
    parent: int
    started: int  # clock ticks since boot: with the pid, who it is
    cpu_seconds: float
    state: str


def processes() -> dict[int, Process]:
    """All processes of the machine by pid."""
    found = {}
    for entry in os.listdir(PROC):
        if entry.isdigit() and (process := read(int(entry))):
            found[process.pid] = process
    return found


def read(pid: int) -> Process | None:
    """One process, or None if it is gone."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may contain anything
    ticks = sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return Process(pid, int(fields[1]), int(fields[19]), ticks / TICKS, fields[0])


def tree(roots: set[int], everyone: dict[int, Process]) -> set[int]:
    """The roots that are alive and all their descendants."""
    children: dict[int, list[int]] = {}
    for process in everyone.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in everyone]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def living_in(directory: Path, everyone: dict[int, Process]) -> set[int]:
    """Processes that work in the directory, or name it in their command line or environment.

    This finds what detached itself from the process that started it: PostgreSQL and Redis work in their data
    directories, whatever they do to their command line. Never the bench itself, nor who started it.
    """
    directory = directory.resolve()
    needle = os.fsencode(directory)
    own = ancestors(os.getpid(), everyone)
    found = set()
    for pid in everyone:
        if pid not in own and any(_mentions(pid, needle, directory)):
            found.add(pid)
    return found


def ancestors(pid: int, everyone: dict[int, Process]) -> set[int]:
    """The process, its parent, and so on up to the first."""
    found = set()
    while pid in everyone and pid not in found:
        found.add(pid)
        pid = everyone[pid].parent
    return found


def _mentions(pid: int, needle: bytes, directory: Path) -> Iterator[bool]:
    def tried(look: Callable[[], bool]) -> bool:
        try:
            return look()
        except OSError:  # gone, or not ours to look at
            return False

    home = PROC / str(pid)
    yield tried(lambda: Path(os.readlink(home / "cwd")).is_relative_to(directory))
    yield tried(lambda: needle in (home / "cmdline").read_bytes())
    yield tried(lambda: needle in (home / "environ").read_bytes())


@dataclass(frozen=True)
class Usage:
    """What a set of processes has used since each was started, reaped children included."""

    cpu_seconds: float
    count: int


def usage(roots: set[int], everyone: dict[int, Process]) -> Usage:
    """CPU time of the process trees under the roots.

    A child that ended is in its parent's account once the parent has waited for it; one that is alive, or a
    zombie, is in its own. So the sum over the trees loses and doubles nothing.
    """
    members = tree(roots, everyone)
    return Usage(sum(everyone[pid].cpu_seconds for pid in members), len(members))


def memory_octets(roots: set[int]) -> int:
    """Proportional set size of the trees: memory shared by n processes counts once, not n times."""
    total = 0
    for pid in tree(roots, processes()):
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
