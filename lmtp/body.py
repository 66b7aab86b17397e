"""Telling a message's octets from what follows them: after DATA up to CRLF.CRLF, after BDAT by count.

    reader = DataReader()
    consumed, decoded, complete = reader.feed(octets)   # until complete; then octets[consumed:] are commands

Nothing here looks at single lines or keeps more than a few octets, so 50 MB cost what copying them costs.
"""

import re
from typing import Final, NamedTuple, Protocol

Octets = bytes | memoryview

_END: Final = b"\r\n.\r\n"
_DOT_LINE = re.compile(rb"\r\n\.")


class Piece(NamedTuple):
    """What came of some octets."""

    consumed: int
    decoded: bytes
    """What is now known of the message. Some octets consumed may only come out of the next piece."""
    complete: bool


class Reader(Protocol):
    """How the octets of a message arrive."""

    def feed(self, octets: Octets) -> Piece:
        """Take what belongs to the message. Not to be called again once a piece was `complete`."""


class DataReader:
    """The octets after DATA, without the dots that transparency added (RFC 5321 section 4.5.2).

    Only CR LF begins or ends a line here (RFC 5321 section 2.3.8): a bare LF or CR is data, whatever dots
    stand beside it. Who takes one for a line's end lets a message smuggle in another (CVE-2023-51764).
    """

    def __init__(self) -> None:
        # The first line stands behind a CRLF like every other, only that this one is not of the message.
        self._held = b"\r\n"
        self._foreign = len(self._held)

    def feed(self, octets: Octets) -> Piece:
        held = len(self._held)
        octets = b"".join((self._held, octets))
        dots = _DOT_LINE.search(octets)  # first, because most pieces have none; and measured, twice as fast as find
        end = octets.find(_END, dots.start()) if dots else -1
        complete = end >= 0
        if complete:
            known = end + 2  # the CRLF before the dot ends the message's last line
        else:
            # Whatever may be the beginning of the end waits until it is known. So each CRLF. that is not the
            # end is seen in one piece below, and its dot was added by the client.
            known = len(octets) - next((n for n in (4, 3, 2, 1) if octets.endswith(_END[:n])), 0)
            self._held = octets[known:]
        decoded = octets[:known]
        if dots:
            decoded = decoded.replace(b"\r\n.", b"\r\n")
        if known:
            decoded, self._foreign = decoded[self._foreign :], 0
        return Piece((end + len(_END) if complete else len(octets)) - held, decoded, complete)


class BdatReader:
    """The octets after BDAT: as many as it announced, whatever they are (RFC 3030 section 2)."""

    def __init__(self, count: int) -> None:
        self._left = count

    def feed(self, octets: Octets) -> Piece:
        taken = bytes(octets[: self._left])
        self._left -= len(taken)
        return Piece(len(taken), taken, not self._left)
