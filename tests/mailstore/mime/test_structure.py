"""What is found in messages, as they should be and as somebody wants to hurt us with them."""

import base64
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstore.mime import structure
from mailstore.mime.structure import Part


def parts_of(octets: bytes) -> list[tuple[str, bytes]]:
    """What kinds of parts there are, and what each consists of."""
    return [(part.kind, whole(octets, part)) for part in structure.look(octets).parts]


def whole(octets: bytes, part: Part) -> bytes:
    return b"".join(structure.decoded(octets, part))


def mixed(*parts: bytes, kind: str = "mixed") -> bytes:
    """A multipart message whose boundary is b."""
    return b"Content-Type: multipart/%s; boundary=b\r\n\r\n" % kind.encode() + b"".join(
        b"--b\r\n" + part + b"\r\n" for part in (*parts, b"")[:-1]
    ) + b"--b--\r\nthe end\r\n"  # fmt: skip


def part(fields: str, body: bytes = b"x") -> Part:
    """The one part of a message with these fields."""
    [found] = structure.look(fields.encode() + b"\r\n\r\n" + body).parts
    return found


def test_what_another_library_writes_is_found() -> None:
    message = EmailMessage(policy=SMTP)
    message["Subject"] = "Hoá đơn"
    message.set_content("Chào bạn\n")
    message.add_alternative("<p>Chào bạn</p>\n", subtype="html")
    message.get_payload()[1].add_related(b"\x89PNG", "image", "png", cid="<logo@x>")  # type: ignore[index,union-attr]
    message.add_attachment(bytes(range(256)) * 999, maintype="application", subtype="pdf", filename="tháng 11.pdf")
    octets = message.as_bytes()

    found = structure.look(octets)

    assert ("Subject", "Hoá đơn") in found.fields
    assert found.is_whole
    plain, html, logo, pdf = found.parts
    assert (plain.kind, whole(octets, plain).decode(plain.charset)) == ("text/plain", "Chào bạn\r\n")
    assert (html.kind, whole(octets, html).decode(html.charset)) == ("text/html", "<p>Chào bạn</p>\r\n")
    assert (logo.content_id, whole(octets, logo)) == ("logo@x", b"\x89PNG")
    assert (pdf.name, pdf.is_attached) == ("tháng 11.pdf", True)
    assert whole(octets, pdf) == bytes(range(256)) * 999


def test_a_message_without_mime_is_text() -> None:
    assert parts_of(b"Subject: x\r\n\r\nhello\r\n") == [("text/plain", b"hello\r\n")]
    assert parts_of(b"\r\nhello\r\n") == [("text/plain", b"hello\r\n")]
    assert parts_of(b"Subject: x\r\n") == [("text/plain", b"")]
    assert parts_of(b"") == [("text/plain", b"")]


def test_lines_between_parts_belong_to_neither() -> None:
    octets = mixed(b"\r\none\r\n--bc\r\n --b", b"Content-Type: text/html\r\n\r\ntwo\r\n")
    assert parts_of(octets) == [("text/plain", b"one\r\n--bc\r\n --b"), ("text/html", b"two\r\n")]
    assert parts_of(octets.replace(b"\r\n", b"\n")) == [("text/plain", b"one\n--bc\n --b"), ("text/html", b"two\n")]


def test_what_has_no_end_ends_with_the_message() -> None:
    assert parts_of(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none") == [("text/plain", b"one")]


def test_a_multipart_without_parts_is_text() -> None:
    for said in ("", "; boundary=b", '; boundary=""'):
        octets = f"Content-Type: multipart/mixed{said}\r\n\r\nhello\r\n".encode()
        assert parts_of(octets) == [("text/plain", b"hello\r\n")]


def test_a_digest_is_of_messages() -> None:
    assert parts_of(mixed(b"\r\nSubject: x\r\n\r\ny", kind="digest")) == [("message/rfc822", b"Subject: x\r\n\r\ny")]


def test_a_message_in_a_message_stays_one_part() -> None:
    inner = mixed(b"\r\none").replace(b"boundary=b", b"boundary=c").replace(b"--b", b"--c")
    assert parts_of(mixed(b"Content-Type: message/rfc822\r\n\r\n" + inner)) == [("message/rfc822", inner)]


def test_there_is_an_end_to_parts_and_levels() -> None:
    many = structure.look(mixed(*[b"\r\nx"] * 10_000))
    assert (len(many.parts), many.is_whole) == (structure.PARTS - 1, False)
    exactly = structure.look(mixed(*[b"\r\nx"] * (structure.PARTS - 1)))
    assert (len(exactly.parts), exactly.is_whole) == (structure.PARTS - 1, True)

    deep = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(1000)
    )
    [(kind, octets)] = parts_of(deep)
    assert kind == "multipart/mixed"
    assert octets.startswith(b"--b10\r\n")


def test_parts_that_hold_their_own_boundary_do_not_go_round_in_circles() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    assert len(structure.look(mixed(inner, inner, inner)).parts) == 3


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ('Content-Disposition: attachment; filename="a b.pdf"', "a b.pdf"),
        ("Content-Disposition: attachment; filename=a.pdf; size=3", "a.pdf"),
        ("Content-Type: application/pdf; name=a.pdf", "a.pdf"),
        (r'Content-Disposition: attachment; filename="a\"b.pdf"', "a_b.pdf"),
        ("Content-Disposition: attachment; filename*=utf-8''th%C3%A1ng%2011.pdf", "tháng 11.pdf"),
        ("Content-Disposition: attachment; filename=x; filename*=utf-8'vi'%C3%A1.pdf", "á.pdf"),
        (
            "Content-Disposition: attachment; filename*0*=utf-8''%C3;\r\n filename*1*=%A1;\r\n filename*2=%.pdf",
            "á%.pdf",
        ),
        ('Content-Disposition: attachment; filename="=?utf-8?B?w6EucGRm?="', "á.pdf"),
        ("Content-Disposition: attachment; filename=á.pdf", "á.pdf"),
        ('Content-Disposition: attachment; filename="../../etc/passwd"', "_.._etc_passwd"),
        ('Content-Disposition: attachment; filename="C:\\\\x\\\\con.txt"', "C__x_con.txt"),
        ('Content-Disposition: attachment; filename="ann\u202efdp.exe"', "annfdp.exe"),
        ("Content-Disposition: attachment; filename*=utf-8''a%0D%0AX-Evil:%20yes%00.pdf", "a X-Evil_ yes.pdf"),
        ('Content-Disposition: attachment; filename="..."', ""),
        ("Content-Disposition: attachment; filename", ""),
        ("Content-Disposition: ;;;=;filename==;filename*9=x", "="),
        ("Content-Disposition: attachment; filename*=no-charset''%FF.pdf", "ÿ.pdf"),
    ],
)
def test_names_of_files(fields: str, name: str) -> None:
    assert part(fields).name == name


def test_a_long_name_keeps_its_end() -> None:
    name = part(f"Content-Type: x/y; name={'x' * 200}.pdf").name
    assert (len(name), name[-4:]) == (structure.NAME, ".pdf")


@pytest.mark.parametrize(
    ("encoding", "body", "octets"),
    [
        ("7bit", b"a=3D", b"a=3D"),
        ("quoted-printable", b"a=3Db=\r\nc =\r\nd", b"a=bc d"),
        ("Quoted-Printable", b"caf=c3=a9 =ZZ =", "café =ZZ ".encode()),
        ("base64", b"aGVs\r\nbG8=", b"hello"),
        ("BASE64 ", b"a G\tV-s!bG8", b"hello"),
        ("base64", b"aGVsbG8=aGVsbG8=", b"hello"),
        ("base64", b"aGVsb", b"hel"),
        ("base64", b"====", b""),
        ("base64", b"\xff\x00?", b""),
        ("x-unknown", b"aGVs", b"aGVs"),
    ],
)
def test_what_encodings_mean(encoding: str, body: bytes, octets: bytes) -> None:
    message = f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode() + body
    assert parts_of(message) == [("text/plain", octets)]


@pytest.mark.parametrize("line", [19, 76, 10**9])
def test_what_is_decoded_in_pieces_is_whole(line: int) -> None:
    octets = bytes(range(256)) * 4000
    text = base64.b64encode(octets)
    body = b"\r\n".join(text[at : at + line] for at in range(0, len(text), line))
    assert parts_of(b"Content-Transfer-Encoding: base64\r\n\r\n" + body)[0][1] == octets

    quoted = b"".join(b"=%02X" % octet for octet in octets)
    line = line // 3 * 3
    body = b"=\r\n".join(quoted[at : at + line] for at in range(0, len(quoted), line))
    assert parts_of(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + body)[0][1] == octets


def test_a_beginning_says_whether_it_is_all() -> None:
    octets = b"\r\n" + b"x" * 1000
    [found] = structure.look(octets).parts
    assert structure.beginning(octets, found, 1000) == (b"x" * 1000, True)
    assert structure.beginning(octets, found, 999) == (b"x" * 999, False)


def test_fields_are_shown_as_they_are_meant_and_in_bounds() -> None:
    octets = (
        b"Subject: =?utf-8?Q?Xin_ch=C3=A0o?=\r\n =?utf-8?B?IGLhuqFu?=\r\nX-Evil: a\x00b\x1b[31m\xe2\x80\xae\r\n"
        b"not a field\r\nLong: " + b"x" * 5000 + b"\r\n" + b"More: y\r\n" * 1000 + b"\r\n"
    )
    found = structure.look(octets)
    assert found.fields[:2] == [("Subject", "Xin chào bạn"), ("X-Evil", "ab[31m")]
    assert len(dict(found.fields)["Long"]) == structure.VALUE
    assert (len(found.fields), found.is_whole) == (structure.FIELDS, False)


def _fields(count: int) -> bytes:
    return b"".join(b"To: a%d@example.com\r\n" % number for number in range(count)) + b"\r\n"


@pytest.mark.parametrize(
    "hostile",
    [
        lambda: _fields(200_000),
        lambda: b"To: " + b"a@b.c,\r\n " * 300_000 + b"\r\n\r\n",
        lambda: b"X" * 4_000_000,
        lambda: b"Subject: " + b"=?utf-8?Q?" * 400_000 + b"\r\n\r\n",
        lambda: b"Content-Type: x/y" + b"".join(b";\r\n name*%d=x" % n for n in range(100_000)) + b"\r\n\r\n",
        lambda: b'Content-Type: x/y; name="' + b'\\"' * 1_000_000 + b"\r\n\r\n",
        lambda: b"Content-Type: x/y;" + b" " * 1_000_000 + b"\r\n\r\n",
        lambda: mixed(*[b"\r\n"] * 300_000),
        lambda: mixed(b"x" * 5_000_000, *[b"y" * 50_000] * 98),
        lambda: b"Content-Type: multipart/mixed; boundary=" + b"-" * 100 + b"\r\n\r\n" + b"\n" + b"-" * 3_000_000,
        lambda: b"".join(b"Content-Type: multipart/x; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(9))
        + b"\n--" * 1_500_000,
        lambda: b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=" * 5_000_000,
        lambda: b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=" * 5_000_000,
        lambda: b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"\n" + b"=41" * 1_500_000,
    ],
)  # fmt: skip
def test_what_is_meant_to_take_long_does_not(hostile: Callable[[], bytes]) -> None:
    octets = hostile()
    began = time.process_time()
    found = structure.look(octets)
    for one in found.parts:
        sum(map(len, structure.decoded(octets, one)))
    assert time.process_time() - began < 2
    assert len(found.parts) < structure.PARTS


_LINES = st.sampled_from(
    [
        b"", b"--b", b"--b--", b"--c", b"--", b"x", b" folded", b"Subject: =?utf-8?B?w6E=?=", b"=?x?Q??=", b"=", b"=4",
        b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: multipart/digest; boundary=c",
        b"Content-Type: text/html; charset=utf-7", b"Content-Transfer-Encoding: base64", b"QUJD", b"Q", b"===",
        b"Content-Transfer-Encoding: quoted-printable", b"Content-Disposition: attachment; filename*=a'b'%C3%A1",
        b"Content-Disposition: attachment; filename*0*=x''%; filename*1=%4", b"Content-Type: message/rfc822",
        b"Content-ID: <>", b"Content-Type: ;;=", b"\x00\xff", b"Content-Type: text/plain; charset*=''",
    ]
)  # fmt: skip


@given(st.lists(_LINES | st.binary(max_size=20), max_size=40), st.sampled_from([b"\r\n", b"\n"]))
def test_anything_is_looked_at_and_nothing_comes_out_that_did_not_go_in(lines: list[bytes], end: bytes) -> None:
    octets = end.join(lines)
    found = structure.look(octets)
    before = 0
    for one in found.parts:
        assert before <= one.start <= one.end <= len(octets)
        before = one.start
        assert sum(map(len, structure.decoded(octets, one))) <= one.end - one.start
        assert not set(one.name) & set('/\\\r\n"')
    for name, value in found.fields:
        assert name.isascii()
        assert value.isprintable() or not value
