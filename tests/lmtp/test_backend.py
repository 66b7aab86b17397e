"""The LMTP listener on real sockets and a real store: what it answers is what was done."""

import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from django.db import connection

from accounts import provisioning
from accounts.models import Mailbox
from lmtp import replies
from lmtp.backend import received
from lmtp.session import Config, Store
from mailhost.lineserver import Peer
from mailstore import database, drift, retention
from mailstore.models import Content, Message, Refusal
from tests.fixtures import Customer
from tests.lmtp.listener import TERMS, Listener
from tests.mailhost.lineserver.running import eventually, short_directory
from tests.mailstore import post
from tests.system import Lmtp, stuffed

pytestmark = pytest.mark.django_db(transaction=True)

DELIVERED = b"250 2.1.5 Delivered"
BEFORE = b"250 2.1.5 Delivered before"
RECIPIENT_OK = b"250 2.1.5 Recipient ok"


@pytest.fixture(autouse=True)
def nothing_drifts(transactional_db: None) -> Iterator[None]:
    yield
    assert list(drift.find()) == []


@pytest.fixture
def listener(transactional_db: None) -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture
def client(listener: Listener) -> Iterator[Lmtp]:
    with listener.client() as client:
        yield client


def maildrop(mailbox: Mailbox) -> list[Message]:
    return list(Message.objects.in_maildrop(mailbox).select_related("content").order_by("uid"))


def octets_of(message: Message) -> bytes:
    """The message as it was sent, without our trace."""
    body = message.content.body
    return (
        bytes(body)
        if body is not None
        else b"".join(bytes(chunk.octets) for chunk in message.content.chunks.order_by("number"))
    )


def letter(*to: object, message: bytes, mail: str = "MAIL FROM:<binh@elsewhere.test>") -> bytes:
    """A whole transaction, written in one go as MTAs do up to DATA; the message behind it."""
    return "".join([f"{mail}\r\n", *(f"RCPT TO:<{one}>\r\n" for one in to), "DATA\r\n"]).encode() + stuffed(message)


def talk(client: Lmtp, octets: bytes, *, count: int) -> list[bytes]:
    client.send(octets)
    return [client.reply() for _ in range(count)]


# Mail comes in


def test_mail_is_stored_as_it_was_sent(listener: Listener, acme: Customer) -> None:
    message = b".Subject: dots\r\n\r\n.\r\n..\r\n.x\r\nbare \r and \x00 and \xff\r\n\r\n.\r\n"
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert listener.deliver(message, acme.mailbox) == [DELIVERED]
    [stored] = maildrop(acme.mailbox)
    assert octets_of(stored) == message
    trace = bytes(stored.trace).decode()
    written = re.fullmatch(
        r"Return-Path: <binh@elsewhere\.test>\r\n"
        r"Delivered-To: an@acme\.test\r\n"
        r"Received: from mta\.elsewhere\.test \(\[127\.0\.0\.1\]\)\r\n"
        r"\tby mail\.acme\.test with LMTP id [0-9a-f]{16};\r\n"
        r"\t([^\r\n]+)\r\n",
        trace,
    )
    assert written, trace
    assert before <= parsedate_to_datetime(written[1]) <= datetime.now(UTC)
    assert stored.octets == len(trace) + len(message)


def test_each_message_has_an_id_of_its_own(listener: Listener, acme: Customer) -> None:
    for number in range(3):
        assert listener.deliver(post.text(str(number)), acme.mailbox) == [DELIVERED]
    assert len({bytes(message.trace) for message in maildrop(acme.mailbox)}) == 3


def test_everything_can_be_said_at_once_and_its_recipients_are_looked_up_at_once(
    listener: Listener, client: Lmtp, acme: Customer
) -> None:
    names = [str(acme.add(f"box{number}")) for number in range(9)] + ["nobody@acme.test"]
    octets = letter(*names, message=post.text("one")) + letter("an@acme.test", message=post.text("two")) + b"QUIT\r\n"
    told = talk(client, octets, count=26)
    assert told == [
        b"250 2.1.0 Sender ok",
        *[RECIPIENT_OK] * 9,
        b"550 5.1.1 No such mailbox",
        replies.SEND_DATA.rstrip(),
        *[DELIVERED] * 9,
        b"250 2.1.0 Sender ok",
        RECIPIENT_OK,
        replies.SEND_DATA.rstrip(),
        DELIVERED,
        b"221 2.0.0 Bye",
    ]
    assert client.rest() == b""
    assert listener.deliveries.asked == [names, ["an@acme.test"]]
    assert [message.subject for message in maildrop(acme.mailbox)] == ["two"]


def test_what_was_looked_up_is_forgotten_with_its_transaction(listener: Listener, client: Lmtp, acme: Customer) -> None:
    envelope = b"MAIL FROM:<>\r\nRCPT TO:<binh@acme.test>\r\nRCPT TO:<an@acme.test>\r\nRSET\r\n"
    assert talk(client, envelope, count=4)[1] == b"550 5.1.1 No such mailbox"
    acme.add("binh")
    assert talk(client, envelope, count=4)[1] == RECIPIENT_OK


def test_recipients_in_odd_spellings_are_recipients_too(client: Lmtp, acme: Customer, globex: Customer) -> None:
    odd = [
        b"rcpt to: <AN@Acme.test>  ",
        b'RCPT TO:<"an"@acme.test>',
        b"RCPT TO:<@relay.test:an+x@acme.test>",
        b"RCPT TO:<an@globex.test> NOTIFY=NEVER",
        b"RCPT TO:<an@globex.test>",
    ]
    told = talk(client, b"".join(line + b"\r\n" for line in [b"MAIL FROM:<>", *odd, b"DATA"]), count=7)
    assert [reply[:3] for reply in told] == [b"250", b"250", b"250", b"250", b"555", b"250", b"354"]
    assert talk(client, stuffed(post.text()), count=4) == [DELIVERED] * 4
    assert len(maildrop(acme.mailbox)) == len(maildrop(globex.mailbox)) == 1


def test_there_is_a_reply_for_each_recipient_in_the_order_of_rcpt(
    listener: Listener, acme: Customer, globex: Customer
) -> None:
    full = acme.add("full", quota_octets=100)
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    to = f"sales@acme.test {full} nobody@acme.test an@globex.test an@acme.test {full} an@nowhere.test an@acme.test"
    assert listener.deliver(post.text(), *to.split()) == [
        DELIVERED,
        b"552 5.2.2 Mailbox is full",
        b"550 5.1.1 No such mailbox",
        DELIVERED,
        DELIVERED,
        b"552 5.2.2 Mailbox is full",
        b"550 5.1.2 No such domain here",
        DELIVERED,
    ]
    assert len(maildrop(acme.mailbox)) == len(maildrop(globex.mailbox)) == 1
    assert Content.objects.count() == 2  # one for each tenant


def test_postmaster_needs_no_domain(listener: Listener, acme: Customer) -> None:
    assert listener.deliver(post.text(), "postmaster") == [b"550 5.1.1 No such mailbox"]
    provisioning.change_tenant(acme.tenant, name="x", retention=None, admin_mailbox=acme.mailbox)
    assert listener.deliver(post.text(), "PostMaster", "postmaster@acme.test") == [DELIVERED] * 2
    [stored] = maildrop(acme.mailbox)
    assert b"Delivered-To: postmaster@acme.test\r\n" in bytes(stored.trace)


def test_subaddresses_can_be_off(transactional_db: None, acme: Customer) -> None:
    with Listener(subaddress="") as listener:
        assert listener.deliver(post.text(), "an+bills@acme.test", "an@acme.test") == [
            b"550 5.1.1 No such mailbox",
            DELIVERED,
        ]


def test_eight_bits_and_utf8_pass_as_they_are(client: Lmtp, acme: Customer) -> None:
    message = "Subject: Họp nhóm\r\n\r\nChào An\r\n".encode() + b"\xff\xfe\r\n"
    mail = "MAIL FROM:<bình@thư.test> BODY=8BITMIME SMTPUTF8"
    assert talk(client, letter("an@acme.test", message=message, mail=mail), count=4)[-1] == DELIVERED
    [stored] = maildrop(acme.mailbox)
    assert octets_of(stored) == message
    assert stored.reverse_path == "bình@thư.test"
    assert stored.subject == "Họp nhóm"
    trace = bytes(stored.trace)
    assert trace.startswith("Return-Path: <bình@thư.test>\r\n".encode())
    assert b" with UTF8LMTP id " in trace


def test_a_domain_may_be_written_in_its_own_letters(client: Lmtp, acme: Customer) -> None:
    provisioning.add_domain("thư.test", tenant=acme.tenant)
    box, _ = provisioning.add_mailbox("an@thư.test", password=None, quota_octets=None)
    mail = "MAIL FROM:<> SMTPUTF8"
    assert talk(client, letter("An@Thư.test", "châu@thư.test", message=post.text(), mail=mail), count=5) == [
        b"250 2.1.0 Sender ok",
        RECIPIENT_OK,
        b"550 5.1.1 No such mailbox",
        replies.SEND_DATA.rstrip(),
        DELIVERED,
    ]
    assert len(maildrop(box)) == 1


def test_chunks_are_one_message(client: Lmtp, acme: Customer) -> None:
    content = random.Random(3).randbytes(900_000)
    content = re.sub(rb"\r?\n", b"\r\n", content) + b"\r\n.\r\nno end\r\n"
    cuts = [0, 1, 300, 300, 262_145, 800_001, len(content)]
    octets = b"MAIL FROM:<> BODY=8BITMIME\r\nRCPT TO:<an@acme.test>\r\n"
    for start, end in pairwise(cuts):
        octets += b"BDAT %d\r\n" % (end - start) + content[start:end]
    told = talk(client, octets + b"BDAT 0 LAST\r\nNOOP\r\n", count=10)
    assert told == [
        b"250 2.1.0 Sender ok",
        RECIPIENT_OK,
        *[b"250 2.0.0 Chunk received"] * 6,
        DELIVERED,
        b"250 2.0.0 Ok",
    ]
    [stored] = maildrop(acme.mailbox)
    assert octets_of(stored) == content


def test_a_last_chunk_of_nothing_is_a_message_of_nothing(client: Lmtp, acme: Customer) -> None:
    assert talk(client, b"MAIL FROM:<>\r\nRCPT TO:<an@acme.test>\r\nBDAT 0 LAST\r\n", count=3)[-1] == DELIVERED
    [stored] = maildrop(acme.mailbox)
    assert octets_of(stored) == b""
    assert talk(client, b"MAIL FROM:<>\r\nRCPT TO:<an@acme.test>\r\nBDAT 3\r\nabcRSET\r\nNOOP\r\n", count=5)[-1] == (
        b"250 2.0.0 Ok"
    )
    assert len(maildrop(acme.mailbox)) == 1


@pytest.mark.parametrize("end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n"])
def test_nothing_but_the_end_ends_a_message(client: Lmtp, acme: Customer, end: bytes) -> None:
    inner = b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<an@acme.test>\r\nDATA\r\nFrom: evil\r\n\r\nx"
    message = b"Subject: outer\r\n\r\nx" + end + inner + b"\r\n"
    envelope = b"MAIL FROM:<>\r\nRCPT TO:<an@acme.test>\r\nDATA\r\n"
    told = talk(client, envelope + message + b".\r\nNOOP\r\n", count=5)
    assert told[3:] == [DELIVERED, b"250 2.0.0 Ok"]
    [stored] = maildrop(acme.mailbox)
    assert stored.subject == "outer"


def test_it_does_not_matter_how_it_is_cut(listener: Listener, acme: Customer) -> None:
    message = b"Subject: cut\r\n\r\n..\r\n.x\r\nend\r\n"
    dialogue = letter("an@acme.test", message=message)
    for cut in range(1, len(dialogue)):
        with listener.client() as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.send(dialogue[:cut])
            time.sleep(0.001)
            assert talk(client, dialogue[cut:], count=4)[-1] == DELIVERED, cut
    assert {octets_of(stored) for stored in maildrop(acme.mailbox)} == {message}
    assert Message.objects.count() == len(dialogue) - 1


# Who gets none


def test_a_setting_says_what_a_suspended_or_full_mailbox_answers(transactional_db: None, acme: Customer) -> None:
    full = acme.add("full", quota_octets=0)
    provisioning.suspend(acme.mailbox)
    with Listener() as listener:
        assert listener.deliver(b"x", acme.mailbox, full) == [
            b"450 4.2.1 Mailbox is suspended, try again later",
            b"552 5.2.2 Mailbox is full",
        ]
    with Listener(replace(TERMS, suspended=replies.DISABLED, over_quota=replies.FULL_FOR_NOW)) as listener:
        assert listener.deliver(b"x", acme.mailbox, full) == [
            b"550 5.2.1 Mailbox is disabled",
            b"452 4.2.2 Mailbox is full, try again later",
        ]


def test_size_tells_at_rcpt_what_would_not_fit(client: Lmtp, acme: Customer) -> None:
    box = acme.add("box", quota_octets=1000)
    assert client.told(b"MAIL FROM:<> SIZE=1001") == b"250 2.1.0 Sender ok"
    assert client.told(f"RCPT TO:<{box}>".encode()) == b"552 5.2.2 Mailbox is full"
    assert client.told(b"RCPT TO:<an@acme.test>") == RECIPIENT_OK
    assert client.told(b"RSET")[:3] == b"250"
    assert client.told(b"MAIL FROM:<> SIZE=1000") == b"250 2.1.0 Sender ok"
    assert client.told(f"RCPT TO:<{box}>".encode()) == RECIPIENT_OK


def test_after_the_data_each_is_decided_again(client: Lmtp, acme: Customer) -> None:
    boxes = [acme.add(name, quota_octets=10_000) for name in ("stays", "suspended", "closed", "filled")]
    assert client.told(b"MAIL FROM:<>")[:3] == b"250"
    for box in boxes:
        assert client.told(f"RCPT TO:<{box}>".encode()) == RECIPIENT_OK
    assert client.told(b"DATA")[:3] == b"354"
    provisioning.suspend(boxes[1])
    provisioning.close_mailbox(boxes[2])
    post.fill(boxes[3], [post.text(body="x" * 9500)])
    assert talk(client, stuffed(post.text(body="x" * 500 + "\r\n")), count=4) == [
        DELIVERED,
        b"450 4.2.1 Mailbox is suspended, try again later",
        b"550 5.1.1 No such mailbox",
        b"552 5.2.2 Mailbox is full",
    ]


@pytest.mark.parametrize("announced", [True, False])
def test_a_message_beyond_the_limit_is_refused_and_the_connection_stays(acme: Customer, announced: bool) -> None:
    with (
        Listener(replace(TERMS, session=Config(host="mail.acme.test", message_limit=500_000))) as listener,
        listener.client() as client,
    ):
        too_large = b"552 5.3.4 Message is larger than this server takes"
        if announced:
            assert client.told(b"MAIL FROM:<> SIZE=500001") == too_large
        else:
            octets = letter("an@acme.test", "an@acme.test", message=b"x" * 500_000 + b"\r\n")
            assert talk(client, octets, count=6)[-2:] == [too_large] * 2
            chunks = b"MAIL FROM:<>\r\nRCPT TO:<an@acme.test>\r\n" + (b"BDAT 300000\r\n" + b"x" * 300_000) * 2
            told = talk(client, chunks + b"BDAT 1 LAST\r\nx", count=5)
            assert [reply[:3] for reply in told] == [b"250", b"250", b"250", b"552", b"552"]
        assert client.deliver(b"x" * 499_998 + b"\r\n", "an@acme.test") == [DELIVERED]
        [stored] = maildrop(acme.mailbox)
        assert stored.content.octets == 500_000
    noted = list(Refusal.objects.values_list("mailbox", "reason", "count", "sender_domain"))
    assert noted == ([] if announced else [(acme.mailbox.pk, "too large", 2, "")])


# Faults


def test_a_worker_without_room_for_spools_asks_to_come_again(listener: Listener, acme: Customer) -> None:
    room = listener.server.room
    memory, files = room.memory, room.files
    room.memory, room.files = 0, 1000
    with listener.client() as client:
        no_space = b"452 4.3.1 No space left here, try again later"
        assert client.deliver(b"x" * 1001 + b"\r\n", "an@acme.test") == [no_space]
        assert client.deliver(b"x" * 900 + b"\r\n", "an@acme.test") == [DELIVERED]
    assert (room.memory, room.files) == (0, 1000)
    room.memory, room.files = memory, files


def test_a_spool_that_cannot_be_written_defers(listener: Listener, acme: Customer) -> None:
    Path(listener.spools.name).rmdir()
    temporary = b"451 4.3.0 Temporary failure here, try again later"
    with listener.client() as client:
        assert client.deliver(b"x" * 500_000 + b"\r\n", "an@acme.test") == [temporary]
        Path(listener.spools.name).mkdir()
        assert client.deliver(b"x" * 500_000 + b"\r\n", "an@acme.test") == [DELIVERED]


@pytest.mark.parametrize(
    ("raising", "told"),
    [
        (r"E'broken\r\n250 forged'", b"451 4.3.0 Temporary failure here, try again later"),
        ("SQLSTATE '53100'", b"452 4.3.1 No space left here, try again later"),
    ],
)
def test_a_fault_of_the_store_is_told_in_constant_words(
    listener: Listener, acme: Customer, raising: str, told: bytes
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"""
            CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION {raising}; END $$;
            CREATE TRIGGER fault BEFORE INSERT ON mailstore_message FOR EACH ROW EXECUTE FUNCTION fault();
        """)
        try:
            assert listener.deliver(post.text(), acme.mailbox) == [told]
        finally:
            cursor.execute("DROP FUNCTION fault CASCADE")
    assert listener.deliver(post.text(), acme.mailbox) == [DELIVERED]


def test_a_locked_mailbox_delays_nobody_else(listener: Listener, acme: Customer, globex: Customer) -> None:
    with (
        psycopg.connect(database.conninfo()) as other,
        ThreadPoolExecutor() as threads,
        listener.client() as client,
    ):
        other.execute("SELECT FROM accounts_mailbox WHERE id = %s FOR NO KEY UPDATE", [acme.mailbox.pk])
        told = threads.submit(client.deliver, post.text(queue_id="A1"), globex.mailbox, acme.mailbox, globex.mailbox)
        time.sleep(0.2)
        assert listener.deliver(post.text(), globex.mailbox) == [DELIVERED]
        assert not told.done()
        assert told.result() == [DELIVERED, b"451 4.3.0 Temporary failure here, try again later", DELIVERED]
    assert listener.deliver(post.text(queue_id="A1"), acme.mailbox, globex.mailbox) == [DELIVERED, BEFORE]


# Clients that go away


def test_a_client_that_leaves_behind_the_dot_has_delivered(listener: Listener, acme: Customer) -> None:
    for number in range(100):
        envelope = letter("an@acme.test", message=post.text(str(number), queue_id=f"Q{number}"))
        listener.send_and_leave(b"LHLO me\r\n" + envelope)
    # Where the reset overtook the message, the MTA sends it again; where it did not, that is a retry.
    told = [listener.deliver(post.text(str(n), queue_id=f"Q{n}"), acme.mailbox)[0] for n in range(100)]
    assert set(told) <= {DELIVERED, BEFORE}
    assert BEFORE in told
    assert sorted(int(message.subject) for message in maildrop(acme.mailbox)) == list(range(100))


def test_a_message_that_breaks_off_is_none(listener: Listener, acme: Customer) -> None:
    for octets in (b"x" * 1000, b"x" * 1_000_000, b"x\r\n.", b"x\r\n.\r"):
        listener.send_and_leave(b"LHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<an@acme.test>\r\nDATA\r\n" + octets)
        listener.send_and_leave(
            b"LHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<an@acme.test>\r\nBDAT %d LAST\r\n" % (len(octets) + 1) + octets
        )
    eventually(lambda: not listener.connections._members)
    assert maildrop(acme.mailbox) == []


# Retries


def test_a_retry_is_answered_and_stores_nothing(listener: Listener, acme: Customer) -> None:
    message = post.text(queue_id="A1")
    with Lmtp.to(listener.address) as client:  # which is gone before it has read the answer
        client.send(b"LHLO me\r\n" + letter("an@acme.test", message=message))
        eventually(lambda: maildrop(acme.mailbox))
    for _ in range(5):
        assert listener.deliver(message, acme.mailbox) == [BEFORE]
    retention.expunge(Message.objects.in_maildrop(acme.mailbox), by=None)
    for _ in range(5):
        assert listener.deliver(message, acme.mailbox) == [BEFORE]
    assert maildrop(acme.mailbox) == []


def test_of_two_retries_at_the_same_time_one_is_stored(listener: Listener, acme: Customer) -> None:
    with listener.client() as one, listener.client() as other, ThreadPoolExecutor(2) as threads:
        for number in range(50):
            start = threading.Barrier(2)

            def send(client: Lmtp, number: int = number, start: threading.Barrier = start) -> bytes:
                client.send(letter("an@acme.test", message=b"")[:-3])
                [client.reply() for _ in range(3)]
                start.wait()
                client.send(stuffed(post.text(queue_id=f"Q{number}")))
                return client.reply()

            assert sorted(threads.map(send, (one, other))) == [DELIVERED, BEFORE]
    assert len(maildrop(acme.mailbox)) == 50


def test_a_retry_is_not_refused_because_its_copy_filled_the_mailbox(listener: Listener, acme: Customer) -> None:
    message = post.text(queue_id="A1", body="x" * 1000 + "\r\n")
    box = acme.add("box", quota_octets=len(message) + 300)
    for told in (DELIVERED, BEFORE):
        with listener.client() as client:
            mail = f"MAIL FROM:<binh@elsewhere.test> SIZE={len(message)}"
            assert talk(client, letter(box, message=message, mail=mail), count=4)[-1] == told
    with listener.client() as client:
        assert client.told(f"MAIL FROM:<chi@elsewhere.test> SIZE={len(message)}".encode())[:3] == b"250"
        assert client.told(f"RCPT TO:<{box}>".encode()) == b"552 5.2.2 Mailbox is full"


def test_equal_messages_that_no_mta_queued_all_arrive(listener: Listener, acme: Customer) -> None:
    assert [listener.deliver(post.text(), acme.mailbox) for _ in range(3)] == [[DELIVERED]] * 3
    assert len(maildrop(acme.mailbox)) == 3


# Many at once


def test_the_last_room_is_taken_once(listener: Listener, acme: Customer) -> None:
    box = acme.add("box")
    [first] = post.fill(box, [post.text("00")])
    assert listener.deliver(post.text("01"), box) == [DELIVERED]
    size = maildrop(box)[1].octets
    Mailbox.objects.filter(pk=box.pk).update(quota_octets=first.octets + 11 * size)
    with ThreadPoolExecutor(50) as threads:
        told = sorted(threads.map(lambda n: listener.deliver(post.text(f"{n:02}"), box)[0], range(50)))
    assert told == [DELIVERED] * 10 + [b"552 5.2.2 Mailbox is full"] * 40
    box.refresh_from_db()
    assert box.used_octets == sum(message.octets for message in maildrop(box)) == box.quota_octets


def test_twenty_connections_in_all_orders_wait_for_nobody(listener: Listener, acme: Customer) -> None:
    boxes = [acme.mailbox, *(acme.add(name) for name in ("binh", "chi"))]

    def send(number: int) -> None:
        order = random.Random(number)
        with listener.client() as client:
            for message in range(10):
                to = order.sample(boxes, 3)
                assert client.deliver(post.text(f"{number} {message}"), *to) == [DELIVERED] * 3

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(send, range(20)))
    for box in boxes:
        assert [message.uid for message in maildrop(box)] == list(range(1, 201))


# Time, and the end


def test_an_idle_client_is_told_so(transactional_db: None) -> None:
    with Listener(replace(TERMS, idle_seconds=0.3)) as listener, listener.client() as client:
        assert client.reply() == b"421 4.4.2 Nothing was said for too long"
        assert client.rest() == b""


def test_a_message_must_not_drip_for_ever(acme: Customer) -> None:
    terms = replace(TERMS, patience_seconds=0.5)
    with Listener(terms) as listener, listener.client() as client, listener.client() as other:
        other.send(letter("an@acme.test", message=post.text(body="x" * 10_000 + "\r\n"))[:9_000])
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<an@acme.test>\r\nDATA\r\n")
        [client.reply() for _ in range(3)]
        began = time.monotonic()
        with pytest.raises((ConnectionError, AssertionError)):
            while time.monotonic() < began + 10:
                client.send(b"x")
                time.sleep(0.02)
        assert client.rest() == b"421 4.4.2 Nothing was said for too long\r\n"
    assert maildrop(acme.mailbox) == []


def test_what_is_being_sent_is_taken_before_the_end(listener: Listener, acme: Customer) -> None:
    with listener.client() as idle, listener.client() as sending:
        octets = letter("an@acme.test", message=post.text(body="x" * 10_000 + "\r\n"))
        sending.send(octets[:5000])
        assert [sending.reply() for _ in range(3)][-1][:3] == b"354"
        listener.drain()
        assert idle.reply() == b"421 4.3.2 Shutting down, try again soon"
        sending.send(octets[5000:])
        assert [sending.reply(), sending.reply()] == [DELIVERED, b"421 4.3.2 Shutting down, try again soon"]
    assert len(maildrop(acme.mailbox)) == 1


# The trace


def store(client: str, *, smtputf8: bool = False) -> Store:
    return Store(client, "", (), smtputf8)


def test_the_trace_names_who_came() -> None:
    def line(address: str | None) -> bytes:
        peer = Peer(ip_address(address) if address else None, 1, False)
        return received(store("[192.0.2.1]"), peer=peer, host="mail").split(b"\r\n")[0]

    assert line("192.0.2.9") == b"Received: from [192.0.2.1] ([192.0.2.9])"
    assert line("2001:db8::9") == b"Received: from [192.0.2.1] ([IPv6:2001:db8::9])"
    assert line(None) == b"Received: from [192.0.2.1]"


@pytest.mark.parametrize("name", ["x y", "a\rb", "a\nb", "a;b", "a(b", "<a>", "ä", "a" * 256, "\0"])
def test_no_client_writes_into_the_trace(listener: Listener, name: str) -> None:
    with Lmtp.to(listener.address) as client:
        client.reply()
        client.send(b"LHLO " + name.encode() + b"\r\n")
        assert client.reply()[:1] == b"5"


def test_a_unix_socket_is_as_good(acme: Customer) -> None:
    with short_directory() as directory, Listener(path=f"{directory}/lmtp") as listener:
        assert listener.deliver(post.text(), acme.mailbox) == [DELIVERED]
    [stored] = maildrop(acme.mailbox)
    assert b"Received: from mta.elsewhere.test\r\n\tby mail.acme.test with LMTP" in bytes(stored.trace)
