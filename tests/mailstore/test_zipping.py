"""A zip that was written without a look back can be read by everybody."""

import io
import shutil
import subprocess
import tracemalloc
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailstore.zipping import Zip

AT = datetime(2026, 11, 23, 9, 30, 11, tzinfo=UTC)


def made(*files: tuple[str, list[bytes]]) -> bytes:
    with Zip() as archive:
        pieces = [*archive.folder("empty/")]
        for name, octets in files:
            pieces += archive.file(name, AT, octets)
        return b"".join([*pieces, *archive.end()])


def test_zipfile_reads_it() -> None:
    archive = zipfile.ZipFile(io.BytesIO(made(("a/ü.eml", [b"one", b"", b"two" * 100_000]), ("b", []))))
    assert archive.testzip() is None
    assert archive.read("a/ü.eml") == b"one" + b"two" * 100_000
    assert archive.read("b") == b""
    folder, file, _ = archive.infolist()
    assert folder.is_dir()
    assert (file.date_time, file.external_attr >> 16) == ((2026, 11, 23, 9, 30, 10), 0o100600)


@pytest.mark.parametrize("program", [["unzip", "-t"], ["7z", "t"], ["bsdtar", "-tf"]])
def test_other_programs_read_it(program: list[str], tmp_path: Path) -> None:
    if not shutil.which(program[0]):
        pytest.skip(f"{program[0]} is not installed")
    (tmp_path / "x.zip").write_bytes(made(("a.eml", [b"one" * 1000])))
    subprocess.run([*program, str(tmp_path / "x.zip")], check=True, capture_output=True)


def test_it_may_have_more_entries_than_fit_in_16_bits() -> None:
    with Zip() as archive:
        octets = io.BytesIO()
        tracemalloc.start()
        before = 0
        for number in range(66_000):
            if number == 10_000:
                before, _ = tracemalloc.get_traced_memory()
            for piece in archive.file(f"{number}.eml", AT, [b"x"]):
                octets.write(piece)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert after - before - octets.tell() < 2_000_000
        for piece in archive.end():
            octets.write(piece)
    found = zipfile.ZipFile(octets)
    assert len(found.infolist()) == 66_000
    assert found.read("65999.eml") == b"x"


def test_it_may_be_larger_than_fits_in_32_bits() -> None:
    with Zip() as archive:
        first = b"".join(archive.file("a", AT, [b"one"]))
        gap = 5 * 2**30
        archive._octets += gap
        second = b"".join(archive.file("b", AT, [b"two"]))
        end = b"".join(archive.end())

    class Sparse(io.RawIOBase):
        """The zip with its five gigabytes between, of which nothing is held."""

        place = 0
        parts = ((0, first), (len(first) + gap, second), (len(first) + gap + len(second), end))
        size = len(first) + gap + len(second) + len(end)

        def seekable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> int:
            self.place = offset + (0, self.place, self.size)[whence]
            return self.place

        def tell(self) -> int:
            return self.place

        def read(self, count: int = -1) -> bytes:
            count = self.size - self.place if count < 0 else min(count, self.size - self.place)
            found = bytearray(count)
            for start, octets in self.parts:
                for index in range(max(start, self.place), min(start + len(octets), self.place + count)):
                    found[index - self.place] = octets[index - start]
            self.place += count
            return bytes(found)

    found = zipfile.ZipFile(Sparse())
    assert (found.read("a"), found.read("b")) == (b"one", b"two")
    assert found.getinfo("b").header_offset == len(first) + gap
