"""A connection to a mail server that somebody named: with time limits, and never more than a line in memory."""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from django.utils.translation import gettext_noop as noop

from accounts import outside
from mailstore.importing.source import Lost, Refused, Write

Security = Literal["tls", "starttls", "none"]

PATIENCE: Final = 60.0
"""Seconds that a server may say nothing."""
LINE_OCTETS: Final = 64 * 1024
"""The longest line that is not part of a message."""
MOST_MESSAGES: Final = 2_000_000
"""Messages of one maildrop or folder. Who lists more is not believed."""

_RECEIVE: Final = 64 * 1024
_CONNECT: Final = 15.0  # seconds, for each address


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server, and whose mail there."""

    host: str
    port: int
    security: Security = "tls"
    login: str
    password: str = field(repr=False)
    allow_private: bool = False
    """Whether it may have an address that is not on the public internet."""
    context: Callable[[], ssl.SSLContext] = ssl.create_default_context
    """Who vouches for its certificate."""

    def __post_init__(self) -> None:
        """Raises `Refused` for a login or password that would not be one line."""
        if any(ord(character) < ord(" ") for character in self.login + self.password):
            raise Refused(noop("a login and a password have no control characters"))


class Wire:
    """A connection. After an exception it is closed; whoever has it makes a new one."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._buffer = b""
        try:
            self._socket = _connected(target)
            if target.security == "tls":
                self.secure()
        except outside.Refused as error:
            raise Refused(error.args[0]) from None

    def secure(self) -> None:
        """Go on over TLS. Raises `Refused` if the server is not who it should be, `Lost`."""
        if self._buffer:  # it came in clear, from whomever: not to be taken for what comes over TLS (CVE-2011-0411)
            self.close()
            raise Refused(noop("the server spoke before TLS was ready"))
        try:
            self._socket = self._target.context().wrap_socket(self._socket, server_hostname=self._target.host)
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise Refused(
                noop("the server's certificate is not to be trusted: %(verify_message)s"),
                verify_message=error.verify_message,
            ) from None
        except (ssl.SSLError, ValueError):
            self.close()
            raise Refused(noop("the server does not speak TLS as it should")) from None
        except OSError as error:
            self.close()
            raise _lost(error) from None

    def send(self, octets: bytes) -> None:
        """Send it all. Raises `Lost`."""
        try:
            self._socket.sendall(octets)
        except OSError as error:
            self.close()
            raise _lost(error) from None

    def line(self) -> bytes:
        """The next line, without its end. Raises `Lost`."""
        line, ended = self.piece(LINE_OCTETS)
        if not ended:
            self.close()
            raise Lost(noop("the server sent a line that is too long"))
        return line.removesuffix(b"\n").removesuffix(b"\r")

    def piece(self, most: int) -> tuple[bytes, bool]:
        """The rest of the line, with its end, or `most` octets of it; and whether it ended. Raises `Lost`."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched, most)) < 0 and len(self._buffer) < most:
            searched = len(self._buffer)
            self._receive()
        length = end + 1 if end >= 0 else most
        piece, self._buffer = self._buffer[:length], self._buffer[length:]
        return piece, end >= 0

    def pass_on(self, octets: int, write: Write) -> None:
        """Hand so many octets on. Raises `Lost`, and what `write` does."""
        while octets:
            if not self._buffer:
                self._receive()
            piece, self._buffer = self._buffer[:octets], self._buffer[octets:]
            octets -= len(piece)
            write(piece)

    def stuffed(self, write: Write) -> None:
        """Hand a message on that ends with a line that is a dot (RFC 1939 section 3). Raises as `pass_on`."""
        begins, rest = True, self._buffer
        out: list[bytes] = []
        while True:
            lines = rest.split(b"\n")
            rest = lines.pop()
            for number, line in enumerate(lines):
                if begins and line.startswith(b"."):
                    if line == b".\r":
                        self._buffer = b"\n".join([*lines[number + 1 :], rest])
                        write(b"".join(out))
                        return
                    out.append(line[1:] + b"\n")
                else:
                    out.append(line + b"\n")
                begins = line.endswith(b"\r")
            if len(rest) > LINE_OCTETS:  # of a line without end; what could be a dot is known to be none
                out.append(rest[1:] if begins and rest.startswith(b".") else rest)
                begins, rest = False, b""
            if out:
                write(b"".join(out))
                out = []
            self._buffer = b""
            self._receive()
            rest += self._buffer

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _receive(self) -> None:
        try:
            received = self._socket.recv(_RECEIVE)
        except OSError as error:
            self.close()
            raise _lost(error) from None
        if not received:
            self.close()
            raise Lost(noop("the server hung up"))
        self._buffer += received


class Pace:
    """Ends a conversation that a server draws out, a line at a time."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    def check(self) -> None:
        """Raises `Lost` if time is up."""
        if time.monotonic() > self._deadline:
            raise Lost(noop("the server is too slow"))


def _connected(target: Target) -> socket.socket:
    failure = Lost(noop("the server cannot be reached"))
    for address in outside.resolve(target.host, target.port, allow_private=target.allow_private):
        connection = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            connection.settimeout(_CONNECT)
            connection.connect((address.host, address.port))
            connection.settimeout(PATIENCE)
        except OSError as error:
            connection.close()
            failure = _lost(error)
        else:
            return connection
    raise failure


def _lost(error: OSError) -> Lost:
    if isinstance(error, TimeoutError):
        return Lost(noop("the server does not answer"))
    if isinstance(error, ConnectionRefusedError):
        return Lost(noop("the server takes no connections there"))
    return Lost(noop("the connection to the server was lost"))
