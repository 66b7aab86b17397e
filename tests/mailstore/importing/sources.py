"""Sources for tests, and imports from them."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Self

from accounts.models import Mailbox
from mailstore.importing import bring
from mailstore.importing.bring import Progress, Settings
from mailstore.importing.sentences import Sentence
from mailstore.importing.source import Item, Source, Write
from mailstore.models import Message

LIMIT = 10**6
SETTINGS = Settings(limit=LIMIT)


class Listed:
    """Messages with their unique-ids, in memory."""

    def __init__(self, *messages: tuple[str | None, bytes], date: datetime | None = None) -> None:
        self.messages = messages
        self.date = date
        self.read: list[str | None] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self) -> int:
        return len(self.messages)

    def items(self) -> Iterator[Item]:
        for number, (unique_id, octets) in enumerate(self.messages, 1):
            yield Item(
                name=Sentence.named(f"message {number}"),
                unique_id=unique_id,
                date=self.date,
                read=self._reader(unique_id, octets),
            )

    def _reader(self, unique_id: str | None, octets: bytes) -> Callable[[Write], None]:
        def read(write: Write) -> None:
            self.read.append(unique_id)
            for start in range(0, len(octets), 10_000):
                write(octets[start : start + 10_000])

        return read


def run(source: Source, mailbox: Mailbox, settings: Settings = SETTINGS, **options: Any) -> Progress:
    """Import without pauses."""
    return bring.bring(source, mailbox, settings, **{"pauses": (0.0,)} | options)


def counts(progress: Progress) -> tuple[int, int, int]:
    """What came along, had come before, and could not."""
    return progress.imported, progress.skipped, progress.failed


def told(progress: Progress) -> list[str]:
    """What could not come along."""
    return [str(problem) for problem in progress.problems]


def octets_of(message: Message) -> bytes:
    """A message as RETR shows it."""
    body = message.content.body
    chunks: Iterable[Any] = message.content.chunks.order_by("number").values_list("octets", flat=True)
    return bytes(message.trace) + (b"".join(map(bytes, chunks)) if body is None else bytes(body))


def maildrop(mailbox: Mailbox) -> list[tuple[str, bytes]]:
    """Unique-ids and octets, in the order of POP3."""
    found = Message.objects.in_maildrop(mailbox).select_related("content").order_by("uid")
    return [(message.unique_id, octets_of(message)) for message in found]
