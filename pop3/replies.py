"""The octets of POP3 replies: one line of at most 512, or many lines ended by a single dot."""

import binascii
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Final, Literal

Code = Literal["AUTH", "IN-USE", "SYS/TEMP", "SYS/PERM"]
"""The response codes that are sent (RFC 2449 section 8, RFC 3206 sections 4 and 5)."""

LIMIT: Final = 512
"""Octets of a reply line, its CRLF included (RFC 1939 section 3)."""

PIECE: Final = 1000
"""Lines of a multi-line reply that are built at once: a million messages must not stop the others."""

END: Final = b".\r\n"
"""What follows the last line of a message (RFC 1939 section 3)."""

_LETTERS = str.maketrans({"đ": "d", "Đ": "D", "ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"})
_UNPRINTABLE = re.compile(rb"[^\x20-\x7e]")


def ok(text: str = "") -> bytes:
    """Return a positive reply of one line."""
    return _line(f"+OK {text}" if text else "+OK") + b"\r\n"


def error(text: str, code: Code | None = None) -> bytes:
    """Return a negative reply; with a code, the client can tell what would help (RFC 2449 section 8)."""
    return _line(f"-ERR [{code}] {text}" if code else f"-ERR {text}") + b"\r\n"


def challenge(octets: bytes) -> bytes:
    """Return a server challenge: `+`, a blank even if nothing follows, and base64 (RFC 5034 section 4)."""
    return b"+ " + binascii.b2a_base64(octets, newline=False) + b"\r\n"


def multiline(text: str, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a positive reply of many lines, `PIECE` of them at a time. No line may begin with a dot."""
    rest = chain((_line(f"+OK {text}"),), lines, (b".",))
    while piece := list(islice(rest, PIECE)):
        yield b"\r\n".join(piece) + b"\r\n"


def count(number: int, thing: str) -> str:
    """Return `1 message`, `2 messages`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def plain(text: str, limit: int = 200) -> str:
    """Return a text of any language as printable ASCII on one line: without its accents, and not longer than this.

    Without UTF8 (RFC 6856), which is not offered, nothing else may stand in a reply.
    """
    folded = unicodedata.normalize("NFKD", " ".join(text.translate(_LETTERS).split()))
    bare = "".join(character for character in folded if not unicodedata.combining(character))
    return _UNPRINTABLE.sub(b"?", bare.encode("ascii", "replace")).decode()[:limit]


def _line(text: str) -> bytes:
    # Whatever a text was made of, it stays one line, and a short one.
    return _UNPRINTABLE.sub(b"?", text.encode("ascii", "replace"))[: LIMIT - 2]
