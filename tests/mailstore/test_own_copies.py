"""Devices with an own copy: what one removes is gone for that device only, until all have removed it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.utils import timezone

from accounts import app_passwords, provisioning
from accounts.models import AppPassword, AuditEvent, Mailbox
from mailstore import drift, life, purging, retention, search
from mailstore.life import Kind
from mailstore.maildrop import InUse, LockLost, Maildrop, Maildrops, Suspended, WrongPassword
from mailstore.models import MaildropSession, Message, OwnCopy
from mailstore.quota import QuotaExceeded
from tests.fixtures import PASSWORD, Customer
from tests.mailstore import post
from tests.mailstore.retain import KEEP
from tests.mailstore.test_maildrop import counters, maildrops_of_a_process, octets_of, open_, orm

pytestmark = pytest.mark.django_db(transaction=True)


class Device:
    """A device with an own copy, or one that only has a password of its own."""

    def __init__(self, mailbox: Mailbox, name: str, *, own_copy: bool = True) -> None:
        self.row, self.password = app_passwords.create(mailbox, name=name, own_copy=own_copy)

    async def session(self, maildrops: Maildrops, *, fetch: Iterable[int] = (), remove: Iterable[int] = ()) -> UUID:
        """Fetch and remove by message-numbers, and QUIT."""
        return await session(maildrops, self.password, fetch=fetch, remove=remove)

    async def sees(self, maildrops: Maildrops) -> list[str]:
        return await sees(maildrops, self.password)


async def session(
    maildrops: Maildrops,
    password: str = PASSWORD,
    *,
    name: str = "an",
    fetch: Iterable[int] = (),
    remove: Iterable[int] = (),
) -> UUID:
    maildrop = await open_(maildrops, name, password)
    await finish(maildrop, fetch=fetch, remove=remove)
    return maildrop.session


async def finish(maildrop: Maildrop, *, fetch: Iterable[int] = (), remove: Iterable[int] = ()) -> None:
    for number in fetch:
        await octets_of(maildrop, number)
        maildrop.fetched(number)
    await maildrop.close(expunge=set(remove), quit=True)


async def sees(maildrops: Maildrops, password: str = PASSWORD, *, name: str = "an") -> list[str]:
    """The unique-ids that a session lists."""
    maildrop = await open_(maildrops, name, password)
    listing = maildrop.listing
    await maildrop.close(quit=True)
    return [listing.unique_id(number) for number in range(1, len(listing.uids) + 1)]


@pytest.fixture
async def maildrops(transactional_db: None) -> AsyncIterator[Maildrops]:
    maildrops = maildrops_of_a_process()
    await maildrops.start()
    yield maildrops
    assert await orm(lambda: list(drift.find())) == []
    await maildrops.stop()
    await sync_to_async(connections.close_all)()


@pytest.fixture
def three(acme: Customer, transactional_db: None) -> list[Message]:
    return post.fill(acme.mailbox, [post.text(str(number)) for number in (1, 2, 3)])


@pytest.fixture
def office(acme: Customer, three: list[Message]) -> Device:
    return Device(acme.mailbox, "Outlook office")


@pytest.fixture
def phone(acme: Customer, three: list[Message]) -> Device:
    return Device(acme.mailbox, "Phone")


async def present(mailbox: Mailbox) -> list[str]:
    return await orm(lambda: [m.subject for m in Message.objects.in_maildrop(mailbox).order_by("uid")])


async def test_what_a_device_removes_is_gone_for_that_device_only(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    all_three = [message.unique_id for message in three]
    before = await counters(acme.mailbox)
    began = await office.session(maildrops, fetch=[1, 2], remove=[1, 2])
    assert await office.sees(maildrops) == all_three[2:]
    assert await phone.sees(maildrops) == all_three
    assert await sees(maildrops) == all_three
    assert await counters(acme.mailbox) == before

    row = await MaildropSession.objects.aget(pk=began)
    assert (row.end, row.fetched, row.expunged, row.view, row.own_copy) == ("quit", 2, 2, office.row.pk, True)
    first = await Message.objects.aget(pk=three[0].pk)
    assert (first.expunged_at, first.first_fetched_in_id) == (None, began)
    copy = await OwnCopy.objects.select_related("app_password").aget(message=first)
    assert (copy.app_password.name, copy.fetched_in_id, copy.removed_in_id) == ("Outlook office", began, began)
    assert copy.fetched_at
    assert copy.removed_at


async def test_what_all_of_them_removed_leaves_the_maildrop(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    await office.session(maildrops, remove=[1, 2])
    last = await phone.session(maildrops, fetch=[2, 3], remove=[2, 3])
    assert await present(acme.mailbox) == ["1", "3"]
    assert await counters(acme.mailbox) == (2, three[0].octets + three[2].octets)
    gone = await Message.objects.aget(pk=three[1].pk)
    assert gone.expunged_in_id == last
    assert await phone.sees(maildrops) == [three[0].unique_id]
    assert await office.sees(maildrops) == [three[2].unique_id]


async def test_the_main_password_keeps_its_classic_meaning(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    classic = await orm(lambda: Device(acme.mailbox, "classic", own_copy=False))
    await session(maildrops, remove=[1])
    await classic.session(maildrops, remove=[1])
    assert await office.sees(maildrops) == await phone.sees(maildrops) == [three[2].unique_id]
    assert await present(acme.mailbox) == ["3"]


async def test_a_lone_device_removes_for_good(
    maildrops: Maildrops, acme: Customer, office: Device, three: list[Message]
) -> None:
    await office.session(maildrops, remove=[2])
    assert await present(acme.mailbox) == ["1", "3"]


async def test_a_device_made_later_sees_all_that_is_there(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    await office.session(maildrops, remove=[1, 2])
    await phone.session(maildrops, remove=[1])
    later = await orm(lambda: Device(acme.mailbox, "later"))
    assert await later.sees(maildrops) == [three[1].unique_id, three[2].unique_id]
    await phone.session(maildrops, remove=[1])
    assert await present(acme.mailbox) == ["2", "3"]
    await later.session(maildrops, remove=[1])
    assert await present(acme.mailbox) == ["3"]


async def test_views_are_open_beside_each_other_and_each_only_once(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device
) -> None:
    opened = [await open_(maildrops, password=password) for password in (PASSWORD, office.password, phone.password)]
    for password in (PASSWORD, office.password, phone.password):
        with pytest.raises(InUse):
            await open_(maildrops, password=password)
    for maildrop in opened:
        await finish(maildrop, fetch=[1], remove=[1])
    assert await present(acme.mailbox) == ["2", "3"]


async def test_a_view_is_taken_from_a_process_that_is_gone_and_no_other_is(
    maildrops: Maildrops, office: Device, phone: Device, three: list[Message]
) -> None:
    gone = maildrops_of_a_process()
    await gone.start()
    lost = await open_(gone, password=office.password)
    kept = await open_(maildrops, password=phone.password)
    await gone.presence.stop()
    anew = await open_(maildrops, password=office.password)
    with pytest.raises(LockLost):
        await lost.close(expunge={1}, quit=True)
    await finish(anew, remove=[2])
    await finish(kept, remove=[1])
    assert await office.sees(maildrops) == [three[0].unique_id, three[2].unique_id]
    assert await phone.sees(maildrops) == [three[1].unique_id, three[2].unique_id]
    await gone.stop()


async def test_a_session_that_is_dropped_removes_nothing_and_tells_what_it_fetched(
    maildrops: Maildrops, office: Device, three: list[Message]
) -> None:
    maildrop = await open_(maildrops, password=office.password)
    await octets_of(maildrop, 1)
    maildrop.fetched(1)
    await maildrop.close()
    copy = await OwnCopy.objects.aget()
    assert (copy.message_id, copy.fetched_in_id, copy.removed_at) == (three[0].pk, maildrop.session, None)
    assert len(await office.sees(maildrops)) == 3


async def test_the_first_fetch_by_anybody_is_the_messages_and_each_devices_is_its_own(
    maildrops: Maildrops, office: Device, phone: Device, three: list[Message]
) -> None:
    first = await phone.session(maildrops, fetch=[1])
    second = await office.session(maildrops, fetch=[1])
    third = await office.session(maildrops, fetch=[1])
    assert third != second
    assert (await Message.objects.aget(pk=three[0].pk)).first_fetched_in_id == first
    copies = await orm(lambda: dict(OwnCopy.objects.values_list("app_password__name", "fetched_in")))
    assert copies == {"Phone": first, "Outlook office": second}


@pytest.mark.parametrize("own_copy", [True, False])
async def test_a_switch_ends_the_devices_open_sessions(
    maildrops: Maildrops, acme: Customer, three: list[Message], own_copy: bool
) -> None:
    device = await orm(lambda: Device(acme.mailbox, "it", own_copy=own_copy))
    classic = await open_(maildrops)
    await classic.close(quit=True)
    maildrop = await open_(maildrops, password=device.password)
    await orm(lambda: app_passwords.change(device.row, own_copy=not own_copy))
    ended = asyncio.Event()
    maildrop.on_end = lambda why: ended.set()
    if not maildrop.ended:
        await asyncio.wait_for(ended.wait(), 5)
    with pytest.raises(WrongPassword):
        await maildrop.close(expunge={1}, quit=True)
    assert await present(acme.mailbox) == ["1", "2", "3"]
    await device.session(maildrops, remove=[1])  # with what it is now, and the password that was verified before
    assert (await MaildropSession.objects.alatest("started_at")).own_copy is not own_copy


async def test_a_switch_that_no_notice_told_of_is_seen_at_quit(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device
) -> None:
    maildrop = await open_(maildrops, password=office.password)
    await AppPassword.objects.filter(pk=office.row.pk).aupdate(own_copy=False)
    with pytest.raises(Suspended):
        await finish(maildrop, fetch=[1], remove=[1])
    assert await present(acme.mailbox) == ["1", "2", "3"]
    assert (await OwnCopy.objects.aget()).removed_at is None


async def test_a_session_that_may_remove_nothing_lets_nothing_go(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device
) -> None:
    await office.session(maildrops, remove=[1])
    maildrop = await open_(maildrops, "an", phone.password)
    await AppPassword.objects.filter(pk=phone.row.pk).aupdate(expires_at=timezone.now() - timedelta(minutes=1))
    with pytest.raises(Suspended):
        await finish(maildrop, remove=[1, 2])
    assert await present(acme.mailbox) == ["1", "2", "3"]


async def test_revoking_the_last_that_kept_a_message_lets_it_go(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    last = await office.session(maildrops, remove=[1, 2])
    await orm(lambda: app_passwords.revoke(phone.row))
    assert await present(acme.mailbox) == ["3"]
    assert await counters(acme.mailbox) == (1, three[2].octets)
    gone = await Message.objects.aget(pk=three[0].pk)
    assert (gone.expunged_in_id, gone.expunged_by_id) == (last, None)
    told = await AuditEvent.objects.filter(action="mailbox.messages_expunged").aget()
    assert told.changes == {"messages": 2, "octets": three[0].octets + three[1].octets, "because": "own-copies"}


async def test_without_any_device_left_nothing_leaves(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device
) -> None:
    await office.session(maildrops, remove=[1])
    await orm(lambda: app_passwords.change(phone.row, own_copy=False))
    assert await present(acme.mailbox) == ["2", "3"]
    await phone.session(maildrops, remove=[1])
    await orm(lambda: app_passwords.revoke(office.row))
    assert await present(acme.mailbox) == ["3"]


async def test_switched_on_again_a_device_begins_with_all(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    await office.session(maildrops, fetch=[1], remove=[1])
    await orm(lambda: app_passwords.change(office.row, own_copy=False))
    await orm(lambda: app_passwords.revoke(phone.row))
    assert await present(acme.mailbox) == ["1", "2", "3"]
    await orm(lambda: app_passwords.change(office.row, own_copy=True))
    assert await office.sees(maildrops) == [message.unique_id for message in three]


async def test_switched_on_again_what_has_left_the_maildrop_keeps_its_life(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    removing = await office.session(maildrops, remove=[1])
    await phone.session(maildrops, remove=[1])
    await orm(lambda: app_passwords.change(office.row, own_copy=False))
    await orm(lambda: app_passwords.change(office.row, own_copy=True))
    [copy] = await orm(lambda: list(OwnCopy.objects.filter(app_password=office.row)))
    assert (copy.message_id, copy.removed_in_id) == (three[0].pk, removing)
    session = await MaildropSession.objects.aget(pk=removing)
    assert await orm(lambda: list(retention.removed_in(session))) == [three[0]]


async def test_a_device_that_expires_is_waited_for_no_more(
    maildrops: Maildrops, acme: Customer, globex: Customer, office: Device, phone: Device
) -> None:
    await office.session(maildrops, remove=[1])
    await AppPassword.objects.filter(pk=phone.row.pk).aupdate(expires_at=timezone.now() - timedelta(minutes=1))
    purged = await orm(lambda: purging.purge(KEEP, batch=1))
    assert purged.expired == 1
    assert await present(acme.mailbox) == ["2", "3"]


async def test_undoing_a_session_brings_its_messages_back_for_that_device_alone(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    all_three = [message.unique_id for message in three]
    await phone.session(maildrops, remove=[1])
    undone = await office.session(maildrops, fetch=[1, 2], remove=[1, 2])
    # The phone had removed the first: it has left the maildrop, and comes back for all.
    assert await present(acme.mailbox) == ["2", "3"]
    found = await MaildropSession.objects.aget(pk=undone)
    moved = await orm(lambda: retention.restore(retention.removed_in(found), by=None, undoing=found))
    assert (moved.messages, moved.mailboxes) == (2, 1)
    back = await Message.objects.aget(pk=three[0].pk)
    assert await office.sees(maildrops) == [f"{all_three[1]}.1", all_three[2], back.unique_id]
    assert await phone.sees(maildrops) == [*all_three[1:], back.unique_id]
    assert await sees(maildrops) == [*all_three[1:], back.unique_id]
    assert await counters(acme.mailbox) == (3, sum(message.octets for message in three))
    assert await orm(lambda: list(retention.removed_in(found))) == []

    await office.session(maildrops, remove=[1])
    assert await orm(lambda: retention.restore(Message.objects.filter(pk=three[1].pk), by=None)) == (
        1,
        three[1].octets,
        1,
    )
    assert (await office.sees(maildrops))[0] == f"{all_three[1]}.2"


async def test_the_life_of_a_message_tells_of_each_device(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    await phone.session(maildrops, fetch=[1])
    await office.session(maildrops, fetch=[1], remove=[1])
    await phone.session(maildrops, remove=[1])

    def told() -> list[tuple[Kind, str]]:
        message = Message.objects.select_related("mailbox", "tenant").get(pk=three[0].pk)
        events = life.of([message], kept=KEEP.retention)[message.pk]
        return [(event.kind, event.seen.device) for event in events if event.seen]

    assert await orm(told) == [
        (Kind.FETCHED, "Phone"),
        (Kind.FETCHED, "Outlook office"),
        (Kind.PUT_AWAY, "Outlook office"),
        (Kind.REMOVED, "Phone"),
    ]


async def test_messages_are_found_by_the_session_that_took_them(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    await phone.session(maildrops, fetch=[2])
    ended = await office.session(maildrops, fetch=[2], remove=[1])
    found = await MaildropSession.objects.aget(pk=ended)
    wanted = search.Wanted(session=found)
    assert await orm(lambda: list(search.find(acme.mailbox, wanted))) == [three[1], three[0]]


async def test_what_would_come_back_is_forecast(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    undone = await office.session(maildrops, remove=[1, 2])
    await phone.session(maildrops, remove=[1])
    found = await MaildropSession.objects.aget(pk=undone)

    def forecast(mailbox: Mailbox) -> tuple[int, int]:
        told = retention.forecast(retention.removed_in(found), mailbox, undoing=found)
        return told.messages, told.octets

    assert await sync_to_async(forecast)(acme.mailbox) == (2, three[0].octets)


async def test_what_comes_back_into_a_view_takes_no_room(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    undone = await office.session(maildrops, remove=[1])
    await phone.session(maildrops, remove=[2])
    await session(maildrops, remove=[3])
    await orm(lambda: provisioning.change_mailbox(acme.mailbox, quota_octets=1))
    found = await MaildropSession.objects.aget(pk=undone)
    await orm(lambda: retention.restore(retention.removed_in(found), by=None, undoing=found))
    assert (await office.sees(maildrops))[0] == f"{three[0].unique_id}.1"
    with pytest.raises(QuotaExceeded):
        await orm(lambda: retention.restore(Message.objects.filter(mailbox=acme.mailbox), by=None))
    assert len(await phone.sees(maildrops)) == 1  # all or none


async def test_a_message_that_is_restored_is_new_to_all(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    await office.session(maildrops, fetch=[1], remove=[1])
    await orm(lambda: retention.expunge(Message.objects.filter(pk=three[0].pk), by=None))
    await orm(lambda: retention.restore(Message.objects.filter(pk=three[0].pk), by=None))
    back = await Message.objects.aget(pk=three[0].pk)
    assert back.kept_since
    assert (await office.sees(maildrops))[-1] == (await phone.sees(maildrops))[-1] == back.unique_id
    assert not await OwnCopy.objects.aexists()


async def test_a_message_that_kept_another_servers_unique_id_comes_back_under_one_of_ours(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    await Message.objects.filter(pk=three[0].pk).aupdate(kept_unique_id="0000000152c3a1b2")
    undone = await office.session(maildrops, remove=[1])
    found = await MaildropSession.objects.aget(pk=undone)
    await orm(lambda: retention.restore(retention.removed_in(found), by=None, undoing=found))
    assert (await phone.sees(maildrops))[0] == "0000000152c3a1b2"
    ours = f"{acme.mailbox.pk:x}.{three[0].epoch:x}.{three[0].uid:x}.1"
    assert (await office.sees(maildrops))[0] == ours


async def test_of_two_that_remove_the_last_at_once_the_message_leaves_once(
    maildrops: Maildrops, acme: Customer, transactional_db: None
) -> None:
    devices = await orm(lambda: [Device(acme.mailbox, str(number)) for number in range(4)])
    for round_ in range(10):
        [message] = await sync_to_async(post.fill)(acme.mailbox, [post.text(str(round_))])
        opened = [await open_(maildrops, password=device.password) for device in devices]
        await asyncio.gather(*(finish(maildrop, fetch=[1], remove=[1]) for maildrop in opened))
        await message.arefresh_from_db()
        assert message.expunged_in_id in {maildrop.session for maildrop in opened}
        assert await counters(acme.mailbox) == (0, 0)


async def test_rows_go_with_their_messages_and_devices(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    await office.session(maildrops, fetch=[1, 2], remove=[1])
    await orm(lambda: retention.expunge(Message.objects.filter(pk=three[0].pk), by=None))
    await Message.objects.filter(pk=three[0].pk).aupdate(expunged_at=timezone.now() - timedelta(days=99))
    await orm(lambda: purging.purge(KEEP))
    assert [copy.message_id async for copy in OwnCopy.objects.all()] == [three[1].pk]
    await orm(lambda: app_passwords.revoke(office.row))
    await AppPassword.objects.filter(pk=office.row.pk).adelete()
    assert not await OwnCopy.objects.aexists()


async def test_what_a_purge_takes_meanwhile_leaves_no_row(
    maildrops: Maildrops, acme: Customer, office: Device, phone: Device, three: list[Message]
) -> None:
    maildrop = await open_(maildrops, password=office.password)
    await octets_of(maildrop, 1)
    maildrop.fetched(1)
    await orm(lambda: retention.expunge(Message.objects.filter(pk=three[0].pk), by=None))
    await Message.objects.filter(pk=three[0].pk).aupdate(expunged_at=timezone.now() - timedelta(days=99))
    await orm(lambda: purging.purge(KEEP))
    await maildrop.close(expunge={1, 2}, quit=True)
    assert [copy.message_id async for copy in OwnCopy.objects.all()] == [three[1].pk]
