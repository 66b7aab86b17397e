"""The only fake of the POP3 tests: a maildrop in memory, and a listener that does what a session needs."""

from collections.abc import Sequence

from pop3 import replies
from pop3.framing import Stuffer, Top
from pop3.session import (
    Answer,
    Expunge,
    Expunged,
    Fetch,
    Found,
    LogIn,
    LongReply,
    Opened,
    Outcome,
    Refused,
    Session,
    StartTLS,
)


def message_of(octets: int) -> bytes:
    """Return a message of exactly so many octets."""
    if octets < 30:
        return b"\r\n".rjust(octets, b"x")
    header = b"Subject: %d octets\r\n\r\n" % octets
    return header + b"\r\n".rjust(octets - len(header), b"x")


class Snapshot:
    """The messages of a maildrop at login, as the session sees them."""

    def __init__(self, messages: Sequence[tuple[str, bytes]]) -> None:
        self._unique_ids = [unique_id for unique_id, _ in messages]
        self.octets = [len(content) for _, content in messages]

    def unique_id(self, number: int) -> str:
        return self._unique_ids[number - 1]


class MemoryMaildrop:
    """One mailbox: `an`, whose password is `hutech123`, unless something else is said."""

    def __init__(self, contents: Sequence[bytes] = (), *, name: str = "an", password: str = "hutech123") -> None:
        self.login = LogIn(name, password)
        self.messages = [(f"mail{number:03}", content) for number, content in enumerate(contents, 1)]
        self.expire: str | None = None
        self.trouble: dict[type, Refused] = {}  # by need


class Listener:
    """Carries one session's lines and needs between a client and a maildrop, as a listener does with sockets."""

    chunk = 7
    """Octets of a chunk of a message: small, so that every edge falls somewhere bad."""

    def __init__(self, session: Session, maildrop: MemoryMaildrop) -> None:
        self.session = session
        self.maildrop = maildrop
        self.asked: list[LogIn | Fetch | Expunge | StartTLS] = []
        self._opened: list[tuple[str, bytes]] = []

    def say(self, *lines: bytes) -> bytes:
        """Return all that is answered to these lines."""
        return b"".join(map(self._say, lines))

    def _say(self, line: bytes) -> bytes:
        if len(line) + 2 > self.session.line_limit:
            return self.session.overlong()
        return self.carry_out(self.session.receive(line))

    def carry_out(self, answer: Answer) -> bytes:
        match answer:
            case bytes():
                return answer
            case LongReply(pieces):
                return b"".join(pieces)
            case StartTLS(reply):
                self.asked.append(answer)
                return reply
        self.asked.append(answer)
        outcome = self._outcome(answer)
        reply = self.session.resume(outcome)
        return reply + self._message(answer) if isinstance(answer, Fetch) and outcome == Found() else reply

    def _outcome(self, need: LogIn | Fetch | Expunge) -> Outcome:
        maildrop = self.maildrop
        if isinstance(need, LogIn) and need != maildrop.login:
            return Refused("AUTH", "wrong name or password")
        if trouble := maildrop.trouble.get(type(need)):
            return trouble
        match need:
            case LogIn():
                self._opened = list(maildrop.messages)
                return Opened(Snapshot(self._opened), maildrop.expire)
            case Fetch():
                return Found()
            case Expunge(numbers):
                gone = {self._opened[number - 1][0] for number in numbers}
                maildrop.messages = [message for message in maildrop.messages if message[0] not in gone]
                return Expunged()

    def _message(self, need: Fetch) -> bytes:
        _, content = self._opened[need.number - 1]
        stuffer = Stuffer()
        top = Top(need.lines) if need.lines is not None else None
        sent = b""
        for begin in range(0, len(content), self.chunk):
            chunk = content[begin : begin + self.chunk]
            sent += stuffer.feed(top.feed(chunk) if top else chunk)
        return sent + replies.END
