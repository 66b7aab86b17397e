"""Catalogues of translations as tests read and make them."""

import ast
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """What is said, in which context and plural, and its translations: one for each form of the plural."""

    context: str
    singular: str
    plural: str
    said: tuple[str, ...]
    fuzzy: bool


def read(text: str) -> list[Entry]:
    """The entries of a catalogue (.po), without its header."""
    found = []
    for block in re.split(r"\n{2,}", text):
        parts: dict[str, str] = {}
        last = ""
        for line in block.splitlines():
            if begins := re.match(r'(msg\w+(?:\[\d\])?) (".*")$', line):
                last = begins[1]
                parts[last] = ast.literal_eval(begins[2])
            elif line.startswith('"'):
                parts[last] += ast.literal_eval(line)
        if parts.get("msgid"):
            said = tuple(text for name, text in sorted(parts.items()) if name.startswith("msgstr"))
            fuzzy = any(line.startswith("#,") and "fuzzy" in line for line in block.splitlines())
            found.append(Entry(parts.get("msgctxt", ""), parts["msgid"], parts.get("msgid_plural", ""), said, fuzzy))
    return found


def compiled(header: str, entries: Mapping[bytes, bytes]) -> bytes:
    """A catalogue as gettext reads it (.mo)."""
    pairs = sorted({b"": header.encode(), **entries}.items())
    keys: list[int] = []
    values: list[int] = []
    texts = b""
    for place, column in ((keys, 0), (values, 1)):
        for pair in pairs:
            place += [len(pair[column]), 28 + 16 * len(pairs) + len(texts)]
            texts += pair[column] + b"\0"
    numbers = [0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0, *keys, *values]
    return struct.pack(f"<{len(numbers)}I", *numbers) + texts


def key(entry: Entry) -> bytes:
    """What an entry is found by in a compiled catalogue."""
    context = f"{entry.context}\x04" if entry.context else ""
    plural = f"\0{entry.plural}" if entry.plural else ""
    return f"{context}{entry.singular}{plural}".encode()


def entries_of(path: Path) -> list[Entry]:
    """The entries of the catalogue in a file."""
    return read(path.read_text())
