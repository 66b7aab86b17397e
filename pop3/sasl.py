"""The SASL mechanisms of AUTH: what the server asks, and the name and password it is told.

A mechanism is a generator. It yields challenges, is sent responses, and returns `Credentials`.
"""

import binascii
from collections.abc import Callable, Generator, Mapping
from typing import Final, NamedTuple

from pop3.commands import Rejected


class Credentials(NamedTuple):
    """Who wants to log in, in the octets that were sent."""

    name: bytes
    password: bytes


Exchange = Generator[bytes, bytes, Credentials]


def plain() -> Exchange:
    """PLAIN (RFC 4616): everything in one response."""
    response = yield b""
    match response.split(b"\0"):
        case [authzid, name, password]:
            # Nobody acts for somebody else. `bytes.lower` folds ASCII only: no other letter passes for one.
            if authzid and authzid.lower() != name.lower():
                raise Rejected("one mailbox cannot act for another", "AUTH")
            return Credentials(name, password)
    raise Rejected("malformed PLAIN response")


def login() -> Exchange:
    """LOGIN (draft-murchison-sasl-login): for clients that never learned PLAIN."""
    name = yield b"Username:"
    password = yield b"Password:"
    return Credentials(name, password)


MECHANISMS: Final[Mapping[bytes, Callable[[], Exchange]]] = {b"PLAIN": plain, b"LOGIN": login}


def decode(line: bytes) -> bytes:
    """Return the octets of a response. Raises `Rejected` for the cancelling `*` and for bad base64."""
    if line == b"*":  # RFC 5034 section 4
        raise Rejected("authentication cancelled")
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        raise Rejected("not base64") from None
