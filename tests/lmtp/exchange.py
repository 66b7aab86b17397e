"""A client and a store in memory around a session, for tests: octets go in, octets come out."""

from dataclasses import dataclass

from lmtp import replies
from lmtp.replies import Reply
from lmtp.session import (
    Accepted,
    Answer,
    Config,
    Outcome,
    ReadData,
    Received,
    Refused,
    Session,
    Store,
    Stored,
    Verify,
)

CONFIG = Config(host="mail.example.test", message_limit=1000, recipient_limit=5)

REFUSALS = {
    "suspended": replies.SUSPENDED,
    "disabled": replies.DISABLED,
    "full": replies.OVER_QUOTA,
    "broken": replies.TEMPORARY,
}
"""At RCPT, by local part."""

AFTER_DATA = {
    "fills-up": replies.OVER_QUOTA,
    "stuck": replies.TEMPORARY,
    "again": replies.ALREADY_DELIVERED,
    "no-space": replies.NO_SPACE,
}
"""Accepted at RCPT, and then this."""

MAILBOXES = {"an", "binh", "châu", "postmaster", "a b", ""} | AFTER_DATA.keys()


@dataclass(frozen=True)
class Copy:
    """What was stored for one recipient."""

    recipient: str
    reverse_path: str
    octets: bytes


class Exchange:
    """One connection: splits lines at CRLF and answers needs as a driver would.

    `trouble`: what keeps the octets of messages from being kept, if anything.
    """

    def __init__(self, config: Config = CONFIG, *, trouble: Reply | None = None) -> None:
        self.config = config
        self.session = Session(config)
        self.copies: list[Copy] = []
        self.trouble = trouble
        self._input = b""
        self._reading: ReadData | None = None
        self._content = b""
        self._too_large = False

    def feed(self, octets: bytes) -> bytes:
        """Return what the server says to these octets."""
        self._input += octets
        said = []
        while not self.session.over and (answer := self._step()) is not None:
            said.append(answer)
        return b"".join(said)

    def _step(self) -> bytes | None:
        if self._reading:
            consumed, decoded, complete = self._reading.reader.feed(self._input)
            self._input = self._input[consumed:]
            if self._reading.keep:
                self._content += decoded
            return self._answer(self.session.resume(self._read())) if complete else None
        line, end, rest = self._input.partition(b"\r\n")
        if not end:
            return None
        self._input = rest
        if len(line) + 2 > self.session.line_limit:
            return self.session.overlong()
        return self._answer(self.session.receive(line))

    def _read(self) -> Outcome:
        self._reading = None
        if self.trouble:
            return Refused(self.trouble)
        return Refused(replies.TOO_LARGE) if len(self._content) > self.config.message_limit else Received()

    def _answer(self, answer: Answer) -> bytes:
        while not isinstance(answer, bytes):
            match answer:
                case Verify():
                    answer = self.session.resume(_verify(answer))
                case Store():
                    answer = self.session.resume(self._store(answer))
                case ReadData(reply):
                    self._reading = answer
                    return reply
        if not self.session.in_transaction:
            self._content = b""
        return answer

    def _store(self, store: Store) -> Outcome:
        told = []
        for recipient in store.recipients:
            assert isinstance(recipient, str)
            reply = AFTER_DATA.get(recipient.partition("@")[0], replies.DELIVERED)
            told.append(reply)
            if reply is replies.DELIVERED:
                self.copies.append(Copy(recipient, store.reverse_path, self._content))
        return Stored(tuple(told))


def _verify(verify: Verify) -> Outcome:
    if verify.address.lower() == "postmaster":
        return Accepted("postmaster@example.test")
    local, _, domain = verify.address.rpartition("@")
    if domain != "example.test":
        return Refused(replies.UNKNOWN_DOMAIN)
    if local in REFUSALS:
        return Refused(REFUSALS[local])
    if verify.size and verify.size > 900:
        return Refused(replies.OVER_QUOTA)
    return Accepted(verify.address) if local.strip('"') in MAILBOXES else Refused(replies.UNKNOWN_MAILBOX)
