"""Mail from files with a message each: in a folder, or in a zip, which may also hold a Maildir."""

import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Self

from django.utils.translation import gettext_noop as noop

from mailstore.importing import unique_ids
from mailstore.importing.maildir import UIDLIST, UidList, arrived, base_of, copy
from mailstore.importing.sentences import Sentence
from mailstore.importing.source import Item, Refused, Unreadable, Write

DIRECTORY_OCTETS: Final = 32 * 1024 * 1024
"""How large the directory of a zip may be: some 300,000 messages, of which `zipfile` holds 1 KB each. More: as mbox."""
EXPANSION: Final = 500
"""How many times larger than in the zip a message may be."""

_PIECE: Final = 64 * 1024
_UIDLIST_OCTETS: Final = 64 * 1024 * 1024
_FOR_NOTHING: Final = 1024 * 1024  # octets that may be as small as they like


class Folder:
    """A folder of .eml files, those in folders within included, in the order of their names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self) -> int:
        """Look for them. Raises `Refused`."""
        if not self._path.is_dir():
            raise Refused(noop("%(path)s is no folder"), path=str(self._path))
        self._files = sorted(path for path in self._path.rglob("*") if path.suffix.lower() == ".eml" and path.is_file())
        return len(self._files)

    def items(self) -> Iterator[Item]:
        """The messages."""
        for path in self._files:
            yield Item(name=Sentence.named(str(path.relative_to(self._path))), read=partial(self._read, path))

    def _read(self, path: Path, write: Write) -> None:
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    write(piece)
        except OSError as error:
            raise Unreadable(noop("it cannot be read: %(strerror)s"), strerror=error.strerror) from None


class Zip:
    """A zip with .eml files, or with a Maildir. Nothing is unpacked to files, and a name in it is only a name."""

    def __init__(self, path: Path, *, uidl_format: str | None = unique_ids.DOVECOT) -> None:
        self._path = path
        self._format = uidl_format
        self._zip: zipfile.ZipFile | None = None
        self._open = ExitStack()
        self._messages: list[tuple[zipfile.ZipInfo, str | None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def open(self) -> int:
        """Read its directory. Raises `Refused`."""
        try:
            file = self._open.enter_context(self._path.open("rb"))
            if _directory_octets(file) > DIRECTORY_OCTETS:
                raise Refused(noop("the zip has too many entries"))
            self._zip = self._open.enter_context(zipfile.ZipFile(file))
            self._messages = list(_messages(self._zip, self._format))
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError):
            raise Refused(noop("it is no zip that can be read")) from None
        except OSError as error:
            raise Refused(noop("the zip cannot be read: %(strerror)s"), strerror=error.strerror) from None
        return len(self._messages)

    def items(self) -> Iterator[Item]:
        """The messages."""
        for info, unique_id in self._messages:
            yield Item(
                name=Sentence.named(ascii(info.filename)[1:201]),
                unique_id=unique_id,
                date=arrived(PurePosixPath(info.filename).name),
                read=partial(self._read, info),
            )

    def _read(self, info: zipfile.ZipInfo, write: Write) -> None:
        assert self._zip
        if info.file_size > _FOR_NOTHING + EXPANSION * info.compress_size:
            raise Unreadable(noop("it is compressed as no message is"))
        try:
            with self._zip.open(info) as file:
                copy(file, write)  # type: ignore[arg-type] # it is one
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError):
            raise Unreadable(noop("it cannot be unpacked")) from None
        except OSError as error:
            raise Unreadable(noop("it cannot be read: %(strerror)s"), strerror=error.strerror) from None


def _messages(archive: zipfile.ZipFile, format_: str | None) -> Iterator[tuple[zipfile.ZipInfo, str | None]]:
    """What is a message there, with its unique-id."""
    maildirs: dict[PurePosixPath, dict[str, zipfile.ZipInfo]] = {}
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        path = PurePosixPath(info.filename)
        if info.is_dir() or path.name.startswith(".") or "__MACOSX" in path.parts:
            continue
        if path.parent.name in ("cur", "new"):
            maildirs.setdefault(path.parent.parent, {})[base_of(path.name)] = info
        elif path.suffix.lower() == ".eml":
            yield info, None
    for folder, files in sorted(maildirs.items()):
        uids = UidList()
        try:
            listed = archive.getinfo(str(folder / UIDLIST))
        except KeyError:
            pass
        else:
            if listed.file_size > _UIDLIST_OCTETS:
                raise Refused(noop("the zip has too many entries"))
            uids = UidList.parse(archive.read(listed).splitlines())
        for base in uids.ordered(files):
            yield files[base], uids.unique_id(base, format_)


# The records at the end of a zip (APPNOTE.TXT 4.3.14 to 4.3.16).
_END: Final = struct.Struct("<4s4H2LH")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_END_MARK = re.compile(rb"PK\x05\x06")


def _directory_octets(file: BinaryIO) -> int:
    """How large the directory is that `zipfile` would read whole. Raises `Refused`."""
    size = file.seek(0, 2)
    start = max(0, size - _END.size - 65535)
    file.seek(start)
    tail = file.read()
    ends = [found.start() for found in _END_MARK.finditer(tail)]
    if not ends or len(tail) - ends[-1] < _END.size:
        raise Refused(noop("it is no zip"))
    octets = int(_END.unpack_from(tail, ends[-1])[5])
    place = start + ends[-1] - _LOCATOR.size
    if octets == 0xFFFFFFFF and place >= 0:
        file.seek(place)
        mark, _disk, where, _disks = _LOCATOR.unpack(file.read(_LOCATOR.size))
        file.seek(min(where, size))
        if mark == b"PK\x06\x07":
            octets = int(_END_64.unpack(file.read(_END_64.size))[8])
    file.seek(0)
    return min(octets, size)
