"""No input breaks framing or state: a session beside a plain model of a maildrop, and arbitrary octets."""

import base64
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pop3.session import COMMANDS, Config, Expunge, LogIn, Refused, Session
from tests.pop3.listener import Listener, MemoryMaildrop, message_of

CONFIG = Config(offers_stls=True, junk_before_login=10**9, junk_in_transaction=10**9)
MULTILINE = (b"LIST", b"UIDL", b"CAPA", b"AUTH")

keywords = st.sampled_from([*COMMANDS, *map(bytes.lower, COMMANDS), b"APOP", b"XYZZY", b"", b" NOOP"])
arguments = st.one_of(
    st.sampled_from([b"", b" ", b" 1", b" 2", b" 3", b" 0", b" 1 0", b" 1 1", b" an", b" hutech123", b" PLAIN"]),
    st.sampled_from([b" LOGIN", b" PLAIN AGFuAGh1dGVjaDEyMw==", b" PLAIN =", b" LOGIN YW4=", b" LOGIN ="]),
    st.integers().map(lambda number: b" %d" % number),
    st.binary(max_size=30).map(lambda octets: b" " + octets),
)
responses = st.one_of(
    st.sampled_from([b"*", b"=", b"", b"YW4=", b"aHV0ZWNoMTIz", b"AGFuAGh1dGVjaDEyMw=="]),
    st.binary(max_size=30).map(base64.b64encode),
    st.sampled_from([b"x" * 300, b"x" * 13000]),
)
anything = st.one_of(st.tuples(keywords, arguments).map(b"".join), responses, st.binary(max_size=300))


def replies(octets: bytes, line: bytes) -> Iterator[bytes]:
    """Yield the lines of one reply, once they have the form that RFC 1939 section 3 asks."""
    assert octets.endswith(b"\r\n")
    lines = octets.removesuffix(b"\r\n").split(b"\r\n")
    assert lines[0].startswith((b"+OK", b"-ERR ", b"+ "))
    if len(lines) > 1:
        assert lines[0].startswith(b"+OK")
        assert lines[-1] == b"."
        assert b"." not in lines[:-1]
    elif lines[0].startswith(b"+OK"):
        assert line.upper().rstrip(b" ") not in MULTILINE
    yield from lines


@given(st.lists(anything, max_size=12), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_octets_get_exactly_one_reply(
    lines: list[bytes], secure: bool, plaintext_allowed: bool, inside: bool
) -> None:
    session = Session(CONFIG, secure=secure, plaintext_allowed=plaintext_allowed)
    client = Listener(session, MemoryMaildrop([message_of(120), b".\r\n\r\n.\r\n"]))
    if inside:
        client.say(b"USER an", b"PASS hutech123")
    for line in lines:
        was_over = session.over
        answer = client.say(line)
        if was_over:
            assert answer == b""
            continue
        for reply in replies(answer, line):
            assert len(reply) + 2 <= 512
            assert len(line) < 20 or line not in reply
        if answer.startswith(b"+OK begin TLS"):
            session.secured()


@given(st.binary(max_size=400), st.sampled_from([(), (b"USER an",), (b"AUTH LOGIN",), (b"USER an", b"PASS hutech123")]))
@settings(max_examples=300, deadline=None)
def test_arbitrary_octets_change_nothing(octets: bytes, way: tuple[bytes, ...]) -> None:
    client = Listener(Session(CONFIG, secure=True, plaintext_allowed=False), MemoryMaildrop([message_of(50)]))
    client.say(*way)
    inside = client.session.in_transaction
    if octets[:1].isalpha() or (way and way[0] == b"AUTH LOGIN"):
        octets = b"\x00" + octets  # so that it cannot be a command
    answer = client.say(octets)
    assert answer.startswith(b"-ERR ")
    assert client.session.in_transaction == inside
    if inside:
        assert client.say(b"STAT") == b"+OK 1 50\r\n"


@settings(deadline=None)
@given(st.text(min_size=1).map(str.encode).filter(lambda octets: len(octets) <= 200), st.binary(max_size=240))
def test_a_name_and_a_password_arrive_as_they_were_sent(name: bytes, password: bytes) -> None:
    """Through AUTH PLAIN whatever they are, but for a NUL."""
    client = Listener(Session(CONFIG, secure=True, plaintext_allowed=False), MemoryMaildrop())
    client.say(b"AUTH PLAIN", base64.b64encode(b"\0" + name + b"\0" + password))
    if b"\0" in name + password:
        assert client.asked == []
    else:
        assert client.asked == [LogIn(name.decode(), password.decode("utf-8", "replace"))]


class AMaildrop(RuleBasedStateMachine):
    """Sessions one after the other on one maildrop, beside a model that knows nothing of protocols."""

    @initialize(sizes=st.lists(st.integers(2, 400), max_size=6))
    def deliver(self, sizes: list[int]) -> None:
        self.maildrop = MemoryMaildrop([message_of(size) for size in sizes])
        self.kept = list(self.maildrop.messages)
        self.delivered = 0
        self.open()

    def open(self) -> None:
        self.client = Listener(Session(CONFIG, secure=True, plaintext_allowed=False), self.maildrop)
        self.client.say(b"USER an", b"PASS hutech123")
        self.seen = dict(enumerate(self.kept, 1))
        self.marked: set[int] = set()

    def present(self) -> dict[int, tuple[str, bytes]]:
        return {number: message for number, message in self.seen.items() if number not in self.marked}

    @rule(number=st.integers(1, 8))
    def dele(self, number: int) -> None:
        answer = self.client.say(b"DELE %d" % number)
        assert answer.startswith(b"+OK") == (number in self.present())
        if number in self.seen:
            self.marked.add(number)

    @rule()
    def rset(self) -> None:
        assert self.client.say(b"RSET").startswith(b"+OK")
        self.marked.clear()

    @rule(number=st.integers(1, 8))
    def ask_for_one(self, number: int) -> None:
        message = self.present().get(number)
        for command in (b"LIST", b"UIDL", b"RETR"):
            answer = self.client.say(b"%b %d" % (command, number))
            if message is None:
                assert answer.startswith(b"-ERR ")
        if message:
            unique_id, content = message
            assert self.client.say(b"LIST %d" % number) == b"+OK %d %d\r\n" % (number, len(content))
            assert self.client.say(b"UIDL %d" % number) == f"+OK {number} {unique_id}\r\n".encode()
            first, _, rest = self.client.say(b"RETR %d" % number).partition(b"\r\n")
            assert first.startswith(b"+OK %d octet" % len(content))
            assert rest == content + b".\r\n"

    @rule()
    def junk(self) -> None:
        assert self.client.say(b"DELE 1\0").startswith(b"-ERR ")

    @rule(content=st.integers(2, 400).map(message_of))
    def mail_arrives(self, content: bytes) -> None:
        self.delivered += 1
        message = (f"new{self.delivered}", content)
        self.maildrop.messages.append(message)
        self.kept.append(message)

    @rule()
    def quit(self) -> None:
        assert self.client.say(b"QUIT").startswith(b"+OK POP3 server signing off (")
        gone = [self.seen[number] for number in self.marked]
        self.kept = [message for message in self.kept if message not in gone]
        assert self.maildrop.messages == self.kept
        self.open()

    @precondition(lambda self: self.marked)
    @rule()
    def quit_when_the_store_is_away(self) -> None:
        self.maildrop.trouble[Expunge] = Refused("SYS/TEMP", "try again later")
        assert self.client.say(b"QUIT") == b"-ERR [SYS/TEMP] try again later\r\n"
        del self.maildrop.trouble[Expunge]
        self.open()

    @rule()
    def hang_up(self) -> None:
        self.open()

    @invariant()
    def what_is_told_is_what_is_there(self) -> None:
        present = self.present()
        total = sum(len(content) for _, content in present.values())
        assert self.client.say(b"STAT") == b"+OK %d %d\r\n" % (len(present), total)
        listed = self.client.say(b"LIST").split(b"\r\n")[1:-2]
        assert listed == [b"%d %d" % (number, len(content)) for number, (_, content) in present.items()]
        unique_ids = self.client.say(b"UIDL").split(b"\r\n")[1:-2]
        assert unique_ids == [f"{number} {unique_id}".encode() for number, (unique_id, _) in present.items()]
        assert self.maildrop.messages == self.kept


TestAMaildrop = AMaildrop.TestCase
TestAMaildrop.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
