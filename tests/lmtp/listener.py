"""An LMTP listener on real sockets and the tests' database, in a thread of the test's process."""

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import uvloop

from accounts.database_roles import LISTENER
from accounts.models import Mailbox
from lmtp.backend import Server, Terms
from lmtp.session import Config as SessionConfig
from mailhost.lineserver import Config, Endpoint
from mailhost.lineserver.connection import Connections
from mailstore.delivery import Deliveries, Recipient, Refused
from mailstore.presence import Presence
from tests.system import Lmtp

TERMS: Final = Terms(session=SessionConfig(host="mail.acme.test", message_limit=20_000_000))


class Watched(Deliveries):
    """Remembers what was asked for in one go."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[list[str]] = []

    async def find_all(self, asked: Sequence[str], **message: Any) -> list[Recipient | Refused]:
        self.asked.append(list(asked))
        return await super().find_all(asked, **message)


class Listener:
    """What one worker does, without the process around it. A context manager."""

    def __init__(
        self,
        terms: Terms = TERMS,
        *,
        path: str = "",
        connections: int = 8,
        subaddress: str = "+",
        default_domain: str = "acme.test",
    ) -> None:
        self.deliveries = Watched(
            connections=connections, subaddress=subaddress, default_domain=default_domain, role=LISTENER
        )
        self.spools = tempfile.TemporaryDirectory()
        self.server = Server(
            replace(terms, spool_directory=self.spools.name),
            self.deliveries,
            Presence(kind="lmtp", ttl=90, role=LISTENER),
        )
        self.address: tuple[str, int] | str = path
        self._endpoint = Endpoint.parse(path or "127.0.0.1:0")
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="LMTP listener")
        self._loop: asyncio.AbstractEventLoop
        self.connections: Connections

    def __enter__(self) -> "Listener":
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.drain()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.spools.cleanup()
        room, limit = self.server.room, self.server.terms.session.message_limit
        assert (room.memory, room.files) == (64 * 1024 * 1024, 32 * limit), "a spool was not closed"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.server.start()
        config = Config(endpoints=(self._endpoint,), workers=1, delimiter=b"\r\n", tick_seconds=0.05)
        self.connections = Connections(config, self.server, None, loop=self._loop)
        protocol = self.connections.protocol(self._endpoint)
        if isinstance(self.address, str) and self.address:
            listening: asyncio.AbstractServer = await self._loop.create_unix_server(protocol, self.address)
        else:
            listening = await self._loop.create_server(protocol, "127.0.0.1", 0)
            self.address = listening.sockets[0].getsockname()
        self._ready.set()
        await self._end.wait()
        listening.close()
        await self.connections.drain(grace=5)
        await self.server.stop()

    def drain(self) -> None:
        """Tell it to end, without waiting."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._end.set)

    @contextmanager
    def client(self) -> Iterator[Lmtp]:
        """Connected, greeted and introduced."""
        with Lmtp.to(self.address) as client:
            assert client.reply() == b"220 mail.acme.test LMTP server ready"
            assert client.told(b"LHLO mta.elsewhere.test").startswith(b"250")
            yield client

    def deliver(self, message: bytes, *to: Mailbox | str, reverse_path: str = "binh@elsewhere.test") -> list[bytes]:
        """Hand one message over on a connection of its own, and return the last reply for each recipient."""
        with self.client() as client:
            return client.deliver(message, *to, reverse_path=reverse_path)

    def send_and_leave(self, octets: bytes) -> None:
        """Say this on a connection of its own, and be gone before there is an answer."""
        with contextlib.suppress(ConnectionError), Lmtp.to(self.address) as client:
            client.send(octets)
