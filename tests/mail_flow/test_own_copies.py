"""Devices with own copies beside the main password, over real sockets: each has its own view and its own lock."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from itertools import permutations
from threading import Barrier

import pytest
from django.db.models import Sum

from accounts import app_passwords, provisioning
from accounts.models import AppPassword, Mailbox
from mailstore import drift, retention
from mailstore.models import MaildropSession, Message
from tests.fixtures import PASSWORD, Customer
from tests.mailstore import post
from tests.servers import eventually
from tests.system import Pop3, Pop3Listener, System

OFFICE, PHONE, MAIN = "office", "phone", "main"
MARKS = {OFFICE: {1, 2, 4}, PHONE: {2, 3, 4}, MAIN: {4}}
"""Of four messages, which each of them removes."""


@pytest.fixture
def until_the_end() -> Iterator[ExitStack]:
    """What is entered is left when the test ends."""
    with ExitStack() as stack:
        yield stack


def device(mailbox: Mailbox, name: str) -> tuple[AppPassword, str]:
    return app_passwords.create(mailbox, name=name, own_copy=True)


def subjects(mailbox: Mailbox) -> set[int]:
    return {int(message.subject) for message in Message.objects.in_maildrop(mailbox)}


def seen(listener: Pop3Listener, mailbox: Mailbox, password: str) -> set[int]:
    """The subjects of the messages in somebody's view."""
    with listener.client() as client:
        assert client.log_in(mailbox, password).startswith(b"+OK")
        told = [client.many(b"TOP %d 0" % number) for number in range(1, len(client.sizes()) + 1)]
        assert client.ask(b"QUIT").startswith(b"+OK")
    return {int(line[9:]) for lines in told for line in lines if line.startswith(b"Subject: ")}


@pytest.mark.parametrize("order", list(permutations(MARKS)), ids="-".join)
def test_two_devices_and_the_main_password_in_every_order(
    pop3: Pop3Listener, acme: Customer, globex: Customer, until_the_end: ExitStack, order: tuple[str, ...]
) -> None:
    """All three at once; what is where after each QUIT follows from who has left."""
    mailbox = acme.mailbox
    for customer in (acme, globex):
        post.fill(customer.mailbox, [post.text(str(number)) for number in (1, 2, 3, 4)])
    passwords = {MAIN: PASSWORD, OFFICE: device(mailbox, "Office")[1], PHONE: device(mailbox, "Phone")[1]}
    clients: dict[str, Pop3] = {}
    for who, password in passwords.items():
        clients[who] = until_the_end.enter_context(pop3.client())
        assert clients[who].log_in(mailbox, password).startswith(b"+OK")
        assert len(clients[who].sizes()) == 4
        for number in MARKS[who]:
            assert clients[who].ask(b"DELE %d" % number).startswith(b"+OK")
    gone: set[int] = set()
    left: set[str] = set()
    for who in order:
        assert clients[who].ask(b"QUIT").startswith(b"+OK")
        left.add(who)
        gone |= MARKS[MAIN] if who == MAIN else set()
        gone |= MARKS[OFFICE] & MARKS[PHONE] if left >= {OFFICE, PHONE} else set()
        assert subjects(mailbox) == {1, 2, 3, 4} - gone
        for other in left:
            own = set() if other == MAIN else MARKS[other]
            assert seen(pop3, mailbox, passwords[other]) == {1, 2, 3, 4} - gone - own
    mailbox.refresh_from_db()
    there = Message.objects.in_maildrop(mailbox)
    octets = there.aggregate(sum=Sum("octets"))["sum"]
    assert (mailbox.message_count, mailbox.used_octets) == (there.count(), octets)
    assert subjects(globex.mailbox) == {1, 2, 3, 4}
    assert list(drift.find()) == []


def test_the_view_of_a_killed_listener_is_free_and_no_other_is_disturbed(system: System, acme: Customer) -> None:
    post.fill(acme.mailbox, [post.text(str(number)) for number in (1, 2)])
    (_, office), (_, phone) = device(acme.mailbox, "Office"), device(acme.mailbox, "Phone")
    with (
        system.pop3(MAILHOST_WORKERS="1") as killed,
        system.pop3(MAILHOST_WORKERS="1") as other,
        killed.client() as lost,
        other.client() as kept,
    ):
        assert lost.log_in(acme.mailbox, office).startswith(b"+OK")
        assert kept.log_in(acme.mailbox, phone).startswith(b"+OK")
        for client in (lost, kept):
            assert client.ask(b"DELE 1").startswith(b"+OK")
        with other.client() as client:
            assert client.log_in(acme.mailbox, office).startswith(b"-ERR [IN-USE]")
        os.kill(killed.workers()[0], signal.SIGKILL)
        assert lost.rest() == b""
        with other.open(acme.mailbox, within=10, password=office) as again:
            assert len(again.sizes()) == 2
            assert again.ask(b"DELE 2").startswith(b"+OK")
            assert again.ask(b"QUIT").startswith(b"+OK")
        with other.client() as client:
            assert client.log_in(acme.mailbox, phone).startswith(b"-ERR [IN-USE]")
        assert kept.ask(b"QUIT").startswith(b"+OK")
        assert (seen(other, acme.mailbox, office), seen(other, acme.mailbox, phone)) == ({1}, {2})
    assert subjects(acme.mailbox) == {1, 2}
    assert list(drift.find()) == []


def test_two_that_remove_the_last_at_once_expunge_it_once(pop3: Pop3Listener, acme: Customer) -> None:
    passwords = [device(acme.mailbox, name)[1] for name in ("Office", "Phone")]
    for _ in range(10):
        post.fill(acme.mailbox, [post.text("1"), post.text("2")])
        together = Barrier(2)

        def remove(password: str, together: Barrier = together) -> bytes:
            with pop3.client() as client:
                assert client.log_in(acme.mailbox, password).startswith(b"+OK")
                client.retrieve(1)
                client.ask(b"DELE 1")
                client.ask(b"DELE 2")
                together.wait()
                return client.ask(b"QUIT")

        with ThreadPoolExecutor(2) as threads:
            assert all(reply.startswith(b"+OK") for reply in threads.map(remove, passwords))
        acme.mailbox.refresh_from_db()
        assert (acme.mailbox.message_count, acme.mailbox.used_octets) == (0, 0)
    assert list(drift.find()) == []


def test_an_undone_session_brings_its_messages_back_under_unique_ids_never_told_before(
    pop3: Pop3Listener, acme: Customer
) -> None:
    post.fill(acme.mailbox, [post.text("1"), post.text("2")])
    (_, office), (_, phone) = device(acme.mailbox, "Office"), device(acme.mailbox, "Phone")
    told: set[bytes] = set()
    for _ in range(3):
        with pop3.client() as client:
            client.log_in(acme.mailbox, office)
            ids = client.unique_ids()
            assert told.isdisjoint({ids[0]})
            told.add(ids[0])
            assert client.retrieve(1).endswith(b"hello\r\n")
            client.ask(b"DELE 1")
            assert client.ask(b"QUIT").startswith(b"+OK")
        session = MaildropSession.objects.filter(mailbox=acme.mailbox).latest("started_at")
        retention.restore(retention.removed_in(session), by=None, undoing=session)
    with pop3.client() as client:
        client.log_in(acme.mailbox, phone)
        assert client.unique_ids()[0] in told
    assert len({len(unique_id.split(b".")) for unique_id in told}) == 2


def test_expire_is_what_the_mailbox_keeps(pop3: Pop3Listener, acme: Customer, globex: Customer) -> None:
    """RFC 2449 section 6.7: before login the shortest that anybody may have, after it the truth."""
    provisioning.change_tenant(acme.tenant, keep_time=timedelta(days=90))
    other = acme.add("other")
    provisioning.set_password(other.user, PASSWORD)
    provisioning.change_mailbox(other, keep_time=timedelta(days=7))
    expected = {acme.mailbox: b"EXPIRE 90", other: b"EXPIRE 7", globex.mailbox: b"EXPIRE NEVER"}

    def told(mailbox: Mailbox) -> list[bytes]:
        with pop3.client() as client:
            assert b"EXPIRE 1 USER" in client.many(b"CAPA")
            assert client.log_in(mailbox).startswith(b"+OK")
            return [line for line in client.many(b"CAPA") if line.startswith(b"EXPIRE")]

    for mailbox, line in expected.items():
        eventually(lambda mailbox=mailbox, line=line: told(mailbox) == [line])  # type: ignore[misc] # of this turn
