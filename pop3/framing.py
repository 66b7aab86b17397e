"""What happens to a message's octets between the store and the client: TOP's cut, then byte-stuffing.

A message arrives in chunks, cut anywhere, in canonical form: each line ends in CRLF, the last one too.
Chunks are worked on whole; nothing here looks at one line after the other.
"""


class Stuffer:
    """Byte-stuffs one message: a line that begins with a dot gets another (RFC 1939 section 3)."""

    def __init__(self) -> None:
        self._before = b"\r\n"  # the last octets seen; the first line begins as any other does

    def feed(self, octets: bytes) -> bytes:
        """Return the next octets as they go over the wire."""
        seen = self._before + octets
        already_sent = len(self._before)
        self._before = seen[-2:]
        # Two octets cannot hold what is replaced, so those sent already do not change.
        return seen.replace(b"\r\n.", b"\r\n..")[already_sent:]


class Top:
    """Cuts one message for TOP: header, blank line, and `lines` lines of the body (RFC 1939 section 7)."""

    done: bool
    """Nothing more will come: the rest of the message need not be read."""

    def __init__(self, lines: int) -> None:
        self.done = False
        self._lines_left = lines
        self._in_header = True
        self._before = b"\r\n"  # a message may begin with its blank line

    def feed(self, octets: bytes) -> bytes:
        """Return what of the next octets belongs to the answer."""
        if self.done:
            return b""
        if not self._in_header:
            return self._cut_body(octets)
        seen = self._before + octets
        blank_line = seen.find(b"\r\n\r\n")
        if blank_line < 0:
            self._before = seen[-3:]
            return octets
        body = blank_line + 4 - len(self._before)
        self._in_header = False
        self._before = b""
        return octets[:body] + self._cut_body(octets[body:])

    def _cut_body(self, octets: bytes) -> bytes:
        seen = self._before + octets  # a CRLF may be cut in two
        lines = seen.count(b"\r\n")
        if lines < self._lines_left:
            self._lines_left -= lines
            self._before = b"\r" if seen.endswith(b"\r") else b""
            return octets
        self.done = True
        after = len(seen.split(b"\r\n", self._lines_left)[-1])
        return octets[: len(octets) - after]
