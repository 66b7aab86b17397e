"""`checkstore` finds whatever differs from what it counts, and nothing else."""

import re
import threading
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from accounts import app_passwords
from accounts.models import AppPassword, Mailbox
from mailstore import drift, purging, retention
from mailstore.delivery import CHUNK_OCTETS, Outcome
from mailstore.models import Message, OwnCopy, Store
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.retain import DAY, KEEP, at_once, expunge, fill

pytestmark = pytest.mark.django_db(transaction=True)


def checkstore() -> str:
    output = StringIO()
    call_command("checkstore", stdout=output)
    return output.getvalue()


@pytest.fixture
def store(acme: Customer, globex: Customer) -> Message:
    """Mail of every kind in two tenants; returns the one large message of acme's mailbox."""
    one, two, three = fill(acme.mailbox, "one", "two", "three")
    fill(globex.mailbox, "four")
    acme.add("empty")
    assert post.deliver(post.text("large", body="x\r\n" * CHUNK_OCTETS), acme.mailbox, globex.mailbox) == [
        Outcome.STORED,
        Outcome.STORED,
    ]
    assert post.deliver(b"", acme.add("nothing")) == [Outcome.STORED]
    expunge(one, ago=15 * DAY)
    expunge(two, three, ago=1 * DAY)
    purging.purge(KEEP)
    retention.restore(Message.objects.filter(pk=two.pk), by=None)
    large = Message.objects.get(mailbox=acme.mailbox, subject="large")
    device, _ = app_passwords.create(acme.mailbox, name="Outlook", own_copy=True)
    OwnCopy.objects.create(tenant=acme.tenant, mailbox=acme.mailbox, app_password=device, message=large)
    return large


def test_there_is_no_drift(store: Message) -> None:
    assert checkstore() == "no drift\n"


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        (
            "UPDATE accounts_mailbox SET used_octets = used_octets + 1, message_count = 7 WHERE id = {mailbox}",
            r"mailbox {mailbox} \(an@acme.test\): counts 7 messages of (\d+) octets, has 2 of \d+",
        ),
        (
            "UPDATE accounts_mailbox SET next_uid = 5 WHERE id = {mailbox}",
            r"mailbox {mailbox} \(an@acme.test\): its next uid is 5, and it has given out 5",
        ),
        (
            "UPDATE mailstore_message SET trace = trace || 'x' WHERE id = {message}",
            r"message {message}: has (\d+) octets by its row, \d+ by its trace and content",
        ),
        (
            "UPDATE mailstore_message SET epoch = 2 WHERE id = {message}",
            r"message {message}: its epoch is 2, later than the store's, 1",
        ),
        (
            "UPDATE mailstore_contentchunk SET octets = octets || 'x' WHERE content_id = {content} AND number = 1",
            r"content {content}: has {octets} octets by its row, {more} are stored, in 4 chunks",
        ),
        (
            "UPDATE mailstore_content SET body = '' WHERE id = {content}",
            r"content {content}: has {octets} octets by its row, {octets} are stored, in 4 chunks",
        ),
        (
            "UPDATE mailstore_contentchunk SET number = 9 WHERE content_id = {content} AND number = 1",
            r"content {content}: its 4 chunks are numbered from 0 to 9",
        ),
        (
            "UPDATE mailstore_content SET header_octets = octets + 1 WHERE id = {content}",
            r"content {content}: has {octets} octets, and a header of {more}",
        ),
        (
            "INSERT INTO mailstore_content (id, tenant_id, octets, header_octets, has_dot_lines, body) "
            "VALUES (987654, {tenant}, 0, 0, false, '')",
            r"content 987654: no message has it .*",
        ),
        (
            "UPDATE mailstore_owncopy SET message_id = 987654 WHERE message_id = {message}",
            r"own copy of message 987654 for device {device} in mailbox {mailbox}: the message is gone",
        ),
        (
            "UPDATE mailstore_owncopy SET message_id = {theirs} WHERE message_id = {message}",
            r"own copy of message {theirs} for device {device} in mailbox {mailbox}: "
            r"the message is of mailbox {other}",
        ),
        (
            "DELETE FROM accounts_apppassword WHERE id = {device}",
            r"own copy of message {message} for device {device} in mailbox {mailbox}: the device is gone",
        ),
        (
            "UPDATE accounts_apppassword SET tenant_id = (SELECT tenant_id FROM accounts_mailbox WHERE id = {other}),"
            " mailbox_id = {other} WHERE id = {device}",
            r"own copy of message {message} for device {device} in mailbox {mailbox}: "
            r"the device is of mailbox {other}",
        ),
        (
            "UPDATE mailstore_owncopy SET removed_at = now() WHERE message_id = {message}",
            r"message {message}: is in the maildrop of mailbox {mailbox}, and every device with an own copy .*",
        ),
        (
            "UPDATE mailstore_deliveryledger SET digest = 'x' WHERE ctid = "
            "(SELECT ctid FROM mailstore_deliveryledger WHERE mailbox_id = {mailbox} LIMIT 1)",
            r"delivery ledger of mailbox {mailbox}: a digest of 1 octets, delivered at .*",
        ),
    ],
)
def test_each_drift_is_a_line(store: Message, statement: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = {
        "tenant": store.tenant_id,
        "mailbox": store.mailbox_id,
        "message": store.pk,
        "content": store.content_id,
        "octets": store.content.octets,
        "more": store.content.octets + 1,
        "device": AppPassword.objects.get().pk,
        "other": Mailbox.objects.get(address="an@globex.test").pk,
        "theirs": Message.objects.filter(mailbox__address="an@globex.test")[0].pk,
    }
    with connection.cursor() as cursor:
        cursor.execute(statement.format(**names))
    with pytest.raises(CommandError, match="drift in 1 places"):
        call_command("checkstore")
    [said] = capsys.readouterr().out.splitlines()
    assert re.fullmatch(line.format(**names), said)


def test_it_can_run_beside_live_traffic(acme: Customer, globex: Customer) -> None:
    over = threading.Event()

    def traffic() -> list[str]:
        for number in range(25):
            post.deliver(post.text(f"{number}", body="x\r\n" * (CHUNK_OCTETS // 2)), acme.mailbox, globex.mailbox)
            retention.expunge(Message.objects.filter(subject=f"{number - 1}"), by=None)
            retention.restore(Message.objects.filter(subject=f"{number - 2}", tenant=acme.tenant), by=None)
            Message.objects.expunged().filter(tenant=globex.tenant).update(expunged_at="2020-01-01T00:00Z")
            purging.purge(KEEP)
        over.set()
        return []

    def checks() -> list[str]:
        found: list[str] = []
        while not over.is_set():
            found += drift.find()
        return found

    assert at_once([traffic, checks]) == [[], []]


def test_a_new_epoch_is_later_than_any_that_a_backup_knows(acme: Customer) -> None:
    [before] = fill(acme.mailbox, "before")
    first, second = StringIO(), StringIO()
    call_command("newepoch", stdout=first)
    [_, after] = fill(acme.mailbox, "after")
    call_command("newepoch", stdout=second)
    assert before.epoch == 1
    assert first.getvalue() == f"epoch {after.epoch}\n"
    assert Store.objects.get().epoch == after.epoch + 1
    assert second.getvalue() == f"epoch {after.epoch + 1}\n"
    # The same backup, restored once more a minute later: it knows nothing of the epochs since.
    Store.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM now())::bigint / 60")
        [(minute,)] = cursor.fetchall()
    call_command("newepoch", stdout=first)
    assert Store.objects.get().epoch >= minute >= after.epoch
