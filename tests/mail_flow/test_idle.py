"""Autologout: who says nothing is logged out without a word, and nothing is removed (RFC 1939 section 3)."""

import time

from accounts.models import Mailbox
from mailstore.models import Message
from tests.fixtures import Customer
from tests.mailstore import post
from tests.system import System


def test_an_idle_session_is_closed_without_a_word_and_removes_nothing(system: System, acme: Customer) -> None:
    post.fill(acme.mailbox, [post.text()])
    with system.pop3(MAILHOST_POP3_IDLE="2s") as listener, listener.client() as client:
        assert client.log_in(acme.mailbox).startswith(b"+OK")
        assert client.ask(b"DELE 1").startswith(b"+OK")
        assert client.rest() == b""
        with listener.session(acme.mailbox) as again:  # the maildrop is free
            assert len(again.sizes()) == 1
    assert Message.objects.in_maildrop(acme.mailbox).count() == 1
    assert Mailbox.objects.get(pk=acme.mailbox.pk).message_count == 1


def test_who_goes_on_talking_stays(system: System, acme: Customer) -> None:
    with system.pop3(MAILHOST_POP3_IDLE="3s") as listener, listener.client() as client:
        assert client.log_in(acme.mailbox).startswith(b"+OK")
        for _ in range(4):
            time.sleep(1.0)
            assert client.ask(b"NOOP").startswith(b"+OK")
