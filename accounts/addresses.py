"""The normal form of addresses, decided here alone: two spellings of one are never two mailboxes."""

import re

import idna

# RFC 5321 section 4.1.2 (Dot-string), folded to lower case; RFC 5321 section 4.5.3.1.1 (64 octets).
_LOCAL_PART = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class BadAddress(ValueError):
    """The text is no address; its message says what is wrong with it."""


def domain(text: str) -> str:
    """The normal form of a domain name: A-labels in lower case (IDNA 2008), without a trailing dot.

    Raises `BadAddress`.
    """
    name = text.removesuffix(".")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise BadAddress(f"{text!r} is not a domain name") from None
    name = name.lower()
    if len(name) > 253 or not _DOMAIN.fullmatch(name):
        raise BadAddress(f"{text!r} is not a domain name")
    return name


def local_part(text: str) -> str:
    """The normal form of a local part: ASCII in lower case.

    Only ASCII letters fold: Unicode's folding would make one mailbox of several names. Raises `BadAddress`.
    """
    if not text.isascii():
        raise BadAddress(f"{text!r} has letters that are not ASCII")
    name = text.lower()
    if len(name) > 64 or not _LOCAL_PART.fullmatch(name):
        raise BadAddress(f"{text!r} cannot stand before the @ of an address")
    return name


def address(text: str) -> str:
    """The normal form of `local_part@domain`. Raises `BadAddress`."""
    local, at, host = text.rpartition("@")
    if not at:
        raise BadAddress(f"{text!r} is not an address: it has no @")
    return f"{local_part(local)}@{domain(host)}"


def alias(text: str) -> str:
    """The normal form of an alias: an address, or `@domain` for what no other address of the domain takes.

    Raises `BadAddress`.
    """
    return f"@{domain(text[1:])}" if text.startswith("@") else address(text)


def login(name: str, *, default_domain: str) -> str:
    """The address that a login name means: a bare name is one of the default domain. Raises `BadAddress`."""
    return address(name if "@" in name else f"{name}@{default_domain}")


def split(address: str) -> tuple[str, str]:
    """Local part and domain of an address in normal form."""
    local, _, host = address.rpartition("@")
    return local, host


def base(local_part: str, *, separator: str) -> str:
    """The local part without its subaddress: `an` for `an+bills`, where the separator is `+` (RFC 5233)."""
    head, _, _ = local_part.partition(separator) if separator else (local_part, "", "")
    return head or local_part
