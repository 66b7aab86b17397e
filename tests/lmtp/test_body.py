"""Readers: any way to cut the octets gives the same message, and cost does not depend on what is in them."""

import re
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmtp.body import BdatReader, DataReader, Reader

# What decides here: CR, LF, dots, and things that are none of them.
TRICKY = st.lists(
    st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"a", b"\0", b"\r\n.", b"\r\n.\r", b"\xff"]), max_size=40
).map(b"".join)


def by_lines(octets: bytes) -> tuple[bytes, bytes] | None:
    """The reference: whole input, line by line, in the words of RFC 5321 section 4.5.2."""
    lines = re.split(rb"\r\n", octets)
    for number, line in enumerate(lines[:-1]):
        if line == b".":
            message = [line.removeprefix(b".") + b"\r\n" for line in lines[:number]]
            return b"".join(message), b"\r\n".join(lines[number + 1 :])
    return None


def cut(octets: bytes, places: Iterable[int]) -> Iterator[bytes]:
    edges = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    for start, end in pairwise(edges):
        yield octets[start:end]


def read(reader: Reader, pieces: Iterable[bytes], *, view: bool = False) -> tuple[bytes, bytes] | None:
    """Return the message and what was left over, or None if it is not complete."""
    message = b""
    rest = iter(pieces)
    for piece in rest:
        consumed, decoded, complete = reader.feed(memoryview(piece) if view else piece)
        message += decoded
        if complete:
            return message, piece[consumed:] + b"".join(rest)
        assert consumed == len(piece)
    return None


@given(TRICKY, st.binary(max_size=4), st.lists(st.integers(0, 200), max_size=8), st.booleans())
@example(b"", b"", [], False)
@example(b".", b"\n", [1, 2], True)
@example(b"a\r\n.\r", b"\n", [1, 2, 3, 4, 5], True)
def test_data_is_what_the_lines_say(octets: bytes, more: bytes, places: list[int], view: bool) -> None:
    sent = octets + b"\r\n.\r\n" + more
    assert read(DataReader(), cut(sent, places), view=view) == by_lines(sent)


@given(TRICKY, st.lists(st.integers(0, 200), max_size=8))
def test_data_without_an_end_is_not_complete(octets: bytes, places: list[int]) -> None:
    if by_lines(octets) is None:
        assert read(DataReader(), cut(octets, places)) is None


@pytest.mark.parametrize(
    "not_the_end",
    [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\r\n.\r", b"\r\n.\0\r\n", b"\r\n.\r\r\n"],
)
def test_only_crlf_dot_crlf_is_the_end(not_the_end: bytes) -> None:
    smuggled = b"a" + not_the_end + b"MAIL FROM:<x@example.org>"
    for size in range(1, len(smuggled)):
        reader = DataReader()
        for start in range(0, len(smuggled), size):
            assert not reader.feed(smuggled[start : start + size]).complete


def test_an_empty_message_ends_at_once() -> None:
    assert DataReader().feed(b".\r\nNOOP\r\n") == (3, b"", True)


def test_what_is_known_does_not_wait() -> None:
    reader = DataReader()
    assert reader.feed(b"a\r\nb") == (4, b"a\r\nb", False)
    assert reader.feed(b"c\r\n.") == (4, b"c", False)
    assert reader.feed(b"d") == (1, b"\r\nd", False)


@given(st.binary(max_size=60), st.data())
def test_bdat_counts(octets: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(octets) + 3))
    places = data.draw(st.lists(st.integers(0, 200), max_size=8))
    found = read(BdatReader(count), cut(octets, places), view=data.draw(st.booleans()))
    assert found == ((octets[:count], octets[count:]) if count <= len(octets) else None)


@pytest.mark.parametrize(
    "line", [b"\r\n", b"..\r\n", b"a\n", b"\r", b"x" * 76 + b"\r\n", b"."], ids=lambda line: repr(line[:4])
)
def test_32_mb_cost_little_whatever_they_are(line: bytes) -> None:
    chunk = line * (65536 // len(line))
    reader = DataReader()
    began = time.process_time()
    tracemalloc.start()
    for _ in range(512):
        reader.feed(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - began < 2
    assert peak < 1_000_000
    assert reader.feed(b"\r\n.\r\n").complete
