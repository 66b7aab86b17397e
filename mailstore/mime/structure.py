"""The parts of a message (RFC 2045, RFC 2046), found within bounds whatever somebody sends."""

import binascii
import re
from collections.abc import Iterator
from itertools import islice
from mmap import mmap
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from mailstore import headers

Octets: TypeAlias = bytes | mmap

PARTS: Final = 100
"""Parts of a message that are looked at, those that have parts included."""

DEPTH: Final = 10
"""Levels of parts within parts. What is deeper is one part."""

FIELDS: Final = 200
"""Fields of a header that are looked at."""

VALUE: Final = 1000
"""Characters of a field that are shown."""

NAME: Final = 150
"""Characters of a file's name."""

_PARAMETERS: Final = 40
_PIECE: Final = 96 * 1024  # octets that are decoded at once


class Part(NamedTuple):
    """A part without parts: from where to where its octets stand, and what its header says of them."""

    start: int
    end: int
    kind: str
    """Such as `text/plain`, in small letters."""
    charset: str
    name: str
    """Of the file that it was; empty if it says none."""
    encoding: str
    """Its Content-Transfer-Encoding, in small letters."""
    content_id: str
    """Without angle brackets."""
    is_attached: bool
    """Whether its sender wants it to be a file rather than to be shown."""


class Structure(NamedTuple):
    """A message's header, and its parts in their order."""

    fields: list[tuple[str, str]]
    parts: list[Part]
    is_whole: bool
    """Whether it has no more parts and no more fields than these."""


def look(octets: Octets) -> Structure:
    """Look at a message. Never raises."""
    fields, _, is_whole = _header(octets, 0, len(octets))
    parts: list[Part] = []
    waiting = [(0, len(octets), 0, "text/plain")]  # the next one last
    for _ in range(PARTS):
        if not waiting:
            break
        start, end, depth, usual = waiting.pop()
        said, body, _ = _header(octets, start, end)
        kind, parameters = _value(_first(said, b"content-type"))
        kind = kind if re.fullmatch(r"[!-.0-~]{1,60}/[!-.0-~]{1,60}", kind) else usual
        inner = []
        if kind.startswith("multipart/") and depth < DEPTH:
            inner = list(islice(_between(octets, body, end, parameters.get("boundary", b"")), PARTS + 1))
            kind = kind if inner else "text/plain"
        if inner:
            usual = "message/rfc822" if kind == "multipart/digest" else "text/plain"
            waiting.extend((*place, depth + 1, usual) for place in reversed(inner))
            continue
        disposition, of_file = _value(_first(said, b"content-disposition"))
        parts.append(
            Part(
                start=body,
                end=end,
                kind=kind,
                charset=parameter(parameters, "charset"),
                name=file_name(parameter(of_file, "filename") or parameter(parameters, "name")),
                encoding=_first(said, b"content-transfer-encoding").strip().lower().decode("latin-1"),
                content_id=headers.text(_first(said, b"content-id")).strip("<>"),
                is_attached=disposition == "attachment",
            )
        )
    shown = [(name.decode("latin-1"), headers.text(value, most=VALUE)) for name, value in fields]
    return Structure(shown, parts, is_whole and not waiting)


def decoded(octets: Octets, part: Part) -> Iterator[bytes]:
    """What a part consists of, a piece at a time. What is spoilt comes as far as it can be read. Never raises."""
    match part.encoding:
        case "base64":
            yield from _base64(octets, part)
        case "quoted-printable":
            yield from _quoted_printable(octets, part)
        case _:
            for at in range(part.start, part.end, _PIECE):
                yield octets[at : min(at + _PIECE, part.end)]


def beginning(octets: Octets, part: Part, most: int) -> tuple[bytes, bool]:
    """The first octets that a part consists of, at most so many; and whether these are all."""
    found = b""
    for piece in decoded(octets, part):
        found += piece
        if len(found) > most:
            return found[:most], False
    return found, True


def parameter(parameters: dict[str, bytes], name: str) -> str:
    """A parameter of a field, also one in pieces or in a charset of its own (RFC 2231); empty if there is none."""
    pieces = [(True, parameters[f"{name}*"])] if f"{name}*" in parameters else []
    while not pieces or len(pieces) < _PARAMETERS:
        number = len(pieces)
        if (piece := parameters.get(f"{name}*{number}*")) is not None:
            pieces.append((True, piece))
        elif (piece := parameters.get(f"{name}*{number}")) is not None:
            pieces.append((False, piece))
        else:
            break
    if not pieces:
        return headers.text(parameters.get(name, b""))
    charset = b"utf-8"
    if pieces[0][0] and pieces[0][1].count(b"'") >= 2:
        charset, _, first = pieces[0][1].split(b"'", 2)
        pieces[0] = (True, first)
    octets = b"".join(unquote_to_bytes(piece) if is_quoted else piece for is_quoted, piece in pieces)
    return headers.printable(headers.characters(octets, charset.decode("latin-1")))


def file_name(text: str) -> str:
    """A name that names a file in whatever directory it is put, and nothing else; empty if there is none."""
    name = re.sub(r'[\\/:*?"<>|]', "_", text).strip(". ")
    if len(name) > NAME:  # the end says what it is
        name = f"{name[: NAME - 20]}…{name[-19:]}"
    return name


_EMPTY_LINE = re.compile(rb"\n\r?\n")
_FIELD = re.compile(rb"\n([!-9;-~]{1,100}+)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)")
_PARAMETER = re.compile(rb';\s*+([^\s=;"]{1,60}+)\s*+=\s*+("(?:[^"\\]|\\.)*+"?|[^;]*+)', re.DOTALL)


def _header(octets: Octets, start: int, end: int) -> tuple[list[tuple[bytes, bytes]], int, bool]:
    """The fields of the header there, where the body begins, and whether these are all fields."""
    if octets[start : min(start + 2, end)] == b"\r\n" or octets[start : min(start + 1, end)] == b"\n":
        return [], start + (2 if octets[start : start + 1] == b"\r" else 1), True
    found = _EMPTY_LINE.search(octets, start, end)
    ends, body = (found.start() + 1, found.end()) if found else (end, end)
    head = b"\n" + octets[start : min(ends, start + headers.HEAD_LIMIT)]
    fields = [
        (field[1], field[2].strip()[: headers.FIELD_LIMIT]) for field in islice(_FIELD.finditer(head), FIELDS + 1)
    ]
    return fields[:FIELDS], body, len(fields) <= FIELDS and ends - start <= headers.HEAD_LIMIT


def _first(fields: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next((value for given, value in fields if given.lower() == name), b"")


def _value(field: bytes) -> tuple[str, dict[str, bytes]]:
    """What a field says, in small letters, and its parameters (RFC 2045 section 5.1)."""
    said, _, _ = field.partition(b";")
    parameters: dict[str, bytes] = {}
    for found in islice(_PARAMETER.finditer(field), _PARAMETERS):
        value = found[2]
        if value.startswith(b'"'):
            value = re.sub(rb"\\(.)", rb"\1", value[1:].removesuffix(b'"'), flags=re.DOTALL)
        parameters.setdefault(found[1].lower().decode("latin-1"), value.strip())
    return said.strip().lower().decode("latin-1"), parameters


def _between(octets: Octets, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Where the parts between these boundaries stand (RFC 2046 section 5.1.1); the last may lack its end."""
    if not boundary:
        return
    line = re.compile(rb"\n--" + re.escape(boundary) + rb"(--)?[ \t]*+\r?(?=\n|\Z)")
    begins = None
    for found in line.finditer(octets, start - 1, end):  # a body begins behind the end of a line
        if begins is not None:
            ends = max(begins, found.start())
            yield begins, ends - (octets[max(begins, ends - 1) : ends] == b"\r")
        if found[1]:
            return
        begins = min(found.end() + 1, end)
    if begins is not None:
        yield begins, end


def _base64(octets: Octets, part: Part) -> Iterator[bytes]:
    held = b""
    for at in range(part.start, part.end, _PIECE):
        letters, padding, _ = octets[at : min(at + _PIECE, part.end)].translate(None, _NOT_BASE64).partition(b"=")
        held += letters
        if padding:
            break
        whole = len(held) // 4 * 4
        yield binascii.a2b_base64(held[:whole])
        held = held[whole:]
    if len(held) % 4 == 1:
        held = held[:-1]
    yield binascii.a2b_base64(held + b"==")


def _quoted_printable(octets: Octets, part: Part) -> Iterator[bytes]:
    held = b""
    for at in range(part.start, part.end, _PIECE):
        held += octets[at : min(at + _PIECE, part.end)]
        whole = held.rfind(b"\n") + 1 or len(held) - 3  # of a line without end; what follows a = belongs to it
        if at + _PIECE >= part.end:
            break
        if b"=" in held[whole - 3 : whole]:
            whole = held.rfind(b"=", whole - 3, whole)
        yield binascii.a2b_qp(held[:whole])
        held = held[whole:]
    yield binascii.a2b_qp(held)


_NOT_BASE64: Final = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
