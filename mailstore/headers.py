"""Looking at the few header fields that the admin shows: bounded, whatever somebody sends, and never MIME."""

import binascii
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from encodings.aliases import aliases
from ipaddress import ip_address
from itertools import groupby
from typing import Final, NamedTuple

HEAD_LIMIT: Final = 64 * 1024
"""Octets of a header that are looked at. Fields below them stay unseen."""

FIELD_LIMIT: Final = 4096
"""Octets of a field that are looked at: even in the longest encoding some `LENGTH` characters."""

DATE_LIMIT: Final = 100

HOPS: Final = 50
"""Servers that a message has come through at most before it is sent on: as Postfix has it (RFC 5321 section 6.3)."""

LENGTH: Final = 255
"""Characters of what is returned."""


class Headers(NamedTuple):
    """What a header says, fit to be stored and shown; empty where it says nothing."""

    subject: str
    sender: str
    """The field From."""
    message_id: str
    date: datetime | None
    """In UTC. None also where nobody can tell what was meant."""


def look(head: bytes) -> Headers:
    """Look at a header, or at what there is of one; what follows its empty line is ignored. Never raises."""
    head = b"\n" + head[:HEAD_LIMIT]
    end = _EMPTY_LINE.search(head)
    found: dict[bytes, bytes] = {}
    for field in _FIELD.finditer(head, 0, end.start() + 1 if end else len(head)):
        found.setdefault(field["name"].lower(), field["value"][:FIELD_LIMIT])
        if len(found) == _FIELDS:
            break
    return Headers(
        subject=text(found.get(b"subject", b"")),
        sender=text(found.get(b"from", b"")),
        message_id=printable(found.get(b"message-id", b"").decode("utf-8", "replace")),
        date=_date(found.get(b"date", b"")),
    )


class Hop(NamedTuple):
    """Where a server took a message from, as it says itself; empty where it does not."""

    host: str
    """The name that the client gave."""
    address: str
    """The client's, as IPv4 or IPv6."""
    queue_id: str
    """Of the server that took it."""


def hop(head: bytes) -> Hop | None:
    """What the trace field says that a message begins with (RFC 5321 section 4.4); None if it begins with none.

    As many servers as there are write it, it is only looked at for what most of them have in common. Never raises.
    """
    found = _FIRST_RECEIVED.match(head[:HOP_LIMIT])
    if found is None:
        return None
    text = printable(found["value"].decode("utf-8", "replace"), most=HOP_LIMIT)
    whence = _WHENCE.match(text)
    said = whence["said"] if whence else ""
    literal = _LITERAL.search(said)
    bare = text
    for _ in range(3):  # comments stand in comments
        bare = _COMMENT.sub(" ", bare)
    queue_id = _QUEUE_ID.search(bare)
    host = said.split(" ", 1)[0].strip("[]();")
    return Hop(
        host=host[:LENGTH],
        address=_address(literal["address"] if literal else host),
        queue_id=queue_id["id"] if queue_id else "",
    )


HOP_LIMIT: Final = 2048
"""Octets of the first trace field that are looked at."""

_FIRST_RECEIVED = re.compile(rb"received[ \t]*+:(?P<value>[^\n]*+(?:\n[ \t][^\n]*+)*+)", re.IGNORECASE)
_WHENCE = re.compile(r"from (?P<said>.*?)(?: by |$)", re.IGNORECASE)
_LITERAL = re.compile(r"\[(?:IPv6:)?(?P<address>[0-9A-Fa-f:.]{2,45})\]", re.IGNORECASE)
_COMMENT = re.compile(r"\([^()]*+\)")
_QUEUE_ID = re.compile(r"(?:^| )id <?(?P<id>[A-Za-z0-9_.+=@-]{1,100})", re.IGNORECASE)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


def text(value: bytes, *, most: int = LENGTH) -> str:
    """What the beginning of a field says, its encoded words decoded (RFC 2047): at most so many characters."""
    said = value[:FIELD_LIMIT].decode("utf-8", "replace")
    if "=?" in said:
        said = _WORDS.sub(_decoded, said)
    return printable(said, most=most)


def printable(said: str, *, most: int = LENGTH) -> str:
    """A line without what cannot be stored, cannot be seen, or turns the direction of what stands beside it."""
    return _UNPRINTABLE.sub("", " ".join(said.split()))[:most].strip()


def printable_lines(said: str) -> str:
    """As `printable`, of a text whose lines and blanks stay as they are."""
    lines = said.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join("\t".join(_UNPRINTABLE.sub("", cell) for cell in line.split("\t")) for line in lines)


def characters(octets: bytes, charset: str) -> str:
    """What octets say in a charset; where nobody knows it, in UTF-8, or else in what most programs took for granted."""
    known = _CHARSETS.get(charset.lower().replace("-", "_"))
    try:
        if known is None:
            return octets.decode("utf-8")
        return octets.decode(_MEANT.get(known, known), "replace")
    except (LookupError, ValueError):
        return octets.decode("cp1252", "replace")


def has_looped(head: bytes, address: str) -> bool:
    """Whether `address` has sent a message with this header on before, or it has come through `HOPS` servers."""
    head = b"\n" + head[:HEAD_LIMIT]
    mine = re.compile(
        rb"\ndelivered-to[ \t]*:[ \t]*<?" + re.escape(address.encode()) + rb">?[ \t]*\r?\n", re.IGNORECASE
    )
    return mine.search(head) is not None or len(_RECEIVED.findall(head)) >= HOPS


_DELIVERED_TO = re.compile(rb"\ndelivered-to[ \t]*:[ \t]*<?([^\s<>]+)>?[ \t]*(?=\r?\n)", re.IGNORECASE)
_RECEIVED = re.compile(rb"\nreceived[ \t]*:", re.IGNORECASE)
_EMPTY_LINE = re.compile(rb"\n\r?\n")
# A field goes on where the next line begins with a blank (RFC 5322 section 2.2.3). Possessive: what was passed once
# is not looked at again, whatever follows.
_FIELD = re.compile(
    rb"\n(?P<name>subject|from|message-id|date)[ \t]*+:(?P<value>[^\n]*+(?:\n[ \t][^\n]*+)*+)", re.IGNORECASE
)
_FIELDS: Final = 4

# PostgreSQL holds neither NUL nor lone surrogates. The rest are control characters, and those that turn the direction
# of what stands beside them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_WORD = re.compile(r"=\?([^?*\s]{1,40})(?:\*[^?\s]{0,40})?\?([BQ])\?([^?]*+)\?=", re.IGNORECASE)
_WORDS = re.compile(rf"{_WORD.pattern}(?:\s*+{_WORD.pattern})*+", re.IGNORECASE)

# No other charset is looked up: Python remembers each name it was ever asked for, and imports a module for it.
_NO_CHARSETS: Final = {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec"}
_CHARSETS: Final = {
    **{codec: codec for codec in aliases.values() if codec not in _NO_CHARSETS},
    **{alias: codec for alias, codec in aliases.items() if codec not in _NO_CHARSETS},
    **{"koi8_u": "koi8_u", "cp874": "cp874", "windows_874": "cp874"},
}
# Who says the one means the other, and where they agree it makes no difference (encoding.spec.whatwg.org).
_MEANT: Final = {
    "ascii": "utf_8",
    "latin_1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
}


def _decoded(words: re.Match[str]) -> str:
    # What stands between encoded words is not shown (RFC 2047 section 6.2). A character may be cut in two by them,
    # which is not allowed, but common.
    try:
        return "".join(
            b"".join(_octets(encoding, text) for _, encoding, text in alike).decode(charset, "replace")
            for charset, alike in groupby(_WORD.findall(words[0]), key=_charset)
        )
    except (LookupError, ValueError):
        return words[0]


def _charset(word: tuple[str, str, str]) -> str:
    charset = _CHARSETS[word[0].lower().replace("-", "_")]
    return _MEANT.get(charset, charset)


def _octets(encoding: str, text: str) -> bytes:
    if encoding in "Bb":
        return binascii.a2b_base64(text + "==")
    return binascii.a2b_qp(text.encode(), header=True)


def _date(value: bytes) -> datetime | None:
    try:
        date = parsedate_to_datetime(value[:DATE_LIMIT].decode("ascii", "replace"))
        date = (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # Near the ends of the calendar no other time zone can show it.
    return date if 1900 <= date.year <= 2999 else None
