"""Addresses have one normal form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import addresses


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
    assert addresses.address(normal.upper()) == normal
    assert normal.isascii()
    assert len(normal) <= 320


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
