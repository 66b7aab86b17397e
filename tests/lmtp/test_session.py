"""Sessions: every command in every state, and what holds whatever a client sends."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtp import commands, replies
from lmtp.replies import Reply
from lmtp.session import (
    COMMANDS,
    Accepted,
    Config,
    ReadData,
    Received,
    Refused,
    Session,
    State,
    Store,
    Stored,
    Verify,
)
from tests.lmtp.exchange import CONFIG, Exchange

REPLY_LINE = re.compile(rb"(220 |250-|250 |354 |[245][0-9]{2} [245]\.[0-9]\.[0-9] )[ -~]*\r\n")
REACH = {
    State.CONNECTED: b"",
    State.READY: b"LHLO a\r\n",
    State.MAIL: b"LHLO a\r\nMAIL FROM:<>\r\n",
    State.RCPT: b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<an@example.test>\r\n",
    State.CHUNKS: b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<an@example.test>\r\nBDAT 1\r\nx",
}
SAYING = {
    "LHLO": b"LHLO a",
    "MAIL": b"MAIL FROM:<chris@example.org>",
    "RCPT": b"RCPT TO:<an@example.test>",
    "BDAT": b"BDAT 1 LAST\r\nx",
    "VRFY": b"VRFY an",
}
SEQUENCE: dict[str, dict[State, int | None]] = {
    "MAIL": {State.READY: 250},
    "RCPT": {State.MAIL: 250, State.RCPT: 250},
    "DATA": {State.RCPT: 354},
    "BDAT": {State.MAIL: None, State.RCPT: 250, State.CHUNKS: 250},
}
ALWAYS = {"LHLO": 250, "RSET": 250, "NOOP": 250, "VRFY": 252, "HELP": 214, "QUIT": 221, "HELO": 500, "EHLO": 500}


def lines(octets: bytes) -> list[bytes]:
    """The replies in these octets, each of which must be well formed; LHLO's many lines count once."""
    found = octets.splitlines(keepends=True)
    for line in found:
        assert REPLY_LINE.fullmatch(line), line
        assert len(line) <= replies.LIMIT
    return [line for line in found if not line.startswith(b"250-")]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("keyword", COMMANDS)
def test_every_command_in_every_state(keyword: str, state: State) -> None:
    exchange = Exchange()
    exchange.feed(REACH[state])
    said = lines(exchange.feed(SAYING.get(keyword, keyword.encode()) + b"\r\n"))
    expected = SEQUENCE.get(keyword, {}).get(state, 503) if keyword in SEQUENCE else ALWAYS.get(keyword, 502)
    if keyword == "BDAT":  # the CRLF behind its octet is an empty line
        assert said.pop().startswith(b"500 ")
    assert [int(reply[:3]) for reply in said] == ([] if expected is None else [expected])


def verified(config: Config = CONFIG, *, recipients: int = 1) -> Session:
    session = Session(config)
    session.receive(b"LHLO mx.example.org")
    session.receive(b"MAIL FROM:<chris@example.org> SIZE=7 SMTPUTF8")
    for number in range(recipients):
        session.receive(b"RCPT TO:<an@example.test>")
        session.resume(Accepted(number))
    return session


def test_needs_say_what_the_envelope_said() -> None:
    session = verified()
    assert session.receive(b"RCPT TO:<An@Example.Test>") == Verify("An@Example.Test", "chris@example.org", 7)
    session.resume(Accepted("whatever it is"))
    need = session.receive(b"DATA")
    assert isinstance(need, ReadData)
    assert (need.reply, need.keep, need.last) == (replies.SEND_DATA, True, True)
    assert session.in_transaction
    assert session.resume(Received()) == Store(
        "mx.example.org", "chris@example.org", (0, "whatever it is"), smtputf8=True
    )
    told = (replies.DELIVERED, replies.TEMPORARY)
    assert session.resume(Stored(told)) == b"".join(reply.octets for reply in told)
    assert not session.in_transaction


def test_what_cannot_be_kept_need_not_be() -> None:
    session = verified(recipients=0)
    need = session.receive(b"BDAT 5")
    assert isinstance(need, ReadData)
    assert not need.keep
    session.resume(Received())
    session = verified()
    session.receive(b"BDAT 5")
    session.resume(Refused(replies.TOO_LARGE))
    need = session.receive(b"BDAT 5 LAST")
    assert isinstance(need, ReadData)
    assert not need.keep


def test_a_pending_need_is_answered_before_the_next_line() -> None:
    session = verified()
    session.receive(b"DATA")
    with pytest.raises(RuntimeError, match="ReadData has not been answered"):
        session.receive(b"NOOP")


def test_only_its_own_kind_of_outcome_answers_a_need() -> None:
    session = verified()
    session.receive(b"DATA")
    with pytest.raises(RuntimeError, match="does not answer"):
        session.resume(Accepted(1))


def test_each_recipient_must_be_told_something() -> None:
    session = verified(recipients=2)
    session.receive(b"DATA")
    session.resume(Received())
    with pytest.raises(RuntimeError, match="does not answer"):
        session.resume(Stored((replies.DELIVERED,)))


def test_nothing_behind_quit_is_executed() -> None:
    session = Session(CONFIG)
    assert session.receive(b"QUIT") == replies.BYE.octets
    assert session.over
    assert session.receive(b"LHLO a") == b""


def test_an_overlong_line_is_answered_once_and_changes_nothing() -> None:
    exchange = Exchange()
    exchange.feed(REACH[State.MAIL])
    longest = b"NOOP " + b"x" * (exchange.session.line_limit - 7) + b"\r\n"
    assert lines(exchange.feed(longest)) == [replies.NOTHING_DONE.octets]
    assert lines(exchange.feed(b"x" + longest)) == [replies.LINE_TOO_LONG.octets]
    assert lines(exchange.feed(b"RCPT TO:<an@example.test>\r\n")) == [replies.RECIPIENT_OK.octets]


def path(local: int, domain: int) -> bytes:
    labels = ("d" * 49 + ".") * (domain // 50) + "e" * (domain % 50)
    return b"MAIL FROM:<%b@%b>" % (b"l" * local, labels.encode())


@pytest.mark.parametrize(
    ("local", "domain", "fits"),
    [(64, 255, True), (65, 20, True), (400, 111, True), (401, 111, False), (1, 256, False)],
)
def test_addresses_may_be_long_but_not_endless(local: int, domain: int, fits: bool) -> None:
    session = Session(CONFIG)
    session.receive(b"LHLO a")
    expected = replies.SENDER_OK if fits else commands.REVERSE_PATH.refusal
    assert session.receive(path(local, domain)) == expected.octets


@pytest.mark.parametrize("host", ["", "two words", "a\r\nb", "châu.example"])
def test_a_host_that_must_not_be_announced_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="host"):
        replace(CONFIG, host=host)


@pytest.mark.parametrize("limit", ["message_limit", "recipient_limit"])
def test_a_limit_is_at_least_one(limit: str) -> None:
    limits = {"message_limit": 1, "recipient_limit": 1, limit: 0}
    with pytest.raises(ValueError, match=limit):
        Config("mail.example.test", **limits)


def test_a_reply_stays_one_short_line_whatever_its_text() -> None:
    reply = Reply(451, "4.3.0", "a\r\n250 2.1.5 forged\0\xff\u2028" + "x" * 1000).octets
    assert lines(reply) == [reply]
    assert len(reply) == replies.LIMIT


# Whatever a client sends.

LOCAL_PART = st.sampled_from(["an", "binh", "nobody", "full", "fills-up", "stuck", "a b", '"', "châu", "x" * 300])
PATH = st.one_of(
    st.builds("<{}@{}>".format, LOCAL_PART, st.sampled_from(["example.test", "example.org", "[1.2.3.4]"])),
    st.builds('<@r.example:"{}"@example.test>'.format, LOCAL_PART),
    st.sampled_from(["<>", "<postmaster>", "<an>", "an", "<an@example.test> SMTPUTF8", "<> SIZE=9 SIZE=8"]),
)
LINE = st.one_of(
    st.sampled_from(["LHLO a", "DATA", "RSET", "NOOP", "VRFY x", "HELP", "HELO a", "MAIL FROM:<> SIZE=5"]),
    st.builds("MAIL FROM:{}".format, PATH),
    st.builds("RCPT TO:{}".format, PATH),
    st.sampled_from(["RCPT TO:<an@example.test>"] * 3),
    st.text(max_size=20),
).map(lambda line: line.encode("utf-8", "replace") + b"\r\n")
MESSAGE = st.one_of(st.binary(max_size=50), st.just(b"x\r\n" * 400)).map(
    lambda octets: octets.replace(b"\r\n.", b"\r\n..").removeprefix(b".")
)


@st.composite
def chunk(draw: st.DrawFn) -> bytes:
    octets = draw(MESSAGE)
    return b"BDAT %d%b\r\n%b" % (len(octets), draw(st.sampled_from([b"", b" LAST"])), octets)


TALK = st.lists(st.one_of(LINE, LINE, LINE, MESSAGE.map(lambda octets: b"DATA\r\n" + octets + b"\r\n.\r\n"), chunk()))


@given(st.lists(st.binary(max_size=200), max_size=10), st.sampled_from([*State]))
@settings(max_examples=200)
def test_no_octets_break_it(pieces: list[bytes], state: State) -> None:
    exchange = Exchange()
    exchange.feed(REACH[state])
    for piece in pieces:
        lines(exchange.feed(piece))


@given(TALK, st.sampled_from([None, replies.NO_SPACE]), st.lists(st.integers(0, 5000), max_size=20))
@settings(max_examples=400)
def test_how_it_is_cut_makes_no_difference(talk: list[bytes], trouble: Reply | None, places: list[int]) -> None:
    patient = replace(CONFIG, junk_before_lhlo=1000, junk_after_lhlo=1000)
    whole, split = Exchange(patient, trouble=trouble), Exchange(patient, trouble=trouble)
    octets = b"".join(talk)
    said = whole.feed(octets)
    lines(said)
    edges = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    assert b"".join(split.feed(octets[a:b]) for a, b in pairwise(edges)) == said
    assert split.copies == whole.copies


@given(
    st.lists(st.sampled_from(["an", "binh", "nobody", "fills-up", "stuck", "again", "full", "an"]), max_size=8),
    MESSAGE,
    st.sampled_from([None, replies.NO_SPACE, replies.TEMPORARY]),
    st.booleans(),
)
@settings(max_examples=200)
def test_each_accepted_recipient_has_its_reply(
    names: list[str], message: bytes, trouble: Reply | None, chunked: bool
) -> None:
    exchange = Exchange(trouble=trouble)
    exchange.feed(b"LHLO a\r\nMAIL FROM:<>\r\n")
    accepted = 0
    for name in names:
        (reply,) = lines(exchange.feed(b"RCPT TO:<%b@example.test>\r\n" % name.encode()))
        accepted += reply.startswith(b"250 ")
    if chunked:
        said = lines(exchange.feed(b"BDAT %d LAST\r\n%b" % (len(message), message)))
    elif accepted:
        assert exchange.feed(b"DATA\r\n") == replies.SEND_DATA
        said = lines(exchange.feed(message + b"\r\n.\r\n"))
    else:
        assert exchange.feed(b"DATA\r\n") == replies.NO_RECIPIENT.octets
        said = []
    assert len(said) == accepted
    assert exchange.feed(b"NOOP\r\n") == replies.NOTHING_DONE.octets


@given(TALK)
def test_nothing_a_client_says_comes_back(talk: list[bytes]) -> None:
    own = [
        *(value.octets for value in vars(replies).values() if isinstance(value, Reply)),
        *(command.form.refusal.octets for command in COMMANDS.values()),
        replies.SEND_DATA,
    ]
    for line in lines(Exchange().feed(b"".join(talk))):
        assert line in own or line == b"250 SMTPUTF8\r\n"
