"""SPF records (RFC 7208): reading one as far as it shows, and adding to it without taking anything from it."""

import re
from dataclasses import dataclass
from typing import Final

MOST_LOOKUPS: Final = 10  # RFC 7208 section 4.6.4

_VERSION: Final = re.compile(r"v=spf1(?: |$)", re.IGNORECASE)
_LOOKS_UP: Final = ("include", "a", "mx", "ptr", "exists", "redirect")
# RFC 7208 section 5. What a domain may be is left to whoever asks for it; a backslash is what was not printable.
_MECHANISM: Final = re.compile(
    r"(?P<qualifier>[-+?~]?)"
    r"(?P<name>all|include|a|mx|ptr|ip4|ip6|exists)"
    r"(?P<value>(?:[:/][^\\]+)?)",
    re.IGNORECASE,
)
_MODIFIER: Final = re.compile(r"(?P<name>[a-z][a-z0-9._-]*)=(?P<value>[^\\]*)", re.IGNORECASE)  # RFC 7208 section 6
_NEEDS_VALUE: Final = ("include", "ip4", "ip6", "exists")


def is_spf(text: str) -> bool:
    """Whether the text of a TXT record is an SPF record (RFC 7208 section 4.5)."""
    return _VERSION.match(text) is not None


@dataclass(frozen=True, slots=True)
class Term:
    """A mechanism or a modifier, in small letters; its value begins with what separates it."""

    qualifier: str
    name: str
    value: str

    @property
    def looks_up(self) -> bool:
        """Whether whoever judges mail must ask DNS for it."""
        return self.name in _LOOKS_UP


@dataclass(frozen=True, slots=True)
class Policy:
    """A record, read."""

    text: str
    terms: tuple[Term, ...]
    bad: tuple[str, ...]
    """Words that no receiver understands: they make the whole record void."""

    @property
    def lookups(self) -> int:
        """How often DNS is asked because of the record itself; what it includes comes on top."""
        return sum(term.looks_up for term in self.terms)

    @property
    def lets_anybody_send(self) -> bool:
        """Whether it says that every sender is the domain's."""
        return any(term.name == "all" and term.qualifier in ("", "+") for term in self.terms)

    def allows(self, mechanism: str) -> bool:
        """Whether the mechanism stands in it, lets pass, and is reached."""
        wanted = read(f"v=spf1 {mechanism}").terms[0]
        for term in self.terms:
            if term.name == "all":
                return False
            names = ("include", "redirect") if wanted.name == "include" else (wanted.name,)
            is_it = term.name in names and term.value[1:].rstrip(".") == wanted.value[1:]
            if is_it and term.qualifier in ("", "+"):
                return True
        return False


def read(text: str) -> Policy:
    """Read a record."""
    terms, bad = [], []
    for word in text.split(" ")[1:]:
        if not word:
            continue
        if mechanism := _MECHANISM.fullmatch(word):
            name, value = mechanism["name"].lower(), mechanism["value"].lower()
            terms.append(Term(mechanism["qualifier"], name, value))
            if (len(value) < 2 and (value or name in _NEEDS_VALUE)) or (name == "all" and value):
                bad.append(word)
        elif modifier := _MODIFIER.fullmatch(word):
            terms.append(Term("", modifier["name"].lower(), f"={modifier['value'].lower()}"))
        else:
            bad.append(word)
    return Policy(text, tuple(terms), tuple(bad))


def merged(text: str, mechanism: str) -> str:
    """The record with the mechanism in it, before what ends it; everything else stays where it is."""
    words = [word for word in text.split(" ") if word]
    ends = [place for place, word in enumerate(words) if re.fullmatch(r"[-+?~]?all|redirect=.*", word, re.IGNORECASE)]
    words.insert(ends[0] if ends else len(words), mechanism)
    return " ".join(words)
