"""Spools: the same message however it arrives, measured as it will be stored, and no room it does not need."""

import hashlib
import os
import re
import resource
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailstore.spool import HEAD_OCTETS, Room, Spool, SpoolFull, TooLarge

TRICKY = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"a", b"\0", b"\xff", b"Subject: x\r\n", b"\r\n\r\n", b"\n.\n"]),
    max_size=30,
).map(b"".join)
PLACES = st.lists(st.integers(0, 200), max_size=10)


def canonical(octets: bytes) -> bytes:
    """The reference, on the whole."""
    octets = re.sub(rb"(?<!\r)\n", b"\r\n", octets)
    return octets if octets.endswith(b"\r\n") or not octets else octets + b"\r\n"


def write(spool: Spool, octets: bytes, places: list[int]) -> None:
    edges = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    for start, end in pairwise(edges):
        spool.write(octets[start:end])


@given(TRICKY, PLACES, st.sampled_from([0, 10, 1000]))
@example(b"", [], 0)
@example(b"\r\n", [1], 1000)
@example(b"a\r", [1], 1000)
@example(b"a\n\n.", [1, 2, 3], 0)
def test_measures_are_those_of_the_canonical_form(octets: bytes, places: list[int], memory: int) -> None:
    expected = canonical(octets)
    with Spool(memory=memory) as spool:
        write(spool, octets, places)
        spool.finish()
        assert b"".join(spool.chunks(7)) == expected
        assert spool.octets == len(expected)
        assert spool.inline == (expected if len(expected) <= memory else None)
        assert spool.digest == hashlib.sha256(expected).digest()
        lines = expected.split(b"\r\n")
        assert spool.has_dot_lines == any(line.startswith(b".") for line in lines)
        header = expected[: re.search(rb"\A\r\n|\r\n\r\n|\Z", expected).end()]  # type: ignore[union-attr]
        assert spool.header_octets == len(header)
        assert spool.head == header


@pytest.mark.parametrize("memory", [0, 1_000_000])
def test_it_is_read_back_as_often_as_need_be(memory: int) -> None:
    with Spool(memory=memory) as spool:
        spool.write(b"abc\r\n" * 1000)
        spool.finish()
        one, other = spool.chunks(1024), spool.chunks(4096)
        mixed = [next(one), next(other), *one], list(other)
        assert b"".join([mixed[0][0], *mixed[0][2:]]) == b"abc\r\n" * 1000
        assert mixed[0][1] + b"".join(mixed[1]) == b"abc\r\n" * 1000
        assert [len(chunk) for chunk in spool.chunks(4096)] == [4096, 904]


@pytest.mark.parametrize(
    ("begins", "with_received"),
    [
        (b"Received: from a\r\n", True),
        (b"RECEIVED : from a\r\n", True),
        (b"Received-SPF: pass\r\nReceived: from a\r\n", False),
        (b"Return-Path: <>\r\nReceived: from a\r\n", False),
        (b" Received: from a\r\n", False),
        (b"\r\nReceived: from a\r\n", False),
        (b"", False),
    ],
)
def test_it_tells_whether_an_mta_had_the_message(begins: bytes, with_received: bool) -> None:
    with Spool() as spool:
        spool.write(begins)
        spool.finish()
        assert spool.begins_with_received is with_received


def test_the_head_is_of_bounded_length() -> None:
    with Spool() as spool:
        spool.write(b"a: b\r\n" * 100_000)
        spool.finish()
        assert spool.header_octets == 600_000
        assert spool.head == (b"a: b\r\n" * 100_000)[:HEAD_OCTETS]


@pytest.mark.parametrize("memory", [0, 1_000_000])
def test_beyond_its_limit_it_says_so_once_and_keeps_nothing(memory: int) -> None:
    spool = Spool(limit=10, memory=memory)
    spool.write(b"12345678\r")
    with pytest.raises(TooLarge):
        spool.write(b"\n1")
    spool.write(b"and whatever follows")
    with pytest.raises(TooLarge):
        spool.finish()
    spool.close()


def test_the_limit_is_of_what_is_stored() -> None:
    with Spool(limit=10) as spool:
        spool.write(b"12345678\r\n")
        spool.finish()
    with Spool(limit=10) as spool:
        spool.write(b"123456789")
        with pytest.raises(TooLarge):
            spool.finish()


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@contextmanager
def largest_file(octets: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 10_000])
def test_without_room_it_says_so_once_and_gives_back_what_it_had(tmp_path: Path, size: int) -> None:
    before = open_files()
    spool = Spool(memory=100, directory=str(tmp_path))
    with largest_file(5000), pytest.raises(SpoolFull):
        for _ in range(10_000 // size):
            spool.write(b"x" * (size - 2) + b"\r\n")
    assert open_files() == before
    spool.write(b"more")
    with pytest.raises(SpoolFull):
        spool.finish()
    spool.close()


def test_many_share_their_room_and_give_it_back() -> None:
    room = Room(memory=1000, files=2000)
    with Spool(room=room) as first, Spool(room=room) as second:
        first.write(b"x" * 900)
        second.write(b"y" * 900)  # there is memory for one of them
        first.finish()
        second.finish()
        assert first.inline
        assert second.inline is None
        assert b"".join(second.chunks(100)) == b"y" * 900 + b"\r\n"
        assert (room.memory, room.files) == (98, 1098)
        with Spool(room=room) as third:
            third.write(b"z" * 90)
            with pytest.raises(SpoolFull):
                third.write(b"z" * 1900)  # with what it had in memory
            assert (room.memory, room.files) == (98, 1098)
            third.write(b"z")
            with pytest.raises(SpoolFull):
                third.finish()
    assert (room.memory, room.files) == (1000, 2000)


def test_another_fault_keeps_nothing_either(tmp_path: Path) -> None:
    spool = Spool(memory=0, directory=str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError):
        spool.write(b"x")
    spool.write(b"y")
    with pytest.raises(FileNotFoundError):
        spool.finish()


def test_its_file_has_no_name_and_goes_when_it_is_closed(tmp_path: Path) -> None:
    before = open_files()
    with Spool(memory=10, directory=str(tmp_path)) as spool:
        spool.write(b"x" * 100)
        assert list(tmp_path.iterdir()) == []
        assert open_files() == before + 1
    assert open_files() == before


@pytest.mark.parametrize("line", [b"\r\n", b"x" * 76 + b"\r\n", b"x" * 76 + b"\n"], ids=["empty", "text", "lf"])
def test_50_mb_take_little_time_and_memory(line: bytes) -> None:
    chunk = line * (65536 // len(line))
    tracemalloc.start()
    began = time.process_time()
    with Spool() as spool:
        for _ in range(50_000_000 // len(chunk)):
            spool.write(chunk)
        spool.finish()
    elapsed = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert elapsed < 4
    assert peak < 2_000_000
