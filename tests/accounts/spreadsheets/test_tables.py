"""CSV as spreadsheets make it."""

import csv
import io
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.spreadsheets import tables
from accounts.spreadsheets.tables import BadFile, Table

COLUMNS = ("address", "password", "quota", "name")


def read(text: str | bytes) -> Table:
    octets = text if isinstance(text, bytes) else text.encode()
    return tables.read(octets, columns=COLUMNS, usual=COLUMNS[:3], as_typed=("password",))


def cells(text: str | bytes) -> list[tuple[int, dict[str, str]]]:
    return [(line.number, line.cells) for line in read(text)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_any_separator_any_line_end_with_and_without_byte_order_mark(separator: str, end: str, mark: str) -> None:
    text = separator.join(["Name", "ADDRESS"]) + end + separator.join(["Trần, An; x", "an@acme.test"]) + end
    quoted = text.replace("Trần, An; x", '"Trần, An; x"')
    assert cells(mark + quoted) == [(2, {"name": "Trần, An; x", "address": "an@acme.test"})]


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("an@acme.test,se;cret\n", "se;cret"),
        ("an@acme.test;se,cret\n", "se,cret"),
        ("an@acme.test\tse,cret\t1G\n", "se,cret"),
        ("an@acme.test, secret ,1G\n", " secret "),
        ("an@acme.test,'=1,1G\n", "'=1"),
        ("an@acme.test,address\n", "address"),
    ],
)
def test_without_names_the_columns_are_the_usual_ones_and_passwords_are_as_typed(text: str, password: str) -> None:
    table = read(text)
    assert not table.named
    [line] = table
    assert line.cells["address"] == "an@acme.test"
    assert line.cells["password"] == password


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    assert [number for number, _ in cells('address,name\n\nan@x.test,"a\nb"\n,,\nbinh@x.test\n')] == [3, 6]


def test_a_line_with_more_cells_than_columns_is_a_problem_unless_they_are_empty() -> None:
    table = read("address,name\nan@x.test,An,,\nbinh@x.test,Binh,7\n")
    assert len(table) == 1
    assert [str(problem) for problem in table.problems] == [
        "line 3: has 3 cells, but the columns are address, name",
    ]


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (b"address,name\nan@x.test,\xff\n", "not UTF-8 in line 2"),
        (b'address\n"an@x.test\n', "line 2 is not CSV"),
        (b'address\n"a"b\n', "line 2 is not CSV"),
        (b"address,shoe_size\n", "no column 'shoe_size'"),
        (b"address,name,Name\n", "twice"),
        (b"address,name\n" + b"an@x.test," + b"x" * 200_000 + b"\n", "line 2 is not CSV"),
        ("address".encode("utf-16"), "not UTF-8 in line 1"),
    ],
)
def test_what_cannot_be_read_is_refused_whole(octets: bytes, says: str) -> None:
    with pytest.raises(BadFile, match=says):
        read(octets)


def test_a_file_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_LINES", 2)
    with pytest.raises(BadFile, match="more than 2 lines"):
        read("address\na@x.test\nb@x.test\nc@x.test\n")
    monkeypatch.setattr(tables, "LIMIT", 2**20)
    with pytest.raises(BadFile, match="more than 1 MB"):
        read(b"x" * (2**20 + 1))


def test_an_empty_file_has_no_lines() -> None:
    assert len(read("")) == len(read("\ufeff\n\n")) == len(read("address,name\n")) == 0


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x"])
def test_no_cell_is_a_formula(cell: str) -> None:
    written = b"".join(tables.write(["address"], [[cell]])).decode()
    [_, [shown]] = csv.reader(io.StringIO(written, newline=""))
    assert shown == f"'{cell}"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")).map(lambda text: text.strip(" "))))
def test_what_is_written_is_read_again(names: list[str]) -> None:
    written = b"".join(tables.write(["address", "name"], [["a@x.test", name] for name in names]))
    assert [found["name"] for _, found in cells(written)] == names


@given(st.binary(max_size=200) | st.text(alphabet=",;\"\n\r\ta@x.='").map(str.encode))
def test_nothing_is_answered_with_a_fault(octets: bytes) -> None:
    for text in (octets, b"address,name\n" + octets):
        with suppress(BadFile):
            list(read(text))


def test_many_rows_are_written_in_little_memory() -> None:
    rows = ([f"user{number}@x.test", "x" * 50] for number in range(200_000))
    tracemalloc.start()
    octets = sum(map(len, tables.write(["address", "name"], rows)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert octets > 200_000 * 60
    assert peak < 2 * 2**20
