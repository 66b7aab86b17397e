"""Addresses have one normal form."""

import unicodedata
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from accounts import addresses, provisioning
from tests.fixtures import Customer


@pytest.mark.parametrize(
    ("spelling", "normal"),
    [
        ("an@example.test", "an@example.test"),
        ("An@EXAMPLE.Test", "an@example.test"),
        ("an@example.test.", "an@example.test"),
        ("an.b+tag@example.test", "an.b+tag@example.test"),
        ("an@bücher.example", "an@xn--bcher-kva.example"),
        ("an@BÜCHER.example", "an@xn--bcher-kva.example"),
        ("an@xn--bcher-kva.example", "an@xn--bcher-kva.example"),
        ("an@ｅxample。test", "an@example.test"),
    ],
)
def test_an_address_has_one_normal_form(spelling: str, normal: str) -> None:
    assert addresses.address(spelling) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "an",
        "@example.test",
        "an@",
        "an@@example.test",
        "an @example.test",
        ".an@example.test",
        "an..b@example.test",
        "an\0@example.test",
        "an\r\nx@example.test",
        "an@example.test\0",
        "an@-example.test",
        "an@exa mple.test",
        "an@[192.0.2.1]",
        "\u017fupport@example.test",  # folds to s
        "\u212aate@example.test",  # folds to k
        "ａdmin@example.test",
        "İ@example.test",
        "a" * 65 + "@example.test",
        "an@" + "a." * 130 + "test",
        "an@xn--\u200b.test",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(addresses.BadAddress):
        addresses.address(text)


@given(st.text(max_size=80))
def test_any_text_is_refused_or_becomes_a_form_that_stays(text: str) -> None:
    try:
        normal = addresses.address(text)
    except addresses.BadAddress:
        return
    assert addresses.address(normal) == normal
    assert normal == normal.lower().replace("\u03c2", "\u03c3")
    assert normal.isascii() == text.rpartition("@")[0].isascii()
    assert len(normal.encode()) <= 320


NAMES = st.text(st.characters(max_codepoint=0x2FFF, categories=("Ll", "Lu", "Lo", "Mn", "Nd")), min_size=1, max_size=12)


@given(NAMES, st.sampled_from(["NFC", "NFD"]), st.sampled_from([str, str.upper, str.lower, str.swapcase]))
def test_no_two_spellings_are_two_mailboxes(name: str, form: Any, change: Any) -> None:
    try:
        normal = addresses.local_part(name)
    except addresses.BadAddress:
        return
    spelling = change(unicodedata.normalize(form, name))
    if len(spelling) != len(unicodedata.normalize(form, name)):
        return  # letters such as \u00df, whose capital is two others
    with suppress(addresses.BadAddress):  # no second mailbox, either
        assert addresses.local_part(spelling) == normal


@given(NAMES)
def test_what_is_not_ascii_never_becomes_an_ascii_name(name: str) -> None:
    try:
        normal = addresses.local_part(name)
    except addresses.BadAddress:
        return
    assert normal.isascii() == name.isascii()
    assert unicodedata.is_normalized("NFC", normal)
    assert unicodedata.is_normalized("NFKC", normal)


@pytest.mark.parametrize(
    ("spelling", "normal"),
    [
        ("ch\u00e2u", "ch\u00e2u"),
        ("CHA\u0302U", "ch\u00e2u"),
        ("stra\u00dfe", "stra\u00dfe"),
        ("STRA\u1e9eE", "stra\u00dfe"),
        ("\u03a3\u039f\u03a3", "\u03c3\u03bf\u03c3"),
        ("\u03c3\u03bf\u03c2", "\u03c3\u03bf\u03c3"),
        ("\u7528\u6237", "\u7528\u6237"),
        ("\u05e9\u05dc\u05d5\u05dd.1", "\u05e9\u05dc\u05d5\u05dd.1"),
    ],
)
def test_a_name_in_any_alphabet_has_one_normal_form(spelling: str, normal: str) -> None:
    assert addresses.local_part(spelling) == normal


@pytest.mark.parametrize(
    "name",
    [
        "\u0430n",  # a Cyrillic a
        "\u03bfn",  # a Greek o
        "a\u200bn",
        "\u0131an",
        "a\u00adn",
        "a\ufe0fn",
        "\u0301an",
        "\u212ae\u0301",  # a Kelvin sign beside a composed letter
        "\u05e9an",
        "a\u2028n",
        "\u00e9\u00a0",
        "\u00e9 e",
        "\U0001f600",
        ".\u00e9",
        "\u00e9..e",
        "\ud800",
        "\u00e9" * 33,
    ],
)
def test_what_could_be_taken_for_another_name_is_refused(name: str) -> None:
    with pytest.raises(addresses.BadAddress):
        addresses.local_part(name)


@pytest.mark.django_db
def test_the_database_finds_every_letter_small_that_we_do() -> None:
    names = []
    for number in (*range(0x80, 0xD800), *range(0xE000, 0x110000)):
        try:
            names.append(addresses.local_part(chr(number)))
        except addresses.BadAddress:
            continue
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), count(*) FILTER (WHERE name = lower(name)) FROM unnest(%s::text[]) AS name", [names]
        )
        [(asked, small)] = cursor.fetchall()
    assert asked == small > 100_000


def test_a_bare_name_takes_the_default_domain() -> None:
    assert addresses.login("An", default_domain="example.test") == "an@example.test"
    assert addresses.login("an@other.test", default_domain="example.test") == "an@other.test"


@pytest.mark.parametrize(
    ("local_part", "separator", "base"),
    [
        ("an", "+", "an"),
        ("an+bills", "+", "an"),
        ("an+", "+", "an"),
        ("an+a+b", "+", "an"),
        ("+an", "+", "+an"),
        ("an+bills", "", "an+bills"),
        ("an-bills", "-", "an"),
    ],
)
def test_a_subaddress_belongs_to_its_base(local_part: str, separator: str, base: str) -> None:
    assert addresses.base(local_part, separator=separator) == base


def test_a_mailbox_has_such_a_name_where_the_host_wants_it(acme: Customer, settings: Any) -> None:
    with pytest.raises(addresses.BadAddress, match="MAILHOST_SMTPUTF8_MAILBOXES"):
        provisioning.add_mailbox("châu@acme.test", password=None, quota_octets=None)
    with pytest.raises(addresses.BadAddress):
        provisioning.add_alias("châu@acme.test", mailbox=acme.mailbox)
    settings.MAILHOST_SMTPUTF8_MAILBOXES = True
    chau, made = provisioning.add_mailbox("CHÂU@acme.test", password=None, quota_octets=None)
    assert (chau.address, made) == ("châu@acme.test", True)
    assert provisioning.add_mailbox("cha\u0302u@acme.test", password=None, quota_octets=None) == (chau, False)
    provisioning.rename_mailbox(chau, "用户@acme.test")


@pytest.mark.parametrize(
    ("normal", "readable"),
    [("xn--bcher-kva.test", "bücher.test"), ("acme.test", "acme.test"), ("_x.acme.test", "_x.acme.test")],
)
def test_a_domain_is_read_as_people_write_it(normal: str, readable: str) -> None:
    assert addresses.readable(normal) == readable
