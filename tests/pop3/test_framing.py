"""Byte-stuffing and TOP, against a plain reading of the RFC line by line."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3.framing import Stuffer, Top

# Messages in canonical form: lines that end in CRLF, with whatever in them but a CRLF or a bare LF.
lines = st.lists(
    st.one_of(
        st.sampled_from([b"", b".", b"..", b".x", b"\r", b"\r\r", b"x\r", b".\r", b"x"]),
        st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")),
    ),
    max_size=12,
)
cuts = st.lists(st.integers(0, 80), max_size=8)


def whole(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


def chunks(message: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
    return [message[begin:end] for begin, end in pairwise(edges)]


@settings(deadline=None)
@given(lines, cuts)
def test_stuffing_adds_a_dot_to_each_line_that_begins_with_one(lines: list[bytes], cuts: list[int]) -> None:
    stuffer = Stuffer()
    stuffed = b"".join(map(stuffer.feed, chunks(whole(lines), cuts)))
    assert stuffed == whole([b"." + line if line.startswith(b".") else line for line in lines])


@settings(deadline=None)
@given(lines, cuts, st.integers(0, 14))
def test_top_is_the_header_the_blank_line_and_so_many_lines(lines: list[bytes], cuts: list[int], count: int) -> None:
    top = Top(count)
    answer = b"".join(map(top.feed, chunks(whole(lines), cuts)))
    header = lines.index(b"") + 1 if b"" in lines else len(lines)
    assert answer == whole(lines[: header + count])
    assert not top.done or answer == whole(lines)[: len(answer)]
    assert top.done or answer == whole(lines)


@pytest.mark.parametrize("size", range(1, 40))
def test_every_edge_of_a_chunk(size: int) -> None:
    message = b".a\r\n.b\r\n\r\n.c\r\n\r\n..d\r\n.\r\n"
    stuffer, top = Stuffer(), Top(3)
    pieces = [message[begin : begin + size] for begin in range(0, len(message), size)]
    assert b"".join(map(stuffer.feed, pieces)) == b"..a\r\n..b\r\n\r\n..c\r\n\r\n...d\r\n..\r\n"
    assert b"".join(map(top.feed, pieces)) == b".a\r\n.b\r\n\r\n.c\r\n\r\n..d\r\n"


def test_top_stops_as_soon_as_it_can() -> None:
    top = Top(0)
    assert top.feed(b"Subject: top\r\n\r\n") == b"Subject: top\r\n\r\n"
    assert top.done
    top = Top(1)
    assert top.feed(b"Subject: top\r\n\r\n") == b"Subject: top\r\n\r\n"
    assert not top.done
    assert top.feed(b"one\r\ntwo\r\n") == b"one\r\n"
    assert top.done
    assert top.feed(b"three\r\n") == b""


def test_a_bare_cr_ends_no_line() -> None:
    assert Stuffer().feed(b"a\r.b\r\n") == b"a\r.b\r\n"
    assert Top(1).feed(b"a\r\r\n\r\nb\rc\r\nd\r\n") == b"a\r\r\n\r\nb\rc\r\n"
