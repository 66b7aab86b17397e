"""A running Dovecot to move away from, with POP3, IMAP and LMTP; and a name that can be moved, as DNS does."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bench.dovecot import Dovecot
from bench.side import NotAvailable, await_ports
from tests.fixtures import PASSWORD
from tests.servers import free_port
from tests.system import Lmtp

IMAP = """
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
  {chroot}
}}
"""


class OldServer(Dovecot):
    """Dovecot with IMAP, in which every address is a mailbox that has `PASSWORD`."""

    def __init__(self, directory: Path) -> None:
        super().__init__("tuned", directory)
        self.imap_port = free_port()

    def begin(self) -> None:
        """Start it, or skip the test."""
        try:
            self.start([])
            assert self._process
            await_ports([self.imap_port], self._process, log=self.directory / "dovecot.log", seconds=20)
        except NotAvailable as reason:
            self.stop()
            pytest.skip(str(reason))

    def maildir(self, address: str) -> Path:
        """Where a mailbox's mail lies."""
        local_part, _, domain = address.partition("@")
        return self.directory / "mail" / domain / local_part / "Maildir"

    def deliver(self, address: str, *messages: bytes) -> None:
        """Give it mail."""
        with Lmtp.to(("127.0.0.1", self.lmtp_port)) as client:
            client.socket.settimeout(20)
            assert client.reply().startswith(b"220 ")
            assert client.told(b"LHLO mta.elsewhere.test").startswith(b"250")
            for message in messages:
                [reply] = client.deliver(message, address, reverse_path="binh@elsewhere.test")
                assert reply.startswith(b"250"), reply

    def _configuration(self, user: str, group: str) -> str:
        text = super()._configuration(user, group).replace("protocols = pop3 lmtp", "protocols = pop3 imap lmtp")
        text = re.sub(r"driver = passwd-file\n.*", f"driver = static\n  args = password={PASSWORD}", text)
        text = text.replace("args = uid=", "args = allow_all_users=yes uid=")
        return text + IMAP.format(port=self.imap_port, chroot="chroot =" if "chroot =" in text else "")


class Relay:
    """An address at which clients find first one server, then another."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.tls_address = ("127.0.0.1", int(self._listener.getsockname()[1]))
        self.target = 0
        self.cut_after: int | None = None
        """Octets from the server after which a connection is lost; once."""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                cut, self.cut_after = self.cut_after, None
                for source, drain, most in ((client, server, None), (server, client, cut)):
                    threading.Thread(target=_pass_on, args=(source, drain, most), daemon=True).start()


def _pass_on(source: socket.socket, drain: socket.socket, most: int | None) -> None:
    passed = 0
    with suppress(OSError):
        while octets := source.recv(65536):
            drain.sendall(octets)
            passed += len(octets)
            if most is not None and passed >= most:
                break
    for end in (source, drain):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    drain.close()


@contextmanager
def relay() -> Iterator[Relay]:
    """A relay, as long as that takes."""
    made = Relay()
    try:
        yield made
    finally:
        made.close()
