"""CPU and memory of a server count with all its processes: children that ended, and those that detached."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import processes

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"


def test_the_time_of_a_child_that_ended_is_kept() -> None:
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\nprint(flush=True)\ninput()\n"
    command = [sys.executable, "-c", script]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        used = processes.usage({parent.pid}, processes.processes())
        parent.communicate("\n")
    assert used.count == 1
    assert 0.25 < used.cpu_seconds < 2


def test_a_process_that_detached_is_found_by_where_it_works(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    started = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    detached = int(started.stdout.readline())
    try:
        assert started.wait() == 0
        everyone = processes.processes()
        assert detached not in processes.tree({started.pid}, everyone)
        assert processes.living_in(tmp_path, everyone) == {detached}
        assert processes.memory_octets({detached}) > 1_000_000
    finally:
        os.kill(detached, signal.SIGKILL)
        started.stdout.close()


def test_the_bench_is_never_taken_for_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert os.getpid() not in processes.living_in(tmp_path, processes.processes())


def test_a_process_that_is_gone_is_none() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    time.sleep(0.01)
    assert processes.read(child.pid) is None
