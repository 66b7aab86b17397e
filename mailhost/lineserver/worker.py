"""One worker process: its event loop, from the first connection to the last farewell."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvloop

from mailhost.lineserver.config import Config
from mailhost.lineserver.connection import Connections
from mailhost.lineserver.dialogue import Application
from mailhost.lineserver.listeners import BACKLOG
from mailhost.lineserver.tls import TLS, TLSError

logger = logging.getLogger("mailhost.lineserver")

GRACE_SECONDS = 5.0
"""How long unfinished steps, and then `Application.stop`, may take beyond `Config.drain_seconds`."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""What the parent holds back while it forks; released here once someone listens."""


def work(
    config: Config,
    make_application: Callable[[], Application],
    tls: TLS | None,
    sockets: Sequence[socket.socket],
) -> None:
    """Serve on these listening sockets, one per endpoint, until SIGTERM; SIGHUP loads the certificate again.

    Raises what the application raises from `start` and `stop`.
    """
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(_run(loop, config, make_application(), tls, sockets))


async def _run(
    loop: asyncio.AbstractEventLoop,
    config: Config,
    application: Application,
    tls: TLS | None,
    sockets: Sequence[socket.socket],
) -> None:
    told_to_end = asyncio.Event()
    loop.set_exception_handler(_log)
    loop.add_signal_handler(signal.SIGTERM, told_to_end.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, tls)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    ending = loop.create_task(told_to_end.wait())
    starting = loop.create_task(application.start())
    await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return
    starting.result()

    connections = Connections(config, application, tls, loop=loop)
    servers = [
        (
            await loop.create_server(connections.protocol(endpoint), sock=listening, backlog=BACKLOG),
            endpoint,
            listening,
        )
        for endpoint, listening in zip(config.endpoints, sockets, strict=True)
    ]
    await ending

    connections.draining = True
    for server, endpoint, listening in servers:
        queue = listening.dup()
        server.close()
        await _turn_away(queue, loop, connections.protocol(endpoint))
    await connections.drain(grace=GRACE_SECONDS)
    await asyncio.wait_for(application.stop(), GRACE_SECONDS)


async def _turn_away(
    queue: socket.socket,
    loop: asyncio.AbstractEventLoop,
    protocol: Callable[[], asyncio.BaseProtocol],
) -> None:
    """Give the clients that wait in a listening socket's queue a farewell, rather than the reset of its close."""
    with queue:
        queue.setblocking(False)
        while True:
            try:
                waiting, _ = queue.accept()
            except OSError:
                return
            await loop.connect_accepted_socket(protocol, waiting)


def _reload(tls: TLS | None) -> None:
    if tls is not None:
        try:
            tls.reload()
        except TLSError:
            # The parent, which read the same files a moment ago, found no fault with them.
            logger.exception("The certificate was not loaded again; the old one stays.")


def _log(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    logger.error("In the event loop: %s", context.get("message"), exc_info=error)
