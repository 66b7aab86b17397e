"""Connections: each drives its dialogue over one socket; a worker counts, times and drains them all."""

import asyncio
import fcntl
import logging
import struct
import termios
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, cast

from mailhost.lineserver.config import Config, Endpoint
from mailhost.lineserver.dialogue import Application, Dialogue, End, Peer, Reply, Step, Then
from mailhost.lineserver.proxy import Client, Preface, client_of
from mailhost.lineserver.tls import TLS

logger = logging.getLogger("mailhost.lineserver")

# What a connection is at.
_OPEN = 0  # input is executed as it arrives
_BUSY = 1  # a step is unfinished; input waits
_SECURING = 2  # a TLS handshake is due or under way
_OVER = 3  # nothing more is executed

# How its input is read.
_LINES = 0
_DATA = 1  # by `Dialogue.take`
_DROPPING = 2  # to the end of an overlong line

_CR = 13
_JOINED = 64 * 1024
"""Replies of pipelined lines are joined up to this many octets, then written."""
_TURN = 1024 * 1024
"""So many octets are sent within one step before others have a turn."""
_AHEAD = 64 * 1024
"""So much of what is not executed yet is shown to the dialogue."""
_OVERLONG = 16
"""A line this many times over its limit ends the connection."""
_SHUTDOWN_SECONDS = 5
"""How long a client may take to answer TLS's closing alert."""


class Connection(asyncio.Protocol):
    """One connection: the `Wire` of its dialogue, and the only one who calls it.

    No task, timer or clock belongs to a connection whose steps are answered at once. `Connections` visits each one
    every second or so; that is where time passes for it.
    """

    __slots__ = (
        "_accepted",
        "_at",
        "_client",
        "_connections",
        "_delimiter",
        "_dialogue",
        "_dropped",
        "_eof",
        "_full",
        "_handshake",
        "_implicit_tls",
        "_input",
        "_lost",
        "_opened",
        "_out",
        "_partial",
        "_paused",
        "_progress",
        "_raw",
        "_reading",
        "_room",
        "_since",
        "_state",
        "_stirred",
        "_task",
        "_transport",
        "_turn",
        "_unsent",
        "_written",
        "counted_as",
        "peer",
    )

    def __init__(self, connections: "Connections", client: Client | None, *, implicit_tls: bool) -> None:
        """`client` is whom a trusted proxy named; None: the socket tells."""
        self._connections = connections
        self._implicit_tls = implicit_tls
        self._delimiter = connections.config.delimiter
        self._dialogue: Dialogue | None = None
        self._transport: asyncio.Transport  # what the dialogue's octets go to
        self._raw: asyncio.Transport  # the socket below; the same until TLS
        self._client = client
        self.peer: Peer
        self.counted_as: int | None = None
        self._state = _OPEN
        self._reading = _LINES
        self._input = b""
        self._at = 0  # so far `_input` is executed
        self._dropped = 0
        self._out: list[bytes] = []
        self._unsent = 0  # octets in `_out`
        self._written = 0
        self._turn = _TURN  # when so much is written, others have a turn
        self._partial = False  # the unfinished step has sent part of its reply
        self._full = False  # the client has too much unread
        self._room: asyncio.Future[None] | None = None
        self._paused = False  # we do not read
        self._eof = False
        self._lost = False
        self._task: asyncio.Task[None] | None = None
        self._handshake: Coroutine[Any, Any, asyncio.Transport | None] | None = None
        self._stirred = False  # something was executed since the last visit
        self._opened = self._since = connections.loop.time()
        self._accepted = -1
        self._progress = 0.0

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, with TLS or in clear."""
        # uvloop's transports are not registered with asyncio's classes.
        self._transport = self._raw = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(self._connections.config.high_water)
        address, port, place = self._client or client_of(transport)
        self.peer = Peer(address, port, False)
        refusal = self._connections.admit(self, place)
        if refusal is not None:
            self._refuse(refusal)
        elif self._implicit_tls:
            self._secure()
        else:
            self._begin()

    def data_received(self, data: bytes) -> None:
        """Execute what came; or keep it, and read no more, until it may be executed."""
        if self._state == _OVER:
            return
        if self._at < len(self._input):
            data = self._input[self._at :] + data
        self._input = data
        self._at = 0
        if self._state == _OPEN and not self._full:
            self._execute()
        elif not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Answer what is still to be answered, then close. A line without its ending is never executed."""
        self._eof = True
        if self._state == _OPEN and not self._full:
            self._close()
        # Half-open works in clear only: with TLS, asyncio ends the transport whatever is returned.
        return not self.peer.secure

    def pause_writing(self) -> None:
        """The client has too much unread: execute nothing more until it has read."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on after `pause_writing`."""
        self._full = False
        if self._room is not None:
            self._room.set_result(None)
            self._room = None
        elif self._state != _BUSY:
            # Not from within: this may be called by our own write.
            self._connections.loop.call_soon(self._execute)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the dialogue, after its unfinished step."""
        if self._lost:
            return
        self._lost = True
        self._state = _OVER
        self._input = b""
        self._out.clear()
        if self._room is not None:
            self._room.set_result(None)
            self._room = None
        if self._task is None:
            self._release()

    # What the dialogue calls

    @property
    def ahead(self) -> bytes:
        """See `Wire.ahead`."""
        return self._input[self._at : self._at + _AHEAD]

    async def send(self, octets: bytes) -> None:
        """See `Wire.send`."""
        if self._state == _BUSY:
            self._partial = True
            if self._out:
                self._out.append(octets)
                self._flush()
            else:
                self._written += len(octets)
                self._transport.write(octets)
            if self._full:
                self._room = self._connections.loop.create_future()
                await self._room
                self._turn = self._written + _TURN
            elif self._written >= self._turn:
                # A client that reads as fast as we write does not keep the loop from others.
                await asyncio.sleep(0)
                self._turn = self._written + _TURN
        if self._state != _BUSY or self._is_closing():
            # asyncio takes writes to a broken connection in silence.
            raise ConnectionResetError("The client is gone.")

    def end(self, farewell: bytes) -> None:
        """See `Wire.end`."""
        if self._partial or self._state == _SECURING:
            self.abort()
        elif self._state != _OVER:
            self._out.append(farewell)
            self._close()

    # Executing

    def _begin(self) -> None:
        """Make the dialogue and have it greet."""
        self._state = _OPEN
        try:
            self._dialogue = self._connections.application.dialogue(self)
            greeting = self._dialogue.greet()
        except Exception:
            self._fail()
        else:
            self._execute(greeting)

    def _execute(self, step: Step | None = None) -> None:
        """Take this step, and execute what was received as far as that may be now."""
        try:
            if step is not None:
                self._take_step(step)
            while self._state == _OPEN and not self._full:
                step = self._next()
                if step is None:
                    break
                self._take_step(step)
        except Exception:
            self._fail()
        else:
            self._settle()

    def _next(self) -> Step | None:
        """Have the next piece of input answered; None if more of it is needed first."""
        assert self._dialogue is not None
        data, at = self._input, self._at
        if self._reading == _LINES:
            limit = self._dialogue.line_limit
            end = data.find(self._delimiter, at)
            if end < 0:
                if len(data) - at < limit:
                    return None
            elif end + len(self._delimiter) - at <= limit:
                self._at = end + len(self._delimiter)
                if end > at and data[end - 1] == _CR and self._delimiter == b"\n":
                    end -= 1
                return self._dialogue.receive(data[at:end])
            self._reading = _DROPPING
            self._dropped = 0
            return self._dialogue.overlong()
        if self._reading == _DATA:
            if at == len(data):
                return None
            self._stirred = True
            taken, step = self._dialogue.take(data[at:] if at else data)
            self._at = at + taken
            if step is not None:
                self._reading = _LINES
            return step
        return self._drop()

    def _drop(self) -> Step | None:
        """Drop the rest of an overlong line. What became of it does not depend on how it was cut in segments."""
        assert self._dialogue is not None
        data, at = self._input, self._at
        end = data.find(self._delimiter, at)
        if end < 0:
            # The first half of a CRLF may be there already.
            self._at = len(data) - (self._delimiter == b"\r\n" and data.endswith(b"\r"))
        else:
            self._at = end
        self._dropped += self._at - at
        if self._dropped > _OVERLONG * self._dialogue.line_limit:
            self._end(End.OVERLONG)
            return None
        if end < 0:
            return None
        self._at = end + len(self._delimiter)
        self._reading = _LINES
        return self._next()

    def _take_step(self, step: Step) -> None:
        if isinstance(step, Reply):
            self._answer(step)
        else:
            self._state = _BUSY
            self._task = self._connections.loop.create_task(self._finish(step))

    async def _finish(self, step: Awaitable[Reply]) -> None:
        """Wait for a step, then go on with the input behind it."""
        try:
            reply = await step
        except Exception as error:
            self._task = None
            if not (self._lost or self._is_closing()):
                self._fail()
            elif not isinstance(error, ConnectionResetError):
                logger.exception("%s: a step failed after the client had gone.", self._name())
        else:
            self._task = None
            if self._state == _BUSY:
                self._state = _OPEN
                self._partial = False
                self._execute(reply)
                return
        if self._lost:
            self._release()

    def _answer(self, reply: Reply) -> None:
        octets, then = reply
        self._stirred = True
        if octets:
            self._out.append(octets)
            self._unsent += len(octets)
            if self._unsent > _JOINED:
                self._flush()
        if then is Then.GO_ON:
            return
        if then is Then.READ_DATA:
            self._reading = _DATA
        elif then is Then.CLOSE:
            self._close()
        elif self._connections.tls is None:
            raise RuntimeError("START_TLS without Config.tls")
        else:
            # Whatever came in clear behind the command is dropped here, before anything is said (CVE-2011-0411).
            self._state = _SECURING
            self._input = b""
            self._at = 0

    def _flush(self) -> None:
        octets = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._unsent = 0
        self._written += len(octets)
        self._transport.write(octets)

    def _settle(self) -> None:
        """Write the replies so far, and arrange for what comes next."""
        if self._state == _BUSY:
            return  # They go with the reply that is being made.
        if self._out:
            self._flush()
        if self._full or self._state == _OVER:
            return
        if self._state == _SECURING:
            if self._handshake is None:
                self._secure()
            return
        assert self._dialogue is not None
        self._input = self._input[self._at :]
        self._at = 0
        if self.counted_as is not None and self._dialogue.established:
            self._connections.count_no_more(self)
        if self._eof:
            self._close()
        elif self._connections.draining and self._reading != _DATA:
            self._end(End.DRAIN)
        elif self._paused:
            self._paused = False
            self._transport.resume_reading()

    # TLS

    def _secure(self) -> None:
        """Begin the handshake."""
        assert self._connections.tls is not None
        self._state = _SECURING
        self._paused = False
        self._handshake = self._connections.loop.start_tls(
            self._transport,
            self,
            self._connections.tls.context,
            server_side=True,
            ssl_handshake_timeout=self._connections.config.handshake_seconds,
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        # Its first step, up to the wait for the client, runs here and not in a task: it takes the transport over at
        # once, so that not an octet of the ClientHello can come to `data_received` before.
        done: asyncio.Future[None] = self._handshake.send(None)
        done.add_done_callback(self._secured)

    def _secured(self, done: asyncio.Future[None]) -> None:
        """Go on after the handshake; a failed one is the end, without a word."""
        assert self._handshake is not None
        transport: asyncio.Transport | None = None
        try:
            self._handshake.send(None)
        except StopIteration as finished:
            transport = finished.value
        except Exception as error:  # OpenSSL's and uvloop's are of all kinds
            logger.debug("%s: no TLS: %r", self._name(), error)
        self._handshake = None
        if transport is None or self._raw.is_closing():
            self._raw.abort()
            self.connection_lost(None)  # asyncio does not call it in each of these cases
            return
        self._transport = transport
        self._transport.set_write_buffer_limits(self._connections.config.high_water)
        self.peer = self.peer._replace(secure=True)
        if self._dialogue is None:
            self._begin()
            return
        self._state = _OPEN
        try:
            self._dialogue.secured()
        except Exception:
            self._fail()
        else:
            self._settle()

    # The end

    def _refuse(self, why: End) -> None:
        """Say why not, where that takes no handshake."""
        if not self._implicit_tls:
            try:
                self._dialogue = self._connections.application.dialogue(self)
            except Exception:
                logger.exception("%s: no dialogue", self._name())
        self._end(why)

    def _fail(self) -> None:
        """End the connection for the exception under way."""
        logger.exception("%s: a step failed; the connection is closed.", self._name())
        self._end(End.FAULT)

    def _end(self, why: End) -> None:
        """End the connection with the dialogue's last words, unless they would stand within a reply."""
        if self._dialogue is not None and not self._partial:
            try:
                self._out.append(self._dialogue.farewell(why))
            except Exception:
                logger.exception("%s: no farewell", self._name())
        self._close()

    def _close(self) -> None:
        """Send what is to be sent, then close."""
        if self._out:
            self._flush()
        self._state = _OVER
        self._input = b""
        self._at = 0
        self._transport.close()

    def _release(self) -> None:
        """Have the dialogue let go of what it holds."""
        dialogue, self._dialogue = self._dialogue, None
        try:
            waiting = dialogue.closed() if dialogue else None
        except Exception:
            logger.exception("%s: closing its dialogue failed.", self._name())
            waiting = None
        if waiting is None:
            self._connections.forget(self)
        else:
            self._task = self._connections.loop.create_task(self._released(waiting))

    async def _released(self, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except Exception:
            logger.exception("%s: closing its dialogue failed.", self._name())
        self._connections.forget(self)

    def _is_closing(self) -> bool:
        return self._raw.is_closing() or self._transport.is_closing()

    def _name(self) -> str:
        return f"{self.peer.address or 'local'} port {self.peer.port}"

    # What `Connections` calls

    def visit(self, now: float) -> None:
        """See what time has done: to a reply nobody reads, to a login that does not come, to an idle client."""
        if self._lost:
            return
        config = self._connections.config
        unsent = self._raw.get_write_buffer_size()
        if self._transport is not self._raw:
            unsent += self._transport.get_write_buffer_size()
        if not unsent:
            self._accepted = -1
        else:
            self._stirred = True  # Who still reads is not idle.
            accepted = self._written - unsent - _unacknowledged(self._raw)
            if accepted != self._accepted:
                self._accepted = accepted
                self._progress = now
            elif now - self._progress >= config.stall_seconds:
                logger.info("%s: reads nothing; the connection is cut.", self._name())
                self.abort()
                return
        if self._state in (_BUSY, _OVER):
            self._since = now
        elif self._dialogue is None or not self._dialogue.established:
            if now - self._opened >= config.login_seconds:
                self._end(End.IDLE) if self._state == _OPEN else self.abort()
        elif self._stirred:
            self._stirred = False
            self._since = now
        elif now - self._since >= self._dialogue.idle_limit:
            self._end(End.IDLE) if self._state == _OPEN else self.abort()

    def drain(self) -> None:
        """End as soon as nothing is left to answer."""
        if self._state == _SECURING:
            self.abort()
        elif self._state == _OPEN:
            self._execute()

    def abort(self) -> None:
        """Cut the connection; nothing more is sent."""
        if not self._lost:
            self._state = _OVER
            self._out.clear()
            self._raw.abort()


class _Member(Protocol):
    """What has a client: a connection, or what waits for a proxy to announce one."""

    def visit(self, now: float) -> None: ...

    def drain(self) -> None: ...

    def abort(self) -> None: ...


class Connections:
    """All connections of one worker."""

    def __init__(
        self, config: Config, application: Application, tls: TLS | None, *, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.config = config
        self.application = application
        self.tls = tls
        self.loop = loop
        self.draining = False
        self._members: set[_Member] = set()
        self._strangers: dict[int, int] = {}  # how many are not yet established, by place
        self._refused = 0
        self._emptied = asyncio.Event()
        self._timer = loop.call_later(config.tick_seconds, self._tick)

    def protocol(self, endpoint: Endpoint) -> Callable[[], asyncio.BaseProtocol]:
        """What makes the protocol of each connection to this endpoint."""
        if self.config.proxy_networks:
            return lambda: Preface(self, implicit_tls=endpoint.implicit_tls)
        return lambda: Connection(self, None, implicit_tls=endpoint.implicit_tls)

    def expect(self, preface: Preface) -> None:
        """Count what waits for a proxy's header."""
        self._members.add(preface)
        if self.draining or len(self._members) > self.config.max_connections:
            preface.abort()

    def begin(self, transport: asyncio.Transport, client: Client | None, *, implicit_tls: bool) -> None:
        """Begin a connection on a transport that something else has read from."""
        connection = Connection(self, client, implicit_tls=implicit_tls)
        transport.set_protocol(connection)
        connection.connection_made(transport)

    def admit(self, connection: Connection, place: int | None) -> End | None:
        """Count a connection in; or say why it cannot stay."""
        self._members.add(connection)
        if self.draining:
            return End.DRAIN
        if len(self._members) > self.config.max_connections:
            self._refused += 1
            return End.TOO_MANY
        if place is not None:
            strangers = self._strangers.get(place, 0)
            if strangers >= self.config.connections_per_address:
                self._refused += 1
                return End.TOO_MANY
            self._strangers[place] = strangers + 1
            connection.counted_as = place
        return None

    def count_no_more(self, connection: Connection) -> None:
        """Its client is no stranger any more, or gone."""
        place = connection.counted_as
        if place is not None:
            connection.counted_as = None
            self._strangers[place] -= 1
            if not self._strangers[place]:
                del self._strangers[place]

    def forget(self, member: _Member) -> None:
        """It is gone, and holds nothing any more."""
        self._members.discard(member)
        if isinstance(member, Connection):
            self.count_no_more(member)
        if self.draining and not self._members:
            self._emptied.set()

    async def drain(self, *, grace: float) -> None:
        """End them all: at once where nothing is to be answered, after `Config.drain_seconds` by force.

        Steps that are still unfinished then get `grace` seconds more; none is ever cancelled.
        """
        self.draining = True
        if not self._members:
            self._emptied.set()
        for member in tuple(self._members):
            member.drain()
        if not await self._empty(self.config.drain_seconds):
            for member in tuple(self._members):
                member.abort()
            if not await self._empty(grace):
                logger.error("%d connections would not end.", len(self._members))
        self._timer.cancel()

    async def _empty(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._emptied.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _tick(self) -> None:
        self._timer = self.loop.call_later(self.config.tick_seconds, self._tick)
        now = self.loop.time()
        for member in tuple(self._members):
            member.visit(now)
        if self._refused:
            logger.warning("Refused %d connections: there were too many.", self._refused)
            self._refused = 0


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Octets that the kernel has taken but the client's has not: a slow client makes progress there first."""
    try:
        fd = transport.get_extra_info("socket").fileno()
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0
