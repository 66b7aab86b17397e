"""SIGTERM: no new connections, running replies finish, idle sessions are told, and nothing is removed without QUIT."""

import os
import signal

from accounts.models import Mailbox
from mailstore.models import MaildropSession, Message
from tests.fixtures import Customer
from tests.mailhost.lineserver.running import refuses
from tests.mailstore import post
from tests.servers import eventually
from tests.system import System, add_mailbox, holder


def test_a_listener_drains(system: System, acme: Customer) -> None:
    large = post.text("large", body="all work and no play\r\n" * 300_000)
    reader = add_mailbox(acme, "reader")
    post.fill(acme.mailbox, [post.text("one"), post.text("two")])
    post.fill(reader, [large])
    with system.pop3() as listener, listener.session(reader) as reading:
        with listener.client() as stranger, listener.client(tls=True) as idle:
            assert idle.log_in(acme.mailbox).startswith(b"+OK")
            idle.retrieve(1)
            assert idle.ask(b"DELE 1").startswith(b"+OK")
            reading.send(b"DELE 1\r\nRSET\r\nRETR 1\r\n")
            assert [reading.line()[:3] for _ in range(3)] == [b"+OK"] * 3
            listener.process.send_signal(signal.SIGTERM)
            assert stranger.rest().startswith(b"-ERR [SYS/TEMP]")
            assert idle.rest().startswith(b"-ERR [SYS/TEMP]")
        eventually(lambda: refuses(listener.address))  # by each worker, on its own socket
        assert listener.process.poll() is None  # somebody is still being served
        assert reading.octets().endswith(large)
        assert reading.rest().startswith(b"-ERR [SYS/TEMP]")
        assert listener.process.wait(10) == 0
    assert Message.objects.in_maildrop(acme.mailbox).count() == 2
    assert Message.objects.in_maildrop(reader).count() == 1
    ends = MaildropSession.objects.filter(mailbox__in=(acme.mailbox, reader)).values_list("end", flat=True)
    assert set(ends) == {"dropped"}


def test_a_quit_that_is_under_way_is_carried_out(system: System) -> None:
    """Whatever each client was told is what became of its messages."""
    crowd = 12
    acme = system.customer("leaving", mailboxes=crowd)
    mailboxes = list(Mailbox.objects.filter(tenant=acme.tenant).exclude(pk=acme.mailbox.pk))
    for mailbox in mailboxes:
        post.fill(mailbox, [post.text("one")])
    with system.pop3() as listener:
        sessions = {mailbox: listener.open(mailbox) for mailbox in mailboxes}
        for session in sessions.values():
            session.ask(b"DELE 1")
        for number, session in enumerate(sessions.values()):
            session.send(b"QUIT\r\n")
            if number == crowd // 2:
                listener.process.send_signal(signal.SIGTERM)
        said = {mailbox: session.rest() for mailbox, session in sessions.items()}
        for session in sessions.values():
            session.socket.close()
        assert listener.process.wait(10) == 0
    for mailbox, reply in said.items():
        left = Message.objects.in_maildrop(mailbox).count()
        assert (reply.startswith(b"+OK"), left) in {(True, 0), (False, 1)}, (reply, left)
    assert any(reply.startswith(b"+OK") for reply in said.values())


def test_a_worker_that_is_told_to_end_is_replaced(system: System, acme: Customer) -> None:
    with system.pop3() as listener, listener.session(acme.mailbox) as session:
        first = holder(acme.mailbox)
        os.kill(first, signal.SIGTERM)
        assert session.rest().startswith(b"-ERR [SYS/TEMP]")
        eventually(lambda: first not in listener.workers() and len(listener.workers()) == 2)
        with listener.open(acme.mailbox) as again:
            assert again.ask(b"NOOP").startswith(b"+OK")


def test_the_lmtp_listener_takes_what_is_being_sent_and_turns_others_away(system: System, acme: Customer) -> None:
    message = post.text("sent", body="line\r\n" * 1000, queue_id="sent1")
    with system.lmtp() as listener, listener.client() as idle, listener.client() as sending:
        sending.told(b"MAIL FROM:<binh@elsewhere.test>")
        sending.told(f"RCPT TO:<{acme.mailbox}>".encode())
        sending.told(b"DATA")
        sending.send(message[:1000])
        listener.process.send_signal(signal.SIGTERM)
        assert idle.reply().startswith(b"421 4.3.2")
        assert idle.rest() == b""
        sending.send(message[1000:] + b".\r\n")
        assert sending.reply().startswith(b"250 2.1.5")
        assert sending.reply().startswith(b"421 4.3.2")
        assert listener.process.wait(10) == 0
    assert [each.subject for each in Message.objects.in_maildrop(acme.mailbox)] == ["sent"]
