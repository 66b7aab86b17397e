"""Reverse-paths of mail that goes on: rewritten, and found back from, by nobody but us."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstore import srs

KEY = b"k" * 32
LOCAL = st.one_of(
    st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9=+-]+)*", fullmatch=True),
    st.just('"a b"'),
    st.just('"a\\"b@c"'),
    st.just("châu"),
    st.just("SRS0"),
    st.just("SRS0=x"),
)


def rewritten(address: str, *, today: int = 20000, domain: str = "example.test") -> str:
    return srs.rewritten(address, domain=domain, key=KEY, today=today)


def original(address: str, *, today: int = 20000, key: bytes = KEY) -> str:
    return srs.original(address, key=key, today=today)


@given(LOCAL.filter(lambda local: not local.upper().startswith("SRS")), st.integers(0, 40000), st.integers(0, 21))
def test_a_bounce_finds_back_within_three_weeks(local: str, day: int, later: int) -> None:
    address = f"{local}@elsewhere.test"
    there = rewritten(address, today=day)
    assert there.endswith("@example.test")
    assert srs.is_rewritten(there)
    assert original(there, today=day + later) == address


@given(LOCAL)
def test_no_letter_of_it_may_be_changed(local: str) -> None:
    there = rewritten(f"{local}@elsewhere.test")
    for forged in (
        there.replace("elsewhere.test", "victim.test"),
        there.replace("@example.test", "@other.test"),
        there.replace("SRS0=", "SRS0=A", 1).replace("SRS1=", "SRS1=A", 1),
    ):
        with pytest.raises(srs.Forged):
            original(forged)
    with pytest.raises(srs.Forged):
        original(there, key=b"another")


def test_after_three_weeks_nothing_finds_back() -> None:
    with pytest.raises(srs.Forged):
        original(rewritten("binh@elsewhere.test", today=20000), today=20022)


def test_case_does_not_matter_on_the_way() -> None:
    assert original(rewritten("binh@elsewhere.test").lower()) == "binh@elsewhere.test"
    assert original(rewritten("binh@elsewhere.test").upper().replace("EXAMPLE", "example").replace("TEST", "test"))


def test_of_many_forwarders_the_first_is_found_back_to() -> None:
    first = srs.rewritten("binh@elsewhere.test", domain="first.test", key=b"theirs", today=20000)
    second = srs.rewritten(first, domain="second.test", key=b"other", today=20000)
    third = rewritten(second)
    assert second.startswith("SRS1=")
    assert third.startswith("SRS1=")
    assert third.count("first.test") == 1
    assert "second.test" not in third
    assert original(third) == first
    assert original(rewritten(first)) == first


def test_an_empty_one_stays_empty() -> None:
    assert rewritten("") == ""


@pytest.mark.parametrize(
    "address", ["an@example.test", "SRS0=@example.test", "SRS0=a=b@example.test", "SRS2=a=b=c=d@example.test", "srs0"]
)
def test_other_addresses_are_nobodys(address: str) -> None:
    with pytest.raises(srs.Forged):
        original(address)
