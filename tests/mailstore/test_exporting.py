"""What is handed out is what is there: exactly, in pieces, and nobody else's."""

import gc
import io
import mailbox as stdlib
import os
import stat
import tracemalloc
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import AuditEvent
from accounts.principals import Principal
from mailstore import exporting, purging, retention
from mailstore.models import ContentChunk, Message
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.importing.sources import Listed, maildrop, octets_of, run
from tests.mailstore.retain import KEEP

pytestmark = pytest.mark.django_db(transaction=True)

ODD = (
    b"Subject: odd\r\n\r\nFrom me\r\n>From you\r\n >From them\r\nFromage\r\n.\r\nbare\rCR\0\r\n\r\nFrom "
    + b"x" * 5000
    + b"\r\n"
)


def whole(pieces: Iterator[bytes]) -> bytes:
    return b"".join(pieces)


def unzipped(octets: bytes) -> dict[str, bytes]:
    archive = zipfile.ZipFile(io.BytesIO(octets))
    assert archive.testzip() is None
    return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}


def test_an_mbox_holds_all_messages_quoted(acme: Customer, tmp_path: Path) -> None:
    post.fill(acme.mailbox, [post.text("a"), ODD])
    octets = whole(exporting.mbox(acme.mailbox))
    assert octets.startswith(b"From binh@elsewhere.test ")
    assert b"\n>From me\n>>From you\n >From them\nFromage\n" in octets
    assert octets.endswith(b"\n\n")
    (tmp_path / "mbox").write_bytes(octets)
    read = stdlib.mbox(tmp_path / "mbox")
    assert [message["subject"] for message in read] == ["a", "odd"]
    read.close()


def test_quoting_does_not_depend_on_how_it_is_cut() -> None:
    text = ODD * 3 + b"From " + b"y" * 200_000 + b"From \r\nFrom z\r\n"
    expected = whole(exporting._quoted(iter([text])))
    assert expected.count(b"\n>From me") == 3
    assert b"From \n>From z\n" in expected
    for size in (1, 2, 3, 7, 1000, 65536, 65537):
        pieces = (text[start : start + size] for start in range(0, len(text), size))
        assert whole(exporting._quoted(pieces)) == expected, size


def test_files_hold_exactly_their_octets(acme: Customer) -> None:
    large = b"0123456789\r\n" * 60_000
    messages = post.fill(acme.mailbox, [post.text("a"), ODD, large])
    files = unzipped(whole(exporting.eml_zip(acme.mailbox)))
    assert list(files.values()) == [octets_of(message) for message in messages]
    assert all(name.endswith(".eml") for name in files)


def test_a_maildir_comes_with_the_unique_ids(acme: Customer) -> None:
    run(Listed(("kept", post.text("k"))), acme.mailbox)
    post.fill(acme.mailbox, [ODD])
    Message.objects.filter(uid=1).update(first_fetched_at="2026-01-01T00:00:00Z")
    files = unzipped(whole(exporting.maildir_zip(acme.mailbox)))
    *mails, uidlist = files
    assert [name.split("/")[1] for name in mails] == ["cur", "new"]
    assert [files[name] for name in mails] == [octets for _, octets in maildrop(acme.mailbox)]
    head, *lines = files[uidlist].decode().splitlines()
    assert head.startswith("3 V")
    names = [name for name, _ in maildrop(acme.mailbox)]
    assert [line.split()[1] for line in lines] == [f"P{name}" for name in names]


@pytest.mark.parametrize("format_", exporting.FORMATS)
def test_an_empty_mailbox_is_handed_out_too(acme: Customer, format_: str) -> None:
    octets = whole(exporting.FORMATS[format_](acme.mailbox))
    assert octets == b"" if format_ == "mbox" else unzipped(octets) is not None


def test_removed_mail_is_left_out_unless_asked_for(acme: Customer) -> None:
    first, _ = post.fill(acme.mailbox, [post.text("a"), post.text("b")])
    retention.expunge(Message.objects.filter(pk=first.pk), by=None)
    assert len(unzipped(whole(exporting.eml_zip(acme.mailbox)))) == 1
    assert len(unzipped(whole(exporting.eml_zip(acme.mailbox, removed=True)))) == 2


@pytest.mark.parametrize("format_", exporting.FORMATS)
def test_who_does_not_see_the_mailbox_gets_nothing_of_it(acme: Customer, globex: Customer, format_: str) -> None:
    post.fill(acme.mailbox, [ODD])
    own = Principal(role="tenant-admin", tenant_id=acme.tenant.pk)
    export = exporting.FORMATS[format_]
    assert len(whole(export(acme.mailbox, principal=own))) > 300
    foreign = whole(export(acme.mailbox, principal=replace(own, tenant_id=globex.tenant.pk)))
    assert b"odd" not in foreign
    assert len(foreign) < 700


def test_no_transaction_is_open_between_two_pieces(acme: Customer) -> None:
    post.fill(acme.mailbox, [ODD, b"0123456789\r\n" * 60_000])
    for piece in exporting.mbox(acme.mailbox):
        assert isinstance(piece, bytes)
        assert not connection.in_atomic_block


def test_what_is_purged_meanwhile_is_left_out_or_the_end(acme: Customer) -> None:
    post.fill(acme.mailbox, [b"0123456789\r\n" * 60_000])
    pieces = exporting.eml_zip(acme.mailbox)
    for piece in pieces:
        if piece:
            break
    ContentChunk.objects.all().delete()
    with pytest.raises(exporting.Broken):
        whole(pieces)
    Message.objects.all().delete()
    assert whole(exporting.mbox(acme.mailbox)) == b""


def test_much_mail_takes_little_memory_and_few_queries(acme: Customer) -> None:
    messages = ((str(number), b"x: y\r\n\r\n" + os.urandom(20_000).hex().encode()) for number in range(400))
    run(Listed(*messages), acme.mailbox)
    for export in exporting.FORMATS.values():
        gc.collect()
        tracemalloc.start()
        with CaptureQueriesContext(connection) as queries:
            octets = sum(map(len, export(acme.mailbox)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert octets > 8_000_000
        assert peak < 6_000_000
        assert len(queries) < 80


# The command


def test_the_command_writes_a_file_for_the_operator_alone(acme: Customer, tmp_path: Path) -> None:
    post.fill(acme.mailbox, [ODD])
    file = tmp_path / "out"
    told = io.StringIO()
    call_command("export", "AN@acme.test", "--format", "eml", "--output", str(file), stderr=told)
    assert told.getvalue() == f"an@acme.test: {file.stat().st_size:,} octets written.\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(unzipped(file.read_bytes())) == 1
    event = AuditEvent.objects.get(action="mailbox.exported")
    assert (event.through, event.mailbox_id, event.changes) == ("command", acme.mailbox.pk, {"format": "eml"})
    with pytest.raises(CommandError, match="File exists"):
        call_command("export", "an@acme.test", "--output", str(file))
    with pytest.raises(CommandError, match="no mailbox"):
        call_command("export", "nobody@acme.test", "--output", str(tmp_path / "other"))


def test_the_purge_is_not_held_up(acme: Customer) -> None:
    post.fill(acme.mailbox, [ODD, ODD])
    pieces = exporting.mbox(acme.mailbox)
    next(pieces)
    assert purging.purge(KEEP).finished
    whole(pieces)
