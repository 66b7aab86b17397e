"""Looking into messages, for whoever may.

Whatever somebody sends is taken apart by a process of its own (`mailstore.mime.child`). It has bounds, no secrets and
no connections, and it may break: then the message cannot be shown, and nothing else has happened.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore
from typing import IO, Any, Final

from accounts.principals import Principal
from mailstore import exporting
from mailstore.mime import child, structure
from mailstore.models import Message

MEMORY: Final = 192 * 1024 * 1024
"""Octets of memory that looking takes at most, besides the message itself, which lies in a file."""

COMPUTING: Final = 2
"""Seconds of computing that looking takes at most, and one for each `_PER_SECOND` octets."""

SECONDS: Final = 10
"""That looking takes at most by the clock, and again one for each `_PER_SECOND` octets."""

AT_ONCE: Final = 2
"""Messages that this process has looked at at once; as many others wait, for as long as looking takes."""

_ANSWER: Final = 16 * 1024 * 1024  # octets of a page or a frame
_NAMED: Final = 16 * 1024  # octets of a line with a name
_PER_SECOND: Final = 32 * 1024 * 1024
_ROOT: Final = str(Path(__file__).resolve().parent.parent)
_START: Final = f"import sys; sys.path.insert(0, {_ROOT!r}); from mailstore.mime.child import main; main()"

_free = BoundedSemaphore(AT_ONCE)
_seats = BoundedSemaphore(2 * AT_ONCE)  # who waits takes a thread, too: never every one


class CannotBeShown(Exception):
    """A message cannot be taken apart within bounds. Its source can be handed out."""


class Busy(CannotBeShown):
    """So many are looked at right now that this one was not: a moment later it may be."""


class NoSuchPart(Exception):
    """A message has no attachment of that number."""


@dataclass(frozen=True)
class Attachment:
    """A part that is a file."""

    number: int
    name: str
    kind: str
    octets: int


@dataclass(frozen=True)
class Page:
    """A message to be read: all of it is text, and somebody else's."""

    fields: tuple[tuple[str, str], ...]
    text: str
    has_html: bool
    is_whole: bool
    """Whether there is no more than that."""
    attachments: tuple[Attachment, ...]


def page(message: Message, *, directory: Path, principal: Principal | None = None) -> Page:
    """A message as text. Its octets lie in `directory` meanwhile; they are looked up as `principal`, if there is one.

    Raises `CannotBeShown`.
    """
    with _look(message, "text", directory, principal, most=_ANSWER) as answer:
        try:
            return _page(json.loads(answer.read()))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise CannotBeShown from None


def frame(message: Message, *, directory: Path, principal: Principal | None = None) -> str:
    """What can be shown of a message's HTML, to be put into a document that nothing can leave.

    Raises `CannotBeShown`.
    """
    with _look(message, "html", directory, principal, most=_ANSWER) as answer:
        return answer.read().decode(errors="replace")


def attachment(
    message: Message, number: int, *, directory: Path, principal: Principal | None = None
) -> tuple[str, IO[bytes]]:
    """An attachment's name, and a file that stands where its octets begin. Raises `CannotBeShown`, `NoSuchPart`."""
    answer = _look(message, str(number), directory, principal, most=message.octets + _NAMED)
    try:
        name = structure.file_name(str(json.loads(answer.readline(_NAMED))))
    except ValueError:
        answer.close()
        raise CannotBeShown from None
    return name, answer


def _look(message: Message, what: str, directory: Path, principal: Principal | None, *, most: int) -> IO[bytes]:
    """The child's answer, a file of at most so many octets. Raises `CannotBeShown`, `NoSuchPart`."""
    try:
        with ExitStack() as stack:
            answer = stack.enter_context(tempfile.TemporaryFile(dir=directory))
            with _turn(), tempfile.TemporaryFile(dir=directory) as source:
                source.writelines(exporting.octets_of(message, principal=principal))
                source.flush()
                status = _run(source, answer, what, message.octets, most)
            if status != 0:
                raise NoSuchPart if status == child.NO_SUCH_PART else CannotBeShown
            answer.seek(0)
            stack.pop_all()  # whoever asked closes it
            return answer
    except (OSError, subprocess.SubprocessError, exporting.Broken):
        raise CannotBeShown from None


def _run(source: IO[bytes], answer: IO[bytes], what: str, octets: int, most: int) -> int:
    """How the child ended. Raises `TimeoutExpired`, which has killed it."""
    more = octets // _PER_SECOND
    limits = (MEMORY + octets, COMPUTING + more, most)
    return subprocess.run(
        [sys.executable, "-I", "-c", _START, *map(str, limits), what],
        stdin=source,
        stdout=answer,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        timeout=SECONDS + more,
        check=False,
    ).returncode


@contextmanager
def _turn() -> Iterator[None]:
    """One of those that look at once. Raises `Busy` if there is none for long, or too many wait already."""
    if not _seats.acquire(blocking=False):
        raise Busy
    try:
        if not _free.acquire(timeout=SECONDS):
            raise Busy
        try:
            yield
        finally:
            _free.release()
    finally:
        _seats.release()


def _page(said: Any) -> Page:
    """What the child says, taken for what it should be and nothing else."""
    return Page(
        fields=tuple((str(name), str(value)) for name, value in said["fields"]),
        text=str(said["text"]),
        has_html=bool(said["has_html"]),
        is_whole=bool(said["is_whole"]),
        attachments=tuple(
            Attachment(int(one["number"]), str(one["name"]), str(one["kind"]), int(one["octets"]))
            for one in said["attachments"]
        ),
    )
