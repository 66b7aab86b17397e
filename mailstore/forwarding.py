"""Handing mail that goes on to addresses outside to the MTA, each message once as far as SMTP can tell.

What is to go is written with the delivery (`mailstore.delivery`). One transaction is one attempt: it holds the row,
hands the message over, and removes the row once the MTA has answered 250. Killed in between, it is done again.
"""

import logging
import smtplib
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.header import Header
from email.utils import format_datetime, make_msgid
from types import TracebackType
from typing import Final, Self

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import translation
from django.utils.translation import gettext as _

from accounts import audit, languages
from accounts.models import Alias, User
from mailstore import purging, srs
from mailstore.models import Content, ContentChunk, Forward

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = timedelta(minutes=1)
"""After the first attempt that failed; doubled after each."""
LONGEST_PAUSE: Final = timedelta(hours=4)
HEAD_OCTETS: Final = 64 * 1024
"""Of the header of a message that could not be sent, as its sender gets it back."""
CRLF: Final = "\r\n"


@dataclass(frozen=True, kw_only=True)
class Config:
    """How mail goes on."""

    host: str  # of the MTA
    port: int
    name: str  # what we call ourselves
    key: bytes  # of reverse-paths (mailstore.srs)
    give_up: timedelta = timedelta(days=5)  # RFC 5321 section 4.5.4.1
    timeout: float = 300  # seconds for an answer (RFC 5321 section 4.5.3.2)


class Refused(Exception):
    """The MTA does not take it: a reply code, its enhanced status code and text."""

    def __init__(self, code: int, text: bytes) -> None:
        said = "".join(c if c.isprintable() else " " for c in text.decode("utf-8", "replace"))
        super().__init__(f"{code} {said}"[:200])
        self.is_final = 500 <= code < 600
        first, _, _ = said.partition(" ")
        self.status = first if first[:2] in ("4.", "5.") and first.replace(".", "").isdigit() else f"{code // 100}.0.0"


@dataclass
class Done:
    """What a run has done."""

    sent: int = 0
    deferred: int = 0
    given_up: int = 0


def forward(config: Config, *, budget: timedelta | None = None) -> Done:
    """Hand over what is due, over one connection, until nothing is or the time is over.

    Can run beside itself. Where the MTA does not answer all stays as it is. Not to be called in a transaction.
    """
    done = Done()
    ends = None if budget is None else time.monotonic() + budget.total_seconds()
    if not Forward.objects.filter(next_attempt_at__lte=Now()).exists():
        return done
    try:
        with Handover(config) as mta:
            while (ends is None or time.monotonic() < ends) and _attempt(config, mta, done):
                pass
    except (OSError, smtplib.SMTPException) as error:
        log.warning("mail to addresses outside waits: the MTA %s:%s fails: %s", config.host, config.port, _said(error))
    return done


def _attempt(config: Config, mta: "Handover", done: Done) -> bool:
    """One message that is due. Returns whether there was one; raises what the connection does, and counts that."""
    with transaction.atomic(durable=True):
        forward = (
            Forward.objects.filter(next_attempt_at__lte=Now())
            .select_related("content")
            .select_for_update(skip_locked=True, of=("self",), no_key=True)
            .order_by("next_attempt_at")
            .first()
        )
        if forward is None:
            return False
        lost: Exception | None = None
        try:
            mta.send(forward)
        except Refused as refused:
            if refused.is_final or datetime.now(UTC) - forward.created_at > config.give_up:
                _give_up(forward, refused, config)
                done.given_up += 1
            else:
                _defer(forward, str(refused))
                done.deferred += 1
        except (OSError, smtplib.SMTPException) as error:
            # Perhaps this very message is what it cannot take: others go first next time.
            _defer(forward, _said(error))
            done.deferred += 1
            lost = error
        else:
            log.info("forward %s of alias %s sent", forward.pk, forward.alias_id)
            _remove(forward)
            done.sent += 1
    if lost:
        raise lost
    return True


def _defer(forward: Forward, why: str) -> None:
    pause = min(FIRST_PAUSE * 2 ** min(forward.attempts, 10), LONGEST_PAUSE)
    Forward.objects.filter(pk=forward.pk).update(
        attempts=forward.attempts + 1, next_attempt_at=Now() + pause, last_error=why[:200]
    )
    log.info("forward %s of alias %s deferred: %s", forward.pk, forward.alias_id, ascii(why))


def _remove(forward: Forward) -> None:
    """Take what is done away, and its content if nothing else needs it."""
    Forward.objects.filter(pk=forward.pk).delete()
    with connection.cursor() as cursor:
        purging.remove_unused(cursor, [forward.content_id])


def _give_up(forward: Forward, refused: Refused, config: Config) -> None:
    """Nobody will take it: whoever sent it is told (RFC 3464), unless it was a report itself."""
    log.warning("forward %s of alias %s given up: %s", forward.pk, forward.alias_id, ascii(str(refused)))
    if forward.alias_id and (alias := Alias.objects.filter(pk=forward.alias_id).first()):
        audit.record("alias.forward_failed", alias, detail={"status": refused.status})
    if forward.reverse_path:
        with suppress(srs.Forged):
            sender = srs.original(forward.reverse_path, key=config.key, today=srs.today())
            _report(forward, refused, to=sender, name=config.name)
    _remove(forward)


def _report(forward: Forward, refused: Refused, *, to: str, name: str) -> None:
    """Put a report for the sender among what is to be sent. It does not tell where the alias goes to.

    Somebody of ours reads it in his language; others in the host's, and in English.
    """
    trace, by = bytes(forward.trace), ""
    if trace.startswith(b"Delivered-To: "):
        by = trace.split(b"\r\n", 1)[0].removeprefix(b"Delivered-To: ").decode("utf-8", "replace")
    boundary = f"report.{forward.pk}.{name}"
    header = b""
    for chunk in _octets(forward.content):
        header = chunk[: min(forward.content.header_octets, HEAD_OCTETS)]
        break
    is_utf8 = not (by.isascii() and to.isascii())  # RFC 6533
    reader = User.objects.filter(email=to.lower()).first()
    with languages.writing_to(reader):
        subject, written = _("Your message could not be sent on"), [_explained(by)]
    if reader is None:
        with translation.override("en"):
            written.append(_explained(by))
    text = "\r\n".join((
        f"From: Mail Delivery System <MAILER-DAEMON@{name}>",
        f"To: <{to}>",
        f"Subject: {Header(subject).encode(linesep=CRLF)}",
        f"Date: {format_datetime(datetime.now(UTC))}",
        f"Message-ID: {make_msgid(domain=name)}",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        *dict.fromkeys(written),
        f"--{boundary}",
        f"Content-Type: message/{'global-delivery-status' if is_utf8 else 'delivery-status'}",
        "",
        f"Reporting-MTA: dns; {name}",
        f"Arrival-Date: {format_datetime(forward.created_at)}",
        "",
        f"Final-Recipient: {'utf-8' if is_utf8 else 'rfc822'}; {by}",
        "Action: failed",
        f"Status: {'5' + refused.status[1:]}",
        "",
        f"--{boundary}",
        f"Content-Type: {'message/global-headers' if is_utf8 else 'text/rfc822-headers'}",
        "Content-Transfer-Encoding: 8bit",
        "",
        "",
    )).encode()  # fmt: skip
    body = text + header.rstrip(b"\r\n") + f"\r\n\r\n--{boundary}--\r\n".encode()
    content = Content.objects.create(
        tenant_id=forward.tenant_id,
        octets=len(body),
        header_octets=body.index(b"\r\n\r\n") + 4,
        has_dot_lines=b"\r\n." in body,
        body=body,
    )
    Forward.objects.create(
        tenant_id=forward.tenant_id,
        domain_id=forward.domain_id,
        content=content,
        trace=b"",
        reverse_path="",
        recipient=to,
    )


def _explained(by: str) -> str:
    """A paragraph of a report, in the language that is spoken."""
    lines = (
        _("Your message to %(address)s goes on to another server, which did not take it.") % {"address": by},
        _("This is what is known about it; your message's header follows."),
    )
    return "".join(line + CRLF for line in lines)


def _octets(content: Content) -> Iterator[bytes]:
    """A content, a piece at a time."""
    if content.body is not None:
        yield bytes(content.body)
        return
    numbers = ContentChunk.objects.filter(content=content).order_by("number").values_list("number", flat=True)
    for number in list(numbers):
        yield bytes(ContentChunk.objects.values_list("octets", flat=True).get(content=content, number=number))


class Handover:
    """A connection to the MTA. Raises `OSError` and `smtplib.SMTPException` where it fails."""

    def __init__(self, config: Config) -> None:
        self._smtp = smtplib.SMTP(config.host, config.port, local_hostname=config.name, timeout=config.timeout)

    def __enter__(self) -> Self:
        self._smtp.ehlo_or_helo_if_needed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError, smtplib.SMTPException):
            self._smtp.quit()
        self._smtp.close()

    def send(self, forward: Forward) -> None:
        """One message to one recipient. Raises `Refused`."""
        smtp = self._smtp
        options = ""
        if smtp.has_extn("size"):
            options += f" SIZE={len(forward.trace) + forward.content.octets}"
        if smtp.has_extn("8bitmime"):
            options += " BODY=8BITMIME"  # RFC 6152
        smtp.command_encoding = "ascii"
        if not (forward.reverse_path.isascii() and forward.recipient.isascii()):
            if not smtp.has_extn("smtputf8"):
                raise Refused(553, b"5.6.7 the MTA does not take addresses that are not ASCII")  # RFC 6531 section 3.5
            options += " SMTPUTF8"
            smtp.command_encoding = "utf-8"
        try:
            self._expect(250, *smtp.docmd(f"MAIL FROM:<{forward.reverse_path}>{options}"))
            self._expect(250, *smtp.docmd(f"RCPT TO:<{forward.recipient}>"))
            self._expect(354, *smtp.docmd("DATA"))
        except Refused:
            smtp.docmd("RSET")
            raise
        last = self._write(bytes(forward.trace), b"\r\n")
        for piece in _octets(forward.content):
            last = self._write(piece, last)
        smtp.send(b".\r\n" if last == b"\r\n" else b"\r\n.\r\n")
        self._expect(250, *smtp.getreply())

    def _write(self, octets: bytes, last: bytes) -> bytes:
        """Send a piece, its dots doubled (RFC 5321 section 4.5.2); returns the two octets that end what was sent."""
        stuffed = octets.replace(b"\r\n.", b"\r\n..")
        if octets.startswith(b".") and last == b"\r\n":
            stuffed = b"." + stuffed
        elif octets.startswith(b"\n.") and last.endswith(b"\r"):
            stuffed = b"\n.." + stuffed[2:]
        self._smtp.send(stuffed)
        return (last + octets)[-2:]

    def _expect(self, wanted: int, code: int, text: bytes) -> None:
        if code == 421 or not 200 <= code < 600:  # RFC 5321 section 3.8: it closes the connection
            raise smtplib.SMTPServerDisconnected(f"{code}")
        if code != wanted and not (wanted == 250 and code == 251):
            raise Refused(code, text)


def _said(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    return type(error).__name__
