"""Mail from files: Maildirs as Dovecot keeps them, mbox as people have it, and zips as nobody should make them."""

import gzip
import io
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailstore.importing import eml
from mailstore.importing.eml import Folder, Zip
from mailstore.importing.maildir import Maildir, UidList
from mailstore.importing.mbox import Mbox
from mailstore.importing.source import Refused, Source, SourceError
from mailstore.importing.unique_ids import check


def read(source: Source) -> list[tuple[str | None, bytes | str]]:
    """Unique-ids and octets of all messages, or why there are none."""
    found: list[tuple[str | None, bytes | str]] = []
    with source:
        total = source.open()
        for item in source.items():
            octets = io.BytesIO()
            try:
                item.read(octets.write)
            except SourceError as error:
                found.append((item.unique_id, str(error)))
            else:
                found.append((item.unique_id, octets.getvalue()))
    assert total == len(found)
    return found


# Maildir


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    """Three messages that Dovecot has seen, and one that it has not."""
    for part in ("cur", "new", "tmp", ".Sent/cur", ".Sent/new"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "cur/1500000003.M3P1.host,S=1,W=2:2,S").write_bytes(b"three")
    (tmp_path / "cur/1500000001.M1P1.host:2,").write_bytes(b"one")
    (tmp_path / "new/1500000002.M2P1.host").write_bytes(b"two")
    (tmp_path / "new/1500000009.M9P1.host").write_bytes(b"new")
    (tmp_path / "cur/.hidden").write_bytes(b"no mail")
    (tmp_path / "tmp/1500000008.M8P1.host").write_bytes(b"half")
    (tmp_path / ".Sent/cur/1400000001.M1P1.host:2,S").write_bytes(b"sent")
    (tmp_path / "dovecot-uidlist").write_text(
        "3 V1500000000 N8 G5d8c1b2a0000\n"
        "1 W7 :1500000001.M1P1.host\n"
        "5 :1500000002.M2P1.host\n"
        "nonsense\n"
        "6 Psaved-by-hand W2 S1 :1500000003.M3P1.host,S=1,W=2:2,\n"
        "7 :1500000004.M4P1.host\n"
    )
    (tmp_path / ".Sent/dovecot-uidlist").write_text("3 V1400000000 N2\n1 :1400000001.M1P1.host\n")
    return tmp_path


def test_a_maildir_has_the_unique_ids_that_dovecot_shows(maildir: Path) -> None:
    assert read(Maildir(maildir)) == [
        ("0000000159682f00", b"one"),
        ("0000000559682f00", b"two"),
        ("saved-by-hand", b"three"),
        (None, b"new"),
    ]


@pytest.mark.parametrize(
    ("format_", "shown"), [("cyrus", "1500000000.1"), ("courier", "1500000000-1"), ("%f", "1500000001.M1P1.host")]
)
def test_the_format_is_the_servers(maildir: Path, format_: str, shown: str) -> None:
    assert read(Maildir(maildir, uidl_format=check(format_)))[0] == (shown, b"one")


def test_unique_ids_may_be_left_there(maildir: Path) -> None:
    assert [name for name, _ in read(Maildir(maildir, uidl_format=None))] == [None] * 4


def test_subfolders_come_after_it_with_their_own(maildir: Path) -> None:
    assert read(Maildir(maildir, subfolders=True))[4:] == [("0000000153724e00", b"sent")]


def test_without_a_uidlist_there_are_no_unique_ids(maildir: Path) -> None:
    (maildir / "dovecot-uidlist").unlink()
    assert read(Maildir(maildir)) == [(None, b"one"), (None, b"two"), (None, b"three"), (None, b"new")]


def test_the_order_of_pop3_is_kept(maildir: Path) -> None:
    (maildir / "dovecot-uidlist").write_text("3 V1 N9\n1 O2 :1500000001.M1P1.host\n5 O1 :1500000002.M2P1.host\n")
    assert [octets for _, octets in read(Maildir(maildir))][:2] == [b"two", b"one"]


def test_a_message_that_was_read_meanwhile_is_found(maildir: Path) -> None:
    with Maildir(maildir) as source:
        source.open()
        items = list(source.items())
        (maildir / "new/1500000002.M2P1.host").rename(maildir / "cur/1500000002.M2P1.host:2,S")
        octets = io.BytesIO()
        items[1].read(octets.write)
        assert octets.getvalue() == b"two"
        (maildir / "cur/1500000002.M2P1.host:2,S").unlink()
        with pytest.raises(SourceError):
            items[1].read(octets.write)


def test_a_message_came_when_its_file_did(maildir: Path) -> None:
    os.utime(maildir / "new/1500000002.M2P1.host", (1_200_000_000, 1_200_000_000))
    dates = [item.date for item in Maildir(maildir).items()]
    assert dates[:2] == [datetime.fromtimestamp(stamp, UTC) for stamp in (1_500_000_001, 1_200_000_000)]


def test_compressed_mail_is_read_where_it_can_be(maildir: Path) -> None:
    (maildir / "cur/1500000001.M1P1.host:2,").write_bytes(gzip.compress(b"one" * 100_000))
    (maildir / "new/1500000002.M2P1.host").write_bytes(b"\x1f\x8b\x08 no gzip at all")
    (maildir / "new/1500000009.M9P1.host").write_bytes(b"(\xb5/\xfd zstd")
    found = [octets for _, octets in read(Maildir(maildir))]
    assert found[0] == b"one" * 100_000
    assert "not compressed as it says" in str(found[1])
    assert "cannot read" in str(found[3])


def test_what_is_no_maildir_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        Maildir(tmp_path).open()


def test_uidlists_of_old_servers_are_read() -> None:
    found = UidList.parse([b"1 1234 7", b"3 1500000001.M1P1.host", b"", b"x"])
    assert found.unique_id("1500000001.M1P1.host", "%v.%u") == "1234.3"
    for nonsense in ([], [b""], [b"4 V1 N1"], [b"3 N1", b"1 :a"], [b"\xff\x00"]):
        assert UidList.parse(nonsense).uids == {}


# mbox


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", []),
        ("From a Thu Feb 20 10:00:00 2020\nX: 1\n\nhello\n\n", ["X: 1\n\nhello\n"]),
        ("From a x\nX: 1\n\nFrom b x\nX: 2\n\nend", ["X: 1\n", "X: 2\n\nend"]),
        ("From a x\nX: 1\n\n>From me\n>>From you\n> From\n\n\n", ["X: 1\n\nFrom me\n>From you\n> From\n\n"]),
        ("From a x\nX: 1\n\nhello\nFrom me to you\n\n", ["X: 1\n\nhello\nFrom me to you\n"]),
        ("From a x\r\nX: 1\r\n\r\nhello\r\n\r\nFrom b x\r\n\r\n", ["X: 1\r\n\r\nhello\r\n", ""]),
    ],
)
def test_an_mbox_is_read_as_it_is_meant(tmp_path: Path, text: str, messages: list[str]) -> None:
    (tmp_path / "mbox").write_bytes(text.encode())
    assert read(Mbox(tmp_path / "mbox")) == [(None, message.encode()) for message in messages]


def test_the_from_line_says_when_a_message_came(tmp_path: Path) -> None:
    (tmp_path / "mbox").write_text(
        "From a Thu Feb 20 10:00:00 2020\n\nFrom b someday\n\nFrom c Thu Feb 20 10:00:00 2020 +0100\n\n"
    )
    with Mbox(tmp_path / "mbox") as source:
        source.open()
        dates = [item.date for item in source.items()]
    assert [date and date.astimezone(UTC).hour for date in dates] == [10, None, 9]


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "mbox").open("wb") as file:
        file.write(b"From a x\n\nx")
        for _ in range(30):
            file.write(b"From " * 200_000)
    seen = 0

    def count(octets: bytes) -> None:
        nonlocal seen
        seen += len(octets)

    tracemalloc.start()
    with Mbox(tmp_path / "mbox") as source:
        assert source.open() == 1
        [item] = source.items()
        item.read(count)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == 30_000_002
    assert peak < 2_000_000


@pytest.mark.parametrize("octets", [b"Subject: no mbox\n\nFrom a x\n", b"PK\x03\x04", b"\n\nhello"])
def test_what_is_no_mbox_is_refused(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / "mbox").write_bytes(octets)
    with pytest.raises(Refused), Mbox(tmp_path / "mbox") as source:
        source.open()
    with pytest.raises(Refused), Mbox(tmp_path / "missing") as source:
        source.open()


# .eml


def test_a_folder_is_looked_through(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/2.EML").write_bytes(b"two")
    (tmp_path / "1.eml").write_bytes(b"one")
    (tmp_path / "notes.txt").write_bytes(b"no mail")
    assert read(Folder(tmp_path)) == [(None, b"one"), (None, b"two")]
    with pytest.raises(Refused):
        Folder(tmp_path / "missing").open()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, octets in files.items():
            archive.writestr(name, octets)
    return path


def test_a_zip_is_read_and_unpacked_nowhere(tmp_path: Path) -> None:
    files = {"a/1.eml": b"one", "../../2.eml": b"two", "/etc/3.eml": b"three", "x.txt": b"", "__MACOSX/a/1.eml": b""}
    before = sorted(tmp_path.rglob("*"))
    assert [octets for _, octets in read(Zip(zipped(tmp_path / "zip", files)))] == [b"two", b"three", b"one"]
    assert sorted(tmp_path.rglob("*")) == [*before, tmp_path / "zip"]


def test_a_zip_may_hold_a_maildir(tmp_path: Path) -> None:
    files = {
        "M/cur/1500000001.a:2,S": b"one",
        "M/new/1500000002.b": b"two",
        "M/dovecot-uidlist": b"3 V10 N3\n2 Pkept :1500000001.a\n1 :1500000002.b\n",
    }
    path = zipped(tmp_path / "zip", files)
    assert read(Zip(path)) == [("000000010000000a", b"two"), ("kept", b"one")]
    with Zip(path) as source:
        source.open()
        assert [item.date and item.date.timestamp() for item in source.items()] == [1_500_000_002, 1_500_000_001]


def bomb(path: Path) -> Path:
    return zipped(path, {"1.eml": bytes(50_000_000), "2.eml": b"two"})


def test_what_is_compressed_as_no_message_is_is_left_out(tmp_path: Path) -> None:
    (_, first), (_, second) = read(Zip(bomb(tmp_path / "zip")))
    assert (first, second) == ("it is compressed as no message is", b"two")


def lying(path: Path) -> Path:
    """Says that its bomb is small."""
    octets = bomb(path).read_bytes()
    path.write_bytes(octets.replace((50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    return path


def test_a_size_that_is_a_lie_is_found_out(tmp_path: Path) -> None:
    (_, first), (_, second) = read(Zip(lying(tmp_path / "zip")))
    assert (first, second) == ("it cannot be unpacked", b"two")


def encrypted(octets: bytes) -> bytes:
    return octets.replace(b"PK\x03\x04\x14\0\0\0", b"PK\x03\x04\x14\0\1\0").replace(
        b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"
    )


def test_an_encrypted_entry_is_told(tmp_path: Path) -> None:
    path = zipped(tmp_path / "zip", {"1.eml": b"one"})
    path.write_bytes(encrypted(path.read_bytes()))
    assert read(Zip(path)) == [(None, "it cannot be unpacked")]


@pytest.mark.parametrize(
    "spoil",
    [lambda octets: b"", lambda octets: b"no zip", lambda octets: octets[:-30]],
)
def test_a_broken_zip_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = zipped(tmp_path / "zip", {"1.eml": b"one"})
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(Refused), Zip(path) as source:
        source.open()


def test_a_directory_beyond_measure_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "zip", {f"{number}.eml": b"" for number in range(1000)})
    monkeypatch.setattr(eml, "DIRECTORY_OCTETS", 10_000)
    with pytest.raises(Refused, match="too many"), Zip(path) as source:
        source.open()
    octets = path.read_bytes()
    # The same, as ZIP64 says it.
    end = octets.rindex(b"PK\x05\x06")
    wide = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(28) + (10_001).to_bytes(8, "little") + bytes(8)
    locator = b"PK\x06\x07" + bytes(4) + end.to_bytes(8, "little") + bytes(4)
    tail = octets[end : end + 12] + b"\xff" * 4 + octets[end + 16 :]
    path.write_bytes(octets[:end] + wide + locator + tail)
    with pytest.raises(Refused, match="too many"), Zip(path) as source:
        source.open()
