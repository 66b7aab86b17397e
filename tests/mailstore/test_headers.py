"""Headers: what people send is shown as it was meant; whatever else is sent costs little and never raises."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailstore import headers
from mailstore.headers import _CHARSETS, LENGTH, Headers, look

NOTHING = Headers("", "", "", None)


def subject(value: bytes) -> str:
    return look(b"Subject: " + value + b"\r\n\r\n").subject


def test_the_four_fields() -> None:
    head = (
        b"Received: from a\r\n\tby b; Mon, 1 Jan 2001 00:00:00 +0000\r\n"
        b"Date: Mon, 23 Nov 2026 05:00:00 +0700\r\n"
        b"FROM: =?utf-8?q?Nguy=E1=BB=85n_Ch=C3=A2u?= <chau@example.test>\r\n"
        b"X-Subject: no\r\n"
        b"subject : hello\r\n   world\r\n"
        b"Subject: second\r\n"
        b"Message-ID:\r\n <1@example.test>\r\n"
        b"\r\n"
        b"Subject: body\r\n"
    )
    assert look(head) == Headers(
        subject="hello world",
        sender="Nguyễn Châu <chau@example.test>",
        message_id="<1@example.test>",
        date=datetime(2026, 11, 22, 22, 0, tzinfo=UTC),
    )


@pytest.mark.parametrize("head", [b"", b"\r\nSubject: body\r\n", b"X: y\r\n\r\nFrom: body\r\n", b"Subject\r\n", b":"])
def test_what_a_header_does_not_say_is_empty(head: bytes) -> None:
    assert look(head) == NOTHING


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"plain", "plain"),
        ("trực tiếp".encode(), "trực tiếp"),  # RFC 6532
        (b"=?ISO-8859-1?Q?Keld_J=F8rn_Simonsen?=", "Keld Jørn Simonsen"),  # RFC 2047 section 8
        (b"(=?ISO-8859-1?Q?a?=)", "(a)"),
        (b"=?ISO-8859-1?Q?a?= b", "a b"),
        (b"=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
        (b"=?ISO-8859-1?Q?a?=\r\n    =?ISO-8859-1?Q?b?=", "ab"),
        (b"=?ISO-8859-1?Q?a_?= =?ISO-8859-2?Q?b?=", "a b"),
        (b"=?us-ascii*en?q?hi?= there", "hi there"),  # RFC 2231 section 5
        (b"=?utf-8?B?Y2jDoG8=?=", "chào"),
        (b"=?utf-8?b?Y2jDoG8?=", "chào"),  # padding forgotten
        (b"=?utf-8?B?Y2jD?= =?utf-8?B?oG8=?=", "chào"),  # a character cut in two
        (b"=?utf-8?Q?with blanks?=", "with blanks"),
        (b"=?gb2312?B?xOO6w9W5?=", "你好展"),
        (b"=?windows-1252?Q?=80?=", "€"),
        (b"=?latin1?Q?=93a=94?=", "\u201ca\u201d"),
        (b"=?us-ascii?Q?ch=C3=A0o?=", "chào"),
        (b"=?koi8-u?Q?=C1?=", "а"),
        (b"=?klingon?Q?a?= b", "=?klingon?Q?a?= b"),
        (b"=?rot13?Q?a?=", "=?rot13?Q?a?="),
        (b"=?zlib?B?eJwDAAAAAAE=?=", "=?zlib?B?eJwDAAAAAAE=?="),
        (b"=?unicode_escape?Q?=5Cud800?=", "=?unicode_escape?Q?=5Cud800?="),
        (b"=?utf-8?B?a?=", "=?utf-8?B?a?="),
        (b"=?utf-8?X?a?=", "=?utf-8?X?a?="),
        (b"=?utf-8?Q?=FF?=", "\ufffd"),
        (b"\xff", "\ufffd"),
        (b"a\0b", "ab"),
        (b"=?utf-8?Q?a=00b=0D=0AX:_c?=", "ab X: c"),
        (b"=?utf-7?Q?+2AA-x?=", "x"),  # a lone surrogate
        ("exe.\u202egnp".encode(), "exe.gnp"),
        (b"a\tb\rc\x1b[31md", "a b c[31md"),
        (b"x" * 300, "x" * LENGTH),
        (b"=?utf-8?B?" + b"8J+YgPCfmIDwn5iA" * 100 + b"?=", "\U0001f600" * LENGTH),
    ],
)
def test_a_subject_is_shown_as_it_was_meant(value: bytes, shown: str) -> None:
    assert subject(value) == shown


@pytest.mark.parametrize(
    ("value", "date"),
    [
        (b"Fri, 21 Nov 1997 09:55:06 -0600", datetime(1997, 11, 21, 15, 55, 6, tzinfo=UTC)),
        (b"21 Nov 97 09:55:06 GMT", datetime(1997, 11, 21, 9, 55, 6, tzinfo=UTC)),
        (b"Thu,\r\n 13 Feb 1969 23:32 -0330 (a comment)", datetime(1969, 2, 14, 3, 2, tzinfo=UTC)),
        (b"Fri, 21 Nov 1997 09:55:06 -0000", datetime(1997, 11, 21, 9, 55, 6, tzinfo=UTC)),
        (b"Fri, 21 Nov 1997 09:55:06", datetime(1997, 11, 21, 9, 55, 6, tzinfo=UTC)),
        (b"Fri, 31 Feb 1997 09:55:06 +0000", None),
        (b"Fri, 21 Nov 9999 23:55:06 -0600", None),
        (b"Fri, 31 Dec 9999 23:55:06 -0600", None),
        (b"Fri, 21 Nov 1600 09:55:06 +0000", None),
        (b"Fri, 21 Nov 1997 09:55:06 +9999", None),
        (b"yesterday", None),
        (b"", None),
        (b"\xff\0", None),
    ],
)
def test_a_date_is_in_utc_or_not_told(value: bytes, date: datetime | None) -> None:
    assert look(b"Date: " + value + b"\r\n").date == date


FIELD = st.builds(
    b"%b:%b\r\n".__mod__,
    st.tuples(
        st.sampled_from([b"Subject", b"from", b"DATE", b"Message-ID", b"X"]),
        st.one_of(
            st.binary(max_size=60),
            st.text(max_size=30).map(lambda text: text.encode("utf-8", "replace")),
            st.builds(
                b"=?%b?%b?%b?=".__mod__,
                st.tuples(
                    st.sampled_from([name.encode() for name in (*_CHARSETS, "klingon")]),
                    st.sampled_from([b"b", b"Q"]),
                    st.one_of(st.binary(max_size=30), st.from_regex(rb"\A(=[0-9A-F]{2}|[A-Za-z+]){0,12}\Z")),
                ),
            ),
            st.builds(
                b"%b, %d %b %d %d:%d:%d %b".__mod__,
                st.tuples(
                    st.sampled_from([b"Mon", b"Nov", b"", b"(("]),
                    st.integers(-1, 40),
                    st.sampled_from([b"Nov", b"Feb", b"x"]),
                    st.integers(-1, 20000),
                    st.integers(-1, 30),
                    st.integers(-1, 70),
                    st.integers(-1, 70),
                    st.sampled_from([b"+0700", b"-9999", b"EST", b"+", b"-", b"x"]),
                ),
            ),
        ),
    ),
)


@given(st.lists(st.one_of(FIELD, st.binary(max_size=20)), max_size=8).map(b"".join))
@example(b"Date: 0 Jan 1 0 0 0")
@settings(max_examples=500)
def test_whatever_comes_it_can_be_stored(head: bytes) -> None:
    found = look(head)
    for text in (found.subject, found.sender, found.message_id):
        assert len(text) <= LENGTH
        assert "\0" not in text
        assert "\n" not in text
        text.encode()  # raises for a lone surrogate
    assert found.date is None or found.date.tzinfo is UTC


@pytest.mark.parametrize(
    "head",
    [
        b"X: y\r\n" * 100_000,
        b"To: a@b.example\r\n" * 20_000,
        b"From: a@b.example\r\n" * 20_000,
        b"Subject: " + b"x" * 50_000_000,
        b"Subject: " + b"=?utf-8?q?" * 10_000,
        b"Subject: " + b"=?" * 30_000,
        b"Subject: " + b"=?utf-8?q?a?= " * 10_000,
        b"Subject: =?utf-8?q?a?=" + b" " * 60_000 + b"=",
        b"Subject:" + b"\r\n " * 30_000,
        b"Subject" + b" " * 60_000,
        b"Date: " + b"(" * 60_000,
        b"Date: " + b"1 " * 30_000,
    ],
    ids=lambda head: repr(head[:20]),
)
def test_it_costs_milliseconds_at_most(head: bytes) -> None:
    began = time.process_time()
    look(head)
    assert time.process_time() - began < 0.05


# --- Trace fields --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "hop"),
    [
        (  # Postfix
            "Received: from mail.example.com (unknown [203.0.113.9])\r\n\tby mx (Postfix) with SMTP id 4Zk1Xy2Jz3z\r\n"
            "\tfor <an@acme.test>; Wed, 25 Nov 2026 09:02:00 +0000 (UTC)\r\n",
            ("mail.example.com", "203.0.113.9", "4Zk1Xy2Jz3z"),
        ),
        (  # of Postfix's own
            "Received: by mx.acme.test (Postfix, from userid 0)\r\n\tid 51B2C; Wed, 25 Nov 2026\r\n",
            ("", "", "51B2C"),
        ),
        (  # Exim
            "Received: from [2001:db8::7] (helo=mail.example.com)\r\n\tby mx with esmtps  (TLS1.3) tls X\r\n"
            "\t(Exim 4.96)\r\n\t(envelope-from <id 7@example.com>)\r\n\tid 1vO9rP-000000001ab-2cde\r\n\tfor a@b.test;",
            ("2001:db8::7", "2001:db8::7", "1vO9rP-000000001ab-2cde"),
        ),
        (  # Sendmail
            "received: from a.example (a.example [IPv6:2001:DB8::1]) by mx (8.18.1/8.18.1) with SMTP id 5AP92x (version"
            "=TLSv1.3 (really id x) verify=NO) for <an@acme.test>; Wed, 25 Nov 2026",
            ("a.example", "2001:db8::1", "5AP92x"),
        ),
        ("Received: from a by b with SMTP id 7; Mon, 23 Nov 2026 09:00:00 +0000\r\n", ("a", "", "7")),
        ("Received: from a ([999.1.1.1]) by b; x\r\n", ("a", "", "")),
        ("Received:\r\n", ("", "", "")),
        ("Received: from \x00\x1b[31m\u202ex by b id \x07evil<script>\r\n", ("31mx", "", "evil")),
    ],
)
def test_what_a_trace_field_says_is_told_as_most_servers_write_it(field: str, hop: tuple[str, str, str]) -> None:
    assert headers.hop(field.encode() + b"Subject: id 9\r\n\r\nx") == hop


@pytest.mark.parametrize(
    "head", [b"", b"Subject: x\r\nReceived: from a\r\n", b"\r\nReceived: from a\r\n", b"Received from"]
)
def test_what_no_server_has_queued_has_no_hop(head: bytes) -> None:
    assert headers.hop(head) is None


@pytest.mark.parametrize(
    "head",
    [b"Received: " + b"(" * 10**6, b"Received: " + b"from " * 10**6, b"Received: " + b"(" * 999 + b")" * 10**6,
     b"Received: id " + b"id " * 10**6, b"Received:" + b"\n " * 10**6, bytes(range(256)) * 100],
)  # fmt: skip
def test_no_trace_field_takes_long(head: bytes) -> None:
    began = time.process_time()
    headers.hop(head)
    assert time.process_time() - began < 0.1
