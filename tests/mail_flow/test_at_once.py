"""What changes for a mailbox holds at once, also for its open sessions: they end, and remove nothing."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from django.contrib.auth.hashers import make_password
from django.db import transaction

from accounts import app_passwords, notices, provisioning
from accounts.models import AuditEvent, Mailbox, User
from mailstore import presence, sessions
from mailstore.models import MaildropSession, Message
from tests.fixtures import PASSWORD, Customer
from tests.mailstore import post
from tests.servers import eventually
from tests.system import Pop3, Pop3Listener, System, elapsed, holder

AT_ONCE = 5.0
"""Seconds: on a busy machine, where nothing but a notice would tell for minutes."""


def change(mailbox: Mailbox, **values: object) -> None:
    """As provisioning does it: the change and its notice in one transaction."""
    with transaction.atomic():
        Mailbox.objects.filter(pk=mailbox.pk).update(**values)
        notices.mailboxes_changed([mailbox.pk])


def suspend(mailbox: Mailbox) -> None:
    change(mailbox, state=Mailbox.State.SUSPENDED, state_reason="Hóa đơn\n chưa thanh toán")


def change_password(mailbox: Mailbox) -> None:
    with transaction.atomic():
        provisioning.set_password(mailbox.user, "another one")
        notices.mailboxes_changed([mailbox.pk])


def end_session(mailbox: Mailbox) -> None:
    assert sessions.end(MaildropSession.objects.filter(mailbox=mailbox)) == 1


def rename(mailbox: Mailbox) -> None:
    change(mailbox, address=f"renamed-{mailbox.address}")


CHANGES: dict[Callable[[Mailbox], object], bytes] = {
    suspend: b"-ERR [SYS/PERM] nothing is removed, since this mailbox cannot be used any more: Hoa don chua thanh toan",
    change_password: b"-ERR [AUTH] the password is not valid any more, nothing is removed",
    end_session: b"-ERR [SYS/TEMP] the session was ended, nothing is removed",
    rename: b"-ERR [SYS/PERM] nothing is removed, since this mailbox cannot be used any more",
    lambda mailbox: change(mailbox, state="no-login"): b"-ERR [SYS/PERM] nothing is removed, since",
    lambda mailbox: change(mailbox, pop3_enabled=False): b"-ERR [SYS/PERM] nothing is removed, since",
    lambda mailbox: change(mailbox, allowed_networks=["192.0.2.0/24"]): b"-ERR [SYS/PERM] nothing is removed, since",
    provisioning.close_mailbox: b"-ERR [SYS/PERM] nothing is removed, since",
}


@contextmanager
def marked(listener: Pop3Listener, mailbox: Mailbox) -> Iterator[Pop3]:
    """A session that has fetched one message of two, and marked it."""
    post.fill(mailbox, [post.text("one"), post.text("two")])
    with listener.session(mailbox) as client:
        client.retrieve(1)
        assert client.ask(b"DELE 1").startswith(b"+OK")
        yield client


def ends(mailbox: Mailbox) -> list[str]:
    return list(MaildropSession.objects.filter(mailbox=mailbox).values_list("end", flat=True))


@pytest.mark.parametrize("change", CHANGES)
def test_an_idle_session_ends(
    pop3: Pop3Listener, acme: Customer, globex: Customer, change: Callable[[Mailbox], object]
) -> None:
    """Another tenant's stays."""
    with marked(pop3, acme.mailbox) as client, marked(pop3, globex.mailbox) as theirs:
        began = time.monotonic()
        change(acme.mailbox)
        if change is provisioning.close_mailbox:
            notices.mailboxes_changed([acme.mailbox.pk])
        assert client.rest().startswith(CHANGES[change])
        assert elapsed(began) < AT_ONCE
        assert theirs.ask(b"QUIT").startswith(b"+OK")
    eventually(lambda: ends(acme.mailbox) == ["ended"])
    assert Message.objects.in_maildrop(acme.mailbox).count() == 2
    assert Message.objects.in_maildrop(globex.mailbox).count() == 1


def test_a_revoked_app_password_ends_the_sessions_of_its_device(
    pop3: Pop3Listener, acme: Customer, globex: Customer
) -> None:
    """And no others."""
    phone, text = app_passwords.create(acme.mailbox, name="phone")
    post.fill(acme.mailbox, [post.text("one"), post.text("two")])
    with pop3.client() as client, marked(pop3, globex.mailbox) as theirs:
        assert client.log_in(acme.mailbox, text).startswith(b"+OK")
        assert client.ask(b"DELE 1").startswith(b"+OK")
        tablet, _ = app_passwords.create(acme.mailbox, name="tablet")
        app_passwords.revoke(tablet)
        app_passwords.change(phone, name="old phone")
        change_password(acme.mailbox)
        time.sleep(0.3)
        assert client.ask(b"NOOP") == b"+OK"
        began = time.monotonic()
        app_passwords.revoke(phone)
        assert client.rest().startswith(b"-ERR [AUTH] the password is not valid any more")
        assert elapsed(began) < AT_ONCE
        assert theirs.ask(b"QUIT").startswith(b"+OK")
    with pop3.client() as again:
        assert again.log_in(acme.mailbox, text) == b"-ERR [AUTH] wrong name or password"
    assert MaildropSession.objects.get(mailbox=acme.mailbox).app_password_id == phone.pk
    assert Message.objects.in_maildrop(acme.mailbox).count() == 2
    assert Message.objects.in_maildrop(globex.mailbox).count() == 1


def test_what_concerns_no_session_ends_none(pop3: Pop3Listener, acme: Customer) -> None:
    with marked(pop3, acme.mailbox) as client:
        change(acme.mailbox, state="no-receive")
        change(acme.mailbox, allowed_networks=["127.0.0.0/8"])
        notices.mailboxes_changed(range(1, 2000))
        assert client.ask(b"NOOP") == b"+OK"
        assert client.ask(b"QUIT").startswith(b"+OK")
    assert Message.objects.in_maildrop(acme.mailbox).count() == 1


def test_a_session_ends_in_the_middle_of_a_large_message(pop3: Pop3Listener, acme: Customer) -> None:
    """Its client reads nothing; its maildrop is free all the same."""
    post.fill(acme.mailbox, [post.text("large", body="all work and no play\r\n" * 1_500_000)])
    with pop3.session(acme.mailbox) as client:
        client.send(b"DELE 1\r\nRSET\r\nRETR 1\r\n")
        client.taste(100_000)
        began = time.monotonic()
        change_password(acme.mailbox)
        with pop3.client() as again:
            while not again.log_in(acme.mailbox, "another one").startswith(b"+OK"):
                assert elapsed(began) < AT_ONCE
            assert again.ask(b"STAT").startswith(b"+OK 1 ")
        with pytest.raises(ConnectionError):
            client.octets()
    assert "ended" in ends(acme.mailbox)


def test_the_sessions_of_all_processes_end(system: System, pop3: Pop3Listener) -> None:
    """Also many at once, by a notice that names none."""
    acme = system.customer("many", mailboxes=12)
    mailboxes = list(Mailbox.objects.filter(tenant=acme.tenant))
    with system.pop3() as another:
        clients = [listener.open(mailbox) for mailbox, listener in zip(mailboxes, [pop3, another] * 7, strict=False)]
        assert len({holder(mailbox) for mailbox in mailboxes}) >= 2
        with transaction.atomic():
            Mailbox.objects.filter(tenant=acme.tenant).exclude(pk=acme.mailbox.pk).update(state="suspended")
            notices.mailboxes_changed(range(10_000_000, 10_002_000))
        for mailbox, client in zip(mailboxes, clients, strict=True):
            if mailbox == acme.mailbox:
                assert client.ask(b"NOOP") == b"+OK"
            else:
                assert client.rest().startswith(b"-ERR [SYS/PERM]")
            client.socket.close()


def test_a_notice_that_came_while_the_connection_was_lost_is_made_up_for(
    pop3: Pop3Listener, acme: Customer, globex: Customer, system: System
) -> None:
    """PostgreSQL keeps none for who is away."""
    with marked(pop3, acme.mailbox) as client, marked(pop3, globex.mailbox) as theirs:
        Mailbox.objects.filter(pk=acme.mailbox.pk).update(state="suspended")
        assert client.ask(b"NOOP") == b"+OK"  # nobody has told
        listener = MaildropSession.objects.get(mailbox=acme.mailbox, ended_at=None).listener_id
        with psycopg.connect(system.servers.urls.postgres, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks"
                " WHERE locktype = 'advisory' AND (classid, objid) = (%s, %s)",
                (presence.LOCK_SPACE, listener),
            )
        assert client.rest().startswith(b"-ERR [SYS/PERM]")
        assert theirs.ask(b"QUIT").startswith(b"+OK")
    assert Message.objects.in_maildrop(acme.mailbox).count() == 2


def test_quit_removes_nothing_although_no_notice_came(pop3: Pop3Listener, acme: Customer, globex: Customer) -> None:
    """The statement that removes asks itself."""
    with marked(pop3, acme.mailbox) as client:
        Mailbox.objects.filter(pk=acme.mailbox.pk).update(state="no-login")
        assert client.ask(b"QUIT").startswith(b"-ERR [SYS/PERM]")
    with marked(pop3, globex.mailbox) as client:
        User.objects.filter(pk=globex.mailbox.user_id).update(password=make_password("another one"))
        assert client.ask(b"QUIT").startswith(b"-ERR [SYS/PERM]")
    assert Message.objects.in_maildrop(acme.mailbox).count() == 2
    assert Message.objects.in_maildrop(globex.mailbox).count() == 2


def test_the_session_of_a_dead_listener_can_be_ended(system: System, acme: Customer) -> None:
    post.fill(acme.mailbox, [post.text("one")])
    with system.pop3() as listener, listener.session(acme.mailbox):
        os.kill(listener.process.pid, signal.SIGKILL)
        listener.process.wait()
        end_session(acme.mailbox)
        assert sessions.end(MaildropSession.objects.filter(mailbox=acme.mailbox)) == 0
    assert ends(acme.mailbox) == ["ended"]
    event = AuditEvent.objects.get(mailbox_id=acme.mailbox.pk, action="session.ended")
    assert event.tenant_id == acme.tenant.pk


def test_a_frozen_session_that_was_ended_removes_nothing(system: System, acme: Customer) -> None:
    with system.pop3(MAILHOST_WORKERS="1") as listener, marked(listener, acme.mailbox) as client:
        worker = holder(acme.mailbox)
        os.kill(worker, signal.SIGSTOP)
        try:
            end_session(acme.mailbox)
            client.send(b"QUIT\r\n")
        finally:
            os.kill(worker, signal.SIGCONT)
        assert client.line().startswith(b"-ERR [SYS/TEMP]")
    assert Message.objects.in_maildrop(acme.mailbox).count() == 2


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("active", b"+OK maildrop has 0 messages (0 octets)"),
        ("no-receive", b"+OK maildrop has 0 messages (0 octets)"),
        ("no-login", b"-ERR [SYS/PERM] this mailbox cannot be used over POP3: Da nghi viec (?)"),
        ("suspended", b"-ERR [SYS/PERM] this mailbox cannot be used over POP3: Da nghi viec (?)"),
    ],
)
def test_who_may_log_in_and_why_not(pop3: Pop3Listener, acme: Customer, state: str, told: bytes) -> None:
    """The reason is for whoever knows the password, and has no letters that no client expects."""
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(state=state, state_reason="Đã nghỉ\r\n+OK việc (💩)")
    with pop3.client() as client:
        assert client.log_in(acme.mailbox, "wrong") == b"-ERR [AUTH] wrong name or password"
        assert client.log_in(acme.mailbox, PASSWORD) == told.replace(b"nghi viec", b"nghi +OK viec")
