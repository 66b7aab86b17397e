"""What Linux lets a process say about its parent and its orphans."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None)  # now, since a child between fork and exec had better not load anything


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """Return what a child runs before its program, so that a signal ends it with its parent (Linux only).

    It is the parent's *thread* that counts: start such children from one that lives on. A change of user
    forgets the wish, so this must come after it, as `preexec_fn` does.
    """
    parent = os.getpid()

    def ask() -> None:
        _prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


def inherit_orphans() -> None:
    """Become the parent of processes whose parent, a child of ours, has died (Linux only)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        LIBC.prctl(option, value, 0, 0, 0)
