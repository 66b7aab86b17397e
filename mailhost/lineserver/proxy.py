"""The PROXY protocol, versions 1 and 2: a trusted proxy says first who its client is."""

import asyncio
import ipaddress
import struct
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from mailhost.lineserver.connection import Connections

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_LONGEST_V1 = 107  # specification section 2.1


class ProxyError(Exception):
    """Octets that are no PROXY header."""


class Client(NamedTuple):
    """Who is at the other end."""

    address: IPv4Address | IPv6Address | None
    """None: on a Unix socket, the proxy itself (a health check), or someone whom the proxy cannot name."""
    port: int
    place: int | None
    """What counts as one client: the IPv4 address, or the /64 of an IPv6 one, of which a host has as many as it
    likes. None where there is no address."""


NOBODY = Client(None, 0, None)


@lru_cache(maxsize=4096)
def _address_and_place(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    address = ipaddress.ip_address(text)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return address, -(int(address) >> 64)
        address = address.ipv4_mapped  # An IPv4 client of an IPv6 socket is an IPv4 client.
    return address, int(address)


def _client(text: str, port: int) -> Client:
    address, place = _address_and_place(text)
    return Client(address, port, place)


def client_of(transport: asyncio.BaseTransport) -> Client:
    """The client as the socket tells."""
    peername = transport.get_extra_info("peername")
    if isinstance(peername, tuple):
        return _client(peername[0], peername[1])
    return NOBODY


def missing(header: bytes) -> int:
    """How many more octets this beginning of a header surely has; 0 when it is complete.

    Never more than there are, so that who reads just so many never reads what follows the header: on an endpoint
    with implicit TLS that is the ClientHello. Raises `ProxyError`.
    """
    if len(header) < 15:  # the shortest there is: "PROXY UNKNOWN" CRLF
        return 15 - len(header)
    if header.startswith(SIGNATURE):
        if len(header) < 16:
            return 16 - len(header)
        return int(16 + struct.unpack_from("!H", header, 14)[0] - len(header))
    if not header.startswith(b"PROXY ") or len(header) > _LONGEST_V1:
        raise ProxyError
    if header.endswith(b"\r\n"):
        return 0
    return 1 if header.endswith(b"\r") else 2


def parse(header: bytes) -> Client:
    """Read a complete header. Raises `ProxyError`."""
    try:
        return _parse_v2(header) if header.startswith(SIGNATURE) else _parse_v1(header)
    except (ValueError, struct.error) as error:
        raise ProxyError from error


def _parse_v1(header: bytes) -> Client:
    fields = header.removesuffix(b"\r\n").decode("ascii").split(" ")
    if fields[1] == "UNKNOWN":
        return NOBODY
    _, family, source, destination, source_port, destination_port = fields
    parse_address = {"TCP4": IPv4Address, "TCP6": IPv6Address}.get(family)
    if parse_address is None:
        raise ProxyError
    parse_address(source)
    parse_address(destination)
    _port(destination_port)
    return _client(source, _port(source_port))


def _port(text: str) -> int:
    if not (text.isdigit() and len(text) <= 5 and int(text) < 65536):
        raise ProxyError
    return int(text)


def _parse_v2(header: bytes) -> Client:
    version_and_command, family = header[12], header[13]
    if version_and_command == 0x20:  # LOCAL: the proxy's own connection
        return NOBODY
    if version_and_command != 0x21:
        raise ProxyError
    # What follows the addresses (TLVs) says nothing that is needed here.
    if family == 0x11:  # TCP over IPv4
        source, _, port, _ = struct.unpack_from("!4s4sHH", header, 16)
        return _client(str(IPv4Address(source)), port)
    if family == 0x21:  # TCP over IPv6
        source, _, port, _ = struct.unpack_from("!16s16sHH", header, 16)
        return _client(str(IPv6Address(source)), port)
    return NOBODY  # a Unix socket, UDP, unspecified: "ignore address information"


class Preface(asyncio.BufferedProtocol):
    """What a connection is before its client is known, where trusted proxies are.

    Reads exactly the header, not one octet more, and gives the transport to the connection.
    """

    def __init__(self, connections: "Connections", *, implicit_tls: bool) -> None:
        self._connections = connections
        self._implicit_tls = implicit_tls
        self._deadline = connections.loop.time() + connections.config.proxy_seconds
        self._header = b""
        self._buffer = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read a header from trusted proxies only."""
        self._transport = cast(asyncio.Transport, transport)
        address = client_of(transport).address
        if address is None or not any(address in net for net in self._connections.config.proxy_networks):
            self._connections.begin(self._transport, None, implicit_tls=self._implicit_tls)
        else:
            self._connections.expect(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Room for what is surely part of the header."""
        self._buffer = bytearray(missing(self._header))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Begin once the header is complete."""
        self._header += self._buffer[:nbytes]
        try:
            if missing(self._header):
                return
            client = parse(self._header)
        except ProxyError:
            self.abort()
            return
        self._connections.forget(self)
        self._connections.begin(self._transport, client, implicit_tls=self._implicit_tls)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing began."""
        self._connections.forget(self)

    def visit(self, now: float) -> None:
        """Hang up when the header is late."""
        if now >= self._deadline:
            self.abort()

    def drain(self) -> None:
        """Hang up: nothing was said yet."""
        self.abort()

    def abort(self) -> None:
        """Hang up."""
        self._transport.abort()
