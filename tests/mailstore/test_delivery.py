"""Deliveries: each copy is its own decision, stored once, whole, and counted, whatever happens beside it."""

import asyncio
import hashlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import TypeVar

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections

from accounts import provisioning
from accounts.database_roles import LISTENER
from accounts.models import Mailbox
from mailstore import database, drift, retention
from mailstore.database import Unavailable
from mailstore.delivery import (
    CHUNK_OCTETS,
    Box,
    Deliveries,
    Outcome,
    OverQuota,
    Recipient,
    Suspended,
    UnknownDomain,
    UnknownMailbox,
)
from mailstore.models import Content, ContentChunk, DeliveryLedger, Message
from mailstore.spool import Spool
from tests.fixtures import Customer
from tests.mailstore import post

pytestmark = pytest.mark.django_db(transaction=True)

STORED, ALREADY = Outcome.STORED, Outcome.ALREADY
SENDER = "binh@elsewhere.test"
RECEIVED = b"Received: from a by b with LMTP id 1;\r\n\tMon, 23 Nov 2026 09:00:00 +0000\r\n"
TRACE = len("Return-Path: <binh@elsewhere.test>\r\nDelivered-To: an@acme.test\r\n") + len(RECEIVED)
T = TypeVar("T")


def orm(function: Callable[[], T]) -> Awaitable[T]:
    """What the models say, asked from a test that runs in an event loop."""
    return sync_to_async(function)()


def execute(statement: str) -> Awaitable[None]:
    """Have the database do it, as its owner."""

    def work() -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    return orm(work)


@pytest.fixture(autouse=True)
async def nothing_drifts(transactional_db: None) -> AsyncIterator[None]:
    yield
    assert await orm(lambda: list(drift.find())) == []
    await orm(connections.close_all)


@pytest.fixture
async def deliveries(transactional_db: None) -> AsyncIterator[Deliveries]:
    deliveries = Deliveries(
        connections=8, subaddress="+", default_domain="acme.test", forward_key=b"key", role=LISTENER
    )
    await deliveries.start()
    yield deliveries
    await deliveries.stop()


async def deliver(
    deliveries: Deliveries, message: bytes, *to: Mailbox | str, reverse_path: str = SENDER
) -> list[Outcome]:
    """Deliver as the LMTP listener does."""
    with Spool() as spool:
        spool.write(message)
        spool.finish()
        recipients = [
            await deliveries.find(str(one), reverse_path=reverse_path, octets=None)
            if isinstance(one, str)
            else Recipient(str(one), (Box(one.pk),))
            for one in to
        ]
        return await deliveries.deliver(spool, reverse_path=reverse_path, recipients=recipients, received=RECEIVED)


def at(customer: Customer) -> Recipient:
    """The customer's own mailbox, as it is found."""
    box = customer.mailbox
    return Recipient(box.address, (Box(box.pk, box.domain_id),))


async def add(customer: Customer, *local_parts: str, quota_octets: int | None = None) -> list[Mailbox]:
    return await orm(lambda: [customer.add(name, quota_octets=quota_octets) for name in local_parts])


async def maildrop(mailbox: Mailbox) -> list[Message]:
    return await orm(lambda: list(Message.objects.in_maildrop(mailbox).select_related("content").order_by("uid")))


def octets_of(message: Message) -> bytes:
    body = message.content.body
    if body is None:
        body = b"".join(bytes(chunk.octets) for chunk in message.content.chunks.order_by("number"))
    return bytes(message.trace) + bytes(body)


class Holder:
    """Another transaction that holds a mailbox."""

    def __init__(self, *mailboxes: Mailbox) -> None:
        self._mailboxes = [mailbox.pk for mailbox in mailboxes]

    async def __aenter__(self) -> None:
        self._connection = await psycopg.AsyncConnection.connect(database.conninfo())
        await self._connection.execute(
            "SELECT FROM accounts_mailbox WHERE id = ANY (%s) FOR NO KEY UPDATE", [self._mailboxes]
        )

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()


@pytest.fixture
def fault(transactional_db: None) -> Iterator[Callable[..., None]]:
    """Have PostgreSQL raise something whenever a message for this mailbox is written."""

    def begin(mailbox: Mailbox, raising: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"""
                CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    IF NEW.mailbox_id = {mailbox.pk} THEN RAISE EXCEPTION {raising}; END IF;
                    RETURN NEW;
                END $$;
                CREATE TRIGGER fault BEFORE INSERT ON mailstore_message FOR EACH ROW EXECUTE FUNCTION fault();
            """)

    yield begin
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION IF EXISTS fault CASCADE")


# What is stored


async def test_a_message_is_stored_as_it_came_with_its_trace_before_it(deliveries: Deliveries, acme: Customer) -> None:
    message = (
        b"Subject: =?utf-8?q?H=E1=BB=8Dp?=\r\nFrom: Binh <binh@elsewhere.test>\r\nMessage-ID: <1@x>\r\n"
        b"Date: Mon, 23 Nov 2026 10:00:00 +0100\r\n\r\n.dot\r\n\x00\xff bare \r here\r\n"
    )
    assert await deliver(deliveries, message, "an+tag@ACME.test") == [STORED]
    [stored] = await maildrop(acme.mailbox)
    trace = b"Return-Path: <binh@elsewhere.test>\r\nDelivered-To: an+tag@acme.test\r\n" + RECEIVED
    assert bytes(stored.trace) == trace
    assert octets_of(stored) == trace + message
    assert stored.octets == len(trace + message)
    assert (stored.uid, stored.epoch, stored.reverse_path) == (1, 1, SENDER)
    assert (stored.subject, stored.sender, stored.message_id) == ("Họp", "Binh <binh@elsewhere.test>", "<1@x>")
    assert stored.date
    assert stored.date.isoformat() == "2026-11-23T09:00:00+00:00"
    content = stored.content
    assert (content.octets, content.header_octets) == (len(message), message.index(b"\r\n\r\n") + 4)
    assert content.has_dot_lines
    await acme.mailbox.arefresh_from_db()
    assert (acme.mailbox.used_octets, acme.mailbox.message_count, acme.mailbox.next_uid) == (stored.octets, 1, 2)
    ledger = await DeliveryLedger.objects.aget()
    assert (ledger.mailbox_id, ledger.reverse_path, ledger.tenant_id) == (acme.mailbox.pk, SENDER, acme.tenant.pk)


async def test_a_message_of_nothing_is_one(deliveries: Deliveries, acme: Customer) -> None:
    assert await deliver(deliveries, b"", acme.mailbox, reverse_path="") == [STORED]
    [stored] = await maildrop(acme.mailbox)
    assert octets_of(stored) == b"Return-Path: <>\r\nDelivered-To: an@acme.test\r\n" + RECEIVED


@pytest.mark.parametrize("octets", [CHUNK_OCTETS, CHUNK_OCTETS + 1, 2 * CHUNK_OCTETS, 3_000_000])
async def test_large_contents_lie_in_chunks(deliveries: Deliveries, acme: Customer, octets: int) -> None:
    message = b"Subject: large\r\n\r\n" + random.Random(octets).randbytes(octets).translate(None, b"\r\n")
    message = message[: octets - 2].ljust(octets - 2, b"x") + b"\r\n"
    assert await deliver(deliveries, message, acme.mailbox) == [STORED]
    [stored] = await maildrop(acme.mailbox)
    assert (await orm(partial(octets_of, stored))).removeprefix(bytes(stored.trace)) == message
    chunks = await orm(lambda: list(ContentChunk.objects.order_by("number")))
    assert (stored.content.body is None) == bool(chunks) == (octets > CHUNK_OCTETS)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert {len(chunk.octets) for chunk in chunks[:-1]} <= {CHUNK_OCTETS}
    assert {chunk.tenant_id for chunk in chunks} <= {acme.tenant.pk}


@pytest.mark.parametrize("octets", [100, 600_000])
async def test_a_content_is_stored_once_for_each_tenant(
    deliveries: Deliveries, acme: Customer, globex: Customer, octets: int
) -> None:
    [binh] = await add(acme, "binh")
    message = post.text("for all").ljust(octets - 2, b"x") + b"\r\n"
    assert await deliver(deliveries, message, acme.mailbox, globex.mailbox, binh) == [STORED] * 3
    by_tenant = {content.tenant_id: content async for content in Content.objects.all()}
    assert by_tenant.keys() == {acme.tenant.pk, globex.tenant.pk}
    for mailbox in (acme.mailbox, globex.mailbox, binh):
        [stored] = await maildrop(mailbox)
        assert stored.content == by_tenant[mailbox.tenant_id]
        assert (await orm(partial(octets_of, stored))).endswith(message)
        assert f"Delivered-To: {mailbox}\r\n".encode() in bytes(stored.trace)


async def test_two_addresses_of_one_mailbox_are_one_copy(deliveries: Deliveries, acme: Customer) -> None:
    await orm(lambda: provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox))
    outcomes = await deliver(deliveries, post.text(), "sales@acme.test", "an@acme.test", "sales+x@acme.test")
    assert outcomes == [STORED] * 3
    [stored] = await maildrop(acme.mailbox)
    assert b"Delivered-To: sales@acme.test\r\n" in bytes(stored.trace)


# Who gets it


@pytest.mark.parametrize(
    "asked", ["an@acme.test", "AN@Acme.TEST", "an+bills@acme.test", "an+@acme.test", "an@acme.test."]
)
async def test_a_mailbox_is_found(deliveries: Deliveries, acme: Customer, asked: str) -> None:
    found = await deliveries.find(asked, reverse_path=SENDER, octets=None)
    assert [box.mailbox_id for box in found.boxes] == [acme.mailbox.pk]
    assert found.address == asked.lower().removesuffix(".")


@pytest.mark.parametrize(
    "asked", ["nobody@acme.test", "an-x@acme.test", "+an@acme.test", "@acme.test", '"a b"@acme.test']
)
async def test_a_mailbox_is_not_found(deliveries: Deliveries, acme: Customer, asked: str) -> None:
    with pytest.raises(UnknownMailbox):
        await deliveries.find(asked, reverse_path=SENDER, octets=None)


@pytest.mark.parametrize("asked", ["an@nowhere.test", "an@sub.acme.test", "an", "an@", "", "an@-.test", "an@ſ.test"])
async def test_a_domain_is_not_found(deliveries: Deliveries, acme: Customer, asked: str) -> None:
    with pytest.raises(UnknownDomain):
        await deliveries.find(asked, reverse_path=SENDER, octets=None)


async def test_the_whole_address_comes_before_its_base_and_a_mailbox_before_an_alias(
    deliveries: Deliveries, acme: Customer
) -> None:
    tagged, binh, chi = await add(acme, "an+vip", "binh", "chi")
    await orm(lambda: provisioning.add_alias("binh+x@acme.test", mailbox=chi))
    found = await deliveries.find_all(
        ["an+vip@acme.test", "an+other@acme.test", "binh+x@acme.test", "binh+y@acme.test", "chi+z@acme.test"],
        reverse_path=SENDER,
        octets=None,
    )
    assert [isinstance(one, Recipient) and one.boxes[0].mailbox_id for one in found] == [
        tagged.pk, acme.mailbox.pk, chi.pk, binh.pk, chi.pk,
    ]  # fmt: skip


async def test_without_separator_there_are_no_subaddresses(acme: Customer, transactional_db: None) -> None:
    deliveries = Deliveries(connections=1, subaddress="", default_domain="acme.test")
    await deliveries.start()
    with pytest.raises(UnknownMailbox):
        await deliveries.find("an+bills@acme.test", reverse_path=SENDER, octets=None)
    await deliveries.stop()


async def test_postmaster_reaches_the_tenants_admin_mailbox_unless_there_is_one(
    deliveries: Deliveries, acme: Customer, globex: Customer
) -> None:
    names = ["postmaster", "PostMaster@acme.test", "postmaster+x@acme.test", "postmaster@globex.test"]

    async def found() -> list[int | None]:
        answers = await deliveries.find_all(names, reverse_path="", octets=None)
        return [one.boxes[0].mailbox_id if isinstance(one, Recipient) else None for one in answers]

    assert await found() == [None] * 4
    [boss] = await add(acme, "boss")
    await orm(lambda: provisioning.change_tenant(acme.tenant, name="x", retention=None, admin_mailbox=boss))
    assert await found() == [boss.pk, boss.pk, boss.pk, None]
    [own] = await add(acme, "postmaster")
    assert await found() == [own.pk, own.pk, own.pk, None]
    await orm(lambda: provisioning.close_mailbox(boss))
    await orm(lambda: provisioning.close_mailbox(own))
    assert await found() == [None] * 4


async def test_many_are_looked_up_at_once_each_with_its_own_answer(
    deliveries: Deliveries, acme: Customer, globex: Customer
) -> None:
    [suspended], [full] = await add(acme, "suspended"), await add(acme, "full", quota_octets=10)
    [closed] = await add(acme, "closed")
    await orm(lambda: provisioning.suspend(suspended))
    await orm(lambda: provisioning.close_mailbox(closed))
    asked = [
        "an@nowhere.test",
        "an@globex.test",
        "x@é@",
        suspended.address,
        "x@acme.test",
        full.address,
        "an@acme.test",
    ]
    found = await deliveries.find_all([*asked, closed.address, "an@acme.test"], reverse_path="", octets=100)
    assert [one if isinstance(one, Recipient) else type(one) for one in found] == [
        UnknownDomain,
        at(globex),
        UnknownDomain,
        Suspended,
        UnknownMailbox,
        OverQuota,
        at(acme),
        UnknownMailbox,
        at(acme),
    ]
    assert await deliveries.find_all([], reverse_path="", octets=None) == []


async def test_an_alias_of_a_closed_mailbox_delivers_nothing(deliveries: Deliveries, acme: Customer) -> None:
    await orm(lambda: provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox))
    await orm(lambda: provisioning.close_mailbox(acme.mailbox))
    with pytest.raises(UnknownMailbox):
        await deliveries.find("sales@acme.test", reverse_path=SENDER, octets=None)


# Who does not


async def test_each_copy_is_its_own_decision(deliveries: Deliveries, acme: Customer, globex: Customer) -> None:
    suspended, full, closed = await add(acme, "suspended", "full", "closed", quota_octets=300)
    await orm(lambda: provisioning.suspend(suspended))
    await orm(lambda: provisioning.close_mailbox(closed))
    gone = Recipient("purged@acme.test", (Box(10**12),))
    for octets in (400, 400_000):
        message = post.text().ljust(octets, b"x")
        with Spool() as spool:
            spool.write(message)
            spool.finish()
            recipients = [
                Recipient(str(box), (Box(box.pk),)) for box in (full, acme.mailbox, closed, suspended, globex.mailbox)
            ]
            outcomes = await deliveries.deliver(
                spool, reverse_path=SENDER, recipients=[gone, *recipients, gone], received=RECEIVED
            )
        assert outcomes == [
            Outcome.GONE, Outcome.OVER_QUOTA, STORED, Outcome.GONE, Outcome.SUSPENDED, STORED, Outcome.GONE,
        ]  # fmt: skip
    assert await Message.objects.acount() == 4


async def test_what_nobody_takes_leaves_nothing_behind(deliveries: Deliveries, acme: Customer) -> None:
    [full] = await add(acme, "full", quota_octets=10)
    for octets in (400, 400_000):
        assert await deliver(deliveries, post.text().ljust(octets, b"x"), full) == [Outcome.OVER_QUOTA]
    for model in (Content, ContentChunk, Message, DeliveryLedger):
        assert await model.objects.acount() == 0


async def test_the_quota_is_filled_to_the_last_octet(deliveries: Deliveries, acme: Customer) -> None:
    message = post.text()
    quota = TRACE + len("x") + len(message)  # the address is one letter longer
    [box] = await add(acme, "anx", quota_octets=2 * quota)
    for outcome in (STORED, STORED, Outcome.OVER_QUOTA):
        assert await deliver(deliveries, message, box) == [outcome]
    with pytest.raises(OverQuota):
        await deliveries.find("anx@acme.test", reverse_path="other@elsewhere.test", octets=None)
    await orm(lambda: retention.expunge(Message.objects.in_maildrop(box)[:1], by=None))
    with pytest.raises(OverQuota):
        await deliveries.find("anx@acme.test", reverse_path="other@elsewhere.test", octets=quota + 1)
    assert await deliver(deliveries, message, "anx@acme.test") == [STORED]


# The ledger


@pytest.mark.parametrize("octets", [300, 600_000])
async def test_a_retry_stores_nothing_again(deliveries: Deliveries, acme: Customer, octets: int) -> None:
    message = post.text(queue_id="A1").ljust(octets, b"x")
    assert await deliver(deliveries, message, acme.mailbox) == [STORED]
    for _ in range(5):
        assert await deliver(deliveries, message, acme.mailbox) == [ALREADY]
    assert len(await maildrop(acme.mailbox)) == await Content.objects.acount() == 1


@pytest.mark.parametrize("octets", [300, 600_000])
async def test_of_retries_at_the_same_time_one_is_stored(deliveries: Deliveries, acme: Customer, octets: int) -> None:
    another = Deliveries(connections=8, subaddress="+", default_domain="acme.test")
    await another.start()
    [binh] = await add(acme, "binh")
    for number in range(15):
        message = post.text(queue_id=f"Q{number}").ljust(octets, b"x")
        told = await asyncio.gather(
            *(deliver(process, message, acme.mailbox, binh) for process in (deliveries, another) for _ in range(3))
        )
        for outcomes in zip(*told, strict=True):
            assert sorted(outcomes) == [ALREADY] * 5 + [STORED]
    await another.stop()
    assert len(await maildrop(acme.mailbox)) == len(await maildrop(binh)) == 15


async def test_of_retries_that_fill_the_quota_none_is_refused(deliveries: Deliveries, acme: Customer) -> None:
    message = post.text(queue_id="A1")
    for number in range(20):
        [box] = await add(acme, f"box{number}", quota_octets=len(message) + 250)
        told = await asyncio.gather(*(deliver(deliveries, message, box) for _ in range(4)))
        assert sorted(outcome for [outcome] in told) == [ALREADY] * 3 + [STORED]


async def test_a_retry_is_known_whatever_came_since(deliveries: Deliveries, acme: Customer) -> None:
    message = post.text(queue_id="A1")
    [box] = await add(acme, "box", quota_octets=len(message) + 250)
    assert await deliver(deliveries, message, box) == [STORED]
    found = await deliveries.find("box@acme.test", reverse_path=SENDER, octets=len(message))  # not refused: it is full
    assert [box.mailbox_id for box in found.boxes] == [box.pk]
    assert await deliver(deliveries, message, box) == [ALREADY]
    await orm(lambda: retention.expunge(Message.objects.in_maildrop(box), by=None))
    assert await deliver(deliveries, message, box) == [ALREADY]
    await orm(lambda: provisioning.suspend(box))
    assert await deliver(deliveries, message, box) == [ALREADY]
    await orm(lambda: provisioning.close_mailbox(box))
    assert await deliver(deliveries, message, box) == [ALREADY]
    assert await maildrop(box) == []


async def test_a_retry_for_some_is_stored_for_the_others(deliveries: Deliveries, acme: Customer) -> None:
    [binh] = await add(acme, "binh")
    for octets in (300, 600_000):
        message = post.text(queue_id=f"A{octets}").ljust(octets, b"x")
        assert await deliver(deliveries, message, acme.mailbox) == [STORED]
        assert await deliver(deliveries, message, acme.mailbox, binh) == [ALREADY, STORED]


async def test_equal_octets_without_an_mtas_trace_are_two_messages(deliveries: Deliveries, acme: Customer) -> None:
    for _ in range(2):
        assert await deliver(deliveries, post.text(), acme.mailbox) == [STORED]


async def test_two_mails_of_one_text_both_arrive(deliveries: Deliveries, acme: Customer) -> None:
    for queue_id, sender in (("A1", SENDER), ("A2", SENDER), ("A1", "chi@elsewhere.test")):
        assert await deliver(deliveries, post.text(queue_id=queue_id), acme.mailbox, reverse_path=sender) == [STORED]


async def test_the_digest_is_of_reverse_path_and_octets(deliveries: Deliveries, acme: Customer) -> None:
    """Who changes it has every message that is queued at that moment stored twice."""
    message = post.text(queue_id="A1")
    assert await deliver(deliveries, message, acme.mailbox) == [STORED]
    ledger = await DeliveryLedger.objects.aget()
    digest = hashlib.sha256(SENDER.encode() + b"\0" + hashlib.sha256(message).digest()).digest()
    assert bytes(ledger.digest) == digest


# At the same time


async def test_of_many_at_once_as_many_are_stored_as_fit(deliveries: Deliveries, acme: Customer) -> None:
    another = Deliveries(connections=8, subaddress="+", default_domain="acme.test")
    await another.start()
    size = len(post.text("00")) + TRACE + 1
    [box] = await add(acme, "anx", quota_octets=10 * size)
    told = await asyncio.gather(*(deliver((deliveries, another)[n % 2], post.text(f"{n:02}"), box) for n in range(50)))
    await another.stop()
    assert sorted(outcome for [outcome] in told) == [Outcome.OVER_QUOTA] * 40 + [STORED] * 10
    stored = await maildrop(box)
    await box.arefresh_from_db()
    assert sum(message.octets for message in stored) == box.used_octets == 10 * size
    assert [message.uid for message in stored] == list(range(1, 11))


async def test_mailboxes_in_all_orders_never_wait_for_each_other(deliveries: Deliveries, acme: Customer) -> None:
    boxes = [acme.mailbox, *await add(acme, "binh", "chi", "dung")]
    orders = list(itertools.permutations(boxes)) * 2
    told = await asyncio.gather(*(deliver(deliveries, post.text(str(n)), *order) for n, order in enumerate(orders)))
    assert told == [[STORED] * 4] * len(orders)
    for box in boxes:
        assert [message.uid for message in await maildrop(box)] == list(range(1, len(orders) + 1))


@pytest.mark.parametrize("octets", [300, 600_000])
async def test_a_locked_mailbox_delays_nobody_else(
    deliveries: Deliveries, acme: Customer, globex: Customer, octets: int
) -> None:
    [chi] = await add(acme, "chi")
    message = post.text(queue_id="A1").ljust(octets, b"x")

    def letter(number: int) -> bytes:
        return post.text(str(number)).ljust(octets, b"x")

    async with Holder(acme.mailbox):
        began = time.monotonic()
        waiting = [
            asyncio.create_task(deliver(deliveries, message, chi, acme.mailbox, globex.mailbox)),
            *(asyncio.create_task(deliver(deliveries, letter(n), acme.mailbox)) for n in range(12)),
        ]
        await asyncio.sleep(0.3)
        assert await deliver(deliveries, letter(12), chi, globex.mailbox) == [STORED] * 2
        assert not any(one.done() for one in waiting)
        assert len(await maildrop(chi)) == 2  # the copies of those that can be stored are, at once
        told, *others = await asyncio.gather(*waiting)
        assert told == [STORED, Outcome.FAILED, STORED]
        assert others == [[Outcome.FAILED]] * 12
        assert time.monotonic() - began < 20  # not each after the other
    assert await deliver(deliveries, message, acme.mailbox) == [STORED]
    assert [message.subject for message in await maildrop(acme.mailbox)] == ["hello"]


async def test_a_mailbox_that_is_free_again_gets_its_copy_of_the_same_content(
    deliveries: Deliveries, acme: Customer
) -> None:
    boxes = [acme.mailbox, *await add(acme, "binh", "chi", "dung")]
    async with Holder(*boxes[1:3]):
        delivery = asyncio.create_task(deliver(deliveries, post.text().ljust(600_000, b"x"), *boxes))
        await asyncio.sleep(0.3)
    assert await delivery == [STORED] * 4
    assert await Content.objects.acount() == 1


# Faults


@pytest.mark.parametrize("octets", [300, 600_000])
async def test_a_fault_with_one_copy_is_that_copys_alone(
    deliveries: Deliveries,
    acme: Customer,
    globex: Customer,
    fault: Callable[..., None],
    octets: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    [binh] = await add(acme, "binh")
    await orm(lambda: fault(acme.mailbox, r"E'broken\r\n250 forged'"))
    message = post.text(queue_id="A1").ljust(octets, b"x")
    told = await deliver(deliveries, message, binh, acme.mailbox, globex.mailbox)
    assert told == [STORED, Outcome.FAILED, STORED]
    assert await Content.objects.acount() == 2
    assert caplog.messages
    assert not any("\n" in line or "\r" in line for line in caplog.messages)
    await execute("DROP FUNCTION fault CASCADE")
    assert await deliver(deliveries, message, binh, acme.mailbox) == [ALREADY, STORED]


@pytest.mark.parametrize("sqlstate", ["disk_full", "out_of_memory"])
async def test_a_full_store_says_so_and_stores_nothing(
    deliveries: Deliveries, acme: Customer, fault: Callable[..., None], sqlstate: str
) -> None:
    [binh] = await add(acme, "binh")
    await orm(lambda: fault(acme.mailbox, f"SQLSTATE '{ {'disk_full': '53100', 'out_of_memory': '53200'}[sqlstate] }'"))
    for octets in (300, 600_000):
        told = await deliver(deliveries, post.text().ljust(octets, b"x"), binh, acme.mailbox)
        assert told == [Outcome.NO_SPACE] * 2
    assert await Message.objects.acount() == await Content.objects.acount() == 0


async def test_a_store_that_only_reads_defers(acme: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    options = connections["default"].settings_dict["OPTIONS"]
    monkeypatch.setitem(options, "options", "-c default_transaction_read_only=on")
    reading = Deliveries(connections=2, subaddress="+", default_domain="acme.test")
    await reading.start()
    assert await deliver(reading, post.text(), acme.mailbox) == [Outcome.FAILED]
    await reading.stop()


async def test_a_slow_disk_does_not_keep_large_messages_out(acme: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LIMITS", "-c statement_timeout=200ms")
    await execute("""
        CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.03); RETURN NEW; END $$;
        CREATE TRIGGER fault BEFORE INSERT ON mailstore_contentchunk FOR EACH ROW EXECUTE FUNCTION fault();
    """)
    impatient = Deliveries(connections=1, subaddress="+", default_domain="acme.test")
    await impatient.start()
    try:
        assert await deliver(impatient, b"x" * 3_000_000, acme.mailbox) == [STORED]
    finally:
        await impatient.stop()
        await execute("DROP FUNCTION fault CASCADE")


async def test_a_connection_that_is_lost_is_replaced_and_stores_nothing_twice(
    acme: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    [binh] = await add(acme, "binh")
    monkeypatch.setitem(connections["default"].settings_dict["OPTIONS"], "application_name", "to be cut")
    deliveries = Deliveries(connections=4, subaddress="+", default_domain="acme.test")
    await deliveries.start()
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'to be cut'"
    for number in range(20):
        message = post.text(queue_id=f"Q{number}").ljust(600_000 if number % 4 == 0 else 0, b"x")
        delivering = asyncio.create_task(deliver(deliveries, message, acme.mailbox, binh))
        await asyncio.sleep(number / 1000)
        await execute(cut)
        while Outcome.FAILED in (outcomes := await delivering):  # two losses are too many
            delivering = asyncio.create_task(deliver(deliveries, message, acme.mailbox, binh))
        assert set(outcomes) <= {STORED, ALREADY}
    await deliveries.stop()
    assert len(await maildrop(acme.mailbox)) == len(await maildrop(binh)) == 20


async def test_a_database_that_is_away_defers(acme: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "HOST", "/nowhere")
    monkeypatch.setattr(database, "_PATIENCE", 0.3)
    away = Deliveries(connections=2, subaddress="+", default_domain="acme.test")
    await away.start()
    with pytest.raises(Unavailable):
        await away.find("an@acme.test", reverse_path="", octets=None)
    assert await deliver(away, post.text(), acme.mailbox) == [Outcome.FAILED]
    await away.stop()
    monkeypatch.undo()
