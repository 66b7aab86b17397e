"""Redis as an embedded server, which keeps what it is told: a broker must not forget."""

import socket
from collections.abc import Sequence
from signal import Signals
from typing import ClassVar

from mailhost.embedded import binaries
from mailhost.embedded.home import reachable_program
from mailhost.embedded.server import Server


class Redis(Server):
    """A Redis on a Unix socket in a private directory, so without a password."""

    name: ClassVar[str] = "redis"
    title: ClassVar[str] = "Redis"
    stop_signals: ClassVar[Sequence[tuple[Signals, float]]] = ((Signals.SIGTERM, 20), (Signals.SIGKILL, 5))

    @property
    def url(self) -> str:
        return f"unix://{self.sockets}/redis.sock"

    def prepare(self) -> list[str]:
        directory = self.home / "redis"
        self.account.make_directory(directory)
        settings = {
            "port": "0",
            "unixsocket": f"{self.sockets}/redis.sock",
            "unixsocketperm": "700",
            "dir": str(directory),
            "appendonly": "yes",
            "appendfsync": "everysec" if self.durable else "no",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        program = reachable_program(binaries.find(binaries.REDIS), self.home, self.account)
        return [str(program), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(f"{self.sockets}/redis.sock")
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")
            except OSError:
                return False
