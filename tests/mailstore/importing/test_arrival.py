"""What comes along is stored as delivered mail is, each message once."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import md5

import pytest
from django.db import DatabaseError, transaction
from django.utils import timezone

from accounts import limits, provisioning
from accounts.models import Allowance, Mailbox
from mailstore import drift, moving, purging, retention
from mailstore.importing import arrival, bring
from mailstore.importing.source import Lost
from mailstore.importing.unique_ids import BadFormat, can_be_kept, check, formatted
from mailstore.models import Content, ImportedItem, Message, unique_id
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.importing.sources import SETTINGS, Listed, counts, maildrop, run, told
from tests.mailstore.retain import KEEP, at_once, expunge

pytestmark = pytest.mark.django_db(transaction=True)

A, B, C = (post.text(name) for name in "abc")


@pytest.fixture(autouse=True)
def nothing_drifts(transactional_db: None) -> Iterator[None]:
    yield
    assert list(drift.find()) == []


def test_octets_and_unique_ids_are_those_of_the_source(acme: Customer) -> None:
    date = datetime(2020, 2, 29, 12, tzinfo=UTC)
    progress = run(Listed(("00000001abc", A), ("two", B), (None, C), date=date), acme.mailbox)
    assert (progress.total, *counts(progress)) == (3, 3, 0, 0)
    (first, second, third) = maildrop(acme.mailbox)
    assert (first, second) == (("00000001abc", A), ("two", B))
    assert third == (unique_id(acme.mailbox.pk, 1, 3), C)
    message = Message.objects.get(uid=1)
    assert (message.trace, message.subject, message.delivered_at) == (b"", "a", date)
    acme.mailbox.refresh_from_db()
    assert (acme.mailbox.used_octets, acme.mailbox.message_count) == (len(A + B + C), 3)


def test_what_comes_after_has_unique_ids_of_ours(acme: Customer) -> None:
    run(Listed(("x", A)), acme.mailbox)
    post.fill(acme.mailbox, [B])
    assert [name for name, _ in maildrop(acme.mailbox)] == ["x", unique_id(acme.mailbox.pk, 1, 2)]


def test_nothing_comes_twice(acme: Customer) -> None:
    source = Listed(("x", A), (None, B), ("y", A), (None, B))
    assert counts(run(source, acme.mailbox)) == (3, 1, 0)
    assert counts(run(source, acme.mailbox)) == (0, 4, 0)
    assert len(maildrop(acme.mailbox)) == 3


def test_what_came_along_is_not_read_again(acme: Customer) -> None:
    run(Listed(("x", A), ("y", B)), acme.mailbox)
    again = Listed(("x", A), ("y", B), ("z", C))
    run(again, acme.mailbox)
    assert again.read == ["z"]


def test_not_even_after_it_was_removed_and_purged(acme: Customer) -> None:
    source = Listed(("x", A), (None, B))
    run(source, acme.mailbox)
    expunge(*Message.objects.all(), ago=timedelta(days=15))
    purging.purge(KEEP)
    assert not Message.objects.exists()
    assert counts(run(source, acme.mailbox)) == (0, 2, 0)


def test_a_message_that_got_its_unique_id_meanwhile_is_the_same(acme: Customer) -> None:
    run(Listed((None, A)), acme.mailbox)
    assert counts(run(Listed(("x", A)), acme.mailbox)) == (0, 1, 0)
    named = Listed(("x", A))
    run(named, acme.mailbox)
    assert named.read == []  # by now it is known by its unique-id
    assert counts(run(Listed(("y", B)), acme.mailbox)) == (1, 0, 0)
    assert counts(run(Listed((None, B)), acme.mailbox)) == (0, 1, 0)


def test_two_imports_at_once_bring_each_message_once(acme: Customer) -> None:
    messages = [(f"id-{number}", post.text(str(number))) for number in range(150)]
    found = at_once([lambda: counts(run(Listed(*messages), acme.mailbox)) for _ in range(3)])
    assert sum(imported for imported, _, _ in found) == 150
    assert sorted(name for name, _ in maildrop(acme.mailbox)) == sorted(name for name, _ in messages)


def test_an_import_killed_in_a_transaction_goes_on(acme: Customer) -> None:
    source = Listed(*((f"id-{number}", post.text(str(number))) for number in range(250)))
    calls = 0

    def stop(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, acme.mailbox, then=stop)
    assert len(maildrop(acme.mailbox)) == 100
    assert counts(run(source, acme.mailbox)) == (150, 100, 0)
    assert maildrop(acme.mailbox) == list(source.messages)


def test_the_same_message_may_come_into_two_mailboxes(acme: Customer, globex: Customer) -> None:
    for customer in (acme, globex):
        assert counts(run(Listed(("x", A), (None, B)), customer.mailbox)) == (2, 0, 0)
    assert {item.tenant_id for item in ImportedItem.objects.all()} == {acme.tenant.pk, globex.tenant.pk}
    assert set(Content.objects.values_list("tenant", "messages__mailbox")) == {
        (acme.tenant.pk, acme.mailbox.pk),
        (globex.tenant.pk, globex.mailbox.pk),
    }


# Octets


def test_line_ends_become_those_of_delivered_mail(acme: Customer) -> None:
    run(Listed(("x", b"Subject: x\n\n.\nbare\rCR, no end")), acme.mailbox)
    assert maildrop(acme.mailbox) == [("x", b"Subject: x\r\n\r\n.\r\nbare\rCR, no end\r\n")]


def test_large_messages_lie_in_chunks(acme: Customer) -> None:
    large = post.text("large", body="x" * 70 + "\r\n") + b"0123456789\r\n" * 60_000
    assert counts(run(Listed(("x", A), ("y", large), ("z", B)), acme.mailbox)) == (3, 0, 0)
    assert maildrop(acme.mailbox) == [("x", A), ("y", large), ("z", B)]
    assert counts(run(Listed((None, large)), acme.mailbox)) == (0, 1, 0)
    assert Content.objects.count() == 3


def test_what_is_too_large_is_told_and_the_rest_comes_along(acme: Customer) -> None:
    progress = run(Listed(("x", A), ("y", b"x" * 5000), ("z", B)), acme.mailbox, replace(SETTINGS, limit=1000))
    assert (counts(progress), told(progress)) == ((2, 0, 1), ["message 2: it is too large"])


# Room


def test_an_import_ends_where_the_quota_does(acme: Customer) -> None:
    mailbox = acme.add("full", quota_octets=len(A + B) + 10)
    with pytest.raises(bring.NoRoom):
        run(Listed(("x", A), ("y", B), ("z", C)), mailbox)
    assert maildrop(mailbox) == [("x", A), ("y", B)]
    Mailbox.objects.filter(pk=mailbox.pk).update(quota_octets=None)
    assert counts(run(Listed(("x", A), ("y", B), ("z", C)), mailbox)) == (1, 2, 0)


def test_no_room_for_a_large_message_leaves_nothing_of_it(acme: Customer) -> None:
    mailbox = acme.add("full", quota_octets=1000)
    with pytest.raises(bring.NoRoom):
        run(Listed(("x", b"0123456789\r\n" * 60_000)), mailbox)
    assert not Content.objects.exists()
    assert not ImportedItem.objects.exists()


def test_an_import_ends_where_its_tenants_room_does(acme: Customer, globex: Customer) -> None:
    Allowance.objects.get_or_create(tenant=acme.tenant, domain=None)
    limits.set_limits(acme.tenant, max_octets=len(A) + 10)
    with pytest.raises(bring.NoRoom):
        run(Listed(("x", A), ("y", B)), acme.mailbox)
    assert maildrop(acme.mailbox) == [("x", A)]
    assert counts(run(Listed(("x", A), ("y", B)), globex.mailbox)) == (2, 0, 0)


def test_nothing_comes_into_a_closed_mailbox(acme: Customer) -> None:
    provisioning.close_mailbox(acme.mailbox)
    with pytest.raises(arrival.Gone):
        run(Listed(("x", A)), acme.mailbox)


def test_a_large_message_comes_into_a_mailbox_that_was_moved_to_another_tenant(acme: Customer) -> None:
    before = Mailbox.objects.get(pk=acme.mailbox.pk)
    other, _ = provisioning.add_tenant("other")
    moving.move_domain(acme.domain, to=other)
    run(Listed(("x", b"0123456789\r\n" * 60_000), ("y", A)), before)
    assert {message.tenant_id for message in Message.objects.all()} == {other.pk}
    assert {content.tenant_id for content in Content.objects.all()} == {other.pk}


# Dates


@pytest.mark.parametrize(
    ("known", "header", "shown"),
    [
        (datetime(2020, 1, 1, tzinfo=UTC), "Wed, 1 Jan 2025 00:00:00 +0000", datetime(2020, 1, 1, tzinfo=UTC)),
        (None, "Wed, 1 Jan 2025 00:00:00 +0000", datetime(2025, 1, 1, tzinfo=UTC)),
        (None, "Wed, 1 Jan 2925 00:00:00 +0000", None),
        (None, "long ago", None),
    ],
)
def test_a_message_came_when_it_came_there(
    acme: Customer, known: datetime | None, header: str, shown: datetime | None
) -> None:
    run(Listed(("x", f"Date: {header}\r\n\r\n".encode()), date=known), acme.mailbox)
    delivered_at = Message.objects.get().delivered_at
    assert delivered_at == shown if shown else timezone.now() - delivered_at < timedelta(minutes=1)


# Unique-ids


def test_a_unique_id_that_reads_as_ours_is_not_kept(acme: Customer, globex: Customer) -> None:
    ours = unique_id(acme.mailbox.pk, 1, 2)
    later = unique_id(acme.mailbox.pk, 99, 2**40)
    other = unique_id(globex.mailbox.pk, 1, 2)
    assert counts(run(Listed((ours, A), (later, B), (other, C)), acme.mailbox)) == (3, 0, 0)
    names = [name for name, _ in maildrop(acme.mailbox)]
    assert names == [unique_id(acme.mailbox.pk, 1, 1), unique_id(acme.mailbox.pk, 1, 2), other]
    post.fill(acme.mailbox, [A, A, A])
    names = [name for name, _ in maildrop(acme.mailbox)]
    assert len(set(names)) == 6


@pytest.mark.parametrize("name", ["{ours}", "", "has blank", "ü", "x" * 71, "x\n"])
def test_the_database_keeps_no_unique_id_that_is_ours_or_none(acme: Customer, name: str) -> None:
    [message] = post.fill(acme.mailbox, [A])
    name = name.format(ours=unique_id(acme.mailbox.pk, 7, 7))
    assert not can_be_kept(name, mailbox_id=acme.mailbox.pk)
    with pytest.raises(DatabaseError), transaction.atomic():
        Message.objects.filter(pk=message.pk).update(kept_unique_id=name)
    Message.objects.filter(pk=message.pk).update(kept_unique_id="x" * 70)


def test_what_cannot_be_kept_still_tells_messages_apart(acme: Customer) -> None:
    source = Listed(("x" * 99, A), ("x" * 98, A))
    assert counts(run(source, acme.mailbox)) == (2, 0, 0)
    assert counts(run(source, acme.mailbox)) == (0, 2, 0)


def test_unique_ids_can_be_left_there(acme: Customer) -> None:
    progress = run(Listed(("1", A), ("1", B), ("2", B)), acme.mailbox, replace(SETTINGS, unique_ids=False))
    assert counts(progress) == (2, 1, 0)
    assert all("." in name for name, _ in maildrop(acme.mailbox))


def test_a_field_tells_them_if_asked_for(acme: Customer) -> None:
    source = Listed((None, b"X-UIDL: abc \r\n" + A), ("kept", b"X-UIDL: def\r\n" + B), (None, C))
    run(source, acme.mailbox, replace(SETTINGS, x_uidl=True))
    assert [name for name, _ in maildrop(acme.mailbox)] == ["abc", "kept", unique_id(acme.mailbox.pk, 1, 3)]


def test_a_restored_message_is_a_new_one(acme: Customer) -> None:
    run(Listed(("x", A)), acme.mailbox)
    retention.expunge(Message.objects.all(), by=None)
    retention.restore(Message.objects.all(), by=None)
    assert maildrop(acme.mailbox) == [(unique_id(acme.mailbox.pk, 1, 2), A)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("dovecot", "0000001f000003e8"),
        ("%08Xu%08Xv", "0000001f000003e8"),
        ("cyrus", "1000.31"),
        ("courier", "1000-31"),
        ("uw", "000003e80000001f"),
        ("courier-0", "1448.M1P2.host,S=3"),
        ("%g", "guid"),
        ("tpop3d", md5(b"1448.M1P2.host,S=3").hexdigest()),
        ("%%%u", "%31"),
    ],
)
def test_unique_ids_are_made_as_other_servers_make_them(text: str, shown: str) -> None:
    made = formatted(check(text), uid=31, validity=1000, file="1448.M1P2.host,S=3", guid="guid")
    assert made == shown


@pytest.mark.parametrize("text", ["", "nonsense", "%x", "%", "%%u", "100%u%"])
def test_what_is_no_format_is_refused(text: str) -> None:
    with pytest.raises(BadFormat):
        check(text)


# A source that is lost


class Flaky(Listed):
    """Loses the connection when it has read half of a message, so many times."""

    def __init__(self, *messages: tuple[str | None, bytes], losses: int, away: int = 0) -> None:
        super().__init__(*messages)
        self.losses, self.away, self.opened = losses, away, 0

    def open(self) -> int:
        self.opened += 1
        if self.opened > 1 and self.away:
            self.away -= 1
            raise Lost("it is away")
        return super().open()

    def _reader(self, unique_id, octets):  # type: ignore[no-untyped-def]
        whole = super()._reader(unique_id, octets)

        def read(write):  # type: ignore[no-untyped-def]
            if unique_id == "y" and self.losses:
                self.losses -= 1
                write(octets[:10])
                raise Lost("it is away")
            whole(write)

        return read


def test_a_lost_source_is_found_again(acme: Customer) -> None:
    source = Flaky(("x", A), ("y", B), ("z", C), losses=2, away=2)
    assert counts(run(source, acme.mailbox, pauses=(0.0,) * 3)) == (3, 0, 0)
    assert maildrop(acme.mailbox) == [("x", A), ("y", B), ("z", C)]


def test_a_message_at_which_the_source_is_always_lost_is_left_there(acme: Customer) -> None:
    progress = run(Flaky(("x", A), ("y", B), ("z", C), losses=99), acme.mailbox)
    assert counts(progress) == (2, 0, 1)
    assert "lost each time" in told(progress)[0]


def test_a_source_that_stays_away_ends_it_and_keeps_what_came(acme: Customer) -> None:
    with pytest.raises(Lost):
        run(Flaky(("x", A), ("y", B), losses=1, away=99), acme.mailbox, pauses=(0.0, 0.01))
    assert maildrop(acme.mailbox) == [("x", A)]
