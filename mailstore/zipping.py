"""Writing a zip to somebody who waits for it: a piece at a time, and never back (APPNOTE.TXT 6.3, with ZIP64).

`zipfile` holds a kilobyte for each entry until the end: of a million messages, a gigabyte.
"""

import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, Self

_FILE: Final = struct.Struct("<4s5H3L2H")
_WIDE: Final = struct.Struct("<2H2Q")
_AFTER: Final = struct.Struct("<4sL2Q")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END: Final = struct.Struct("<4s4H2LH")

_VERSION: Final = 45  # what is needed to read ZIP64
_MADE_BY: Final = 3 << 8 | _VERSION  # Unix, so that modes mean something
_FLAGS: Final = 1 << 3 | 1 << 11  # sizes stand behind; names are UTF-8
_DEFLATED: Final = 8
_LARGE: Final = 0xFFFFFFFF
_MANY: Final = 0xFFFF
_IN_MEMORY: Final = 1024 * 1024  # octets of the directory
_PIECE: Final = 256 * 1024


class Zip:
    """A zip on its way. A context manager; its directory grows in a file without a name."""

    def __init__(self) -> None:
        self._directory = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 (closed at the exit)
        self._entries = 0
        self._octets = 0  # that were handed on

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.close()

    def folder(self, name: str) -> Iterator[bytes]:
        """An empty folder; its name ends in a slash."""
        yield from self._entry(name, datetime.now(UTC), (), mode=0o40700)

    def file(self, name: str, at: datetime, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """A file, of any size."""
        yield from self._entry(name, at, pieces, mode=0o100600)

    def end(self) -> Iterator[bytes]:
        """The directory."""
        start, size = self._octets, self._directory.tell()
        self._directory.seek(0)
        while piece := self._directory.read(_PIECE):
            yield piece
        if self._entries >= _MANY or start >= _LARGE or size >= _LARGE:
            count = self._entries
            yield _END_64.pack(b"PK\x06\x06", _END_64.size - 12, _MADE_BY, _VERSION, 0, 0, count, count, size, start)
            yield _LOCATOR.pack(b"PK\x06\x07", 0, start + size, 1)
        count = min(self._entries, _MANY)
        yield _END.pack(b"PK\x05\x06", 0, 0, count, count, min(size, _LARGE), min(start, _LARGE), 0)

    def _entry(self, name: str, at: datetime, pieces: Iterable[bytes], *, mode: int) -> Iterator[bytes]:
        start = self._octets
        encoded, stamp = name.encode(), _stamp(at)
        wide = _WIDE.pack(1, 16, 0, 0)
        head = (_VERSION, _FLAGS, _DEFLATED, *stamp, 0, _LARGE, _LARGE, len(encoded), len(wide))
        yield self._handed(_FILE.pack(b"PK\x03\x04", *head) + encoded + wide)
        deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        check = size = 0
        begins = self._octets
        for piece in pieces:
            check = zlib.crc32(piece, check)
            size += len(piece)
            if made := deflate.compress(piece):
                yield self._handed(made)
        yield self._handed(deflate.flush())
        packed = self._octets - begins
        yield self._handed(_AFTER.pack(b"PK\x07\x08", check, packed, size))
        large = [number for number in (size, packed, start) if number >= _LARGE]
        more = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        about = (_MADE_BY, _VERSION, _FLAGS, _DEFLATED, *stamp, check, min(packed, _LARGE), min(size, _LARGE))
        place = (len(encoded), len(more), 0, 0, 0, mode << 16 | (0x10 if name.endswith("/") else 0), min(start, _LARGE))
        self._directory.write(_ENTRY.pack(b"PK\x01\x02", *about, *place) + encoded + more)
        self._entries += 1

    def _handed(self, octets: bytes) -> bytes:
        self._octets += len(octets)
        return octets


def _stamp(at: datetime) -> tuple[int, int]:
    """A time as DOS wrote it: from 1980 on, in steps of two seconds."""
    at = at.astimezone(UTC)
    year = min(max(at.year, 1980), 2107) - 1980
    return at.hour << 11 | at.minute << 5 | at.second // 2, year << 9 | at.month << 5 | at.day
