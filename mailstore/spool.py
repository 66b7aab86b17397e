"""Holding a message while it arrives, in the form it is stored in, measured on the way."""

import errno
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Final, Self

MEMORY_OCTETS: Final = 256 * 1024
HEAD_OCTETS: Final = 64 * 1024

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Measured: searching for these is twice as fast as `in`, `find` or `count`.
_BARE_LF = re.compile(rb"\n(?<!\r\n)")
_DOT_LINE = re.compile(rb"\r\n\.")
_BLANK_LINE = re.compile(rb"\r\n\r\n")
_RECEIVED = re.compile(rb"received[ \t]*:", re.IGNORECASE)


class TooLarge(Exception):
    """The message is beyond the spool's limit."""


class SpoolFull(Exception):
    """There is no room for the message where spools lie."""


class Room:
    """What all spools of a process may hold together, in octets."""

    def __init__(self, *, memory: int, files: int) -> None:
        self.memory = memory  # that is left; who finds none uses a file
        self.files = files  # that is left; who finds none is full


class Spool:
    """A message as it will be stored: each line ends in CRLF. What is measured holds once `finish` was called.

        with Spool(limit=50_000_000) as spool:
            spool.write(octets)
            spool.finish()
            for chunk in spool.chunks(65536): ...

    A bare LF becomes CRLF; a bare CR and NUL stay as they are. Up to `memory` octets are held in memory; a
    larger message goes to an unnamed file in `directory` (default: the system's), which ends with the process
    at the latest. Both come out of the `room` that is shared with others (default: there is no end to it). After
    `TooLarge`, `SpoolFull` or an `OSError` nothing of the message is kept.
    """

    octets: int
    """How long the message is."""
    header_octets: int
    """How long its header is, through the empty line that ends it; the whole message if there is none."""
    has_dot_lines: bool
    """Whether any line begins with a dot."""
    begins_with_received: bool
    """Whether the first header field is `Received`: an MTA had the message before."""
    digest: bytes
    """SHA-256 of the message."""
    head: bytes
    """The header, or its first 64 KiB."""
    inline: bytes | None
    """The message, if it is held in memory."""

    def __init__(
        self,
        *,
        limit: int | None = None,
        memory: int = MEMORY_OCTETS,
        directory: str | None = None,
        room: Room | None = None,
    ) -> None:
        self._limit = limit
        self._memory_limit = memory
        self._directory = directory
        self._room = room or Room(memory=sys.maxsize, files=sys.maxsize)
        self._memory = bytearray()
        self._in_memory = 0  # octets taken from the room
        self._file: IO[bytes] | None = None
        self._in_file = 0
        self._failure: Exception | None = None
        self._hash = hashlib.sha256()
        self._held = b""
        # The first line begins as if a CRLF stood before it, in the search for empty lines and dots.
        self._last = b"\r\n"
        self._header_ends: int | None = None
        self.octets = 0
        self.has_dot_lines = False
        self.inline = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, octets: bytes) -> None:
        """Add octets as they arrived, cut anywhere.

        Raises `TooLarge`, `SpoolFull` or another `OSError` once; what is written after that is dropped.
        """
        if self._failure:
            return
        if self._held:
            octets = self._held + octets
        # Only the next octet tells whether a CR at the very end is bare.
        self._held = b"\r" if octets.endswith(b"\r") else b""
        if self._held:
            octets = octets[:-1]
        if _BARE_LF.search(octets):
            octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if octets:
            self._add(octets)

    def finish(self) -> None:
        """Say that this was all: the last line gets its CRLF if it has none, and the measures hold.

        Raises what `write` raised, if it did; and what `write` can raise.
        """
        if self._failure:
            raise self._failure
        if self._held:
            self._add(self._held)
        if not self._last.endswith(b"\r\n"):
            self._add(b"\r\n")
        self.header_octets = self.octets if self._header_ends is None else self._header_ends
        self.digest = self._hash.digest()
        if self._file is None:
            self.inline = bytes(self._memory)
            self._memory.clear()
        self.head = self._at(0, min(self.header_octets, HEAD_OCTETS))
        self.begins_with_received = _RECEIVED.match(self.head) is not None

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the finished message, `size` octets at a time; as often as need be."""
        for start in range(0, self.octets, size):
            yield self._at(start, size)

    def close(self) -> None:
        """Let go of the memory and the file."""
        self._memory.clear()
        self.inline = None
        self._room.memory += self._in_memory
        self._in_memory = 0
        if self._file is not None:
            self._file.close()
        self._room.files += self._in_file
        self._in_file = 0

    def _add(self, octets: bytes) -> None:
        self._measure(octets)
        if self._limit is not None and self.octets > self._limit:
            raise self._failed(TooLarge())
        try:
            self._keep(octets)
        except OSError as error:
            raise self._failed(SpoolFull() if error.errno in _FULL else error) from error
        self._hash.update(octets)

    def _failed(self, failure: Exception) -> Exception:
        self._failure = failure
        self.close()  # while the client goes on, others may use the room
        return failure

    def _measure(self, octets: bytes) -> None:
        # What two pieces hide between them is looked for in the edge alone. They meet there as whole line ends: no
        # piece begins inside a CRLF.
        edge = self._last + octets[:2]
        if not self.has_dot_lines:
            self.has_dot_lines = bool(_DOT_LINE.search(edge) or _DOT_LINE.search(octets))
        if self._header_ends is None:
            for piece, before in ((edge, len(self._last)), (octets, 0)):
                if found := _BLANK_LINE.search(piece):
                    self._header_ends = self.octets - before + found.end()
                    break
        self._last = octets[-2:]
        self.octets += len(octets)

    def _keep(self, octets: bytes) -> None:
        if self._file is None:
            if self.octets <= self._memory_limit and len(octets) <= self._room.memory:
                self._room.memory -= len(octets)
                self._in_memory += len(octets)
                self._memory += octets
                return
            # Unbuffered, so nothing is left to be written, or to fail, when it is closed.
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 (close closes it)
            self._append(self._file, self._memory)
            self._memory.clear()
            self._room.memory += self._in_memory
            self._in_memory = 0
        self._append(self._file, octets)

    def _append(self, file: IO[bytes], octets: bytes | bytearray) -> None:
        if len(octets) > self._room.files:
            raise OSError(errno.ENOSPC, "the room for spooled messages is full")
        self._room.files -= len(octets)
        self._in_file += len(octets)
        # A disk that is nearly full takes a part, and refuses the next.
        with memoryview(octets) as rest:
            written = 0
            while written < len(rest):
                written += file.write(rest[written:])

    def _at(self, start: int, size: int) -> bytes:
        if self._file is not None:
            return os.pread(self._file.fileno(), size, start)
        assert self.inline is not None, "not finished, or closed"
        return self.inline[start : start + size]
