"""What is measured: the rows of the table."""

from dataclasses import dataclass
from typing import Literal

SMALL = 8_000  # octets
LARGE = 5_000_000
POSTFIX_CONCURRENCY = 20  # default_destination_concurrency_limit: what one Postfix opens at most


@dataclass(frozen=True)
class Row:
    """One row. `held` messages of `octets` lie in every maildrop; to deliver, maildrops start empty.

    With `own_copy` the client is a device with an own copy, beside another one, and has removed `removed` more, which
    for the other one are still there. Dovecot knows no such thing: there they are gone.
    """

    name: str
    title: str
    scenario: Literal["poll", "fetch", "deliver"]
    octets: int
    held: int = 0
    recipients: int = 1
    own_copy: bool = False
    removed: int = 0

    @property
    def operation(self) -> str:
        return "message" if self.scenario == "deliver" else "session"

    def connections(self, most: int) -> int:
        """How many at once: all; a fifth with large messages; delivering, no more than one Postfix opens."""
        if self.octets == LARGE:
            return max(1, most // 5)
        return min(most, POSTFIX_CONCURRENCY) if self.scenario == "deliver" else most

    def mailboxes(self, most: int, repetition: int) -> list[str]:
        """The addresses it uses: one per connection, or a group of them.

        Polling and fetching change nothing and share their mailboxes; each delivering run has fresh ones.
        """
        count = self.connections(most) * self.recipients
        kind = f"{self.name}-{repetition}" if self.scenario == "deliver" else f"held-{self.held}x{self.octets}"
        kind = f"own-{self.removed}-{kind}" if self.own_copy else kind
        return [f"{kind}-{number:03}@bench.test" for number in range(count)]


ROWS = (
    Row("poll", "poll (20 messages lie there)", "poll", SMALL, held=20),
    Row("poll-own", "poll an own copy (20 of 40 are removed)", "poll", SMALL, held=20, own_copy=True, removed=20),
    Row("fetch-small", "fetch 20 × 8 kB", "fetch", SMALL, held=20),
    Row("fetch-large", "fetch 5 MB", "fetch", LARGE, held=1),
    Row("deliver-1", "deliver 8 kB to 1 recipient", "deliver", SMALL),
    Row("deliver-10", "deliver 8 kB to 10 recipients", "deliver", SMALL, recipients=10),
    Row("deliver-large", "deliver 5 MB", "deliver", LARGE),
)
