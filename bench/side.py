"""What a server under test looks like to the bench, and how a process is started so that it cannot be left behind."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bench import processes

PR_SET_PDEATHSIG = 1


class NotAvailable(Exception):
    """This side cannot run on this machine; the text says why."""


class Side(Protocol):
    """One server: an own directory, own ports on loopback, own mailboxes."""

    name: str
    directory: Path
    pop3_port: int
    lmtp_port: int

    def start(self, mailboxes: Sequence[tuple[str, str]], *, devices: Sequence[str] = ()) -> None:
        """Start with these (address, password) mailboxes; return when both ports answer.

        The passwords of `devices`, which are some of these addresses, are those of devices with own copies, where
        there is such a thing.
        """

    def roots(self) -> set[int]:
        """The processes whose trees are this server."""

    def facts(self) -> dict[str, str]:
        """Version and the settings that a reader of the results must know."""

    def stop(self) -> None:
        """End every process of this side. May be called twice, and before `start`."""


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def spawn(
    command: Sequence[str], *, log: Path, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a server away from the terminal (Ctrl-C is for the bench, which stops it in order).

    It is told to end when the bench dies, however that happens.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def await_ports(ports: Sequence[int], process: subprocess.Popen[bytes], *, log: Path, seconds: float) -> None:
    """Return when all ports greet. Raises `NotAvailable` with the end of the log if that does not happen."""
    deadline = time.monotonic() + seconds
    for port in ports:
        while not _greets(port):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                state = "still starting" if process.poll() is None else f"ended with {process.returncode}"
                raise NotAvailable(f"{process.args!r} {state}, port {port} is silent. Its log:\n{tail}")
            time.sleep(0.1)


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return bool(connection.recv(1))
    except OSError:
        return False


def end(process: subprocess.Popen[bytes] | None, *, roots: set[int], seconds: float) -> None:
    """Ask the server to end, wait, and kill by pid what is left of the trees under `roots`."""
    everyone = processes.processes()
    members = {pid: everyone[pid].started for pid in processes.tree(roots, everyone)}
    if process is not None and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    deadline = time.monotonic() + seconds
    while left := _same(members):
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + seconds
        time.sleep(0.05)
    if process is not None:
        process.wait()


def _same(members: dict[int, int]) -> list[int]:
    """Those that are still the process they were (a pid may be given to another one)."""
    now = {pid: processes.read(pid) for pid in members}
    return [pid for pid, is_now in now.items() if is_now and is_now.started == members[pid] and is_now.state != "Z"]
