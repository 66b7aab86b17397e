"""What a session does that no transcript can show: every command in every state, limits, what is misused."""

import base64
import time
from collections.abc import Sequence

import pytest

from pop3.session import (
    COMMANDS,
    Config,
    Expunge,
    Expunged,
    Fetch,
    Found,
    LogIn,
    LongReply,
    Opened,
    Refused,
    Session,
    StartTLS,
)
from tests.pop3.listener import Listener, MemoryMaildrop, message_of

CONFIG = Config(offers_stls=True)
HELLO, BEFORE, NAMED, ASKED, INSIDE, GONE = "greeted", "refused once", "USER", "AUTH", "logged in", "QUIT"

# RFC 1939 sections 4 to 7, in the order of its index of commands (section 9); then the extensions.
LINES: dict[bytes, set[str]] = {
    b"QUIT": {HELLO, BEFORE, NAMED, INSIDE},
    b"STAT": {INSIDE},
    b"LIST": {INSIDE},
    b"LIST 1": {INSIDE},
    b"RETR 1": {INSIDE},
    b"DELE 1": {INSIDE},
    b"NOOP": {INSIDE},
    b"RSET": {INSIDE},
    b"TOP 1 0": {INSIDE},
    b"UIDL": {INSIDE},
    b"UIDL 1": {INSIDE},
    b"USER an": {HELLO, BEFORE, NAMED},
    b"PASS hutech123": {NAMED},
    b"CAPA": {HELLO, BEFORE, NAMED, INSIDE},
    b"AUTH": {HELLO, BEFORE, NAMED},
    b"AUTH PLAIN": {HELLO, BEFORE, NAMED},
    b"AUTH PLAIN AGFuAGh1dGVjaDEyMw==": {HELLO, BEFORE, NAMED},
    b"AUTH LOGIN": {HELLO, BEFORE, NAMED},
    b"STLS": {HELLO, BEFORE, NAMED},
    # What is not offered is not there.
    b"APOP an c4c9334bac560ecc979e58001b3e22fb": set(),
    b"UTF8": set(),
    b"LANG": set(),
    b"XTND XMIT": set(),
}
WAY: dict[str, Sequence[bytes]] = {
    HELLO: (),
    BEFORE: (b"USER an", b"PASS wrong"),
    NAMED: (b"USER an",),
    ASKED: (b"AUTH PLAIN",),
    INSIDE: (b"USER an", b"PASS hutech123"),
    GONE: (b"QUIT",),
}


def listener(*way: bytes, config: Config = CONFIG, maildrop: MemoryMaildrop | None = None) -> Listener:
    session = Session(config, secure=False, plaintext_allowed=True)
    made = Listener(session, maildrop or MemoryMaildrop([message_of(120), message_of(200)]))
    made.say(*way)
    return made


class Many:
    """A maildrop with very many messages."""

    def __init__(self, messages: int) -> None:
        self.octets = [1000] * messages

    def unique_id(self, number: int) -> str:
        return f"{number:010}.5f3a2b1c"


def inside_of(messages: int) -> Session:
    session = Session(CONFIG, secure=True, plaintext_allowed=False)
    session.receive(b"USER an")
    session.receive(b"PASS hutech123")
    session.resume(Opened(Many(messages)))
    return session


@pytest.mark.parametrize("state", WAY)
@pytest.mark.parametrize("line", LINES)
def test_every_command_in_every_state(line: bytes, state: str) -> None:
    client = listener(*WAY[state])
    answer = client.say(line)
    if state == GONE:
        assert answer == b""
    elif state in LINES[line]:
        assert answer.startswith((b"+OK", b"+ "))
    else:
        assert answer.startswith(b"-ERR ")
        assert answer.count(b"\r\n") == 1
    inside = state == INSIDE or (state in LINES[line] and line.startswith((b"PASS", b"AUTH PLAIN A")) and state != GONE)
    assert client.session.in_transaction == inside
    assert client.session.over == (state == GONE or (line == b"QUIT" and state in LINES[line]))


def test_the_matrix_knows_every_command() -> None:
    assert {line.split()[0] for line, states in LINES.items() if states} == set(COMMANDS)


@pytest.mark.parametrize(("state", "patience"), [(HELLO, 3), (NAMED, 3), (INSIDE, 10)])
def test_junk_in_a_row_closes_and_each_line_is_answered(state: str, patience: int) -> None:
    client = listener(*WAY[state])
    for left in reversed(range(patience)):
        assert client.session.over is False
        assert client.say(b"\x16\x03\x01\x02") == b"-ERR not a command\r\n"
        assert client.session.over == (left == 0)


def test_overlong_lines_are_junk_too() -> None:
    client = listener()
    assert client.say(*[b"x" * 300] * 5) == b"-ERR line too long\r\n" * 3
    assert client.session.over


def test_the_limits_are_those_of_the_configuration() -> None:
    client = listener(config=Config(junk_before_login=1, junk_in_transaction=2))
    client.say(b"hello")
    assert client.session.over
    client = listener(*WAY[INSIDE], config=Config(junk_before_login=1, junk_in_transaction=2))
    client.say(b"hello")
    assert not client.session.over
    client.say(b"hello")
    assert client.session.over


def test_the_line_limit_is_longer_within_an_exchange_only() -> None:
    client = listener()
    assert client.session.line_limit == 255
    client.say(b"AUTH LOGIN")
    assert client.session.line_limit == 12288
    client.say(b"YW4=")
    assert client.session.line_limit == 12288
    client.say(b"*")
    assert client.session.line_limit == 255


@pytest.mark.parametrize("field", ["name", "password"])
def test_what_no_name_and_password_can_be_is_refused_before_anybody_computes(field: str) -> None:
    for octets, computed in ((255, True), (256, False), (9000, False)):
        long = {"name": b"an", "password": b"hutech123", field: b"x" * octets}
        client = listener(b"AUTH PLAIN")
        answer = client.say(base64.b64encode(b"\0%b\0%b" % (long["name"], long["password"])))
        assert answer.startswith(b"-ERR [AUTH] ")
        assert bool(client.asked) == computed


def test_a_name_and_a_password_are_always_text_that_can_be_encoded() -> None:
    client = listener()
    client.say(b"USER \xff\xc3\x28", b"PASS \xed\xa0\x80")
    assert client.asked == [LogIn("\ufffd\ufffd(", "\ufffd\ufffd\ufffd")]


def test_no_password_appears_in_what_is_printed() -> None:
    assert "hutech123" not in repr(LogIn("an", "hutech123"))


def test_fetch_and_expunge_tell_which_messages() -> None:
    client = listener(*WAY[INSIDE])
    client.say(b"RETR 2", b"TOP 1 4294967296", b"DELE 2", b"QUIT")
    assert client.asked[1:] == [Fetch(2, None), Fetch(1, 4294967296), Expunge(frozenset({2}))]


def test_quit_asks_for_the_lock_to_be_released_when_nothing_is_marked() -> None:
    client = listener(*WAY[INSIDE])
    client.say(b"QUIT")
    assert client.asked[-1] == Expunge(frozenset())


def test_nothing_is_executed_before_a_need_is_answered() -> None:
    session = Session(CONFIG, secure=False, plaintext_allowed=True)
    session.receive(b"USER an")
    assert session.receive(b"PASS hutech123") == LogIn("an", "hutech123")
    with pytest.raises(RuntimeError, match="LogIn has not been answered"):
        session.receive(b"CAPA")
    session.resume(Refused("AUTH", "wrong name or password"))
    assert isinstance(session.receive(b"STLS"), StartTLS)
    with pytest.raises(RuntimeError, match="StartTLS has not been answered"):
        session.receive(b"USER injected")


@pytest.mark.parametrize("outcome", [Found(), Expunged()])
def test_an_outcome_must_answer_the_need(outcome: Found | Expunged) -> None:
    session = Session(CONFIG, secure=False, plaintext_allowed=True)
    with pytest.raises(RuntimeError, match="does not answer NoneType"):
        session.resume(outcome)
    session.receive(b"USER an")
    session.receive(b"PASS hutech123")
    with pytest.raises(RuntimeError, match="does not answer LogIn"):
        session.resume(outcome)
    assert not session.in_transaction


def test_a_refusal_stays_one_short_line_of_printable_ascii() -> None:
    client = listener()
    client.maildrop.trouble[LogIn] = Refused("SYS/TEMP", "a\r\n+OK forged\0 thử " + "x" * 1000)
    reply = client.say(*WAY[INSIDE])
    assert reply.endswith(b"\r\n")
    assert reply.count(b"\r\n") == 2
    refusal = reply.splitlines(keepends=True)[1]
    assert refusal.startswith(b"-ERR [SYS/TEMP] a??+OK forged? th? xxx")
    assert len(refusal) == 512


@pytest.mark.parametrize(
    ("what", "config"),
    [
        ("greeting", {"greeting": "<1896.697170952@example.test>"}),
        ("greeting", {"greeting": "two\r\nlines"}),
        ("greeting", {"greeting": "x" * 401}),
        ("implementation", {"implementation": ""}),
        ("implementation", {"implementation": "Hộp thư"}),
        ("expire", {"expire": "never"}),
        ("expire", {"expire": "NEVER USER"}),
        ("expire", {"expire": "7 days"}),
        ("expire", {"expire": ""}),
    ],
)
def test_what_must_not_be_announced_is_refused(what: str, config: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"^{what} must be "):
        Config(**config)  # type: ignore[arg-type]


def test_the_longest_greeting_and_capability_fit_into_a_line() -> None:
    session = Session(Config(greeting="x" * 400, implementation="x" * 400), secure=True, plaintext_allowed=False)
    capabilities = session.receive(b"CAPA")
    assert isinstance(capabilities, bytes)
    assert b"IMPLEMENTATION " + b"x" * 400 + b"\r\n" in capabilities
    assert max(map(len, [session.greet(), *capabilities.splitlines(keepends=True)])) <= 512


@pytest.mark.parametrize("command", [b"LIST", b"UIDL"])
def test_very_many_messages_are_listed_in_pieces(command: bytes) -> None:
    session = inside_of(100_000)
    session.receive(b"DELE 50000")
    answer = session.receive(command)
    assert isinstance(answer, LongReply)
    pieces = list(answer.pieces)
    assert max(map(len, pieces)) < 64 * 1024
    lines = b"".join(pieces).split(b"\r\n")
    numbers = [int(line.split(b" ")[0]) for line in lines[1:-2]]
    assert numbers == [*range(1, 50_000), *range(50_001, 100_001)]
    assert lines[-2:] == [b".", b""]


def test_marking_takes_no_longer_in_a_large_maildrop() -> None:
    session = inside_of(1_000_000)
    assert session.receive(b"STAT") == b"+OK 1000000 1000000000\r\n"
    begun = time.process_time()
    for number in range(1, 2001):
        session.receive(b"DELE %d" % number)
        session.receive(b"STAT")
    assert session.receive(b"STAT") == b"+OK 998000 998000000\r\n"
    assert time.process_time() - begun < 2  # to count anew each time would take more than ten seconds


@pytest.mark.parametrize("messages", [998, 999, 1000, 1001, 2001])
def test_a_listing_is_whole_however_it_is_cut(messages: int) -> None:
    client = listener(*WAY[INSIDE], maildrop=MemoryMaildrop([message_of(10)] * messages))
    assert isinstance(client.session.receive(b"LIST"), bytes if messages <= 1000 else LongReply)
    lines = client.say(b"LIST").split(b"\r\n")
    assert lines == [
        b"+OK %d messages (%d octets)" % (messages, messages * 10),
        *(b"%d 10" % number for number in range(1, messages + 1)),
        b".",
        b"",
    ]
