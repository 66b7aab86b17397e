"""Whatever devices, owners and admins do in whatever order: what each sees is what a simple model says."""

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from accounts import app_passwords, provisioning
from accounts.models import AppPassword, Mailbox
from mailstore import drift, purging, retention
from mailstore.maildrop import Maildrops
from mailstore.models import MaildropSession, Message
from tests.fixtures import PASSWORD
from tests.mailstore import post
from tests.mailstore.retain import KEEP, moment
from tests.mailstore.test_maildrop import maildrops_of_a_process
from tests.mailstore.test_own_copies import sees, session

pytestmark = pytest.mark.django_db(transaction=True)

T = TypeVar("T")
_numbers = count(1)


class Process:
    """A listener process's maildrops, in a loop that runs when it is asked."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.maildrops: Maildrops = self.run(self._start())

    async def _start(self) -> Maildrops:
        maildrops = maildrops_of_a_process()
        await maildrops.start()
        return maildrops

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self.maildrops.stop())
        self.loop.close()


@pytest.fixture
def process(transactional_db: None) -> Iterator[Process]:
    process = Process()
    yield process
    process.close()


@dataclass
class Mail:
    """A message as the model knows it."""

    pk: int
    uid: int
    octets: int
    expunged: bool = False
    expunged_in: UUID | None = None


@dataclass
class Device:
    """An app password as the model knows it. `removed`: by message, in which session; in the order of removal."""

    row: AppPassword
    password: str
    own: bool
    revoked: bool = False
    expired: bool = False
    removed: dict[int, UUID] = field(default_factory=dict)
    returns: dict[int, int] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    """Unique-ids of what it has removed."""

    @property
    def is_waited_for(self) -> bool:
        return self.own and not self.revoked and not self.expired


class World:
    """A mailbox, and the model of it."""

    def __init__(self, process: Process) -> None:
        slug = f"t{next(_numbers)}"
        tenant, _ = provisioning.add_tenant(slug)
        provisioning.add_domain(f"{slug}.test", tenant=tenant)
        address = f"an@{slug}.test"
        self.mailbox: Mailbox = provisioning.add_mailbox(address, password=PASSWORD, quota_octets=None)[0]
        self.process = process
        self.mails: list[Mail] = []
        self.devices: list[Device] = []
        self.sessions: list[UUID] = []
        self.order = count()
        self.stamps: dict[tuple[int, int], int] = {}
        self.was: list[tuple[datetime, set[int]]] = []
        self.next_uid = 1
        for _ in range(2):
            self.add_device(True)
            self.deliver()

    # What is done, in the store and in the model

    def deliver(self) -> None:
        number = len(self.mails)
        assert post.deliver(post.text(str(number)), self.mailbox)
        message = Message.objects.get(mailbox=self.mailbox, subject=str(number))
        assert message.uid == self.next_uid
        self.mails.append(Mail(message.pk, message.uid, message.octets))
        self.next_uid += 1

    def add_device(self, own: bool) -> None:
        row, password = app_passwords.create(self.mailbox, name=f"d{len(self.devices)}", own_copy=own)
        self.devices.append(Device(row, password, own))

    def fetch(self, who: int, fetched: int, removed: int) -> None:
        """A session: of the main password, or of a device; it fetches and removes what the bits say."""
        device = self._device(who)
        view = self._view(device)
        fetch = [number for number in range(1, len(view) + 1) if fetched >> number & 1]
        remove = [number for number in range(1, len(view) + 1) if removed >> number & 1]
        password = device.password if device else PASSWORD
        ended = self.process.run(
            session(self.process.maildrops, password, name=str(self.mailbox), fetch=fetch, remove=remove)
        )
        if remove:
            self.sessions.append(ended)
        for mail in [view[number - 1] for number in remove]:
            if device and device.own:
                device.told.add(self._unique_id(mail, device))
                device.removed[mail.pk] = ended
                self.stamps[mail.pk, device.row.pk] = next(self.order)
            else:
                mail.expunged, mail.expunged_in = True, ended
        self._settle()

    def undo(self, which: int) -> None:
        if not self.sessions:
            return
        key = self.sessions[which % len(self.sessions)]
        found = MaildropSession.objects.get(pk=key)
        retention.restore(retention.removed_in(found), by=None, undoing=found)
        usable = [device for device in self.devices if device.own and not device.revoked]
        for mail in sorted(self.mails, key=lambda mail: mail.uid):
            own = [device for device in usable if device.removed.get(mail.pk) == key]
            if mail.expunged and (mail.expunged_in == key or own):
                self._restored(mail)
            elif not mail.expunged:
                for device in own:
                    self._returned(mail, device)

    def restore(self, which: int) -> None:
        chosen = [mail for number, mail in enumerate(self.mails) if which >> number & 1]
        retention.restore(Message.objects.filter(pk__in=[mail.pk for mail in chosen]), by=None)
        for mail in sorted(chosen, key=lambda mail: mail.uid):
            if mail.expunged:
                self._restored(mail)
                continue
            for device in self.devices:
                if device.own and not device.revoked and mail.pk in device.removed:
                    self._returned(mail, device)

    def expunge(self, which: int) -> None:
        chosen = [mail for number, mail in enumerate(self.mails) if which >> number & 1]
        retention.expunge(Message.objects.filter(pk__in=[mail.pk for mail in chosen]), by=None)
        for mail in chosen:
            if not mail.expunged:
                mail.expunged, mail.expunged_in = True, None

    def revoke(self, who: int) -> None:
        device = self.devices[who % len(self.devices)]
        app_passwords.revoke(device.row)
        device.revoked = True
        self._settle()

    def switch(self, who: int) -> None:
        device = self.devices[who % len(self.devices)]
        if device.revoked:
            return
        device.own = not device.own
        app_passwords.change(device.row, own_copy=device.own)
        if device.own:
            device.removed.clear()
            device.told.clear()
        self._settle()

    def expire(self, who: int) -> None:
        device = self.devices[who % len(self.devices)]
        AppPassword.objects.filter(pk=device.row.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
        purging.purge(KEEP)
        device.expired = True
        self._settle()

    # What must be true

    def check(self) -> None:
        for device in [None, *(device for device in self.devices if not (device.revoked or device.expired))]:
            told = self.process.run(
                sees(self.process.maildrops, device.password if device else PASSWORD, name=str(self.mailbox))
            )
            expected = [self._unique_id(mail, device) for mail in self._view(device)]
            assert told == expected
            if device and device.own:
                assert device.told.isdisjoint(told)  # else its client would skip one that came back
        present = [mail for mail in self.mails if not mail.expunged]
        self.mailbox.refresh_from_db()
        assert self.mailbox.message_count == len(present)
        assert self.mailbox.used_octets == sum(mail.octets for mail in present)
        there = dict(Message.objects.filter(mailbox=self.mailbox).expunged().values_list("pk", "expunged_in"))
        assert there == {mail.pk: mail.expunged_in for mail in self.mails if mail.expunged}
        there_now = {mail.pk for mail in present}
        self.was.append((moment(), there_now))
        for then, had in self.was:
            since = retention.removed_since(self.mailbox, then)
            assert set(since.values_list("pk", flat=True)) == had - there_now
        assert [line for line in drift.find() if "own copy" in line or "counts" in line] == []

    # The model

    def _device(self, who: int) -> Device | None:
        usable = [None, *(device for device in self.devices if not (device.revoked or device.expired))]
        return usable[who % len(usable)]

    def _view(self, device: Device | None) -> list[Mail]:
        lacks = device.removed if device and device.own else {}
        present = [mail for mail in self.mails if not mail.expunged and mail.pk not in lacks]
        return sorted(present, key=lambda mail: mail.uid)

    def _unique_id(self, mail: Mail, device: Device | None) -> str:
        returns = device.returns.get(mail.pk, 0) if device and device.own else 0
        return f"{self.mailbox.pk:x}.1.{mail.uid:x}" + (f".{returns:x}" if returns else "")

    def _returned(self, mail: Mail, device: Device) -> None:
        del device.removed[mail.pk]
        device.returns[mail.pk] = device.returns.get(mail.pk, 0) + 1

    def _restored(self, mail: Mail) -> None:
        mail.expunged, mail.expunged_in, mail.uid = False, None, self.next_uid
        self.next_uid += 1
        for device in self.devices:
            device.removed.pop(mail.pk, None)
            device.returns.pop(mail.pk, None)

    def _settle(self) -> None:
        devices = [device for device in self.devices if device.is_waited_for]
        for mail in self.mails:
            if devices and not mail.expunged and all(mail.pk in device.removed for device in devices):
                last = max(devices, key=lambda device: self.stamps[mail.pk, device.row.pk])
                mail.expunged, mail.expunged_in = True, last.removed[mail.pk]


_bits = st.integers(0, 127)
_who = st.integers(0, 11)
STEPS = st.one_of(
    st.tuples(st.just("fetch"), _who, _bits, _bits),
    st.tuples(st.just("fetch"), _who, _bits, _bits),
    st.tuples(st.just("fetch"), _who, _bits, _bits),
    st.tuples(st.just("undo"), _who),
    st.tuples(st.just("undo"), _who),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("restore"), _bits),
    st.tuples(st.just("expunge"), _bits),
    st.tuples(st.just("switch"), _who),
    st.tuples(st.just("revoke"), _who),
    st.tuples(st.just("expire"), _who),
    st.tuples(st.just("add_device"), st.booleans()),
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(steps=st.lists(STEPS, min_size=8, max_size=16))
@example(steps=[("fetch", 2, 0, 2), ("expire", 1), ("expire", 0), ("revoke", 0)])  # none is waited for any more
def test_each_view_is_what_the_model_says(process: Process, steps: list[tuple[Any, ...]]) -> None:
    world = World(process)
    for step, *arguments in steps:
        getattr(world, step)(*arguments)
        world.check()
