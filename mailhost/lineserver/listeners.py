"""The listening sockets of a server and its workers."""

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from mailhost.lineserver.config import Config, Endpoint

BACKLOG = 4096
"""How many clients may wait to be accepted, per socket; the kernel may allow fewer."""


class ListenError(Exception):
    """An endpoint that cannot be listened on, as a sentence for the operator."""


class Listeners:
    """A socket for each worker and TCP endpoint (SO_REUSEPORT), and one for each Unix endpoint that all share.

    Of a shared TCP socket, uvloop's loops take very uneven parts. The parent keeps all of them open, so that what has
    queued at a worker that dies waits for its replacement.
    """

    def __init__(self, config: Config) -> None:
        """Raises `ListenError`."""
        self._sockets: list[list[socket.socket]] = [[] for _ in range(config.workers)]
        self._files: list[tuple[Path, int]] = []
        self.names: list[str] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            for endpoint in config.endpoints:
                try:
                    self._listen(endpoint)
                except OSError as error:
                    raise ListenError(f"Cannot listen on {endpoint}: {_reason(error)}.") from error
            undo.pop_all()

    def of(self, worker: int) -> Sequence[socket.socket]:
        """This worker's sockets, in the order of the endpoints."""
        return self._sockets[worker]

    def keep_only(self, worker: int) -> None:
        """Close the others' sockets: in the worker, which must not keep them alive."""
        for index, sockets in enumerate(self._sockets):
            if index != worker:
                _close_all(sockets)

    def close(self) -> None:
        """Close all sockets, and remove the files of Unix sockets if they are still ours."""
        for sockets in self._sockets:
            _close_all(sockets)
        for path, inode in self._files:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()

    def _listen(self, endpoint: Endpoint) -> None:
        if endpoint.path is not None:
            with _listen_on_path(endpoint.path, mode=endpoint.mode) as shared:
                self._files.append((endpoint.path, endpoint.path.stat().st_ino))
                for sockets in self._sockets:
                    sockets.append(shared.dup())
            self.names.append(str(endpoint))
            return
        family, _, _, _, address = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with _tcp_socket(family) as probe:
            # With SO_REUSEPORT, a second server would share this port in silence.
            probe.bind(address)
        for sockets in self._sockets:
            listening = _tcp_socket(family)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
            address = listening.getsockname()  # Of port 0, all take the port that the first one got.
        self.names.append(str(Endpoint(str(address[0]), int(address[1]))))


def _tcp_socket(family: int) -> socket.socket:
    """A socket whose options the connections that it accepts inherit."""
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        # A client whose machine or network is gone is noticed within two minutes.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
    return made


def _listen_on_path(path: Path, *, mode: int) -> socket.socket:
    """Listen on a Unix socket, in place of a file that a dead server left. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError("a file that is no socket is there")
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(ConnectionRefusedError):
            probe.connect(os.fspath(path))
            raise OSError("another server listens there")
        path.unlink()
    listening = socket.socket(socket.AF_UNIX)
    umask = os.umask(0o777 & ~mode)  # Never wider than this, not even before a chmod.
    try:
        listening.bind(os.fspath(path))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(umask)
    return listening


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _close_all(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()
    sockets.clear()
