"""Passwords are checked slowly once, and remembered with the hash they matched."""

import asyncio
import time

import pytest
from django.contrib.auth.hashers import make_password

from accounts import authentication
from accounts.authentication import Busy, Passwords, Proof
from accounts.passwords import PasswordHasher

HERE = "192.0.2.0/24"


@pytest.fixture
def passwords() -> Passwords:
    return Passwords()


async def test_a_right_password_is_remembered_with_the_hash_it_matched(passwords: Passwords) -> None:
    stored = make_password("secret")
    assert passwords.verified("an@example.test", "secret", network=HERE) is None
    assert await passwords.check("an@example.test", "secret", stored, network=HERE)
    assert passwords.verified("an@example.test", "secret", network=HERE) == Proof(stored)


async def test_a_wrong_password_is_not(passwords: Passwords) -> None:
    assert not await passwords.check("an@example.test", "wrong", make_password("secret"), network=HERE)
    assert passwords.verified("an@example.test", "wrong", network=HERE) is None


async def test_nobodys_password_never_matches(passwords: Passwords) -> None:
    assert not await passwords.check("nobody@example.test", "secret", None, network=HERE)
    assert passwords.verified("nobody@example.test", "secret", network=HERE) is None


async def test_what_is_remembered_is_one_addresss(passwords: Passwords) -> None:
    assert await passwords.check("an@example.test", "secret", make_password("secret"), network=HERE)
    assert passwords.verified("an@globex.test", "secret", network=HERE) is None
    assert passwords.verified("an@example.test\0secret", "", network=HERE) is None


async def test_what_is_remembered_is_one_networks(passwords: Passwords) -> None:
    """From elsewhere the attempt is counted first, whatever the password is."""
    assert await passwords.check("an@example.test", "secret", make_password("secret"), network=HERE)
    assert passwords.verified("an@example.test", "secret", network="198.51.100.0/24") is None


async def test_what_is_remembered_is_forgotten(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_LIFE", 0.0)
    assert await passwords.check("an@example.test", "secret", make_password("secret"), network=HERE)
    assert passwords.verified("an@example.test", "secret", network=HERE) is None


async def test_memory_is_bounded(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_MOST", 2)
    stored = make_password("secret")
    for name in ("a", "b", "c"):
        assert await passwords.check(name, "secret", stored, network=HERE)
    assert [passwords.verified(name, "secret", network=HERE) for name in ("a", "b", "c")] == [
        None,
        Proof(stored),
        Proof(stored),
    ]


async def test_an_attack_finds_a_bounded_queue(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_QUEUE", 4)
    stored = make_password("secret")
    checks = [passwords.check("an@example.test", str(guess), stored, network=HERE) for guess in range(10)]
    outcomes = await asyncio.gather(*checks, return_exceptions=True)
    assert sum(isinstance(outcome, Busy) for outcome in outcomes) == 6
    assert await passwords.check("an@example.test", "secret", stored, network=HERE)


async def test_what_was_made_with_other_costs_is_made_anew(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_password("secret")
    assert await passwords.upgraded("secret", stored) is None
    monkeypatch.setattr(PasswordHasher, "time_cost", 3)
    upgraded = await passwords.upgraded("secret", stored)
    assert upgraded
    assert "t=3" in upgraded
    assert await passwords.check("an@example.test", "secret", upgraded, network=HERE)


async def test_an_upgrade_waits_for_another_login_when_many_wait(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_password("secret")
    monkeypatch.setattr(PasswordHasher, "time_cost", 3)
    monkeypatch.setattr(authentication, "_QUEUE", 0)
    assert await passwords.upgraded("secret", stored) is None


async def test_a_refusal_takes_as_long_whatever_is_stored(passwords: Passwords) -> None:
    for stored in (None, make_password("secret"), make_password(None)):
        for _ in range(10):
            began = time.monotonic()
            assert not await passwords.check("an@example.test", "wrong", stored, network=HERE)
            took = time.monotonic() - began
            assert took > authentication.REFUSED_AFTER - 0.01
            if took < authentication.REFUSED_AFTER + 0.1:
                break  # else the machine is busy: that goes, and what is stored stays
        else:
            pytest.fail("it is always late")
