"""Asking DNS many questions at once, within a few seconds, and keeping apart the ways in which it may not answer."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import BoundedSemaphore
from typing import Any, Final, NamedTuple, TypeVar

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rcode
import dns.resolver
from dns.nameserver import Do53Nameserver
from dns.resolver import BaseResolver

R = TypeVar("R", bound=BaseResolver)

Servers = Sequence[tuple[str, int]]

LIFETIME: Final = 3.0
"""Seconds within which all questions are answered, or are not."""
_TRY: Final = 1.0  # seconds after which a packet is taken for lost

AT_ONCE: Final = 3
"""Callers of one process that ask at once. Whoever's name servers are silent must not take every thread."""

_seats = BoundedSemaphore(AT_ONCE)


class Outcome(StrEnum):
    """How a question ended."""

    FOUND = "found"
    NO_DATA = "no-data"  # the name is there, with other records (RFC 2308 section 2.2)
    NO_NAME = "no-name"  # there is no such name (RFC 2308 section 2.1)
    FAILED = "failed"  # a name server said that it cannot tell
    SILENT = "silent"  # nothing came in time
    UNASKED = "unasked"  # too many asked at that time


class Question(NamedTuple):
    """A name in normal form, and the type of the records that are asked for."""

    name: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a question. `data` are dnspython's, in no order."""

    outcome: Outcome
    data: tuple[Any, ...] = ()
    chain: tuple[str, ...] = ()
    """The names that CNAME records led to, in order, without the dot at their ends."""
    rcode: str = ""
    """Where it failed, how: `SERVFAIL`."""

    @property
    def is_certain(self) -> bool:
        """Whether DNS has said what there is."""
        return self.outcome not in (Outcome.FAILED, Outcome.SILENT)

    def texts(self) -> list[str]:
        """The texts of TXT records, their strings joined (RFC 7208 section 3.3); what is not printable as `\\xff`."""
        return sorted(_printable(b"".join(data.strings)) for data in self.data)


Answers = Mapping[Question, Answer]

SILENCE: Final = Answer(outcome=Outcome.SILENT)


def configured(resolver: R, servers: Servers) -> R:
    """The resolver, made to ask these servers, or without any the system's, and to keep nothing.

    Where the system has none either, every question fails.
    """
    if servers:
        resolver.nameservers = [Do53Nameserver(host, port) for host, port in servers]
    else:
        with contextlib.suppress(dns.resolver.NoResolverConfiguration):
            resolver.read_resolv_conf("/etc/resolv.conf")
    resolver.use_edns(0, 0, 1232)
    return resolver


def ask(questions: Iterable[Question], servers: Servers, *, lifetime: float = LIFETIME) -> dict[Question, Answer]:
    """Ask them all at once. Takes at most `lifetime` seconds, and never raises for what DNS says.

    While `AT_ONCE` others ask, nothing is asked.
    """
    if not _seats.acquire(blocking=False):
        return dict.fromkeys(questions, Answer(outcome=Outcome.UNASKED))
    try:
        return asyncio.run(_ask(set(questions), servers, lifetime))
    finally:
        _seats.release()


async def _ask(questions: set[Question], servers: Servers, lifetime: float) -> dict[Question, Answer]:
    resolver = configured(dns.asyncresolver.Resolver(configure=False), servers)
    resolver.timeout, resolver.lifetime = _TRY, lifetime
    tasks = {question: asyncio.create_task(_answer(question, resolver)) for question in questions}
    if tasks:
        _, late = await asyncio.wait(tasks.values(), timeout=lifetime)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    return {question: SILENCE if task.cancelled() else task.result() for question, task in tasks.items()}


async def _answer(question: Question, resolver: dns.asyncresolver.Resolver) -> Answer:
    try:
        name = dns.name.from_text(question.name)
    except dns.exception.DNSException:
        return Answer(outcome=Outcome.NO_NAME)  # too long to be a name, with what stands before it
    try:
        found = await resolver.resolve(name, question.kind, search=False, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN as refusal:
        return Answer(outcome=Outcome.NO_NAME, chain=_chain(refusal.kwargs["responses"][name]))
    except dns.resolver.NoNameservers as failure:
        return Answer(outcome=Outcome.FAILED, rcode=_rcode(failure))
    except dns.exception.Timeout:
        return SILENCE
    except (dns.exception.DNSException, OSError):
        return Answer(outcome=Outcome.FAILED)
    chain = _chain(found.response)
    if found.rrset is None:
        return Answer(outcome=Outcome.NO_DATA, chain=chain)
    return Answer(outcome=Outcome.FOUND, data=tuple(found.rrset), chain=chain)


def _printable(text: bytes) -> str:
    return "".join(chr(octet) if 0x20 <= octet < 0x7F else f"\\x{octet:02x}" for octet in text)


def _chain(response: Any) -> tuple[str, ...]:
    return tuple(shown(rrset[0].target) for rrset in response.resolve_chaining().cnames)


def _rcode(failure: dns.resolver.NoNameservers) -> str:
    """How the last server that said anything failed."""
    said = [error[4].rcode() for error in failure.kwargs["errors"] if error[4] is not None]
    return dns.rcode.to_text(said[-1]) if said else ""


def shown(name: dns.name.Name) -> str:
    """A name as it is written here: in small letters, without the dot at its end. The root is a dot."""
    return name.to_text(omit_final_dot=True).lower() or "."
