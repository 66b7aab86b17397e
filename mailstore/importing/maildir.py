"""Mail from a Maildir, with the unique-ids that Dovecot's POP3 shows for it."""

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Self

from django.utils.translation import gettext_noop as noop

from mailstore.importing import unique_ids
from mailstore.importing.sentences import Sentence
from mailstore.importing.source import Item, Refused, Unreadable, Write

UIDLIST: Final = "dovecot-uidlist"

_PIECE: Final = 64 * 1024
_GZIP: Final = b"\x1f\x8b\x08"
_OTHERS: Final = (b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd", b"CRYPTED\x03")
_TIME = re.compile(r"([0-9]{9,11})\.")


class Maildir:
    """A Maildir, `cur` and `new`; with `subfolders` also those of Maildir++, after it.

    `uidl_format` is the server's `pop3_uidl_format`; a unique-id that Dovecot saved for a message comes before it, and
    None keeps none. What has no UID in `dovecot-uidlist` was seen by nobody, and has no unique-id.
    """

    def __init__(self, path: Path, *, uidl_format: str | None = unique_ids.DOVECOT, subfolders: bool = False) -> None:
        self._path = path
        self._format = uidl_format
        self._subfolders = subfolders

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self) -> int:
        """Count. Raises `Refused`."""
        try:
            return sum(len(_files(folder)) for folder in self._folders())
        except OSError as error:
            raise Refused(
                noop("%(path)s is no Maildir that can be read: %(strerror)s"),
                path=str(self._path),
                strerror=error.strerror,
            ) from None

    def items(self) -> Iterator[Item]:
        """The messages, a folder's in the order in which POP3 shows them."""
        for folder in self._folders():
            files = _files(folder)
            try:
                uids = UidList.parse((folder / UIDLIST).read_bytes().splitlines())
            except FileNotFoundError:
                uids = UidList()
            for base in uids.ordered(files):
                path = folder / files[base]
                yield Item(
                    name=Sentence.named(str(path)),
                    unique_id=uids.unique_id(base, self._format),
                    date=arrived(base, _changed(path)),
                    read=partial(_read, folder, files[base]),
                )

    def _folders(self) -> Iterator[Path]:
        yield self._path
        if self._subfolders:
            yield from sorted(
                child for child in self._path.iterdir() if child.name.startswith(".") and (child / "cur").is_dir()
            )


@dataclass
class UidList:
    """What Dovecot remembers of a folder's files, by their names without flags."""

    validity: int = 0
    uids: dict[str, int] = field(default_factory=dict)
    saved: dict[str, str] = field(default_factory=dict)
    """Unique-ids that were given by hand, or by another server before."""
    orders: dict[str, int] = field(default_factory=dict)
    """Where POP3 shows them."""
    guids: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, lines: Iterable[bytes]) -> Self:
        """Read `dovecot-uidlist`, version 3 or 1. A line that makes no sense is passed over."""
        found = cls()
        head, *rest = [line.decode(errors="surrogateescape") for line in lines] or [""]
        version, *fields = head.split(" ")
        if version == "3":
            found.validity = next((int(one[1:]) for one in fields if re.fullmatch(r"V[0-9]{1,10}", one)), 0)
        elif version == "1" and fields and fields[0].isdigit():
            found.validity = int(fields[0])
        if found.validity:
            for line in rest:
                found._line(line, version)
        return found

    def _line(self, line: str, version: str) -> None:
        uid, _, rest = line.partition(" ")
        about, separator, name = ("", ":", rest) if version == "1" else f" {rest}".partition(" :")
        if not re.fullmatch(r"[0-9]{1,10}", uid) or not separator or not name:
            return
        name = base_of(name)
        self.uids[name] = int(uid)
        for one in about.split():
            if one.startswith("P"):
                self.saved[name] = one[1:]
            elif re.fullmatch(r"O[0-9]{1,10}", one):
                self.orders[name] = int(one[1:])
            elif one.startswith("G"):
                self.guids[name] = one[1:]

    def ordered(self, files: Iterable[str]) -> list[str]:
        """Files in the order in which POP3 shows them; then those that nobody has seen, by their time."""
        return sorted(
            files,
            key=lambda name: (
                name not in self.uids,
                self.orders.get(name, 2**32),
                self.uids.get(name, 0),
                _time(name) or 0,
                name,
            ),
        )

    def unique_id(self, name: str, format_: str | None) -> str | None:
        """What POP3 shows for a file, as far as that is known."""
        if format_ is None or name not in self.uids:
            return None
        return self.saved.get(name) or unique_ids.formatted(
            format_, uid=self.uids[name], validity=self.validity, file=name, guid=self.guids.get(name, name)
        )


def base_of(name: str) -> str:
    """A file's name without its flags, which change."""
    return name.partition(":2,")[0].partition(";2,")[0]


def arrived(base: str, changed: float | None = None) -> datetime | None:
    """When a message came: what the name says or, if it was copied with its time, the file."""
    times = [time for time in (_time(base), changed) if time]
    return datetime.fromtimestamp(min(times), UTC) if times else None


def copy(file: BinaryIO, write: Write) -> None:
    """Hand a message on, also one that Dovecot compressed with zlib. Raises `Unreadable`."""
    piece = file.read(_PIECE)
    if piece.startswith(_OTHERS):
        raise Unreadable(noop("it is compressed or encrypted in a way that we cannot read"))
    expand: Callable[[bytes], Iterator[bytes]] = (
        _expanded() if piece.startswith(_GZIP) else lambda piece: iter((piece,))
    )
    while piece:
        for part in expand(piece):
            write(part)
        piece = file.read(_PIECE)


def _expanded() -> Callable[[bytes], Iterator[bytes]]:
    gzip = zlib.decompressobj(31)

    def expand(piece: bytes) -> Iterator[bytes]:
        try:
            while piece:
                if part := gzip.decompress(piece, _PIECE):
                    yield part
                piece = gzip.unconsumed_tail
        except zlib.error:
            raise Unreadable(noop("it is not compressed as it says")) from None

    return expand


def _time(name: str) -> int | None:
    found = _TIME.match(name)
    return int(found[1]) if found else None


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _files(folder: Path) -> Mapping[str, str]:
    """By their names without flags, where the messages lie."""
    found: dict[str, str] = {}
    for part in ("new", "cur"):
        for name in os.listdir(folder / part):
            if not name.startswith("."):
                found[base_of(name)] = f"{part}/{name}"
    return found


def _read(folder: Path, name: str, write: Write) -> None:
    try:
        try:
            file = (folder / name).open("rb")
        except FileNotFoundError:  # somebody has read it meanwhile, and its flags changed
            found = _files(folder).get(base_of(name.partition("/")[2]))
            if found is None:
                raise Unreadable(noop("it is not there any more")) from None
            file = (folder / found).open("rb")
        with file:
            copy(file, write)
    except OSError as error:
        raise Unreadable(noop("it cannot be read: %(strerror)s"), strerror=error.strerror) from None
