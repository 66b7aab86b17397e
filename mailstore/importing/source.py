"""What mail is brought along from: a source, and the items in it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self

from mailstore.importing.sentences import Sentence

Write = Callable[[bytes], object]


class SourceError(Exception):
    """What went wrong with a source: a sentence in words of ours, with what it names."""

    def __init__(self, text: str, **values: Any) -> None:
        super().__init__(text, values)
        self.sentence = Sentence(text, values)

    def __str__(self) -> str:
        return str(self.sentence)


class Unreadable(SourceError):
    """This one item cannot be read; the others can."""


class Lost(SourceError):
    """The source does not answer any more; later it may."""


class Refused(SourceError):
    """The source cannot be used, now or later, as it was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A message that can be read."""

    name: Sentence
    """As a report names it."""
    read: Callable[[Write], None]
    """Hands its octets on in pieces; again from the beginning if called again. Raises `SourceError`, `OSError`."""
    unique_id: str | None = None
    """What UIDL shows for it there."""
    date: datetime | None = None
    """When it came there."""


class Source(Protocol):
    """Messages in the order in which they are to come along. A context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def open(self) -> int | None:
        """Begin; how many messages there are, where that is known. Again after `Lost`. Raises `SourceError`."""

    def items(self) -> Iterator[Item]:
        """The messages that are there. Raises `SourceError`."""
