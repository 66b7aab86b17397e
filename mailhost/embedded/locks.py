"""File locks as the one source of truth about who is alive: the kernel lets go of them whatever dies."""

import fcntl
import os
from pathlib import Path


class Lock:
    """A held lock on a file (flock). Children that inherit `fd` hold it too, until the last one ended."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def release(self) -> None:
        """Let go of the lock, unless a child inherited it."""
        os.close(self.fd)


def take(path: Path, *, shared: bool = False, wait: bool = False) -> Lock | None:
    """Take the lock on a file, made if it is missing. None if somebody holds it and we are not to wait."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(fd, how if wait else how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return Lock(fd)


def is_owned(path: Path) -> bool:
    """Tell whether somebody holds the lock for himself alone."""
    lock = take(path, shared=True)
    if lock is None:
        return True
    lock.release()
    return False
