"""`manage.py deliver`: take one message from standard input, for pipes and scripts."""

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from mailstore import configured
from mailstore.database import Unavailable
from mailstore.delivery import (
    Deferred,
    Outcome,
    OverQuota,
    Refused,
    Suspended,
    UnknownDomain,
    UnknownMailbox,
    UnverifiedDomain,
    deliver_now,
)
from mailstore.spool import SpoolFull, TooLarge

log = logging.getLogger(__name__)

REVERSE_PATH_LIMIT: Final = 512
"""Octets, as LMTP has it."""


class Failure(NamedTuple):
    """Why somebody got nothing: an exit code of sysexits.h, an enhanced status code (RFC 3463), and words."""

    code: int
    status: str
    text: str


_TEMPORARY: Final = Failure(os.EX_TEMPFAIL, "4.3.0", "temporary failure here, try again later")
_NO_SPACE: Final = Failure(os.EX_TEMPFAIL, "4.3.1", "no space left here, try again later")
_TOO_LARGE: Final = Failure(os.EX_DATAERR, "5.3.4", "the message is larger than MAILHOST_MAX_MESSAGE")
_NO_MAILBOX: Final = Failure(os.EX_NOUSER, "5.1.1", "no such mailbox")
_NOT_NOW: Final = Failure(os.EX_TEMPFAIL, "4.2.1", "the mailbox takes no mail now, try again later")
_UNVERIFIED: Final = Failure(os.EX_TEMPFAIL, "4.7.1", "the domain is not verified yet, try again later")
_LOOP: Final = Failure(os.EX_UNAVAILABLE, "5.4.6", "mail loop, the message has been here before")
_SUSPENDED: Final = {
    "450": Failure(os.EX_TEMPFAIL, "4.2.1", "the mailbox is suspended, try again later"),
    "550": Failure(os.EX_NOPERM, "5.2.1", "the mailbox is disabled"),
}
_OVER_QUOTA: Final = {
    "452": Failure(os.EX_TEMPFAIL, "4.2.2", "the mailbox is full, try again later"),
    "552": Failure(os.EX_UNAVAILABLE, "5.2.2", "the mailbox is full"),
}


class Command(BaseCommand):
    help = (
        "Deliver the message on standard input. Says nothing if all goes well; else one line for each address that "
        "got nothing, and an exit code that the pipe of an MTA understands: 75 to try again, 67 for an unknown "
        "mailbox, 68 for an unknown domain, 69 for a full one, 77 for a disabled one, 65 for a message that is too "
        "large, 64 if called wrongly. An exit code is for all addresses: where some may fail, give one at a time."
    )
    requires_system_checks = ()

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **options)
        parser.error = _misused  # type: ignore[method-assign]
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address", nargs="+")
        parser.add_argument("--reverse-path", default="", help="who is told if it cannot be delivered; empty: nobody")

    def handle(self, *args: Any, **options: Any) -> None:
        addresses: list[str] = options["address"]
        failures = _deliver(addresses, _reverse_path(options["reverse_path"]))
        # What may succeed later comes first: MTAs take a status code at the very beginning for more than the exit code.
        told = sorted(
            ((failure, address) for failure, address in zip(failures, addresses, strict=True) if failure),
            key=lambda each: each[0].code != os.EX_TEMPFAIL,
        )
        for failure, address in told:
            self.stderr.write(f"{failure.status} {ascii(address)[1:-1]}: {failure.text}")
        if told:
            sys.exit(told[0][0].code)


def _misused(message: str) -> NoReturn:
    print(f"5.3.5 {message}", file=sys.stderr)
    sys.exit(os.EX_USAGE)


def _reverse_path(text: str) -> str:
    """The address in an argument, which may be in angle brackets."""
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    if not text.isprintable() or "<" in text or ">" in text or len(text.encode()) > REVERSE_PATH_LIMIT:
        _misused(f"the reverse-path is no address: {text!a}")
    return text


def _deliver(addresses: list[str], reverse_path: str) -> list[Failure | None]:
    """Deliver standard input: for each address None, or why it got nothing."""
    try:
        outcomes = deliver_now(
            sys.stdin.buffer,
            to=addresses,
            reverse_path=reverse_path,
            limit=settings.MAILHOST_MAX_MESSAGE,
            **configured.delivery(),
        )
    except TooLarge:
        return [_TOO_LARGE] * len(addresses)
    except SpoolFull:
        return [_NO_SPACE] * len(addresses)
    except Unavailable:
        return [_TEMPORARY] * len(addresses)
    except Exception:
        # Any other exit code would have the MTA return the message for a fault of ours.
        log.exception("the message could not be delivered")
        return [_TEMPORARY] * len(addresses)
    told = _told()
    return [told[outcome if isinstance(outcome, Outcome) else type(outcome)] for outcome in outcomes]


def _told() -> Mapping[Outcome | type[Refused], Failure | None]:
    suspended = _SUSPENDED[settings.MAILHOST_SUSPENDED_REPLY]
    over_quota = _OVER_QUOTA[settings.MAILHOST_OVER_QUOTA_REPLY]
    return {
        Outcome.STORED: None,
        Outcome.ALREADY: None,
        Outcome.GONE: _NO_MAILBOX,
        Outcome.SUSPENDED: suspended,
        Outcome.OVER_QUOTA: over_quota,
        Outcome.DEFERRED: _NOT_NOW,
        Outcome.LOOP: _LOOP,
        Outcome.NO_SPACE: _NO_SPACE,
        Outcome.FAILED: _TEMPORARY,
        UnknownDomain: Failure(os.EX_NOHOST, "5.1.2", "no such domain here"),
        UnverifiedDomain: _UNVERIFIED,
        Deferred: _NOT_NOW,
        UnknownMailbox: _NO_MAILBOX,
        Suspended: suspended,
        OverQuota: over_quota,
    }
