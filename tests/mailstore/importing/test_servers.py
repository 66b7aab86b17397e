"""Servers that are odd, broken or hostile: what can be had comes along, in bounded memory, and nothing is removed."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import BinaryIO

import pytest

from mailstore.importing import wire
from mailstore.importing.imap import Imap
from mailstore.importing.pop3 import Pop3
from mailstore.importing.source import Lost, Refused, Source
from mailstore.models import Message, unique_id
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.importing import peers
from tests.mailstore.importing.peers import Dialogue, peer, target
from tests.mailstore.importing.sources import SETTINGS, counts, maildrop, run, told

pytestmark = pytest.mark.django_db(transaction=True)

A, B, C = (post.text(name) for name in "abc")
NAMED = [("one", A), ("two", B), ("three", C)]
NUMBERED = [(3, A), (7, B), (9, C)]


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PATIENCE", 0.3)


def refused(dialogue: Dialogue, kind: type[Exception] = Refused, *, imap: bool = False) -> str:
    """How opening a source with this server fails."""
    with peer(dialogue) as port:
        source: Source = Imap(target(port)) if imap else Pop3(target(port))
        with pytest.raises(kind) as failure, source:
            source.open()
    return str(failure.value)


# POP3


def test_nothing_is_removed_over_pop3(acme: Customer) -> None:
    seen: list[bytes] = []
    with peer(peers.pop3(NAMED, seen=seen)) as port:
        assert counts(run(Pop3(target(port)), acme.mailbox)) == (3, 0, 0)
    assert maildrop(acme.mailbox) == NAMED
    assert {command.split()[0] for command in seen} == {b"CAPA", b"USER", b"PASS", b"UIDL", b"RETR", b"QUIT"}


def test_what_came_along_is_not_fetched_again(acme: Customer) -> None:
    seen: list[bytes] = []
    with peer(peers.pop3(NAMED, seen=seen)) as port:
        run(Pop3(target(port)), acme.mailbox)
        run(Pop3(target(port)), acme.mailbox)
    assert seen.count(b"RETR 1") == seen.count(b"RETR 3") == 1


def test_a_server_without_unique_ids_is_known_by_its_octets(acme: Customer) -> None:
    with peer(peers.pop3(NAMED, uidl=False, capa=b"")) as port:
        assert counts(run(Pop3(target(port)), acme.mailbox)) == (3, 0, 0)
        assert counts(run(Pop3(target(port)), acme.mailbox)) == (0, 3, 0)
    assert maildrop(acme.mailbox)[0] == (unique_id(acme.mailbox.pk, 1, 1), A)


def test_a_server_that_knows_only_sasl_is_signed_in_to(acme: Customer) -> None:
    seen: list[bytes] = []
    with peer(peers.pop3(NAMED, capa=b"SASL LOGIN PLAIN\r\nUIDL\r\n", seen=seen)) as port:
        assert counts(run(Pop3(target(port)), acme.mailbox)) == (3, 0, 0)
    assert b"AUTH PLAIN" in seen


def test_a_message_that_is_refused_is_told_and_the_rest_comes(acme: Customer) -> None:
    with peer(peers.pop3(NAMED, instead={b"RETR 2": b"-ERR no\r\n"})) as port:
        progress = run(Pop3(target(port)), acme.mailbox)
    assert (counts(progress), told(progress)) == ((2, 0, 1), ["message 2: the server does not hand it out"])


def test_a_connection_lost_in_a_message_is_made_again(acme: Customer) -> None:
    instead = {b"RETR 2": b"+OK\r\nSubject: half"}

    def dialogue(reads: BinaryIO, writes: BinaryIO) -> None:
        peers.pop3(NAMED, instead=dict(instead))(reads, writes)

    with peer(dialogue) as port:
        progress = run(Pop3(target(port)), acme.mailbox)
        assert counts(progress) == (2, 0, 1)
        instead.clear()
        assert counts(run(Pop3(target(port)), acme.mailbox)) == (1, 2, 0)
    assert sorted(maildrop(acme.mailbox)) == sorted(NAMED)


def test_after_a_loss_messages_are_found_by_their_unique_ids(acme: Customer) -> None:
    """Another client has removed the first meanwhile, so all have other numbers."""
    sessions = iter([peers.pop3(NAMED, instead={b"RETR 2": b"+OK\r\n."}), peers.pop3(NAMED[1:])])
    with peer(lambda reads, writes: next(sessions)(reads, writes)) as port:
        assert counts(run(Pop3(target(port)), acme.mailbox)) == (3, 0, 0)
    assert maildrop(acme.mailbox) == NAMED


def test_without_unique_ids_a_maildrop_that_changed_is_not_gone_on_with(acme: Customer) -> None:
    sessions = iter(
        [
            peers.pop3(NAMED, uidl=False, instead={b"RETR 2": b"+OK\r\n."}),
            peers.pop3([("", post.text("another")), *NAMED[1:]], uidl=False),
        ]
    )
    with peer(lambda reads, writes: next(sessions)(reads, writes)) as port, pytest.raises(Refused):
        run(Pop3(target(port)), acme.mailbox)
    assert len(maildrop(acme.mailbox)) == 1


@pytest.mark.parametrize(
    ("instead", "kind", "told"),
    [
        ({b"PASS secret": b"-ERR no\r\n"}, Refused, "the server refuses the login"),
        ({b"PASS secret": b"-ERR [IN-USE] wait\r\n"}, Lost, "the server refuses the login for the moment"),
        ({b"UIDL": b"+OK\r\nnonsense\r\n.\r\n"}, Lost, "the server's listing is none"),
        ({b"UIDL": b"+OK\r\n" + b"1" * 20 + b" x\r\n.\r\n"}, Lost, "the server's listing is none"),
        ({b"CAPA": b"+OK" + b"x" * 70_000 + b"\r\n"}, Lost, "the server sent a line that is too long"),
        ({b"CAPA": b"+OK"}, Lost, "the server hung up"),
    ],
)
def test_a_pop3_server_fails_in_words(instead: dict[bytes, bytes], kind: type[Exception], told: str) -> None:
    assert refused(peers.pop3(NAMED, instead=instead), kind) == told


def test_an_endless_listing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailstore.importing.pop3.MOST_MESSAGES", 1000)
    endless = b"+OK\r\n" + b"".join(b"%d x%d\r\n" % (number, number) for number in range(1, 1001)) + b"\r\n"
    assert "more messages than can be" in refused(peers.pop3(NAMED, instead={b"UIDL": endless}))


@pytest.mark.usefixtures("briefly")
def test_a_server_that_says_nothing_is_lost() -> None:
    def silent(reads: BinaryIO, writes: BinaryIO) -> None:
        peers.line(reads)

    assert refused(silent, Lost) == "the server does not answer"


def test_a_login_of_two_lines_is_refused() -> None:
    with pytest.raises(Refused):
        target(1, password="x\r\nDELE 1")


def test_starttls_is_not_left_out_where_it_is_not_offered() -> None:
    with peer(peers.pop3(NAMED)) as port:
        source = Pop3(replace(target(port), security="starttls"))
        with pytest.raises(Refused, match="does not offer STLS"), source:
            source.open()


def test_what_is_said_before_tls_begins_ends_it() -> None:
    with peer(peers.pop3(NAMED, instead={b"STLS": b"+OK\r\n+OK injected\r\n"})) as port:
        source = Pop3(replace(target(port), security="starttls"))
        with pytest.raises(Refused, match="before TLS"), source:
            source.open()


@pytest.mark.parametrize("imap", [False, True])
def test_what_is_not_outside_is_not_reached(imap: bool) -> None:
    with peer(peers.pop3(NAMED)) as port:
        where = target(port, allow_private=False)
        source: Source = Imap(where) if imap else Pop3(where)
        with pytest.raises(Refused, match="not on the public internet"), source:
            source.open()


# IMAP


def test_unique_ids_follow_from_uids(acme: Customer) -> None:
    seen: list[bytes] = []
    with peer(peers.imap(NUMBERED, seen=seen)) as port:
        assert counts(run(Imap(target(port)), acme.mailbox)) == (3, 0, 0)
    assert maildrop(acme.mailbox) == [(f"{uid:08x}000003e8", octets) for uid, octets in NUMBERED]
    assert {Message.objects.get(uid=uid).delivered_at for uid in (1, 2, 3)} == {datetime(2020, 2, 1, 9, tzinfo=UTC)}
    words = b" ".join(seen)
    assert b"EXAMINE" in words
    assert b"PEEK" in words
    assert not any(word in words for word in (b"SELECT", b"STORE", b"EXPUNGE", b"CLOSE"))


def test_imap_keeps_none_if_asked_not_to(acme: Customer) -> None:
    with peer(peers.imap(NUMBERED)) as port:
        assert counts(run(Imap(target(port), uidl_format=None), acme.mailbox)) == (3, 0, 0)
        assert counts(run(Imap(target(port), uidl_format=None), acme.mailbox)) == (0, 3, 0)
    with pytest.raises(Refused):
        Imap(target(1), uidl_format="%f")


@pytest.mark.parametrize("capability", [b"IMAP4rev1 AUTH=PLAIN LOGINDISABLED", b"IMAP4rev1"])
def test_an_imap_server_is_signed_in_to_as_it_wants(capability: bytes, acme: Customer) -> None:
    with peer(peers.imap(NUMBERED, capability=capability)) as port:
        assert counts(run(Imap(target(port)), acme.mailbox)) == (3, 0, 0)


def test_a_folder_is_named_as_imap_wants() -> None:
    seen: list[bytes] = []
    with peer(peers.imap(NUMBERED, seen=seen)) as port, Imap(target(port), folder='Entwürfe & "x"') as source:
        source.open()
    assert b'EXAMINE "Entw&APw-rfe &- \\"x\\""' in seen


@pytest.mark.parametrize(
    ("instead", "kind", "told"),
    [
        ({b"LOGIN {2}": b"TAG NO no\r\n"}, Refused, "the server refuses the login"),
        ({b"LOGIN {2}": b"TAG NO [UNAVAILABLE] wait\r\n"}, Lost, "the server refuses the login for the moment"),
        ({b'EXAMINE "INBOX"': b"TAG NO no\r\n"}, Refused, "there is no such folder"),
        ({b"UID FETCH 1:* (UID INTERNALDATE)": b"TAG BAD no\r\n"}, Lost, "the server does not list its messages"),
        ({b"CAPABILITY": b"* X {999999999}\r\n"}, Lost, "the server sent a line that is too long"),
        (
            {b"CAPABILITY": b"* CAPABILITY LOGINDISABLED\r\nTAG OK\r\n"},
            Refused,
            "the server takes no passwords this way",
        ),
    ],
)
def test_an_imap_server_fails_in_words(instead: dict[bytes, bytes], kind: type[Exception], told: str) -> None:
    assert refused(peers.imap(NUMBERED, instead=instead), kind, imap=True) == told


def test_a_message_that_is_gone_is_told_and_one_as_text_taken(acme: Customer) -> None:
    instead = {
        b"UID FETCH 3 (UID BODY.PEEK[])": b"TAG OK nothing\r\n",
        b"UID FETCH 7 (UID BODY.PEEK[])": b'* 2 FETCH (UID 7 BODY[] "Subject: text")\r\nTAG OK\r\n',
    }
    with peer(peers.imap(NUMBERED, instead=instead)) as port:
        progress = run(Imap(target(port)), acme.mailbox)
    assert (counts(progress), told(progress)) == (
        (2, 0, 1),
        ["message with UID 3: the server does not hand it out"],
    )
    assert maildrop(acme.mailbox)[0][1] == b"Subject: text\r\n"


def test_a_folder_that_is_numbered_anew_is_not_gone_on_with(acme: Customer) -> None:
    lost = {b"UID FETCH 7 (UID BODY.PEEK[])": b"* 2 FETCH (UID 7 BODY[] {999}\r\nhalf"}
    sessions: Iterator[Dialogue] = iter([peers.imap(NUMBERED, instead=lost), peers.imap(NUMBERED, validity=2)])

    def dialogue(reads: BinaryIO, writes: BinaryIO) -> None:
        next(sessions)(reads, writes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "PATIENCE", 0.3)
        with peer(dialogue) as port, pytest.raises(Refused, match="anew"):
            run(Imap(target(port)), acme.mailbox)
    assert len(maildrop(acme.mailbox)) == 1


# Memory


def endless_pop3(reads: BinaryIO, writes: BinaryIO) -> None:
    """RETR never ends, and has no line ends."""
    writes.write(b"+OK\r\n")
    while True:
        said = peers.line(reads)
        if said.startswith(b"RETR"):
            writes.write(b"+OK\r\n")
            while True:
                writes.write(b"x" * 65536)
        answer = {b"CAPA": b"-ERR\r\n", b"UIDL": b"+OK\r\n1 a\r\n.\r\n"}
        writes.write(answer.get(said, b"+OK\r\n"))


def endless_imap(reads: BinaryIO, writes: BinaryIO) -> None:
    """A literal of 10 GB."""
    peers.imap([(1, b"")], instead={b"UID FETCH 1 (UID BODY.PEEK[])": b"* 1 FETCH (UID 1 BODY[] {9999999999}\r\n"
                                    + b"x" * 20_000_000})(reads, writes)  # fmt: skip


@pytest.mark.parametrize("imap", [False, True])
def test_a_message_without_end_takes_no_memory(acme: Customer, imap: bool) -> None:
    with peer(endless_imap if imap else endless_pop3) as port:
        source: Source = Imap(target(port)) if imap else Pop3(target(port))
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        progress = run(source, acme.mailbox, replace(SETTINGS, limit=10_000_000))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert told(progress)[0].endswith("it is too large")
    assert peak - before < 4_000_000 + (40_000_000 if imap else 0)  # the peer's own octets
