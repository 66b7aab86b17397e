"""Codes of authenticator apps (TOTP, RFC 6238), as every such app makes them: six digits, by SHA-1, for 30 seconds."""

import base64
import secrets
from typing import Final

from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

STEP: Final = 30  # seconds
_DIGITS: Final = 6
_OCTETS: Final = 20  # of a secret: as many as SHA-1 gives (RFC 4226 section 4)
_EARLY_OR_LATE: Final = 1  # steps by which the app's clock may be wrong (RFC 6238 section 5.2)


def new_secret() -> str:
    """A secret for app and host to share, in Base32, as apps take it."""
    return base64.b32encode(secrets.token_bytes(_OCTETS)).decode()


def uri(secret: str, *, login: str, issuer: str) -> str:
    """What the code for the telephone's camera says (otpauth)."""
    return _totp(secret).get_provisioning_uri(login, issuer)


def step_of(secret: str, code: str, *, now: float) -> int | None:
    """The time step that a code, as somebody typed it, is of; None if it is not good at `now` (seconds since 1970)."""
    digits = "".join(code.split())
    if not (len(digits) == _DIGITS and digits.isascii() and digits.isdecimal()):
        return None
    totp, current, found = _totp(secret), int(now // STEP), None
    for step in range(current - _EARLY_OR_LATE, current + _EARLY_OR_LATE + 1):
        if constant_time.bytes_eq(totp.generate(step * STEP), digits.encode()):
            found = step  # the latest, should two be the same: the other could be taken once more
    return found


def _totp(secret: str) -> TOTP:
    return TOTP(base64.b32decode(secret), _DIGITS, SHA1(), STEP)  # noqa: S303 - RFC 6238, and no app knows another
