"""What a line protocol implements to be served: a dialogue per connection, an application per process."""

import enum
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, Protocol


class Then(enum.Enum):
    """What follows a reply."""

    GO_ON = "the next line"
    CLOSE = "the end: the reply is sent, later input is dropped"
    START_TLS = "a TLS handshake; every octet already received in clear is dropped"
    READ_DATA = "octets for `Dialogue.take`, until it says that they are complete"


class Reply(NamedTuple):
    """The octets sent for one command (may be empty), and what follows them."""

    octets: bytes
    then: Then = Then.GO_ON


Step = Reply | Awaitable[Reply]
"""The answer to one piece of input: at once, or when it is known. Until then no further input is executed."""


class End(enum.Enum):
    """Why the server ends a connection that the client did not."""

    DRAIN = "the server shuts down"
    IDLE = "nothing was said for too long, or no login in time"
    TOO_MANY = "too many connections, in all or from this address"
    OVERLONG = "a line went on and on"
    FAULT = "a step raised an exception (logged by the server)"


class Peer(NamedTuple):
    """Who is at the other end, as the PROXY protocol says where a trusted proxy stands in front."""

    address: IPv4Address | IPv6Address | None
    """None for a Unix socket, and where the proxy names no client. IPv4 inside IPv6 is unwrapped."""
    port: int
    secure: bool
    """Everything now said goes through TLS that ends here."""


class Wire(Protocol):
    """One connection as its dialogue sees it."""

    @property
    def peer(self) -> Peer:
        """Replaced, not changed, when the connection becomes secure."""

    @property
    def ahead(self) -> bytes:
        """What has come behind the line being answered, up to 64 KiB: only to look at, it is executed in its turn.

        Tells what a client that pipelines will ask next, so that it can be found out in one go.
        """

    async def send(self, octets: bytes) -> None:
        """Write part of a reply, then wait while the client has too much unread.

        Only for use within an awaitable step, before its `Reply`. Raises `ConnectionResetError` when the
        client is gone or has read nothing for `Config.stall_seconds`.
        """

    def end(self, farewell: bytes) -> None:
        """End the connection now, because of something outside the dialogue, with these last words.

        They come in place of the reply being made; a reply of which part is sent is cut off without a word. The
        unfinished step goes on, unheard: its next `send` raises. Not for use within the dialogue's own methods. Does
        nothing to a connection that has ended.
        """


class Dialogue(ABC):
    """One connection's protocol. Its methods are never called while one of its steps is unfinished."""

    __slots__ = ()

    line_limit: int
    """The longest line in octets, its ending included; may change from line to line."""
    idle_limit: float
    """How many seconds the client may say nothing; may change with the state. Counts once `established`."""
    established: bool
    """The client has shown who it is, or need not: `Config.login_seconds` and
    `Config.connections_per_address` no longer count."""

    @abstractmethod
    def greet(self) -> Step:
        """Open the dialogue."""

    @abstractmethod
    def receive(self, line: bytes) -> Step:
        """Answer one line, given without its ending. Any octets but the ending may be in it."""

    @abstractmethod
    def overlong(self) -> Step:
        """Answer a line beyond `line_limit`: called once, its rest is dropped unexecuted.

        A line that goes on beyond sixteen times the limit ends the connection with `End.OVERLONG`.
        """

    def take(self, octets: bytes) -> tuple[int, Step | None]:
        """After `Then.READ_DATA`: say how many of these octets were taken, and the step once data is complete.

        With None the server goes on: octets not taken are offered again, with more behind them. With a step,
        what was not taken is read as lines (or as more data, if its reply says `READ_DATA` again).
        """
        raise NotImplementedError

    def secured(self) -> None:
        """Forget everything said in clear: the handshake of `Then.START_TLS` is done (RFC 2595 section 4)."""
        raise NotImplementedError

    @abstractmethod
    def farewell(self, why: End) -> bytes:
        """The last words when the server ends the connection; may be empty. Never sent within a reply."""

    @abstractmethod
    def closed(self) -> Awaitable[None] | None:
        """Release what is held: called exactly once, whatever happened, after the last step has finished.

        An `async def` fits. Return None where there is nothing to wait for, which costs no task.
        """


class Application(ABC):
    """One worker process's side of the protocol, made after the fork."""

    @abstractmethod
    async def start(self) -> None:
        """Open pools, threads and connections. What it raises ends the worker, which is tried again later."""

    @abstractmethod
    def dialogue(self, wire: Wire) -> Dialogue:
        """Make the dialogue of a new connection."""

    @abstractmethod
    async def stop(self) -> None:
        """Close what `start` opened; every dialogue is closed by then."""
