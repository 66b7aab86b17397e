"""Bringing mail along: whatever the source, in bounded memory, and to be gone on with after any interruption."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from django.utils.translation import gettext_noop as noop

from accounts.models import Mailbox
from mailstore.importing import arrival
from mailstore.importing.arrival import Arrived, Stored
from mailstore.importing.sentences import Sentence
from mailstore.importing.source import Item, Lost, Source, Unreadable
from mailstore.spool import Spool, TooLarge

BATCH: Final = 100
"""Messages that one transaction stores at most."""
BATCH_OCTETS: Final = 4 * 1024 * 1024
BATCH_SECONDS: Final = 1.0
"""What was read is stored after this, however little it is."""
ITEM_SECONDS: Final = 240.0
"""A message that takes longer to be read is left there."""
PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait before the next attempt to reach a source that was lost. A message that was read starts anew."""
PROBLEMS: Final = 100
"""What goes wrong with more messages than that is counted, not told."""

_ATTEMPTS: Final = 3  # to read a message, of a source that answers
_WINDOW: Final = 500  # items that are looked up at once
_NAP: Final = 0.5  # seconds between two looks at who watches


class NoRoom(Exception):
    """The mailbox, or who pays for it, has no room for the next message; those before it came along."""


@dataclass
class Progress:
    """How far an import is."""

    total: int | None = None
    imported: int = 0
    skipped: int = 0  # had come along before
    failed: int = 0
    problems: list[Sentence] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Messages that were looked at."""
        return self.imported + self.skipped + self.failed


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an import must know of the host, and how it is to be done."""

    limit: int
    """Octets of the largest message."""
    directory: str | None = None
    """Where large messages are spooled."""
    unique_ids: bool = True
    """Whether messages keep them, and are known by them."""
    x_uidl: bool = False
    """Whether the field X-UIDL tells the unique-id of a message that has no other."""


def bring(
    source: Source,
    mailbox: Mailbox,
    settings: Settings,
    *,
    watch: Callable[[Progress], object] = lambda progress: None,
    then: Callable[[Stored], object] = lambda stored: None,
    pauses: Sequence[float] = PAUSES,
) -> Progress:
    """Bring what the source holds into the mailbox. What came along before is left out.

    `watch` is called often, and ends it by raising; `then` in each transaction that stores something. Raises `NoRoom`,
    `arrival.Gone`, `source.Refused`, and `source.Lost` if the source is still lost after all pauses (seconds). Whatever
    is raised: what came along stays, and to call again goes on.
    """
    run = _Run(source, mailbox, settings, watch, then, pauses)
    try:
        with source:
            run.progress.total = source.open()
            items = source.items()
            while window := list(islice(items, _WINDOW)):
                run.take(window)
            run.flush()
    finally:
        run.drop()
    return run.progress


class _Run:
    """An import on its way: what was read, and is not stored yet."""

    def __init__(
        self,
        source: Source,
        mailbox: Mailbox,
        settings: Settings,
        watch: Callable[[Progress], object],
        then: Callable[[Stored], object],
        pauses: Sequence[float],
    ) -> None:
        self.progress = Progress()
        self._source = source
        self._mailbox = mailbox
        self._settings = settings
        self._watch = watch
        self._then = then
        self._pauses = pauses
        self._read: list[Arrived] = []
        self._octets = 0
        self._since = 0.0

    def take(self, window: list[Item]) -> None:
        """Bring those of these items along that did not come before."""
        known: set[str] = set()
        if self._settings.unique_ids:
            known = arrival.known(self._mailbox, {item.unique_id for item in window if item.unique_id is not None})
        for item in window:
            self._watch(self.progress)
            if item.unique_id in known:
                self.progress.skipped += 1
                continue
            try:
                self._add(self._patiently(item))
            except TooLarge:
                self._problem(item, Sentence(noop("it is too large"), {}))
            except Unreadable as error:
                self._problem(item, error.sentence)

    def flush(self) -> None:
        """Store what was read."""
        if not self._read:
            return
        stored = arrival.store(self._mailbox, self._read, then=self._then)
        self.drop()
        self.progress.imported += stored.imported
        self.progress.skipped += stored.skipped
        self._watch(self.progress)
        if stored.full:
            raise NoRoom

    def drop(self) -> None:
        """Let go of what was read."""
        for one in self._read:
            one.spool.close()
        self._read = []
        self._octets = 0

    def _add(self, one: Arrived) -> None:
        if one.large:
            self.flush()
        if not self._read:
            self._since = time.monotonic()
        self._read.append(one)
        self._octets += one.spool.octets
        if (
            one.large
            or len(self._read) >= BATCH
            or self._octets >= BATCH_OCTETS
            or time.monotonic() - self._since > BATCH_SECONDS
        ):
            self.flush()

    def _patiently(self, item: Item) -> Arrived:
        """Read an item, also if the source is lost meanwhile."""
        for _attempt in range(_ATTEMPTS):
            try:
                return self._arrived(item)
            except Lost:
                self.flush()
                self._find_again()
        raise Unreadable(noop("the connection was lost each time it was read"))

    def _arrived(self, item: Item) -> Arrived:
        spool = Spool(limit=self._settings.limit, directory=self._settings.directory)
        deadline = time.monotonic() + ITEM_SECONDS

        def write(octets: bytes) -> None:
            spool.write(octets)
            self._watch(self.progress)
            if time.monotonic() > deadline:
                raise Unreadable(noop("it took too long"))

        try:
            item.read(write)
            spool.finish()
        except BaseException:
            spool.close()
            raise
        unique_id = item.unique_id if self._settings.unique_ids else None
        if unique_id is None and self._settings.x_uidl and (found := _X_UIDL.search(spool.head)):
            unique_id = found[1].decode("ascii", "replace")
        return Arrived(spool, unique_id, item.date)

    def _find_again(self) -> None:
        """Wait until the source answers again. Raises `Lost`."""
        lost = Lost(noop("the connection was lost"))
        for pause in self._pauses:
            until = time.monotonic() + pause
            while (left := until - time.monotonic()) > 0:
                self._watch(self.progress)
                time.sleep(min(left, _NAP))
            try:
                self._source.open()
            except Lost as error:
                lost = error
            else:
                return
        raise lost

    def _problem(self, item: Item, what: Sentence) -> None:
        self.progress.failed += 1
        if len(self.progress.problems) < PROBLEMS:
            self.progress.problems.append(Sentence(noop("%(item)s: %(problem)s"), {"item": item.name, "problem": what}))


_X_UIDL: Final = re.compile(rb"(?:\A|\n)x-uidl[ \t]*:[ \t]*([^\r\n]{1,70}?)[ \t]*\r\n", re.IGNORECASE)
