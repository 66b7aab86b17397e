"""The normal form of addresses, decided here alone: two spellings of one are never two mailboxes."""

import re
import unicodedata
from typing import Final

import idna

from accounts.languages import gettext as _

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
            raise BadAddress(_("%(text)r is not a domain name") % {"text": text}) from None
    name = name.lower()
    if len(name) > 253 or not _DOMAIN.fullmatch(name):
        raise BadAddress(_("%(text)r is not a domain name") % {"text": text})
    return name


def readable(domain: str) -> str:
    """A domain name in normal form as people write it: with the letters that its A-labels stand for."""
    try:
        return idna.decode(domain)
    except idna.IDNAError:
        return domain  # underscores, or older names that IDNA 2008 has no letters for


def local_part(text: str) -> str:
    """The normal form of a local part: small letters, composed (NFC). Raises `BadAddress`.

    ASCII stays what it was: nothing else ever becomes one of its names. Other letters follow the rules of usernames
    (PRECIS, RFC 8265 section 3.3): what has a compatible other form, is invisible, or mixes directions or alphabets
    that look alike is refused, since it would be a second spelling. A mailbox may have such a name where the host
    wants that (`MAILHOST_SMTPUTF8_MAILBOXES`); elsewhere it is one that nobody has.
    """
    name = text.lower() if text.isascii() else _international(text)
    if len(name.encode("utf-8", "replace")) > 64 or not _LOCAL_PART.fullmatch(_LETTERS.sub("x", name)):
        raise BadAddress(_("%(text)r cannot stand before the @ of an address") % {"text": text})
    return name


_LETTERS = re.compile(r"[^\x00-\x7f]")
_ASCII = re.compile(r"[\x00-\x7f]")
_CATEGORIES: Final = ("Ll", "Lo", "Lm", "Mn", "Mc", "Nd")
# Letters and marks that are not seen, and parts of Hangul syllables. Unicode's Default_Ignorable_Code_Point.
_UNSEEN = re.compile(
    "[\u034f\u1100-\u11ff\u17b4\u17b5\u180b-\u180f\u3164\ua960-\ua97f\ud7b0-\ud7ff\ufe00-\ufe0f\uffa0"
    "\U000e0000-\U000e0fff]"
)
_ALIKE: Final = frozenset(("LATIN", "GREEK", "CYRILLIC"))


def _international(text: str) -> str:
    """The normal form of what is not ASCII alone. Raises `BadAddress`."""
    try:
        name = unicodedata.normalize("NFC", text)
        # Letter by letter, since what a sigma becomes would depend on its place; its two small forms are one.
        name = unicodedata.normalize("NFC", "".join(map(str.lower, name)).replace("\u03c2", "\u03c3"))
        letters = [letter for letter in name if not letter.isascii()]
        alike = {unicodedata.name(letter, "").split(" ")[0] for letter in name if letter.isalpha()} & _ALIKE
        directions = {unicodedata.bidirectional(letter) for letter in name}
        is_one = (
            unicodedata.normalize("NFKC", name) == name
            and "".join(map(str.lower, name)) == name
            and not any(map(_is_ascii_too, _LETTERS.findall(text)))
            and all(unicodedata.category(letter) in _CATEGORIES for letter in letters)
            and not any(unicodedata.category(part[0]).startswith("M") for part in _ASCII.split(name) if part)
            and not _UNSEEN.search(name)
            and len(alike) < 2
            and not (directions & {"R", "AL", "AN"} and "L" in directions)
        )
    except UnicodeError:
        is_one = False
    if not is_one:
        raise BadAddress(_("%(text)r cannot stand before the @ of an address") % {"text": text})
    return name


def _is_ascii_too(letter: str) -> bool:
    """Whether one is a letter of ASCII in another form: the Kelvin sign, or the dotless i, whose capital is I."""
    small = unicodedata.normalize("NFC", letter).lower()
    return _ASCII.search(small) is not None or _ASCII.fullmatch(letter.upper()) is not None


def address(text: str) -> str:
    """The normal form of `local_part@domain`. Raises `BadAddress`."""
    local, at, host = text.rpartition("@")
    if not at:
        raise BadAddress(_("%(text)r is not an address: it has no @") % {"text": text})
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
