"""The parent process: it holds the listening sockets, and watches over the workers that it forks."""

import contextlib
import ctypes
import dataclasses
import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from mailhost.lineserver.config import Config
from mailhost.lineserver.dialogue import Application
from mailhost.lineserver.listeners import Listeners
from mailhost.lineserver.tls import TLS, TLSError
from mailhost.lineserver.worker import GRACE_SECONDS, SIGNALS, work

logger = logging.getLogger("mailhost.lineserver")

_SPARE_FILES = 200
"""Open files that each worker keeps for databases, spools and logs."""
_STEADY_SECONDS = 10
"""A worker that lived so long is replaced at once."""
_LONGEST_PAUSE = 2.0
"""Before a worker that dies again and again is replaced. Clients wait meanwhile: its sockets still get their share."""
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def serve(config: Config, make_application: Callable[[], Application], *, name: str) -> int:
    """Listen, and serve with forked workers until SIGTERM or SIGINT; SIGHUP loads the certificate again.

    `make_application` is called in each worker. To be called in the main thread of a process that has no other, and
    no event loop. Returns the exit code: 0 when all workers ended by themselves. Raises `ListenError` and `TLSError`
    before anything is forked.
    """
    tls = TLS.of(config.tls, alpn=config.alpn)
    limit = _raise_file_limit()
    room = limit - min(_SPARE_FILES, limit // 2)
    if room < config.max_connections:
        logger.warning("%s: the limit of open files allows %d connections per worker.", name, room)
        config = dataclasses.replace(config, max_connections=room)
    return _Parent(config, make_application, tls, Listeners(config), name=name).run()


def _raise_file_limit() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


@dataclasses.dataclass(slots=True)
class _Place:
    """Where one worker, and after it its replacement, serves on the same sockets."""

    index: int
    pid: int = 0
    """0: nobody is there."""
    since: float = 0
    early_deaths: int = 0
    due: float = 0
    """When the next one is to be started."""


class _Parent:
    def __init__(
        self,
        config: Config,
        make_application: Callable[[], Application],
        tls: TLS | None,
        listeners: Listeners,
        *,
        name: str,
    ) -> None:
        self._config = config
        self._make_application = make_application
        self._tls = tls
        self._listeners = listeners
        self._name = name
        self._places = [_Place(index) for index in range(config.workers)]

    def run(self) -> int:
        """Keep a worker in each place until told to end."""
        logger.info(
            "%s: listening on %s with %d workers.", self._name, ", ".join(self._listeners.names), len(self._places)
        )
        gc.collect()
        gc.freeze()  # What exists before the fork stays shared with the workers.
        with _Signals() as signals:
            while True:
                for place in self._places:
                    if not place.pid and place.due <= time.monotonic():
                        self._start(place, signals)
                pauses = [place.due - time.monotonic() for place in self._places if not place.pid]
                for signum in signals.wait(max(0.0, min(pauses)) if pauses else None):
                    if signum in (signal.SIGTERM, signal.SIGINT):
                        return self._end(signals)
                    if signum == signal.SIGHUP:
                        self._reload()
                self._replace_the_dead()

    def _start(self, place: _Place, signals: "_Signals") -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        place.since = time.monotonic()
        with signals.held():
            place.pid = os.fork()
            if place.pid == 0:
                signals.leave_to_parent()
                _die_with(parent)
                self._listeners.keep_only(place.index)
                self._work(place.index)

    def _work(self, index: int) -> NoReturn:
        """Be a worker; whatever happens, do nothing of what the parent would do next."""
        code = 1
        try:
            work(self._config, self._make_application, self._tls, self._listeners.of(index))
            code = 0
        except BaseException:
            logger.critical("%s: worker %d failed.", self._name, index + 1, exc_info=True)
        finally:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _replace_the_dead(self) -> None:
        for place, pid, how in self._reap():
            lived = time.monotonic() - place.since
            place.early_deaths = place.early_deaths + 1 if lived < _STEADY_SECONDS else 0
            pause = min(_LONGEST_PAUSE, 2.0**place.early_deaths / 8) if place.early_deaths > 1 else 0.0
            place.due = time.monotonic() + pause
            logger.error(
                "%s: worker %d (process %d) %s; its replacement starts in %.1f s.",
                self._name,
                place.index + 1,
                pid,
                how,
                pause,
            )

    def _reap(self) -> Iterator[tuple[_Place, int, str]]:
        """The places whose worker has ended, with how."""
        for place in self._places:
            if not place.pid:
                continue
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if pid:
                place.pid = 0
                code = os.waitstatus_to_exitcode(status)
                yield place, pid, f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"

    def _reload(self) -> None:
        if self._tls is None:
            return
        try:
            self._tls.reload()
        except TLSError as error:
            logger.error("%s: the certificate was not loaded again, the old one stays. %s", self._name, error)  # noqa: TRY400
            return
        logger.info("%s: the certificate was loaded again.", self._name)
        self._tell(signal.SIGHUP)

    def _end(self, signals: "_Signals") -> int:
        """End the workers; returns the exit code."""
        logger.info("%s: ending.", self._name)
        self._listeners.close()
        self._tell(signal.SIGTERM)
        deadline = time.monotonic() + self._config.drain_seconds + 2 * GRACE_SECONDS + 1
        code = 0
        while any(place.pid for place in self._places):
            for place, pid, how in self._reap():
                if how != "ended with code 0":
                    code = 1
                    logger.error("%s: worker %d (process %d) %s.", self._name, place.index + 1, pid, how)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                self._tell(signal.SIGKILL)
            if any(place.pid for place in self._places):
                signals.wait(max(0.1, remaining))
        logger.info("%s: ended.", self._name)
        return code

    def _tell(self, signum: signal.Signals) -> None:
        for place in self._places:
            if place.pid:
                os.kill(place.pid, signum)


class _Signals:
    """The parent's signals, one after the other."""

    def __enter__(self) -> "_Signals":
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._old_wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._old_handlers = {signum: signal.signal(signum, lambda *_: None) for signum in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._old_wakeup)
        for signum, handler in self._old_handlers.items():
            signal.signal(signum, handler or signal.SIG_DFL)
        self._read.close()
        self._write.close()

    def wait(self, seconds: float | None) -> bytes:
        """The numbers of the signals that came, once there is one; none after so many seconds."""
        select.select([self._read], [], [], seconds)
        try:
            return self._read.recv(4096)
        except BlockingIOError:
            return b""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let signals wait: of a process that is forked meanwhile, too, until its event loop takes them."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def leave_to_parent(self) -> None:
        """Take no more part in this: in a forked process."""
        signal.set_wakeup_fd(-1)
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        # A Ctrl-C reaches the whole group; it is the parent who says what becomes of it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._read.close()
        self._write.close()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone, so that kill -9 of the parent leaves none."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
