"""Maildrops are opened by one session at a time, read, and closed with what was marked."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from django.db import connections
from django.utils import timezone

from accounts import app_passwords, notices, provisioning
from accounts.authentication import REFUSED_AFTER, Proof
from accounts.database_roles import LISTENER
from accounts.models import AppPassword, KnownNetwork, Mailbox, User
from accounts.passwords import PasswordHasher
from mailstore import database, retention
from mailstore.database import Unavailable
from mailstore.maildrop import InUse, LockLost, Maildrop, Maildrops, Suspended, WrongPassword
from mailstore.models import Listener, MaildropSession, Message
from tests.fixtures import PASSWORD, Customer
from tests.mailstore import post

pytestmark = pytest.mark.django_db(transaction=True)

HERE = ip_address("192.0.2.7")
T = TypeVar("T")


def orm(function: Callable[[], T]) -> Awaitable[T]:
    """What the models say, asked from a test that runs in an event loop."""
    return sync_to_async(function)()


def maildrops_of_a_process(*, ttl: float = 90.0) -> Maildrops:
    return Maildrops(
        role=LISTENER,
        connections=4,
        listener_ttl=ttl,
        default_domain="acme.test",
        redis_url=settings.REDIS_URL,
        secret=b"secret",
        throttled=False,
    )


@pytest.fixture
async def maildrops(transactional_db: None) -> AsyncIterator[Maildrops]:
    maildrops = maildrops_of_a_process()
    await maildrops.start()
    yield maildrops
    await maildrops.stop()
    await sync_to_async(connections.close_all)()


@pytest.fixture
async def another(transactional_db: None) -> AsyncIterator[Maildrops]:
    """Another listener process's."""
    maildrops = maildrops_of_a_process()
    await maildrops.start()
    yield maildrops
    await maildrops.stop()
    await sync_to_async(connections.close_all)()


async def open_(maildrops: Maildrops, name: str = "an", password: str = PASSWORD, **client: Any) -> Maildrop:
    return await maildrops.open(name, password, client=client.get("client", HERE), secure=client.get("secure", True))


async def octets_of(maildrop: Maildrop, number: int) -> bytes:
    copy = await maildrop.read(number)
    assert copy
    return copy.trace + b"".join([chunk async for chunk in maildrop.chunks(copy)])


async def counters(mailbox: Mailbox) -> tuple[int, int]:
    await mailbox.arefresh_from_db()
    return mailbox.message_count, mailbox.used_octets


@pytest.fixture
def three(acme: Customer, transactional_db: None) -> list[Message]:
    """Three messages of an@acme.test."""
    return post.fill(acme.mailbox, [post.text(str(number)) for number in (1, 2, 3)])


async def test_a_listing_tells_what_the_models_tell(maildrops: Maildrops, three: list[Message]) -> None:
    maildrop = await open_(maildrops)
    assert maildrop.listing.octets.tolist() == [message.octets for message in three]
    assert maildrop.listing.uids.tolist() == [message.uid for message in three]
    assert [maildrop.listing.unique_id(n) for n in (1, 2, 3)] == [message.unique_id for message in three]
    for number in (1, 2, 3):
        octets = await octets_of(maildrop, number)
        assert len(octets) == maildrop.listing.octets[number - 1]
        assert octets.endswith(post.text(str(number)))
    await maildrop.close(quit=True)


async def test_unique_ids_that_came_along_from_another_server_are_told_as_they_were(
    maildrops: Maildrops, acme: Customer, three: list[Message]
) -> None:
    longest = "\\x41~" + "!" * 65
    for message, kept in ((three[0], longest), (three[2], "0000000152c3a1b2")):
        await Message.objects.filter(pk=message.pk).aupdate(kept_unique_id=kept)
    maildrop = await open_(maildrops)
    assert [maildrop.listing.unique_id(n) for n in (1, 2, 3)] == [longest, three[1].unique_id, "0000000152c3a1b2"]
    assert maildrop.listing.octets.tolist() == [message.octets for message in three]
    await maildrop.close(quit=True)


async def test_an_empty_maildrop_opens(maildrops: Maildrops, acme: Customer) -> None:
    maildrop = await open_(maildrops, "an@ACME.test")
    assert list(maildrop.listing.octets) == []
    await maildrop.close(quit=True)


async def test_what_quit_marked_is_expunged_and_refunded(
    maildrops: Maildrops, acme: Customer, three: list[Message]
) -> None:
    maildrop = await open_(maildrops)
    await octets_of(maildrop, 2)
    maildrop.fetched(2)
    await maildrop.close(expunge={2, 3}, quit=True)

    assert await counters(acme.mailbox) == (1, three[0].octets)
    first, second, third = await orm(lambda: list(Message.objects.order_by("uid").select_related("expunged_in")))
    session = await MaildropSession.objects.aget()
    assert (session.end, session.fetched, session.expunged) == ("quit", 1, 2)
    assert (session.client_address, session.secure) == (str(HERE), True)
    assert first.expunged_at is None
    assert first.first_fetched_at is None
    assert second.expunged_in == third.expunged_in == session
    assert second.first_fetched_in_id == session.id
    assert third.first_fetched_at is None
    again = await open_(maildrops)
    assert again.listing.uids.tolist() == [first.uid]
    await again.close(quit=True)


async def test_without_quit_nothing_is_removed(maildrops: Maildrops, acme: Customer, three: list[Message]) -> None:
    maildrop = await open_(maildrops)
    await octets_of(maildrop, 1)
    maildrop.fetched(1)
    await maildrop.close()
    assert (await counters(acme.mailbox))[0] == 3
    session = await MaildropSession.objects.aget()
    assert (session.end, session.fetched, session.expunged) == ("dropped", 1, 0)
    message = await Message.objects.aget(uid=three[0].uid)
    assert message.first_fetched_in_id == session.id


async def test_first_fetched_stays_the_first(maildrops: Maildrops, three: list[Message]) -> None:
    firsts = []
    for _ in range(2):
        maildrop = await open_(maildrops)
        await octets_of(maildrop, 1)
        maildrop.fetched(1)
        await maildrop.close(quit=True)
        firsts.append((await Message.objects.aget(uid=three[0].uid)).first_fetched_in_id)
    assert firsts[0] is not None
    assert firsts[0] == firsts[1]


async def test_a_poll_leaves_no_row_but_when_and_where_from(maildrops: Maildrops, acme: Customer) -> None:
    before = timezone.now()
    maildrop = await open_(maildrops)
    assert await MaildropSession.objects.filter(ended_at=None).acount() == 1
    await maildrop.close(quit=True)
    assert await MaildropSession.objects.acount() == 0
    await acme.mailbox.arefresh_from_db()
    assert acme.mailbox.last_login_at
    assert acme.mailbox.last_login_at >= before
    assert acme.mailbox.last_login_address == str(HERE)
    assert (acme.mailbox.last_login_secure, acme.mailbox.last_login_app_password_id) == (True, None)
    phone, text = await orm(lambda: app_passwords.create(acme.mailbox, name="phone"))
    await (await open_(maildrops, password=text, secure=False)).close(quit=True)
    await acme.mailbox.arefresh_from_db()
    assert (acme.mailbox.last_login_secure, acme.mailbox.last_login_app_password_id) == (False, phone.pk)
    assert await orm(lambda: KnownNetwork.objects.get(mailbox=acme.mailbox).network) == "192.0.2.0/24"


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("an", "wrong"),
        ("nobody", PASSWORD),
        ("an@nowhere.test", PASSWORD),
        ("an", PASSWORD + " "),
        ("an\0", PASSWORD),
        ("\ufffd", "\ufffd"),
        ("", ""),
        ("ann@globex.test", PASSWORD),
    ],
)
async def test_the_wrong_password_opens_nothing(
    maildrops: Maildrops, acme: Customer, globex: Customer, name: str, password: str
) -> None:
    with pytest.raises(WrongPassword):
        await open_(maildrops, name, password)
    assert await MaildropSession.objects.acount() == 0
    assert not maildrops.presence.sessions


async def test_one_session_at_a_time_also_when_a_dozen_come_at_once(
    maildrops: Maildrops, another: Maildrops, acme: Customer
) -> None:
    await (await open_(maildrops)).close(quit=True)
    await (await open_(another)).close(quit=True)
    opened = await asyncio.gather(
        *(open_(process) for process in (maildrops, another) for _ in range(6)), return_exceptions=True
    )
    [maildrop] = [one for one in opened if isinstance(one, Maildrop)]
    assert sum(isinstance(one, InUse) for one in opened) == 11
    await maildrop.close(quit=True)
    await (await open_(another)).close(quit=True)


async def test_in_use_is_told_after_the_right_password_only(maildrops: Maildrops, acme: Customer) -> None:
    maildrop = await open_(maildrops)
    with pytest.raises(WrongPassword):
        await open_(maildrops, password="wrong")
    with pytest.raises(InUse):
        await open_(maildrops)
    await maildrop.close(quit=True)


async def test_a_changed_password_holds_at_once_in_every_process(
    maildrops: Maildrops, another: Maildrops, acme: Customer
) -> None:
    for process in (maildrops, another):
        await (await open_(process)).close(quit=True)
    await orm(lambda: provisioning.set_password(acme.mailbox.user, "another-1234"))
    for process in (maildrops, another):
        with pytest.raises(WrongPassword):
            await open_(process)
        await (await open_(process, password="another-1234")).close(quit=True)


@pytest.mark.parametrize("upgraded", [False, True])
async def test_open_sessions_go_on_after_a_change_of_password_if_whoever_makes_it_wants_that(
    maildrops: Maildrops, acme: Customer, three: list[Message], upgraded: bool
) -> None:
    if upgraded:  # while the session is open the hash that it began with is replaced by a newer one
        imported = PBKDF2PasswordHasher().encode(PASSWORD, "salt", iterations=1)
        await User.objects.filter(pk=acme.mailbox.user_id).aupdate(password=imported)
    maildrop = await open_(maildrops)
    await asyncio.gather(*maildrops._behind)
    await orm(lambda: provisioning.set_password(acme.mailbox.user, "another-1234", keep_sessions=True))
    with pytest.raises(WrongPassword):
        await open_(maildrops)
    await asyncio.sleep(0.3)  # the notice has come by then
    assert maildrop.ended is None
    await maildrop.close(expunge=[1], quit=True)
    assert await Message.objects.in_maildrop(acme.mailbox).acount() == 2


@pytest.mark.parametrize("then_changed", [False, True])
async def test_open_sessions_go_on_when_the_web_stores_another_hash_of_the_same_password(
    maildrops: Maildrops,
    acme: Customer,
    globex: Customer,
    three: list[Message],
    then_changed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    foreign = await User.objects.aget(pk=globex.mailbox.user_id)
    maildrop = await open_(maildrops)
    user = await User.objects.aget(pk=acme.mailbox.user_id)
    monkeypatch.setattr(PasswordHasher, "time_cost", PasswordHasher.time_cost + 1)  # the web is of a newer release
    before = user.password
    assert await orm(lambda: user.check_password(PASSWORD))
    await user.arefresh_from_db()
    assert user.password != before
    if then_changed:
        await orm(lambda: provisioning.set_password(user, "another-1234", keep_sessions=True))
    else:
        assert await orm(lambda: user.check_password(PASSWORD))
    await maildrop.close(expunge=[1], quit=True)
    assert await Message.objects.in_maildrop(acme.mailbox).acount() == 2
    await foreign.arefresh_from_db()
    assert foreign.former_password is None


async def test_a_change_after_another_hash_was_stored_ends_open_sessions(
    maildrops: Maildrops, acme: Customer, three: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    maildrop = await open_(maildrops)
    monkeypatch.setattr(PasswordHasher, "time_cost", PasswordHasher.time_cost + 1)
    user = await User.objects.aget(pk=acme.mailbox.user_id)
    assert await orm(lambda: user.check_password(PASSWORD))
    await orm(lambda: provisioning.set_password(user, "another-1234"))
    with pytest.raises((WrongPassword, Suspended)):
        await maildrop.close(expunge=[1], quit=True)
    assert await Message.objects.in_maildrop(acme.mailbox).acount() == 3


async def test_a_session_that_was_let_go_on_ends_with_the_next_change(
    maildrops: Maildrops, acme: Customer, three: list[Message]
) -> None:
    maildrop = await open_(maildrops)
    await orm(lambda: provisioning.set_password(acme.mailbox.user, "another-1234", keep_sessions=True))
    await orm(lambda: provisioning.set_password(acme.mailbox.user, "a-third-1234"))
    with pytest.raises((WrongPassword, Suspended)):
        await maildrop.close(expunge=[1], quit=True)
    assert await Message.objects.in_maildrop(acme.mailbox).acount() == 3


async def test_who_suspends_a_mailbox_ends_also_the_sessions_that_were_let_go_on(
    maildrops: Maildrops, acme: Customer, three: list[Message]
) -> None:
    maildrop = await open_(maildrops)
    await orm(lambda: provisioning.set_password(acme.mailbox.user, "another-1234", keep_sessions=True))
    await orm(lambda: provisioning.suspend(acme.mailbox))
    with pytest.raises(Suspended):
        await maildrop.close(expunge=[1], quit=True)
    assert await Message.objects.in_maildrop(acme.mailbox).acount() == 3


async def test_an_app_password_opens_the_maildrop_of_its_mailbox(
    maildrops: Maildrops, acme: Customer, globex: Customer
) -> None:
    phone, text = await orm(lambda: app_passwords.create(acme.mailbox, name="phone"))
    for typed in (text, text, text.upper().replace("-", " ")):  # the second time it is remembered
        maildrop = await open_(maildrops, password=typed)
        session = await MaildropSession.objects.aget()
        assert session.app_password_id == phone.pk
        await maildrop.close(quit=True)
    await phone.arefresh_from_db()
    assert phone.last_used_address == str(HERE)
    with pytest.raises(WrongPassword):
        await open_(maildrops, name=globex.mailbox.address, password=text)
    await (await open_(maildrops)).close(quit=True)  # the mailbox's own works as well


async def test_when_an_app_password_was_used_is_written_once_a_minute(
    maildrops: Maildrops, acme: Customer, three: list[Message]
) -> None:
    phone, text = await orm(lambda: app_passwords.create(acme.mailbox, name="phone"))

    async def used(*, expunge: set[int]) -> datetime:
        await (await open_(maildrops, password=text)).close(expunge=expunge, quit=True)
        await phone.arefresh_from_db()
        assert phone.last_used_at
        return phone.last_used_at

    first = await used(expunge=set())
    assert await used(expunge={1}) == first
    an_hour_ago = timezone.now() - timedelta(hours=1)
    await AppPassword.objects.aupdate(last_used_at=an_hour_ago)
    assert await used(expunge={1}) > first


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"revoked_at": timezone.now()}, "revoked"),
        ({"expires_at": timezone.now()}, "expired"),
        ({"scopes": ["self"]}, "not meant for pop3"),
        ({"allowed_networks": ["198.51.100.0/24"]}, "not allowed from there"),
    ],
)
async def test_an_app_password_that_does_not_hold_is_a_wrong_one(
    maildrops: Maildrops,
    acme: Customer,
    three: list[Message],
    caplog: pytest.LogCaptureFixture,
    values: dict[str, Any],
    reason: str,
) -> None:
    """Only the log tells which. Also where it was remembered, and at the QUIT of a session that it began."""
    caplog.set_level("INFO")
    phone, text = await orm(lambda: app_passwords.create(acme.mailbox, name="phone"))
    maildrop = await open_(maildrops, password=text)
    await AppPassword.objects.aupdate(**values)
    with pytest.raises(Suspended):
        await maildrop.close(expunge={1}, quit=True)
    for _ in range(2):
        with pytest.raises(WrongPassword):
            await open_(maildrops, password=text)
    assert caplog.text.count(f"login failed: an@acme.test from {HERE}: app password {phone.pk} is {reason}") == 2
    assert (await counters(acme.mailbox))[0] == 3


async def test_a_refused_app_password_takes_as_long_as_any_wrong_one(maildrops: Maildrops, acme: Customer) -> None:
    phone, text = await orm(lambda: app_passwords.create(acme.mailbox, name="phone"))
    await orm(lambda: app_passwords.revoke(phone))
    for password in (text, "wrong"):
        began = time.monotonic()
        with pytest.raises(WrongPassword):
            await open_(maildrops, password=password)
        assert time.monotonic() - began >= REFUSED_AFTER


async def test_a_hash_from_another_server_is_replaced_behind_the_first_login(
    maildrops: Maildrops, acme: Customer, three: list[Message]
) -> None:
    """And the session that it let in goes on."""
    imported = PBKDF2PasswordHasher().encode(PASSWORD, "salt", 1000)
    await User.objects.filter(pk=acme.mailbox.user_id).aupdate(password=imported)
    maildrop = await open_(maildrops)
    await asyncio.gather(*maildrops._behind)
    await orm(lambda: notices.mailboxes_changed([acme.mailbox.pk]))
    await asyncio.sleep(0.3)
    assert maildrop.ended is None
    await maildrop.close(expunge={1}, quit=True)
    stored = (await User.objects.aget(pk=acme.mailbox.user_id)).password
    assert stored.startswith("argon2$")
    again = await open_(maildrops)
    assert again.proof.stored == stored  # remembered
    await again.close(quit=True)


async def test_a_change_of_password_is_not_undone_by_a_newer_hash(maildrops: Maildrops, acme: Customer) -> None:
    imported = PBKDF2PasswordHasher().encode(PASSWORD, "salt", 1000)
    await User.objects.filter(pk=acme.mailbox.user_id).aupdate(password=imported)
    maildrop = await open_(maildrops)
    changed = make_password("another one")
    await User.objects.filter(pk=acme.mailbox.user_id).aupdate(password=changed)
    await asyncio.gather(*maildrops._behind)
    assert (await User.objects.aget(pk=acme.mailbox.user_id)).password == changed
    await maildrop.close(quit=True)


async def every_session_has_ended() -> None:
    """Also those whose end somebody else writes, who was told by a notice."""
    for _ in range(400):
        if not await MaildropSession.objects.filter(ended_at=None).aexists():
            return
        await asyncio.sleep(0.05)
    pytest.fail("a session goes on")


async def test_a_change_while_a_maildrop_is_being_opened_is_seen(
    maildrops: Maildrops, acme: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a notice that comes when the lock is written and the session is not yet known."""
    attempt = maildrops._attempt

    async def slowly(work: Any) -> Any:
        answer = await attempt(work)
        if work.__qualname__.endswith("_try_open.<locals>.work"):
            monkeypatch.undo()
            await orm(lambda: provisioning.suspend(acme.mailbox, reason="unpaid"))
            await asyncio.sleep(0.3)
        return answer

    monkeypatch.setattr(maildrops, "_attempt", slowly)
    with pytest.raises(Suspended) as refusal:
        await open_(maildrops)
    assert refusal.value.reason == "unpaid"
    await every_session_has_ended()


async def test_a_suspended_mailbox_refuses_the_right_password_only(maildrops: Maildrops, acme: Customer) -> None:
    await (await open_(maildrops)).close(quit=True)
    await orm(lambda: provisioning.suspend(acme.mailbox))
    with pytest.raises(Suspended):
        await open_(maildrops)
    with pytest.raises(WrongPassword):
        await open_(maildrops, password="wrong")
    await orm(lambda: provisioning.resume(acme.mailbox))
    await (await open_(maildrops)).close(quit=True)


async def test_pop3_can_be_off_or_bound_to_networks(maildrops: Maildrops, acme: Customer) -> None:
    boxes = Mailbox.objects.filter(pk=acme.mailbox.pk)
    await boxes.aupdate(allowed_networks=["198.51.100.0/24", "2001:db8::/32"])
    for client in ("192.0.2.7", None):
        with pytest.raises(Suspended):
            await open_(maildrops, client=ip_address(client) if client else None)
    for client in ("198.51.100.9", "2001:db8::1"):
        await (await open_(maildrops, client=ip_address(client))).close(quit=True)
    await boxes.aupdate(allowed_networks=[], pop3_enabled=False)
    with pytest.raises(Suspended):
        await open_(maildrops)


async def test_a_closed_mailbox_does_not_exist(maildrops: Maildrops, acme: Customer) -> None:
    await (await open_(maildrops)).close(quit=True)
    await orm(lambda: provisioning.close_mailbox(acme.mailbox))
    with pytest.raises(WrongPassword):
        await open_(maildrops)


@pytest.mark.parametrize("end_of_use", [provisioning.suspend, provisioning.close_mailbox])
async def test_what_is_marked_stays_if_the_mailbox_may_no_longer_be_used(
    maildrops: Maildrops, acme: Customer, three: list[Message], end_of_use: Callable[[Mailbox], None]
) -> None:
    maildrop = await open_(maildrops)
    await orm(lambda: end_of_use(acme.mailbox))
    with pytest.raises(Suspended):
        await maildrop.close(expunge={1}, quit=True)
    assert await orm(Message.objects.in_maildrop(acme.mailbox).count) == 3
    await every_session_has_ended()


async def test_mail_that_arrives_in_a_session_is_not_seen_and_not_removed(
    maildrops: Maildrops, acme: Customer, three: list[Message]
) -> None:
    maildrop = await open_(maildrops)
    await orm(lambda: post.fill(acme.mailbox, [post.text("4")]))
    assert len(maildrop.listing.octets) == 3
    await maildrop.close(expunge={1, 2, 3}, quit=True)
    assert (await counters(acme.mailbox))[0] == 1


async def test_a_message_removed_by_an_admin_meanwhile_counts_once(
    maildrops: Maildrops, acme: Customer, three: list[Message]
) -> None:
    maildrop = await open_(maildrops)
    await orm(lambda: retention.expunge(Message.objects.filter(uid=three[0].uid), by=None))
    await maildrop.close(expunge={1, 2}, quit=True)
    assert await counters(acme.mailbox) == (1, three[2].octets)
    assert (await MaildropSession.objects.aget()).expunged == 1


async def test_a_message_purged_meanwhile_is_gone(maildrops: Maildrops, three: list[Message]) -> None:
    maildrop = await open_(maildrops)
    await orm(lambda: Message.objects.filter(uid=three[1].uid).delete())
    assert await maildrop.read(2) is None
    assert await maildrop.read(1)
    await maildrop.close(quit=True)


async def test_a_session_that_lost_its_lock_expunges_nothing(
    maildrops: Maildrops, acme: Customer, three: list[Message]
) -> None:
    maildrop = await open_(maildrops)
    await MaildropSession.objects.aupdate(ended_at=timezone.now(), end="lost")
    other = await open_(maildrops)
    await other.close(expunge={1}, quit=True)
    with pytest.raises(LockLost):
        await maildrop.close(expunge={1, 2, 3}, quit=True)
    assert (await counters(acme.mailbox))[0] == 2


async def test_the_maildrop_of_a_killed_process_is_free_at_once(
    maildrops: Maildrops, another: Maildrops, acme: Customer, three: list[Message]
) -> None:
    victim = await open_(maildrops)
    with pytest.raises(InUse):
        await open_(another)
    await orm(lambda: kill_connection_of(maildrops.presence.listener_id))
    for _ in range(400):
        try:
            maildrop = await open_(another)
            break
        except InUse:
            await asyncio.sleep(0.05)
    await maildrop.close(expunge={1}, quit=True)
    with pytest.raises(LockLost):
        await victim.close(expunge={2, 3}, quit=True)
    assert (await counters(acme.mailbox))[0] == 2


def kill_connection_of(listener: int | None) -> None:
    """What the death of a process does to its lock; and nobody takes it again."""
    with psycopg.connect(database.conninfo(), autocommit=True) as connection:
        connection.execute("DELETE FROM mailstore_listener WHERE id = %s", (listener,))
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s", (listener,)
        )


async def test_the_maildrop_of_a_frozen_process_is_free_after_its_time(
    maildrops: Maildrops, another: Maildrops, acme: Customer, three: list[Message]
) -> None:
    frozen = await open_(maildrops)
    with pytest.raises(InUse):
        await open_(another)
    old = timezone.now() - timedelta(seconds=91)
    assert maildrops.presence.listener_id
    await Listener.objects.filter(pk=maildrops.presence.listener_id).aupdate(heartbeat_at=old)
    maildrop = await open_(another)
    await maildrop.close(expunge={1}, quit=True)
    with pytest.raises(LockLost):
        await frozen.close(expunge={1, 2}, quit=True)
    assert (await counters(acme.mailbox))[0] == 2


async def test_a_session_whose_end_could_not_be_written_holds_up_nobody(maildrops: Maildrops, acme: Customer) -> None:
    await open_(maildrops)
    maildrops.presence.sessions.clear()  # as after a `close` that the database did not answer
    again = await open_(maildrops)
    await again.close(quit=True)


async def test_a_session_whose_end_could_not_be_written_is_ended_soon(maildrops: Maildrops, acme: Customer) -> None:
    stray = await open_(maildrops)
    kept = await orm(lambda: MaildropSession.objects.get(ended_at=None))
    maildrops.presence.sessions.clear()
    maildrops.presence.end_strays()
    for _ in range(400):
        await kept.arefresh_from_db()
        if kept.ended_at:
            break
        await asyncio.sleep(0.05)
    assert kept.end == "lost"
    await stray.close()


async def test_a_session_that_opens_while_strays_are_ended_is_none(maildrops: Maildrops, acme: Customer) -> None:
    def hold_up(begun: threading.Event, end: threading.Event) -> None:
        """Let nobody read sessions; then let one more begin, which those who waited find there."""
        with psycopg.connect(database.conninfo()) as connection:
            connection.execute("LOCK mailstore_maildropsession")
            begun.set()
            assert end.wait(60)
            connection.execute(
                """
                INSERT INTO mailstore_maildropsession
                    (id, tenant_id, mailbox_id, view, listener_id, secure, "end", fetched, expunged, started_at)
                VALUES (%s, %s, %s, 0, %s, true, '', 0, 0, clock_timestamp())
                """,
                (session, acme.tenant.pk, acme.mailbox.pk, maildrops.presence.listener_id),
            )

    session, begun, end = uuid4(), threading.Event(), threading.Event()
    holding = asyncio.create_task(asyncio.to_thread(hold_up, begun, end))
    assert await asyncio.to_thread(begun.wait, 60)
    maildrops.presence.end_strays()
    for _ in range(400):
        if await orm(waiting_for_sessions):
            break
        await asyncio.sleep(0.05)
    maildrops.presence.sessions.add(session)
    end.set()
    await holding
    await asyncio.sleep(0.2)
    assert not (await MaildropSession.objects.aget(pk=session)).ended_at


def waiting_for_sessions() -> bool:
    with psycopg.connect(database.conninfo(), autocommit=True) as connection:
        return bool(
            connection.execute(
                "SELECT FROM pg_locks WHERE relation = 'mailstore_maildropsession'::regclass AND NOT granted"
            ).fetchall()
        )


async def test_large_messages_come_in_chunks(maildrops: Maildrops, acme: Customer) -> None:
    large = post.text("large", body="0123456789abcdef" * 64 * 1024 + "\r\n")
    await orm(lambda: post.fill(acme.mailbox, [large, post.text("small")]))
    maildrop = await open_(maildrops)
    copy = await maildrop.read(1)
    assert copy
    assert copy.body is None
    sizes = [len(chunk) async for chunk in maildrop.chunks(copy)]
    assert max(sizes) <= 256 * 1024
    assert (await octets_of(maildrop, 1)).endswith(large)
    assert len(await octets_of(maildrop, 1)) == maildrop.listing.octets[0]
    await maildrop.close(quit=True)


async def test_reading_in_order_asks_once_for_many(maildrops: Maildrops, acme: Customer) -> None:
    await orm(lambda: post.fill(acme.mailbox, [post.text(str(n), body="x" * 60_000 + "\r\n") for n in range(8)]))
    maildrop = await open_(maildrops)
    assert maildrop.ready(1) is None
    assert await maildrop.read(1)
    ahead = [number for number in range(1, 9) if maildrop.ready(number)]
    assert ahead == [1, 2, 3, 4, 5]
    maildrop.fetched(1)
    assert maildrop.ready(1) is None
    await maildrop.close(quit=True)


async def test_all_sessions_together_read_ahead_only_so_much(
    maildrops: Maildrops, acme: Customer, globex: Customer
) -> None:
    eight = [post.text(str(n), body="x" * 60_000 + "\r\n") for n in range(8)]
    await orm(lambda: post.fill(acme.mailbox, eight))
    await orm(lambda: post.fill(globex.mailbox, eight))
    first = await open_(maildrops)
    second = await open_(maildrops, name=globex.mailbox.address)
    room = maildrops.room = 200_000
    assert await first.read(1)
    assert [number for number in range(1, 9) if first.ready(number)] == [1, 2, 3, 4]
    assert await second.read(1)
    assert [number for number in range(1, 9) if second.ready(number)] == [1]
    for number in (1, 2):
        first.fetched(number)
    assert await second.read(2)
    assert [number for number in range(1, 9) if second.ready(number)] == [2]
    second.fetched(2)
    assert await second.read(3)
    assert [number for number in range(1, 9) if second.ready(number)] == [3, 4]
    for maildrop in (first, second):
        await maildrop.close()
    assert maildrops.room == room


async def test_a_database_that_is_away_is_told_as_such() -> None:
    maildrops = maildrops_of_a_process()
    with pytest.raises(Unavailable):  # not started: no listener is registered
        await maildrops._try_open("an@acme.test", Proof(""), HERE, True, maildrops._failures("an@acme.test", HERE))
    await maildrops.stop()
