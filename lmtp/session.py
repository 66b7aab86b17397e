"""One LMTP session, without its socket: lines go in, replies come out, or what must be done before a reply.

    session = Session(config)
    send(session.greet())
    answer = session.receive(b"RCPT TO:<an@example.test>")   # Verify(address="an@example.test", ...)
    send(session.resume(Accepted(mailbox)))                  # b"250 2.1.5 Recipient ok\\r\\n"

The commands are those of RFC 5321 section 4.1.1 as RFC 2033 section 4 changes them. What is left out:
docs/conformance.md.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple

from lmtp import commands, replies
from lmtp.body import BdatReader, DataReader, Reader
from lmtp.commands import Arguments, Form, NotACommand, Rejected
from lmtp.replies import Reply


@dataclass(frozen=True, slots=True)
class Config:
    """What all sessions of a listener have in common. Raises `ValueError` for what must not be announced."""

    host: str
    """How this server calls itself."""

    message_limit: int
    """Octets of the largest message that is taken (RFC 1870)."""

    recipient_limit: int = 1000
    """Recipients of one message; RFC 5321 section 4.5.3.1.8 asks for at least 100."""

    junk_before_lhlo: int = 3
    """Lines in a row that are no LMTP command, after which the connection is closed."""

    junk_after_lhlo: int = 10

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9.:_\[\]-]{1,255}", self.host):
            raise ValueError(f"host must be a domain or an address literal: {self.host!r}")
        if self.message_limit < 1 or self.recipient_limit < 1:
            raise ValueError("message_limit and recipient_limit must be at least 1")


# Needs: what must be done before there can be a reply.


@dataclass(frozen=True, slots=True)
class Verify:
    """Find out whether mail for this address is taken: `Accepted` or `Refused`.

    The address may be `postmaster` alone, in any case (RFC 5321 section 4.1.1.3). `size` is what the client
    said of the message, in octets.
    """

    address: str
    reverse_path: str
    size: int | None


@dataclass(frozen=True, slots=True)
class ReadData:
    """Send the reply, then feed the reader until it is complete: `Received` or `Refused`.

    What it decodes belongs to the message of this transaction, behind what earlier needs brought; if not
    `keep`, it is to be thrown away. A refusal, too, is told only when the reader is complete.
    """

    reply: bytes
    reader: Reader
    keep: bool
    last: bool
    """Whether the message ends with it."""


@dataclass(frozen=True, slots=True)
class Store:
    """Deliver what was read: `Stored`. If nothing was, the message has no octets."""

    client: str
    """What the client called itself."""
    reverse_path: str
    recipients: tuple[object, ...]
    """What `Accepted` said, in the order of RCPT."""
    smtputf8: bool


Need = Verify | ReadData | Store

# Outcomes: what came of a need.


@dataclass(frozen=True, slots=True)
class Accepted:
    """There is such a recipient; whatever it is, `Store` gives it back."""

    recipient: object


@dataclass(frozen=True, slots=True)
class Received:
    """The octets are there."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of each recipient's copy, in the order given. A positive one is committed."""

    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be done. The reply goes to the client, so its text must not be an exception's."""

    reply: Reply


Outcome = Accepted | Received | Stored | Refused
Answer = bytes | Need


class State(Enum):
    """What came last of LHLO, a good MAIL, a good RCPT and BDAT."""

    CONNECTED = auto()
    READY = auto()
    MAIL = auto()
    RCPT = auto()
    CHUNKS = auto()


BETWEEN: Final = (State.READY,)
AFTER_MAIL: Final = (State.MAIL, State.RCPT)
AFTER_RCPT: Final = (State.RCPT,)
ANYWHERE: Final = tuple(State)


@dataclass(slots=True)
class Transaction:
    """From MAIL to the end of the data. `failure`: why no copy can be stored any more."""

    reverse_path: str
    size: int | None
    smtputf8: bool
    recipients: list[object] = field(default_factory=list)
    failure: Reply | None = None


class Session:
    """The server's side of one LMTP session."""

    line_limit: Final = commands.LINE_LIMIT
    """Octets that a line may have, its CRLF included."""

    over: bool
    """Close the connection once what was returned last is sent; nothing more will be executed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._state = State.CONNECTED
        self._client = ""
        self._transaction: Transaction | None = None
        self._need: Need | None = None
        self._junk = 0
        self.over = False

    @property
    def in_transaction(self) -> bool:
        """Whether octets read so far may still be asked for; when not, throw them away."""
        return self._transaction is not None

    def greet(self) -> bytes:
        """Return the greeting (RFC 5321 section 3.1)."""
        return replies.greeting(self._config.host)

    def receive(self, line: bytes) -> Answer:
        """Take one line without its CRLF. Before the next one, `resume` must answer a need."""
        if self._need:
            raise RuntimeError(f"{type(self._need).__name__} has not been answered")
        if self.over:  # pipelined behind QUIT
            return b""
        try:
            return self._await(self._execute(line))
        except Rejected as rejected:
            return self._reject(rejected)

    def overlong(self) -> bytes:
        """Answer a line longer than `line_limit`, of which nothing is executed (RFC 5321 section 4.5.3.1.9)."""
        return self._reject(NotACommand(replies.LINE_TOO_LONG))

    def resume(self, outcome: Outcome) -> Answer:
        """Return the reply to the line that raised the need, or what is needed next."""
        need, self._need = self._need, None
        match need, outcome:
            case Verify(), Accepted(recipient):
                return self._accept(recipient)
            case Verify(), Refused(reply):
                return reply.octets
            case ReadData(last=last), Received():
                return self._await(self._read(last=last))
            case ReadData(last=last), Refused(reply):
                return self._await(self._read(last=last, failure=reply))
            case Store(recipients=recipients), Stored(told) if len(told) == len(recipients):
                return self._end(told)
        raise RuntimeError(f"{outcome} does not answer {need}")

    def _await(self, answer: Answer) -> Answer:
        self._need = None if isinstance(answer, bytes) else answer
        return answer

    def _execute(self, line: bytes) -> Answer:
        keyword, rest = commands.split(line)
        if not (command := COMMANDS.get(keyword)):
            raise NotACommand(replies.NOT_A_COMMAND)
        self._junk = 0
        if self._state not in command.states:
            raise Rejected(self._why_not_now(command))
        if not (arguments := command.form.pattern.fullmatch(rest)):
            raise Rejected(command.form.refusal)
        return command.handler(self, arguments)

    def _why_not_now(self, command: "Command") -> Reply:
        match self._state:
            case State.CONNECTED:
                return replies.LHLO_FIRST
            case State.READY:
                return replies.MAIL_FIRST
            case State.CHUNKS:
                return replies.CHUNKS_BEGUN
        return replies.NESTED if command.states is BETWEEN else replies.NO_RECIPIENT

    def _reject(self, rejected: Rejected) -> bytes:
        reply = rejected.reply
        if isinstance(rejected, NotACommand):
            config = self._config
            self._junk += 1
            if self._junk >= (config.junk_after_lhlo if self._client else config.junk_before_lhlo):
                reply = replies.TOO_MANY_ERRORS
        self.over = reply.code == 421
        return reply.octets

    def _reset(self) -> None:
        self._transaction = None
        self._state = State.READY if self._client else State.CONNECTED

    # The envelope

    def _lhlo(self, arguments: Arguments) -> Answer:
        self._client = arguments["client"]
        self._reset()  # RFC 5321 section 4.1.4
        return replies.welcome(
            self._config.host,
            "PIPELINING",  # RFC 2920; demanded by RFC 2033 section 5
            "ENHANCEDSTATUSCODES",  # RFC 2034; demanded by RFC 2033 section 5
            "8BITMIME",  # RFC 6152
            f"SIZE {self._config.message_limit}",  # RFC 1870
            "CHUNKING",  # RFC 3030
            "SMTPUTF8",  # RFC 6531
        )

    def _mail(self, arguments: Arguments) -> Answer:
        given = commands.parameters(arguments, commands.MAIL_PARAMETERS)
        smtputf8 = "SMTPUTF8" in given
        reverse_path = commands.address(arguments, commands.REVERSE_PATH, utf8=smtputf8)
        size = int(given["SIZE"]) if "SIZE" in given else None
        if size and size > self._config.message_limit:
            raise Rejected(replies.TOO_LARGE)  # RFC 1870 section 6.1
        self._transaction = Transaction(reverse_path, size, smtputf8)
        self._state = State.MAIL
        return replies.SENDER_OK.octets

    def _rcpt(self, arguments: Arguments) -> Answer:
        transaction = self._current
        commands.parameters(arguments, commands.RCPT_PARAMETERS)
        address = arguments["postmaster"] or commands.address(
            arguments, commands.FORWARD_PATH, utf8=transaction.smtputf8
        )
        if address.endswith("]"):
            raise Rejected(replies.UNKNOWN_DOMAIN)  # mail is hosted for names, not for IP addresses
        if len(transaction.recipients) >= self._config.recipient_limit:
            raise Rejected(replies.TOO_MANY_RECIPIENTS)  # RFC 5321 section 4.5.3.1.10
        return Verify(address, transaction.reverse_path, transaction.size)

    def _accept(self, recipient: object) -> bytes:
        # The same one twice counts twice: each good RCPT is owed a reply (RFC 2033 section 4.2).
        self._current.recipients.append(recipient)
        self._state = State.RCPT
        return replies.RECIPIENT_OK.octets

    @property
    def _current(self) -> Transaction:
        assert self._transaction is not None, self._state
        return self._transaction

    # The message

    def _data(self, arguments: Arguments) -> Answer:
        return ReadData(replies.SEND_DATA, DataReader(), keep=True, last=True)

    def _bdat(self, arguments: Arguments) -> Answer:
        # Legal in each state, for its octets follow in each state and must not be taken for commands. What it
        # is answered waits for them (RFC 3030 section 2).
        count, last = int(arguments["count"]), arguments["last"] is not None
        transaction = self._transaction
        if transaction:
            if not transaction.recipients:
                transaction.failure = replies.NO_RECIPIENT
            self._state = State.CHUNKS
        if not count:
            return self._read(last=last)
        keep = transaction is not None and not transaction.failure
        return ReadData(b"", BdatReader(count), keep, last)

    def _read(self, *, last: bool, failure: Reply | None = None) -> Answer:
        transaction = self._transaction
        if not transaction:
            return (replies.MAIL_FIRST if self._client else replies.LHLO_FIRST).octets
        # What failed once has failed, though the client may have sent the other chunks before it could know.
        transaction.failure = transaction.failure or failure
        if not last:
            return (transaction.failure or replies.CHUNK_OK).octets
        if transaction.failure:
            return self._end((transaction.failure,) * len(transaction.recipients))
        recipients = tuple(transaction.recipients)
        return Store(self._client, transaction.reverse_path, recipients, transaction.smtputf8)

    def _end(self, told: tuple[Reply, ...]) -> bytes:
        # One reply for each recipient accepted (RFC 2033 sections 4.2 and 4.3), so for BDAT LAST perhaps none.
        self._reset()
        return b"".join(reply.octets for reply in told)

    # The rest

    def _rset(self, arguments: Arguments) -> Answer:
        self._reset()
        return replies.RESET.octets

    def _noop(self, arguments: Arguments) -> Answer:
        return replies.NOTHING_DONE.octets

    def _vrfy(self, arguments: Arguments) -> Answer:
        return replies.NOT_VERIFIED.octets

    def _expn(self, arguments: Arguments) -> Answer:
        raise Rejected(replies.NOT_IMPLEMENTED)

    def _help(self, arguments: Arguments) -> Answer:
        return replies.HELP.octets

    def _quit(self, arguments: Arguments) -> Answer:
        self._reset()
        self.over = True
        return replies.BYE.octets

    def _helo(self, arguments: Arguments) -> Answer:
        raise Rejected(replies.NOT_SMTP)


class Command(NamedTuple):
    states: tuple[State, ...]
    form: Form
    handler: Callable[[Session, Arguments], Answer]


COMMANDS: Final[Mapping[str, Command]] = {
    "LHLO": Command(ANYWHERE, commands.CLIENT, Session._lhlo),  # RFC 2033 section 4.1
    "MAIL": Command(BETWEEN, commands.REVERSE_PATH, Session._mail),  # RFC 5321 section 4.1.1.2
    "RCPT": Command(AFTER_MAIL, commands.FORWARD_PATH, Session._rcpt),  # RFC 5321 section 4.1.1.3
    "DATA": Command(AFTER_RCPT, commands.NOTHING, Session._data),  # RFC 2033 section 4.2
    "BDAT": Command(ANYWHERE, commands.CHUNK, Session._bdat),  # RFC 2033 section 4.3, RFC 3030 section 2
    "RSET": Command(ANYWHERE, commands.NOTHING, Session._rset),  # RFC 5321 section 4.1.1.5
    "VRFY": Command(ANYWHERE, commands.TEXT, Session._vrfy),  # RFC 5321 section 4.1.1.6
    "EXPN": Command(ANYWHERE, commands.ANYTHING, Session._expn),  # RFC 5321 section 4.1.1.7
    "HELP": Command(ANYWHERE, commands.ANYTHING, Session._help),  # RFC 5321 section 4.1.1.8
    "NOOP": Command(ANYWHERE, commands.ANYTHING, Session._noop),  # RFC 5321 section 4.1.1.9
    "QUIT": Command(ANYWHERE, commands.NOTHING, Session._quit),  # RFC 5321 section 4.1.1.10
    "HELO": Command(ANYWHERE, commands.ANYTHING, Session._helo),  # RFC 2033 section 4.1
    "EHLO": Command(ANYWHERE, commands.ANYTHING, Session._helo),  # RFC 2033 section 4.1
}
