"""Tag lists, as DMARC, MTA-STS and TLS-RPT write them in TXT records: what is wrong with one, in words."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from django.utils.translation import gettext as _

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_URI: Final = re.compile(r"(?:mailto:[^@\s,]+@[^@\s,!]+|https://[^\s,]+)(?:![0-9]+[kmgt]?)?", re.IGNORECASE)


class BadTags(ValueError):
    """The text says nothing, since something is wrong with it; what, says the message."""


def read(text: str) -> dict[str, str]:
    """The tags by name, in order (RFC 6376 section 3.2). Raises `BadTags`."""
    found: dict[str, str] = {}
    for part in text.split(";"):
        if not part.strip():
            continue
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not _NAME.fullmatch(name):
            raise BadTags(_("“%(part)s” is not written as name=value") % {"part": part.strip()[:60]})
        if name in found:
            raise BadTags(_("%(name)s= comes twice") % {"name": name})
        found[name] = value
    return found


def check_dmarc(text: str) -> dict[str, str]:
    """The tags of a DMARC policy (RFC 7489 section 6.3). Raises `BadTags`."""
    return _checked(text, "v=DMARC1", {"p": _one_of("none", "quarantine", "reject")}, _DMARC)


def check_sts(text: str) -> dict[str, str]:
    """The tags of MTA-STS (RFC 8461 section 3.1). Raises `BadTags`."""
    return _checked(text, "v=STSv1", {"id": re.compile("[A-Za-z0-9]{1,32}").fullmatch}, {})


def check_tls_rpt(text: str) -> dict[str, str]:
    """The tags of TLS-RPT (RFC 8460 section 3). Raises `BadTags`."""
    return _checked(text, "v=TLSRPTv1", {"rua": _are_uris}, {})


Check = Callable[[str], object]


def _one_of(*choices: str) -> Check:
    return lambda value: value.lower() in choices


def _are_uris(value: str) -> bool:
    return all(_URI.fullmatch(uri.strip()) for uri in value.split(","))


_DMARC: Final[dict[str, Check]] = {
    "sp": _one_of("none", "quarantine", "reject"),
    "np": _one_of("none", "quarantine", "reject"),
    "adkim": _one_of("r", "s"),
    "aspf": _one_of("r", "s"),
    "pct": re.compile("100|[1-9]?[0-9]").fullmatch,
    "rua": _are_uris,
    "ruf": _are_uris,
}


def _checked(text: str, version: str, needed: Mapping[str, Check], known: Mapping[str, Check]) -> dict[str, str]:
    found = read(text)
    if "=".join(next(iter(found.items()), ())) != version:
        raise BadTags(_("it does not begin with %(version)s") % {"version": version})
    for name in needed:
        if name not in found:
            raise BadTags(_("%(name)s= is missing") % {"name": name})
    for name, check in {**needed, **known}.items():
        if name in found and not check(found[name]):
            raise BadTags(_("%(name)s= cannot be “%(value)s”") % {"name": name, "value": found[name][:60]})
    return found
