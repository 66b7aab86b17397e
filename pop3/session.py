"""One POP3 session, without its socket: lines go in, replies come out, or what must be done before a reply.

    session = Session(config, secure=True, plaintext_allowed=False)
    send(session.greet())
    answer = session.receive(b"RETR 1")      # Fetch(number=1, lines=None)
    send(session.resume(Found()))            # b"+OK 120 octets\\r\\n", then the message follows

The states and their commands are those of RFC 1939 sections 4 to 7. What is left out: docs/conformance.md.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import filterfalse
from typing import Final, NamedTuple, Protocol

from pop3 import commands, replies, sasl
from pop3.commands import Arguments, Form, NotACommand, Rejected
from pop3.replies import Code, count

PASSWORD_LIMIT: Final = 255
"""Octets of a name or a password; more is refused before anybody computes with it."""


@dataclass(frozen=True, slots=True)
class Config:
    """What all sessions of a listener have in common. Raises `ValueError` for what must not be announced."""

    greeting: str = ""
    """Follows `POP3 server ready`; the host's name, say. Without `<`: clients would take it for APOP."""

    implementation: str | None = None
    """What CAPA tells about the software, if anything (RFC 2449 section 6.9)."""

    offers_stls: bool = False

    expire: str = "NEVER"
    """How long a message may stay in the maildrop: `NEVER` or days. If mailboxes differ, the shortest time
    followed by ` USER`; each `Opened` then tells its own (RFC 2449 section 6.7)."""

    junk_before_login: int = 3
    """Lines in a row that are no POP3 command, after which the connection is closed."""

    junk_in_transaction: int = 10

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[ -;=-~]{0,400}", self.greeting):
            raise ValueError(f"greeting must be one printable line without '<': {self.greeting!r}")
        if self.implementation is not None and not re.fullmatch(r"[!-~][ -~]{0,399}", self.implementation):
            raise ValueError(f"implementation must be one printable line: {self.implementation!r}")
        if not re.fullmatch(r"NEVER|[0-9]{1,9}( USER)?", self.expire):
            raise ValueError(f"expire must be NEVER, days, or days and USER: {self.expire!r}")


class Listing(Protocol):
    """The messages of a maildrop as they were at login. Message-numbers begin at 1 (RFC 1939 section 5)."""

    @property
    def octets(self) -> Sequence[int]:
        """The size of each message; that of message 1 comes first."""

    def unique_id(self, number: int) -> str:
        """Return 1 to 70 characters between `!` and `~` (RFC 1939 section 7)."""


# Needs: what must be done before there can be a reply.


@dataclass(frozen=True, slots=True)
class LogIn:
    """Check the password, then lock the maildrop and list it: `Opened` or `Refused`.

    Octets that are not UTF-8 became U+FFFD, so such a name or password takes the way of a wrong one. No NUL
    is in either, but other control characters may be.
    """

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get a message, or its header and `lines` lines of its body: `Found` or `Refused`.

    After the reply to `Found` come the octets, byte-stuffed (`pop3.framing`), and `replies.END`.
    """

    number: int
    lines: int | None


@dataclass(frozen=True, slots=True)
class Expunge:
    """Remove these messages, all or none, and release the maildrop: `Expunged` or `Refused`.

    Asked at every QUIT, also for no message: the lock must be free before the client reads our farewell.
    """

    numbers: frozenset[int]


@dataclass(frozen=True, slots=True)
class StartTLS:
    """Send the reply, throw away whatever else came in clear, negotiate TLS, then call `secured()`."""

    reply: bytes


Need = LogIn | Fetch | Expunge | StartTLS

# Outcomes: what came of a need.


@dataclass(frozen=True, slots=True)
class Opened:
    """The maildrop is ours."""

    listing: Listing
    expire: str | None = None
    """`NEVER` or days for this mailbox, where that is not what `Config.expire` says."""


@dataclass(frozen=True, slots=True)
class Found:
    """The message is there, and its octets follow the reply."""


@dataclass(frozen=True, slots=True)
class Expunged:
    """What was marked is gone, and that is committed."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be done. The text goes to the client, so it must not be an exception's."""

    code: Code | None
    text: str


Outcome = Opened | Found | Expunged | Refused


class LongReply(NamedTuple):
    """A reply too long to be built at once: send it piece by piece. Nothing need be resumed."""

    pieces: Iterable[bytes]


Answer = bytes | LongReply | Need


class State(Enum):
    """Where a session is. UPDATE is not among them: it begins with QUIT, and no command is legal in it."""

    AUTHORIZATION = auto()
    NAMED = auto()  # still AUTHORIZATION; the last line was a good USER
    TRANSACTION = auto()


BEFORE_LOGIN: Final = (State.AUTHORIZATION, State.NAMED)
AFTER_USER: Final = (State.NAMED,)
IN_TRANSACTION: Final = (State.TRANSACTION,)
ANYWHERE: Final = tuple(State)


class Marks:
    """Which messages of a listing are marked. What is left is counted as it changes, and never renumbered."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self._total_octets = sum(listing.octets)
        self.clear()

    def clear(self) -> None:
        self.marked: set[int] = set()
        self.left = len(self.listing.octets)
        self.left_octets = self._total_octets

    def add(self, number: int) -> None:
        self.marked.add(number)
        self.left -= 1
        self.left_octets -= self.octets(number)

    def octets(self, number: int) -> int:
        return self.listing.octets[number - 1]

    def unmarked(self) -> Iterable[int]:
        numbers = range(1, len(self.listing.octets) + 1)
        return filterfalse(self.marked.__contains__, numbers) if self.marked else numbers

    def __str__(self) -> str:
        return f"{count(self.left, 'message')} ({count(self.left_octets, 'octet')})"


class Session:
    """The server's side of one POP3 session.

    `secure` tells whether the connection is encrypted already, `plaintext_allowed` whether this client may
    send its password even if it is not.
    """

    over: bool
    """Close the connection once what was returned last is sent; nothing more will be executed."""

    def __init__(self, config: Config, *, secure: bool, plaintext_allowed: bool) -> None:
        self._config = config
        self._plaintext_allowed = plaintext_allowed
        self._expire = config.expire
        self._marks: Marks  # since login
        self.over = False
        self._begin(secure=secure)

    def _begin(self, *, secure: bool) -> None:
        self._secure = secure
        self._state = State.AUTHORIZATION
        self._name = b""
        self._exchange: sasl.Exchange | None = None
        self._need: Need | None = None
        self._junk = 0

    @property
    def in_transaction(self) -> bool:
        """Whether somebody is logged in."""
        return self._state is State.TRANSACTION

    @property
    def line_limit(self) -> int:
        """Octets that the next line may have, its CRLF included."""
        return commands.SASL_LINE_LIMIT if self._exchange else commands.LINE_LIMIT

    def greet(self) -> bytes:
        """Return the greeting (RFC 1939 section 4), without a timestamp: there is no APOP."""
        return replies.ok(f"POP3 server ready {self._config.greeting}".rstrip())

    def receive(self, line: bytes) -> Answer:
        """Take one line without its CRLF. Before the next one, `resume` or `secured` must answer a need."""
        if self._need:
            raise RuntimeError(f"{type(self._need).__name__} has not been answered")
        if self.over:  # pipelined behind QUIT
            return b""
        try:
            answer = self._respond(self._exchange, line) if self._exchange else self._execute(line)
        except Rejected as rejected:
            return self._reject(rejected)
        if isinstance(answer, Need):
            self._need = answer
        return answer

    def overlong(self) -> bytes:
        """Answer a line longer than `line_limit`, of which nothing is executed (RFC 2449 section 4)."""
        if self.over:
            return b""
        self._exchange = None
        self._leave_named()
        return self._reject(NotACommand("line too long"))

    def resume(self, outcome: Outcome) -> bytes:
        """Return the reply to the line that raised the need, now that it is known what came of it."""
        need, self._need = self._need, None
        match need, outcome:
            case LogIn(), Opened(listing, expire):
                self._state = State.TRANSACTION
                self._marks = Marks(listing)
                self._expire = expire or self._config.expire.removesuffix(" USER")
                return replies.ok(f"maildrop has {self._marks}")
            case Fetch(number, None), Found():
                return replies.ok(count(self._marks.octets(number), "octet"))
            case Fetch(), Found():
                return replies.ok("top of message follows")
            case Expunge(), Expunged():
                self.over = True
                left = self._marks.left
                return _farewell(f" ({count(left, 'message')} left)" if left else " (maildrop empty)")
            case LogIn() | Fetch() | Expunge(), Refused(code, text):
                self.over = isinstance(need, Expunge)  # RFC 1939 section 6: whatever became of it
                return replies.error(text, code)
        raise RuntimeError(f"{type(outcome).__name__} does not answer {type(need).__name__}")

    def secured(self) -> None:
        """Begin again inside TLS, as if nothing had been said in clear (RFC 2595 section 4)."""
        self._begin(secure=True)

    def _execute(self, line: bytes) -> Answer:
        state = self._leave_named()
        keyword, rest = commands.split(line)
        if not (command := COMMANDS.get(keyword)):
            raise NotACommand("unknown command")
        self._junk = 0
        if state not in command.states:
            raise Rejected(self._why_not_now(command))
        if not (arguments := command.form.pattern.fullmatch(rest)):
            raise Rejected(f"{keyword.decode()} takes {command.form.described}")
        return command.handler(self, arguments)

    def _why_not_now(self, command: "Command") -> str:
        if self.in_transaction:
            return "already logged in"
        return "USER comes first" if command.states is AFTER_USER else "log in first"

    def _leave_named(self) -> State:
        # RFC 1939 section 7: a good USER counts for the very next line only.
        state = self._state
        if state is State.NAMED:
            self._state = State.AUTHORIZATION
        return state

    def _reject(self, rejected: Rejected) -> bytes:
        if isinstance(rejected, NotACommand):
            config = self._config
            self._junk += 1
            self.over = self._junk >= (config.junk_in_transaction if self.in_transaction else config.junk_before_login)
        return replies.error(rejected.text, rejected.code)

    # AUTHORIZATION

    @property
    def _may_log_in(self) -> bool:
        return self._secure or self._plaintext_allowed

    @property
    def _may_start_tls(self) -> bool:
        return self._config.offers_stls and not self._secure

    def _demand_encryption(self) -> None:
        # Said before the password, so that it is never sent. [AUTH], not [SYS/PERM]: RFC 3206 section 5 takes
        # a violation of policy for a problem of credentials, and the user's settings are what can help.
        if not self._may_log_in:
            way = "STLS or the TLS port" if self._may_start_tls else "the TLS port"
            raise Rejected(f"Encryption required: use {way}", "AUTH")

    def _user(self, arguments: Arguments) -> Answer:
        self._demand_encryption()
        self._name = arguments["name"]
        self._state = State.NAMED
        return replies.ok("now the password")  # whether such a mailbox exists is nobody's business

    def _pass(self, arguments: Arguments) -> Answer:
        return _log_in(sasl.Credentials(self._name, arguments["password"]))

    def _auth(self, arguments: Arguments) -> Answer:
        self._demand_encryption()
        mechanism, initial = arguments.group("mechanism", "initial")
        if mechanism is None:  # what clients asked before there was CAPA
            return b"".join(replies.multiline("mechanisms follow", sasl.MECHANISMS))
        if not (begin := sasl.MECHANISMS.get(mechanism.upper())):
            raise Rejected("no such mechanism")
        exchange = begin()
        challenge = next(exchange)
        if initial is not None:
            return self._advance(exchange, b"" if initial == b"=" else sasl.decode(initial))
        self._exchange = exchange
        return replies.challenge(challenge)

    def _respond(self, exchange: sasl.Exchange, line: bytes) -> Answer:
        self._exchange = None
        return self._advance(exchange, sasl.decode(line))

    def _advance(self, exchange: sasl.Exchange, response: bytes) -> Answer:
        try:
            challenge = exchange.send(response)
        except StopIteration as finished:
            return _log_in(finished.value)
        self._exchange = exchange
        return replies.challenge(challenge)

    def _stls(self, arguments: Arguments) -> Answer:
        if not self._may_start_tls:
            raise Rejected("TLS is active already" if self._secure else "TLS is not offered here")
        return StartTLS(replies.ok("begin TLS negotiation"))

    # TRANSACTION

    def _stat(self, arguments: Arguments) -> Answer:
        return replies.ok(f"{self._marks.left} {self._marks.left_octets}")

    def _list(self, arguments: Arguments) -> Answer:
        return self._tell(arguments, self._scan_listing, heading=str(self._marks))

    def _uidl(self, arguments: Arguments) -> Answer:
        return self._tell(arguments, self._unique_id_listing, heading="unique-ids follow")

    def _retr(self, arguments: Arguments) -> Answer:
        return Fetch(self._message(arguments), lines=None)

    def _top(self, arguments: Arguments) -> Answer:
        return Fetch(self._message(arguments), lines=int(arguments["count"]))

    def _dele(self, arguments: Arguments) -> Answer:
        number = self._message(arguments)
        self._marks.add(number)
        return replies.ok(f"message {number} marked")

    def _noop(self, arguments: Arguments) -> Answer:
        return replies.ok()

    def _rset(self, arguments: Arguments) -> Answer:
        self._marks.clear()
        return replies.ok(f"maildrop has {self._marks}")

    def _message(self, arguments: Arguments) -> int:
        """Return the message-number given. Raises `Rejected` if there is no such message, or it is marked."""
        number, last = int(arguments["number"]), len(self._marks.listing.octets)
        if number > last:
            raise Rejected(f"no such message, only {count(last, 'message')} in maildrop")
        if number in self._marks.marked:
            raise Rejected(f"message {number} is marked")
        return number

    def _scan_listing(self, number: int) -> bytes:
        return b"%d %d" % (number, self._marks.octets(number))

    def _unique_id_listing(self, number: int) -> bytes:
        return b"%d %b" % (number, self._marks.listing.unique_id(number).encode("ascii"))

    def _tell(self, arguments: Arguments, line: Callable[[int], bytes], *, heading: str) -> Answer:
        # One message and all of them are told by the same function, so the two forms cannot differ.
        if arguments["number"]:
            return replies.ok(line(self._message(arguments)).decode())
        pieces = replies.multiline(heading, map(line, self._marks.unmarked()))
        return LongReply(pieces) if self._marks.left > replies.PIECE else b"".join(pieces)

    # Both

    def _capa(self, arguments: Arguments) -> Answer:
        return b"".join(replies.multiline("capabilities follow", map(str.encode, self._capabilities())))

    def _capabilities(self) -> Iterable[str]:
        # What was offered before login is told after it as well (RFC 2449 section 5), except STLS: nothing
        # could be done with it any more (RFC 2595 section 4).
        yield from ("TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING")
        yield f"EXPIRE {self._expire}"
        if self._may_log_in:
            yield "USER"
            yield f"SASL {b' '.join(sasl.MECHANISMS).decode()}"
        if self._may_start_tls and not self.in_transaction:
            yield "STLS"
        if self._config.implementation:
            yield f"IMPLEMENTATION {self._config.implementation}"

    def _quit(self, arguments: Arguments) -> Answer:
        if self.in_transaction:
            return Expunge(frozenset(self._marks.marked))
        self.over = True
        return _farewell()


def _farewell(remark: str = "") -> bytes:
    return replies.ok(f"POP3 server signing off{remark}")


def _log_in(credentials: sasl.Credentials) -> LogIn:
    name, password = credentials
    if max(len(name), len(password)) > PASSWORD_LIMIT or b"\0" in name + password:
        raise Rejected("no such name and password can exist", "AUTH")
    return LogIn(name.decode("utf-8", "replace"), password.decode("utf-8", "replace"))


class Command(NamedTuple):
    states: tuple[State, ...]
    form: Form
    handler: Callable[[Session, Arguments], Answer]


COMMANDS: Final[Mapping[bytes, Command]] = {
    b"USER": Command(BEFORE_LOGIN, commands.NAME, Session._user),  # RFC 1939 section 7
    b"PASS": Command(AFTER_USER, commands.PASSWORD, Session._pass),  # RFC 1939 section 7
    b"AUTH": Command(BEFORE_LOGIN, commands.MECHANISM, Session._auth),  # RFC 5034 section 4
    b"STLS": Command(BEFORE_LOGIN, commands.NOTHING, Session._stls),  # RFC 2595 section 4
    b"STAT": Command(IN_TRANSACTION, commands.NOTHING, Session._stat),  # RFC 1939 section 5
    b"LIST": Command(IN_TRANSACTION, commands.PERHAPS_NUMBER, Session._list),  # RFC 1939 section 5
    b"UIDL": Command(IN_TRANSACTION, commands.PERHAPS_NUMBER, Session._uidl),  # RFC 1939 section 7
    b"RETR": Command(IN_TRANSACTION, commands.NUMBER, Session._retr),  # RFC 1939 section 5
    b"TOP": Command(IN_TRANSACTION, commands.NUMBER_AND_COUNT, Session._top),  # RFC 1939 section 7
    b"DELE": Command(IN_TRANSACTION, commands.NUMBER, Session._dele),  # RFC 1939 section 5
    b"NOOP": Command(IN_TRANSACTION, commands.NOTHING, Session._noop),  # RFC 1939 section 5
    b"RSET": Command(IN_TRANSACTION, commands.NOTHING, Session._rset),  # RFC 1939 section 5
    b"CAPA": Command(ANYWHERE, commands.NOTHING, Session._capa),  # RFC 2449 section 5
    b"QUIT": Command(ANYWHERE, commands.NOTHING, Session._quit),  # RFC 1939 sections 4, 5 and 6
}
