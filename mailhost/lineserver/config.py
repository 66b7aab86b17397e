"""What a line server is told: where to listen, how many workers, and how patient to be."""

import os
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """A certificate chain and its private key, in PEM."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to listen: a TCP address, or the path of a Unix socket."""

    host: str = ""
    """An IPv4 or IPv6 address, or a name that has one."""
    port: int = 0
    path: Path | None = None
    implicit_tls: bool = False
    """TLS from the first octet (RFC 8314), not after STLS."""
    mode: int = 0o660
    """Permissions of the Unix socket."""

    @classmethod
    def parse(cls, text: str, *, implicit_tls: bool = False) -> Self:
        """Read `host:port`, `[ipv6]:port`, or a path with a slash. Raises `ValueError` with a sentence."""
        if "/" in text:
            return cls(path=Path(text), implicit_tls=implicit_tls)
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r} is no address: write IPv6 in brackets, like [::1]:110.")
        if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
            raise ValueError(f"{text!r} is no address: write host:port, [ipv6]:port or a path.")
        return cls(host, int(port), implicit_tls=implicit_tls)

    def __str__(self) -> str:
        if self.path is not None:
            return os.fspath(self.path)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Config:
    """How one server serves. Times are seconds."""

    endpoints: tuple[Endpoint, ...]
    workers: int
    delimiter: bytes
    """What ends a line: `b"\\r\\n"`, or `b"\\n"` (one CR before it is then part of the ending)."""
    tls: TLSFiles | None = None
    alpn: tuple[str, ...] = ()
    """The protocol's name in TLS (RFC 7301). Clients that ask for others get none."""
    proxy_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Who must begin with a PROXY protocol header; from elsewhere it is garbage."""
    proxy_seconds: float = 3
    handshake_seconds: float = 10
    login_seconds: float = 60
    """From connecting until `Dialogue.established`, whatever is said meanwhile."""
    stall_seconds: float = 30
    """How long a client may leave a reply untouched: not one octet accepted."""
    drain_seconds: float = 30
    """How long running replies may take to finish once the server is told to end."""
    connections_per_address: int = 50
    """Connections not yet `established`, per client's IPv4 address or IPv6 /64 and worker."""
    max_connections: int = 10_000
    """Per worker; less where the limit of open files is lower."""
    tick_seconds: float = 1
    """How often each connection's times are looked at: how exact they are."""
    high_water: int = 256 * 1024
    """Octets of unsent reply above which nothing more is read or executed."""

    def __post_init__(self) -> None:
        if self.delimiter not in (b"\r\n", b"\n"):
            raise ValueError("A line ends in CRLF or LF.")
        if self.tls is None and any(endpoint.implicit_tls for endpoint in self.endpoints):
            raise ValueError("An endpoint with implicit TLS needs a certificate.")
