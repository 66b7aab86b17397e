import pytest
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from accounts import passwords
from accounts.passwords import BadPassword


@pytest.mark.parametrize("password", ["x", " ", "x" * 248, "ê" * 124, "e\u0302" * 124, "a b\u00a0c", "ü:\\\"'%"])
def test_what_a_pop3_line_can_carry_can_be_a_password(password: str) -> None:
    passwords.check(password)
    octets = len(passwords.normal_form(password).encode())
    assert octets + len(b"PASS \r\n") <= 255


@pytest.mark.parametrize("password", ["", "x" * 249, "ê" * 125, "a\0", "a\tb", "a\r\n", "a\x7f", "\udcff"])
def test_what_no_client_could_send_is_refused(password: str) -> None:
    with pytest.raises(BadPassword) as refused:
        passwords.check(password)
    assert not password or password not in str(refused.value)
    with pytest.raises(ValidationError):
        validate_password(password)


def test_generated_passwords_differ_and_can_be_typed() -> None:
    some = {passwords.generated() for _ in range(100)}
    assert len(some) == 100
    assert all(len(one) == 23 and one.isascii() and one == one.lower() for one in some)
