"""Rewriting the reverse-path of mail that goes on outside, so that it passes SPF there and bounces find back (SRS).

    binh@elsewhere.test             -> SRS0=MAC=DAY=elsewhere.test=binh@example.test
    SRS0=…@forwarder.test           -> SRS1=MAC=forwarder.test==…@example.test
    SRS1=MAC=forwarder.test==…@any  -> SRS1=MAC=forwarder.test==…@example.test

The MAC is ours, so nobody sends mail through us with it but to who sent some here within `LIFE_DAYS`.
"""

import base64
import hashlib
import hmac
import re
import time
from typing import Final

LIFE_DAYS: Final = 21
"""How long a bounce finds back: longer than any queue keeps a message."""

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"  # base32: survives whoever folds case
_CYCLE: Final = 1024  # days after which two characters of it begin anew
_SRS0 = re.compile(r"SRS0(?P<rest>[=+-].+)", re.IGNORECASE)
_SRS1 = re.compile(r"SRS1[=+-][^=]*=(?P<host>[^=]+)=(?P<rest>[=+-].+)", re.IGNORECASE)
_OURS = re.compile(r"SRS(?P<kind>[01])[=+-](?P<mac>[^=]*)=(?P<rest>.+)", re.IGNORECASE)
_FIRST_HAND = re.compile(r"(?P<day>[A-Z2-7]{2})=(?P<host>[^=]+)=(?P<local>.+)", re.IGNORECASE)
_DOT_STRING = re.compile(r'[^\s"(),:;<>@\[\\\]]+')


class Forged(Exception):
    """The address is none that we made, or it is too old."""


def today() -> int:
    """The day, as a number."""
    return int(time.time()) // 86400


def is_rewritten(address: str) -> bool:
    """Whether the address looks like one that somebody rewrote."""
    return _OURS.match(_unquoted(address.rpartition("@")[0])) is not None


def rewritten(reverse_path: str, *, domain: str, key: bytes, today: int) -> str:
    """The reverse-path of a message that `domain` sends on; the empty one stays empty."""
    if not reverse_path:
        return ""
    local, _, host = reverse_path.rpartition("@")
    local = _unquoted(local)
    if again := _SRS1.fullmatch(local):
        kind, rest = 1, f"{again['host']}={again['rest']}"
    elif again := _SRS0.fullmatch(local):
        kind, rest = 1, f"{host}={again['rest']}"
    else:
        day = today % _CYCLE
        kind, rest = 0, f"{_ALPHABET[day // 32]}{_ALPHABET[day % 32]}={host}={local}"
    return f"{_quoted(f'SRS{kind}={_mac(kind, rest, domain, key)}={rest}')}@{domain}"


def original(address: str, *, key: bytes, today: int) -> str:
    """Where a bounce to an address that `rewritten` made belongs. Raises `Forged`."""
    local, _, domain = address.rpartition("@")
    if not (ours := _OURS.fullmatch(_unquoted(local))):
        raise Forged
    kind, rest = int(ours["kind"]), ours["rest"]
    expected = _mac(kind, rest, domain, key)
    if not hmac.compare_digest(ours["mac"].upper().encode(), expected.encode()):
        raise Forged
    if kind == 1:
        host, _, theirs = rest.partition("=")
        return f"{_quoted(f'SRS0{theirs}')}@{host}"
    if not (first := _FIRST_HAND.fullmatch(rest)):
        raise Forged
    made = _ALPHABET.index(first["day"][0].upper()) * 32 + _ALPHABET.index(first["day"][1].upper())
    if (today - made) % _CYCLE > LIFE_DAYS:
        raise Forged
    return f"{_quoted(first['local'])}@{first['host']}"


def _mac(kind: int, rest: str, domain: str, key: bytes) -> str:
    # 40 bits, to be guessed over LMTP. Whoever stands between may have folded case.
    said = f"{kind} {domain} {rest}".lower().encode()
    return base64.b32encode(hmac.digest(key, said, hashlib.sha256)[:5]).decode()


def _unquoted(local: str) -> str:
    return re.sub(r"\\(.)", r"\1", local[1:-1]) if local.startswith('"') else local


def _quoted(local: str) -> str:
    """A local part as an envelope has it (RFC 5321 section 4.1.2)."""
    if _DOT_STRING.fullmatch(local):
        return local
    escaped = re.sub(r'(["\\])', r"\\\1", local)
    return f'"{escaped}"'
