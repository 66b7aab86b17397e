"""The dialogues of RFC 1939 and of the README, on a wire."""

import re
import socket

import pytest

from accounts import provisioning
from mailstore.models import Message
from tests.fixtures import PASSWORD, Customer
from tests.mailstore import post
from tests.system import Pop3, Pop3Listener, System


def test_the_dialogue_works_as_typed(system: System) -> None:
    """Lower case, a bare name, and lines that end as a terminal ends them."""
    tenant, _ = provisioning.add_tenant("typed")
    domain, _ = provisioning.add_domain("typed.test", tenant=tenant)
    mailbox, _ = provisioning.add_mailbox(f"an@{domain}", password=PASSWORD, quota_octets=None)
    first, second = (message.octets for message in post.fill(mailbox, [post.text("one"), post.text("number two")]))
    with system.pop3(MAILHOST_DEFAULT_DOMAIN=str(domain)) as listener, Pop3.to(listener.address) as client:

        def ask(line: bytes) -> bytes:
            client.send(line + b"\n")
            return client.line()

        assert client.line() == b"+OK POP3 server ready"
        assert ask(b"user an").startswith(b"+OK")
        assert ask(b"pass hutech123").startswith(b"+OK")
        assert ask(b"stat") == b"+OK 2 %d" % (first + second)
        assert ask(b"list").startswith(b"+OK 2 messages")
        assert [client.line() for _ in range(3)] == [b"1 %d" % first, b"2 %d" % second, b"."]
        client.send(b"retr 1\n")
        message = client.body()
        assert len(message) == first
        assert message.endswith(post.text("one"))
        assert ask(b"dele 1").startswith(b"+OK")
        assert ask(b"list").startswith(b"+OK 1 message")
        assert [client.line() for _ in range(2)] == [b"2 %d" % second, b"."]
        assert ask(b"retr 1").startswith(b"-ERR")
        assert ask(b"quit").startswith(b"+OK POP3 server signing off")
        assert client.rest() == b""
    assert [message.subject for message in Message.objects.in_maildrop(mailbox)] == ["number two"]


def test_quit_without_logging_in_ends_it(pop3: Pop3Listener) -> None:
    with pop3.client() as client:
        assert client.ask(b"quit").startswith(b"+OK POP3 server signing off")
        assert client.rest() == b""


@pytest.mark.parametrize("tls", [False, True])
def test_everything_can_be_asked_at_once(pop3: Pop3Listener, acme: Customer, tls: bool) -> None:
    """A whole session in one packet: what stands behind PASS waits for it."""
    post.fill(acme.mailbox, [post.text("one"), post.text("two")])
    with pop3.client(tls=tls) as client:
        client.send(f"USER {acme.mailbox}\r\nPASS {PASSWORD}\r\nUIDL\r\nTOP 2 0\r\nDELE 1\r\nSTAT\r\nQUIT\r\n".encode())
        replies = client.rest()
    assert [reply[:3] for reply in replies.split(b"\r\n") if reply[:1] in (b"+", b"-")] == [b"+OK"] * 7
    assert replies.endswith(b"\r\n")
    assert [message.subject for message in Message.objects.in_maildrop(acme.mailbox)] == ["two"]


def test_mail_that_arrives_in_a_session_is_for_the_next(pop3: Pop3Listener, acme: Customer) -> None:
    post.fill(acme.mailbox, [post.text("old")])
    with pop3.session(acme.mailbox) as client:
        post.fill(acme.mailbox, [post.text("new")])
        assert client.ask(b"RSET").startswith(b"+OK")
        assert len(client.sizes()) == 1
        client.ask(b"DELE 1")
        assert client.ask(b"QUIT").startswith(b"+OK")
    with pop3.session(acme.mailbox) as client:
        assert b"Subject: new" in client.retrieve(1)


@pytest.mark.parametrize("end", ["fin", "reset", "half a QUIT"])
def test_without_quit_nothing_is_removed_and_the_maildrop_is_free(pop3: Pop3Listener, acme: Customer, end: str) -> None:
    post.fill(acme.mailbox, [post.text("one"), post.text("two")])
    with pop3.session(acme.mailbox) as client:
        client.retrieve(1)
        assert client.ask(b"DELE 1").startswith(b"+OK")
        if end == "half a QUIT":
            client.send(b"QUIT")
        elif end == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with pop3.open(acme.mailbox, within=5) as again:
        assert len(again.sizes()) == 2


def test_the_owner_may_write_the_address_in_any_case(pop3: Pop3Listener, acme: Customer) -> None:
    with pop3.client() as client:
        assert client.log_in(f"AN@{str(acme.domain).upper()}").startswith(b"+OK")


def test_capa_tells_the_truth_before_and_after_tls(pop3: Pop3Listener) -> None:
    with pop3.client() as client:
        in_clear = client.many(b"CAPA")
        assert {b"TOP", b"UIDL", b"PIPELINING", b"RESP-CODES", b"AUTH-RESP-CODE", b"STLS", b"USER"} <= set(in_clear)
        assert client.ask(b"STLS").startswith(b"+OK")
        client.secure()
        secured = client.many(b"CAPA")
        assert b"STLS" not in secured
        assert any(re.fullmatch(rb"SASL .*PLAIN.*", line) for line in secured)


def test_what_came_in_clear_behind_stls_is_never_executed(pop3: Pop3Listener) -> None:
    """CVE-2011-0411 and its many children."""
    with pop3.client() as client:
        client.send(b"STLS\r\nCAPA\r\nUSER an@acme.test\r\n")
        assert client.line().startswith(b"+OK")
        client.secure()
        assert client.ask(b"NOOP").startswith(b"-ERR")  # one reply, to this; a USER in clear is forgotten
        assert client.ask(b"PASS hutech123").startswith(b"-ERR")
