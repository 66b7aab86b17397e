"""What is expunged leaves the maildrop and the quota, and can be brought back until it is purged."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Event

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from accounts import limits, provisioning
from accounts.models import Mailbox
from mailstore import drift, purging, retention
from mailstore.delivery import Outcome
from mailstore.models import Content, MaildropSession, Message
from mailstore.quota import QuotaExceeded
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.retain import DAY, KEEP, at_once, expunge, fill, moment
from tests.mailstore.rows import add_listener, add_session

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_drift(transactional_db: None) -> Iterator[None]:
    """Whatever a test does here, every counter is right after it."""
    yield
    assert list(drift.find()) == []


def subjects(mailbox: Mailbox) -> list[str]:
    return [message.subject for message in Message.objects.in_maildrop(mailbox).order_by("uid")]


# --- Expunging -----------------------------------------------------------------------------------------------------


def test_an_expunged_message_leaves_the_maildrop_and_the_quota(acme: Customer, globex: Customer) -> None:
    one, two = fill(acme.mailbox, "one", "two")
    fill(globex.mailbox, "other")
    operator = provisioning.add_staff("root@localhost", password=None, tenant=None)
    assert retention.expunge(Message.objects.filter(pk=one.pk), by=operator).messages == 1
    assert subjects(acme.mailbox) == ["two"]
    acme.mailbox.refresh_from_db()
    assert (acme.mailbox.used_octets, acme.mailbox.message_count) == (two.octets, 1)
    one.refresh_from_db()
    assert one.expunged_at is not None
    assert (one.expunged_by, one.expunged_in) == (operator, None)
    assert subjects(globex.mailbox) == ["other"]


def test_what_is_expunged_already_is_not_expunged_again(acme: Customer) -> None:
    fill(acme.mailbox, "one", "two")
    assert retention.expunge(Message.objects.filter(subject="one"), by=None).messages == 1
    before = Message.objects.get(subject="one").expunged_at
    assert retention.expunge(Message.objects.all(), by=None).messages == 1
    assert Message.objects.get(subject="one").expunged_at == before


def test_exactly_the_chosen_messages_are_expunged(acme: Customer, globex: Customer) -> None:
    fill(acme.mailbox, "one", "two")
    fill(globex.mailbox, "three", "four")
    chosen = Message.objects.in_maildrop().order_by("uid", "pk")[:2]
    assert retention.expunge(chosen, by=None).messages == 2
    assert (subjects(acme.mailbox), subjects(globex.mailbox)) == (["two"], ["four"])


# --- Restoring -----------------------------------------------------------------------------------------------------


def test_restored_messages_come_back_as_new_ones_in_their_old_order(acme: Customer) -> None:
    messages = fill(acme.mailbox, "one", "two", "three", "four")
    seen = {message.unique_id for message in messages}
    Message.objects.update(first_fetched_at=timezone.now())
    retention.expunge(Message.objects.exclude(subject="four"), by=None)
    newest_first = Message.objects.filter(subject__in=["one", "three"]).order_by("-uid")
    assert retention.restore(newest_first, by=None).messages == 2
    assert subjects(acme.mailbox) == ["four", "one", "three"]
    _, one, three = Message.objects.in_maildrop(acme.mailbox).order_by("uid")
    assert not seen & {one.unique_id, three.unique_id}
    for message in (one, three):
        assert (message.expunged_at, message.expunged_by, message.expunged_in_id) == (None, None, None)
        assert (message.first_fetched_at, message.first_fetched_in_id) == (None, None)
    fill(acme.mailbox, "five")
    assert subjects(acme.mailbox) == ["four", "one", "three", "five"]


def test_a_restored_message_does_not_keep_its_unique_id_from_another_server(acme: Customer) -> None:
    """A client that has seen it would skip the message."""
    [message] = fill(acme.mailbox, "one")
    Message.objects.update(kept_unique_id="0000000152c3a1b2")
    expunge(message, ago=DAY)
    retention.restore(Message.objects.all(), by=None)
    message.refresh_from_db()
    assert message.kept_unique_id is None
    assert message.unique_id == f"{acme.mailbox.pk:x}.{message.epoch:x}.{message.uid:x}"


def test_restoring_undoes_what_a_session_expunged(acme: Customer) -> None:
    [message] = fill(acme.mailbox, "one")
    session = MaildropSession.objects.create(
        tenant=acme.tenant, mailbox=acme.mailbox, listener_id=1, secure=True, ended_at=timezone.now(), end="quit"
    )
    retention.expunge(Message.objects.all(), by=None)
    Message.objects.update(expunged_in=session, first_fetched_in=session)
    assert retention.restore(Message.objects.filter(expunged_in=session.pk), by=None).messages == 1
    message.refresh_from_db()
    assert (message.expunged_in_id, message.first_fetched_in_id) == (None, None)


def test_a_restored_message_belongs_to_the_current_epoch(acme: Customer) -> None:
    fill(acme.mailbox, "one")
    retention.expunge(Message.objects.all(), by=None)
    call_command("newepoch")
    retention.restore(Message.objects.all(), by=None)
    [restored] = Message.objects.all()
    [delivered] = fill(acme.add("other"), "two")
    assert restored.epoch == delivered.epoch > 1


@pytest.mark.parametrize("seed", range(5))
def test_a_maildrop_as_it_was_has_what_it_had(acme: Customer, seed: int) -> None:
    """Whatever was removed and restored how often, before and since."""
    messages = fill(acme.mailbox, *(f"message {number}" for number in range(6)))
    chance = random.Random(seed)
    was = []
    for _ in range(15):
        some = Message.objects.filter(pk__in=[message.pk for message in chance.sample(messages, 3)])
        chance.choice([retention.expunge, retention.restore])(some, by=None)
        was.append((moment(), set(Message.objects.in_maildrop(acme.mailbox))))
    there = was[-1][1]
    for then, had in was:
        assert set(retention.removed_since(acme.mailbox, then)) == had - there
        assert retention.forecast(retention.removed_since(acme.mailbox, then), acme.mailbox).messages == len(
            had - there
        )


def test_a_session_is_undone_by_what_it_removed_last(acme: Customer) -> None:
    [message] = fill(acme.mailbox, "one")
    chosen = Message.objects.filter(pk=message.pk)

    def removed_in_a_session() -> MaildropSession:
        session = add_session(acme.mailbox, add_listener("pop3"), ended_at=Now(), end="quit", expunged=1)
        retention.expunge(chosen, by=None)
        chosen.update(expunged_in=session)
        return session

    tuesday = removed_in_a_session()
    retention.restore(chosen, by=None)
    wednesday = removed_in_a_session()
    assert retention.restore(retention.removed_in(tuesday), by=None, undoing=tuesday).messages == 0
    assert not Message.objects.in_maildrop(acme.mailbox).exists()
    assert retention.restore(retention.removed_in(wednesday), by=None, undoing=wednesday).messages == 1
    assert Message.objects.in_maildrop(acme.mailbox).get() == message


def test_from_the_very_moment_of_its_restore_a_message_is_there(acme: Customer) -> None:
    fill(acme.mailbox, "one")
    for change in (retention.expunge, retention.restore, retention.expunge):
        change(Message.objects.all(), by=None)
    [message] = Message.objects.all()
    assert message.earlier
    removed, restored = (datetime.fromisoformat(message.earlier[0][name]) for name in ("removed_at", "restored_at"))
    for then, had in ((removed, 0), (restored - timedelta(microseconds=1), 0), (restored, 1)):
        assert retention.removed_since(acme.mailbox, then).count() == had


def test_messages_of_many_mailboxes_are_restored_together(acme: Customer, globex: Customer) -> None:
    fill(acme.mailbox, "one", "two")
    fill(globex.mailbox, "three")
    fill(acme.add("bystander"), "four")
    retention.expunge(Message.objects.all(), by=None)
    chosen = Message.objects.exclude(subject="four").order_by("-subject")[:3]
    assert retention.restore(chosen, by=None).messages == 3
    assert (subjects(acme.mailbox), subjects(globex.mailbox)) == (["one", "two"], ["three"])
    assert Message.objects.get(subject="four").expunged_at is not None


def test_no_message_is_restored_if_one_mailbox_has_no_room(acme: Customer) -> None:
    small = acme.add("small", quota_octets=1000)
    fill(acme.mailbox, "one")
    fill(small, "two", "three")
    retention.expunge(Message.objects.all(), by=None)
    assert post.deliver(post.text(body="x" * 700 + "\r\n"), small) == [Outcome.STORED]
    small.refresh_from_db()
    before = (small.used_octets, small.next_uid)
    with pytest.raises(QuotaExceeded) as exceeded:
        retention.restore(Message.objects.expunged(), by=None)
    assert exceeded.value.mailbox == small
    assert subjects(acme.mailbox) == []
    small.refresh_from_db()
    assert (small.used_octets, small.next_uid) == before


def test_a_mailbox_over_its_quota_does_not_matter_if_none_of_its_messages_come_back(acme: Customer) -> None:
    full = acme.add("full", quota_octets=1000)
    fill(full, "present")
    fill(acme.mailbox, "one")
    retention.expunge(Message.objects.filter(mailbox=acme.mailbox), by=None)
    Mailbox.objects.filter(pk=full.pk).update(quota_octets=1)
    assert retention.restore(Message.objects.all(), by=None).messages == 1


def test_nothing_comes_back_into_a_closed_mailbox(acme: Customer) -> None:
    fill(acme.mailbox, "one")
    retention.expunge(Message.objects.all(), by=None)
    provisioning.close_mailbox(acme.mailbox)
    assert retention.restore(Message.objects.all(), by=None).messages == 0
    assert subjects(acme.mailbox) == []


# --- At the same time ----------------------------------------------------------------------------------------------


def test_a_purge_leaves_what_is_being_restored(acme: Customer) -> None:
    expunge(*fill(acme.mailbox, "one", "two"), ago=15 * DAY)
    restored, purged = Event(), Event()

    def restore() -> None:
        with transaction.atomic():
            assert retention.restore(Message.objects.filter(subject="one"), by=None).messages == 1
            restored.set()
            assert purged.wait(60)
        connection.close()

    with ThreadPoolExecutor(1) as thread:
        restoring = thread.submit(restore)
        assert restored.wait(60)
        assert purging.purge(KEEP).messages == 1
        purged.set()
        restoring.result()
    assert subjects(acme.mailbox) == ["one"]
    assert Message.objects.get().content.body


def test_what_was_purged_is_not_restored_and_not_counted(acme: Customer) -> None:
    one, two = fill(acme.mailbox, "one", "two")
    expunge(one, ago=15 * DAY)
    expunge(two, ago=13 * DAY)
    both = Message.objects.filter(pk__in=[one.pk, two.pk])
    assert purging.purge(KEEP).messages == 1
    assert retention.restore(both, by=None).messages == 1
    assert subjects(acme.mailbox) == ["two"]


def test_each_message_is_either_restored_or_purged(acme: Customer, globex: Customer) -> None:
    for number in range(60):
        message = post.text(f"{number}", body=f"{number}\r\n" * 9000 if number % 20 == 0 else "short\r\n")
        post.deliver(message, acme.mailbox, acme.add("copy") if number == 0 else "copy@acme.test", globex.mailbox)
    everything = list(Message.objects.all())
    expunge(*everything, ago=15 * DAY)
    ids = [message.pk for message in everything]
    random.Random(7).shuffle(ids)

    def restore(some: list[int]) -> int:
        return sum(
            retention.restore(Message.objects.filter(pk__in=some[at : at + 4]), by=None).messages
            for at in range(0, 45, 4)
        )

    restored_here, restored_there, gone_here, gone_there = at_once(
        [
            lambda: restore(ids[:45]),
            lambda: restore(ids[45:90]),
            lambda: purging.purge(KEEP, batch=3).messages,
            lambda: purging.purge(KEEP, batch=7).messages,
        ]
    )
    present = Message.objects.in_maildrop().count()
    assert present == restored_here + restored_there
    assert present + gone_here + gone_there + Message.objects.expunged().count() == len(ids)
    purging.purge(KEEP)
    assert Message.objects.count() == present
    assert Content.objects.count() == Message.objects.values("content").distinct().count()


def test_deliveries_expunges_and_restores_never_give_a_uid_twice(acme: Customer) -> None:
    fill(acme.mailbox, *"abcdef")

    def deliver() -> None:
        for number in range(15):
            assert post.deliver(post.text(f"new {number}"), acme.mailbox) == [Outcome.STORED]

    def to_and_fro() -> None:
        for _ in range(15):
            retention.expunge(Message.objects.filter(subject__in="abcdef"), by=None)
            retention.restore(Message.objects.filter(subject__in="abcdef"), by=None)

    at_once([deliver, to_and_fro, to_and_fro])
    uids = list(Message.objects.values_list("uid", flat=True))
    assert len(set(uids)) == len(uids) == 21


# --- Said before ---------------------------------------------------------------------------------------------------


def test_what_a_restore_would_do_is_what_it_does(acme: Customer, globex: Customer) -> None:
    one, two, _ = fill(acme.mailbox, "one", "two", "three")
    fill(globex.mailbox, "theirs")
    retention.expunge(Message.objects.filter(subject__in=["one", "two", "theirs"]), by=None)
    acme.mailbox.refresh_from_db()
    said = retention.forecast(Message.objects.all(), acme.mailbox)
    assert (said.messages, said.octets, said.room, said.missing) == (2, one.octets + two.octets, None, 0)
    assert said.used_octets == acme.mailbox.used_octets
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(quota_octets=acme.mailbox.used_octets + one.octets)
    acme.mailbox.refresh_from_db()
    said = retention.forecast(Message.objects.all(), acme.mailbox)
    assert (said.room, said.missing) == (one.octets, two.octets)
    with pytest.raises(QuotaExceeded):
        retention.restore(Message.objects.filter(mailbox=acme.mailbox), by=None)
    limits.set_limits(acme.domain, max_octets=acme.mailbox.used_octets + 1)
    said = retention.forecast(Message.objects.filter(pk=one.pk), acme.mailbox)
    assert (said.room, said.missing) == (1, one.octets - 1)
    provisioning.close_mailbox(acme.mailbox)
    assert retention.forecast(Message.objects.all(), acme.mailbox).messages == 0
