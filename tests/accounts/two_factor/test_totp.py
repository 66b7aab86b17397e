"""Codes of authenticator apps, against the vectors of RFC 6238 appendix B."""

import base64

import pytest

from accounts.two_factor import totp

SECRET = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"),
        (2000000000, "279037"), (20000000000, "353130"),
    ],
)  # fmt: skip
def test_codes_are_those_of_the_rfc(now: int, code: str) -> None:
    assert totp.step_of(SECRET, code, now=now) == now // 30
    assert totp.step_of(SECRET, f" {code[:3]} {code[3:]}", now=now) == now // 30


def test_a_clock_may_be_wrong_by_one_step() -> None:
    begins = 1111111080
    good = [totp.step_of(SECRET, "081804", now=begins + seconds) is not None for seconds in (-31, -30, 0, 59, 60)]
    assert good == [False, True, True, True, False]


@pytest.mark.parametrize("code", ["", "28708", "2870822", "287 08x", "٢٨٧٠٨٢", "²²²²²²", "-87082", "\0" * 6])
def test_what_is_no_code_is_none(code: str) -> None:
    assert totp.step_of(SECRET, code, now=59) is None


def test_secrets_have_as_many_bits_as_the_hash() -> None:
    secrets = {totp.new_secret() for _ in range(20)}
    assert len(secrets) == 20
    assert {len(base64.b32decode(secret)) for secret in secrets} == {20}
    assert totp.uri(SECRET, login="boss@acme.test", issuer="Mailhost") == (
        f"otpauth://totp/Mailhost:boss%40acme.test?digits=6&secret={SECRET}&algorithm=SHA1&issuer=Mailhost&period=30"
    )
