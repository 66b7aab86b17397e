"""The load generator (`load.c`): compiled when needed, and run against one port."""

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "load.c"
BUILD = Path(__file__).parent / "build"


class NoCompiler(Exception):
    """There is no C compiler on this machine."""


class LoadFailed(Exception):
    """The generator could not do what it was asked to."""


@dataclass(frozen=True)
class Measured:
    """What one run of the generator saw. Latencies are of whole operations (a session, or a message)."""

    seconds: float
    operations: int
    octets: int
    errors: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    generator_cpu_seconds: float
    connections: int
    error_samples: tuple[str, ...]


def compiled(build: Path = BUILD) -> Path:
    """Return the generator's program, compiling it if its source is newer.

    Raises `NoCompiler`, and `subprocess.CalledProcessError` if the source does not compile.
    """
    program = build / "load"
    if program.exists() and program.stat().st_mtime >= SOURCE.stat().st_mtime:
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompiler(
            "The load generator is written in C: install a compiler (Debian: apt-get install gcc libc6-dev)."
        )
    build.mkdir(parents=True, exist_ok=True)
    fresh = build / "load.new"
    subprocess.run([compiler, "-O2", "-std=c11", "-Wall", "-Wextra", "-o", fresh, SOURCE], check=True)
    fresh.replace(program)
    return program


def load(
    program: Path,
    scenario: str,
    *,
    port: int,
    users: Path,
    at_begin: Callable[[], None] = lambda: None,
    at_end: Callable[[], None] = lambda: None,
    **options: float | None,
) -> Measured:
    """Run one scenario; call `at_begin` and `at_end` as the measured time begins and ends.

    `options` are those of `load.c` (`seconds` or `each`, `warmup`, `connections`, ...); None leaves one out.
    Raises `LoadFailed` if the generator ends without a result.
    """
    command = [str(program), scenario, "--port", str(port), "--users", str(users)]
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line == "begin\n":
                    at_begin()
                elif line == "end\n":
                    at_end()
                else:
                    result = json.loads(line)
                    return Measured(**{**result, "error_samples": tuple(result["error_samples"])})
        finally:
            process.terminate()  # it has said all it has to say, or we are leaving
    raise LoadFailed(f"{' '.join(command)}: exit status {process.returncode}")


def write_users(path: Path, users: Sequence[tuple[str, str]]) -> Path:
    """Write the (address, password) pairs where the generator reads them."""
    path.write_text("".join(f"{address} {password}\n" for address, password in users))
    return path
