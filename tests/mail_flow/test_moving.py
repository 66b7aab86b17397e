"""A domain changes hands between running listeners: each message is one tenant's, and none is lost."""

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from django.db import connection

from accounts import provisioning
from accounts.models import Mailbox
from mailstore import drift, moving
from mailstore.delivery import CHUNK_OCTETS
from mailstore.models import MaildropSession, Message
from mailstore.moving import Busy
from tests.fixtures import PASSWORD, Customer
from tests.mailstore import post
from tests.servers import eventually
from tests.system import LmtpListener, Pop3Listener

LARGE = "x" * 70 + "\r\n" + ".\r\n" * (CHUNK_OCTETS // 2)


def test_an_open_session_ends_at_once(pop3: Pop3Listener, acme: Customer, globex: Customer) -> None:
    post.fill(acme.mailbox, [post.text("one"), post.text("two")])
    with pop3.session(acme.mailbox) as client:
        assert client.ask(b"DELE 1").startswith(b"+OK")
        began = time.monotonic()
        moving.move_domain(acme.domain, to=globex.tenant)
        with pytest.raises((AssertionError, ConnectionError)):
            while True:
                assert client.ask(b"NOOP").startswith(b"+OK")
                assert time.monotonic() < began + 10
                time.sleep(0.02)
        assert time.monotonic() < began + 5
    [session] = MaildropSession.objects.filter(mailbox=acme.mailbox)
    assert (session.end, session.tenant) == ("ended", globex.tenant)
    with pop3.session(acme.mailbox) as client:
        assert client.ask(b"STAT").startswith(b"+OK 2 ")


def test_mail_that_comes_and_goes_meanwhile_is_one_tenants(
    pop3: Pop3Listener, lmtp: LmtpListener, acme: Customer, globex: Customer
) -> None:
    """Also what has recipients of both, and what is too large to come in one statement."""
    chi, _ = provisioning.add_mailbox(f"chi@{acme.domain}", password=PASSWORD, quota_octets=None)
    stays, _ = provisioning.add_domain(f"stays.{acme.domain}", tenant=acme.tenant)
    binh, _ = provisioning.add_mailbox(f"binh@{stays}", password=None, quota_octets=None)
    until = Event()
    queue_ids = itertools.count()

    def deliver(body: str, *to: Mailbox) -> dict[Mailbox, list[str]]:
        """As an MTA does: what is put off comes again, until it is taken."""
        sent: dict[Mailbox, list[str]] = {mailbox: [] for mailbox in to}
        while not until.is_set():
            subject = f"{acme.domain} {next(queue_ids)}"
            message = post.text(subject, body=body, queue_id=subject)
            left = list(to)
            while left:
                replies = lmtp.deliver(message, *left)
                assert all(reply.startswith((b"250", b"45", b"42")) for reply in replies), replies
                left = [mailbox for mailbox, reply in zip(left, replies, strict=True) if not reply.startswith(b"250")]
            for mailbox in to:
                sent[mailbox].append(subject)
        return sent

    def poll() -> int:
        """Look into a mailbox, and now and then remove what is in it."""
        removed = 0
        while not until.is_set():
            with pop3.client() as client:
                try:
                    told = client.log_in(acme.mailbox)
                    if not told.startswith(b"+OK"):
                        assert told.startswith((b"-ERR [SYS/TEMP]", b"-ERR [IN-USE]")), told
                        continue
                    marked = client.ask(b"DELE 1").startswith(b"+OK")
                    done = client.ask(b"QUIT").startswith(b"+OK")
                except (AssertionError, ConnectionError):
                    continue  # the domain moved, and the session ended
                removed += marked and done
        return removed

    def run(function: Callable[[], dict[Mailbox, list[str]] | int]) -> dict[Mailbox, list[str]] | int:
        try:
            return function()
        finally:
            connection.close()

    moves = 0
    with ThreadPoolExecutor(6) as threads:
        senders = [
            threads.submit(run, lambda: deliver("small\r\n", acme.mailbox)),
            threads.submit(run, lambda: deliver("small\r\n", acme.mailbox, chi, binh, globex.mailbox)),
            threads.submit(run, lambda: deliver(LARGE, chi, binh)),
            threads.submit(run, lambda: deliver(LARGE, acme.mailbox, chi, globex.mailbox)),
        ]
        polls = threads.submit(run, poll)
        try:
            deadline = time.monotonic() + 12
            while time.monotonic() < deadline:
                try:
                    moving.move_domain(acme.domain, to=globex.tenant if moves % 2 == 0 else acme.tenant)
                    moves += 1
                except Busy:
                    continue
                time.sleep(0.1)
        finally:
            until.set()
        sent: dict[Mailbox, list[str]] = {}
        for sender in senders:
            found = sender.result(60)
            assert isinstance(found, dict)
            for mailbox, subjects in found.items():
                sent.setdefault(mailbox, []).extend(subjects)
        removed = polls.result(60)

    print(f"{moves} moves, {sum(map(len, sent.values()))} copies, {removed} removed")
    assert moves > 5
    acme.domain.refresh_from_db()
    for mailbox, subjects in sent.items():
        found_there = Message.objects.filter(mailbox=mailbox).values_list("subject", flat=True)
        assert sorted(found_there) == sorted(subjects)
    eventually(lambda: not MaildropSession.objects.filter(mailbox=acme.mailbox, ended_at=None).exists())
    mailboxes = (acme.mailbox, chi)
    assert set(Message.objects.filter(mailbox__in=mailboxes).values_list("tenant", flat=True)) == {
        acme.domain.tenant_id
    }
    assert Message.objects.filter(mailbox=acme.mailbox).exclude(expunged_at=None).count() == removed
    assert list(drift.find()) == []
