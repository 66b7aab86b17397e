"""A process that looks at one message for another: with bounds to what it uses, and nothing worth having within reach.

The message is its standard input, which is a file. Its answer is its standard output. It may break in any way there is.
"""

import codecs
import contextlib
import encodings
import json
import mmap
import os
import pkgutil
import resource
import sys
from typing import Any, BinaryIO, Final

from mailstore import headers
from mailstore.mime import confinement, sanitising, structure
from mailstore.mime.structure import Octets, Part

TEXT: Final = 512 * 1024
"""Octets of a message's text that are shown."""

HTML: Final = 1024 * 1024
"""Octets of a message's HTML that are shown."""

NO_SUCH_PART: Final = 3
"""What the process ends with where there is no such part."""


def main() -> None:
    """`memory seconds answer what`: the octets, seconds and octets that it may use, and what is asked for."""
    memory, seconds, answer = (int(text) for text in sys.argv[1:4])
    what = sys.argv[4]
    for limit, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, answer),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (most, most))
    is_empty = not os.fstat(sys.stdin.fileno()).st_size  # which cannot be mapped
    octets = b"" if is_empty else mmap.mmap(0, 0, access=mmap.ACCESS_READ)
    _load_charsets()
    confinement.confine()
    _answer(octets, what, sys.stdout.buffer)
    sys.stdout.flush()


def _load_charsets() -> None:
    """Every one that Python has: it imports each when it is wanted first, and then no file can be opened any more."""
    for module in pkgutil.iter_modules(encodings.__path__):
        with contextlib.suppress(LookupError):  # some are another system's
            codecs.lookup(module.name)


def _answer(octets: Octets, what: str, out: BinaryIO) -> None:
    found = structure.look(octets)
    match what:
        case "text":
            out.write(json.dumps(text_of(octets, found)).encode())
        case "html":
            out.write(html_of(octets, found).encode())
        case number:
            if not int(number) < len(found.parts):
                sys.exit(NO_SUCH_PART)
            part = found.parts[int(number)]
            out.write(json.dumps(name_of(int(number), part)).encode() + b"\n")
            for piece in structure.decoded(octets, part):
                out.write(piece)


def text_of(octets: Octets, found: structure.Structure) -> dict[str, Any]:
    """A message as text: its fields, what it says, and what else it holds."""
    plain, html = _shown(found, "text/plain"), _shown(found, "text/html")
    said, is_whole = _together(octets, plain, TEXT)
    text = "\n\n".join(said)
    if html and not text.strip():
        said, is_whole = _together(octets, html, HTML)
        text = "\n\n".join(map(sanitising.as_text, said))
    attached = [
        {"number": number, "name": name_of(number, part), "kind": part.kind, "octets": _octets(octets, part)}
        for number, part in enumerate(found.parts)
        if part not in plain and part not in html
    ]
    return {
        "fields": found.fields,
        "text": headers.printable_lines(text)[:TEXT],
        "has_html": bool(html),
        "is_whole": found.is_whole and is_whole and len(text) <= TEXT,
        "attachments": attached,
    }


def html_of(octets: Octets, found: structure.Structure) -> str:
    """A message as HTML that can be shown."""
    of_id = {part.content_id: part for part in reversed(found.parts) if part.content_id}

    def find(content_id: str) -> bytes:
        if content_id not in of_id:
            return b""
        picture, is_whole = structure.beginning(octets, of_id[content_id], sanitising.PICTURE)
        return picture if is_whole else b""

    said, _ = _together(octets, _shown(found, "text/html"), HTML)
    return "\n<hr>\n".join(sanitising.sanitise(text, find) for text in said)


def name_of(number: int, part: Part) -> str:
    """What a part is called as a file."""
    return part.name or (f"message-{number}.eml" if part.kind == "message/rfc822" else f"part-{number}.bin")


def _shown(found: structure.Structure, kind: str) -> list[Part]:
    return [part for part in found.parts if part.kind == kind and not part.is_attached]


def _together(octets: Octets, parts: list[Part], most: int) -> tuple[list[str], bool]:
    """What these parts say, of at most so many octets together; and whether that is all."""
    said = []
    for part in parts:
        found, is_whole = structure.beginning(octets, part, most)
        said.append(headers.characters(found, part.charset))
        most -= len(found)
        if not is_whole:
            return said, False
    return said, True


def _octets(octets: Octets, part: Part) -> int:
    return sum(map(len, structure.decoded(octets, part)))
