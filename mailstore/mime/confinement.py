"""Giving up, for good, whatever a process that looks at a message does not need any more.

No descriptor can be made: neither a file, a socket to the database nor a look at another process's environment has one.
Where Linux has Landlock (5.13) there is no way around by what needs none, either: removing and renaming files, reading
another process's memory, and from 6.12 signals.
"""

import ctypes
import os
import resource
import sys
from typing import Final

# The same numbers on every architecture (linux/prctl.h, linux/landlock.h, asm-generic/unistd.h).
_NO_NEW_PRIVS: Final = 38
_CREATE_RULESET: Final = 444
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1

# By the version of Landlock that first knows them: bits of what is done to files, to TCP, to other processes.
_FILES: Final = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_TCP: Final = {4: 0b11}
_PROCESSES: Final = {6: 0b11}


def confine() -> None:
    """Give it all up. What is open already, and memory, can be used on. Raises `OSError`."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        _succeed(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
        if version := landlock():
            allowing_nothing = (ctypes.c_uint64 * 3)(
                *(
                    sum(bits for since, bits in handled.items() if since <= version)
                    for handled in (_FILES, _TCP, _PROCESSES)
                )
            )
            size = ctypes.sizeof(allowing_nothing)
            rules = _succeed(libc.syscall(_CREATE_RULESET, ctypes.byref(allowing_nothing), ctypes.c_size_t(size), 0))
            _succeed(libc.syscall(_RESTRICT_SELF, rules, 0))
            os.close(rules)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def landlock() -> int:
    """Which version of Landlock there is; 0 if there is none."""
    if sys.platform != "linux":
        return 0
    version: int = ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    return max(version, 0)


def _succeed(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
