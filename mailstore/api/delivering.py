"""Delivering a message to a mailbox over the API, as an MTA would over LMTP."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from ipaddress import IPv6Address
from typing import Any, Final

from django.conf import settings
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api import idempotency
from accounts.api.fields import octets
from accounts.api.problems import FieldError, Problem
from accounts.api.views import needs
from accounts.principals import Principal
from accounts.scope import WEB
from mailstore import configured
from mailstore.api.messages import MailboxMessages, MessageShown
from mailstore.api.receiving import FILE, MULTIPART, Receives, spool_directory
from mailstore.api.within import ADDRESS
from mailstore.database import Unavailable
from mailstore.delivery import (
    Deferred,
    Deliveries,
    Outcome,
    OverQuota,
    Refused,
    Suspended,
    UnknownDomain,
    UnknownMailbox,
    UnverifiedDomain,
    deliver_spooled,
)
from mailstore.models import Message
from mailstore.spool import Spool, SpoolFull, TooLarge

MESSAGE: Final = "message/rfc822"
REVERSE_PATH_LIMIT: Final = 512
"""Octets, as LMTP has it."""

_LATEST: Final = 100  # messages among which the delivered one is looked for


class Delivered(serializers.Serializer[Any]):
    """What became of it."""

    outcome = serializers.ChoiceField(
        choices=["stored", "already"], help_text="`already`: an earlier attempt has stored it."
    )
    message = MessageShown(allow_null=True, help_text="Null where an earlier attempt's cannot be told.")


class MailboxDeliveries(Receives, MailboxMessages):
    """The messages of a mailbox, and one more."""

    large = (MESSAGE,)
    extra_parameters = frozenset({"reverse_path"})
    _spool: Spool | None = None

    @extend_schema(
        parameters=[
            ADDRESS,
            OpenApiParameter(
                "reverse_path",
                str,
                description="Who is told if it cannot be delivered further (RFC 5321). Empty: nobody.",
            ),
        ],
        request={
            MESSAGE: OpenApiTypes.BINARY,
            MULTIPART: {
                "type": "object",
                "required": [FILE],
                "properties": {FILE: {"type": "string", "format": "binary"}},
            },
        },
        responses={200: Delivered, 201: Delivered},
        filters=False,
        examples=[
            OpenApiExample(
                "message",
                value="From: Binh <binh@example.org>\r\nTo: an@example.test\r\nSubject: hello\r\n\r\nhello\r\n",
                request_only=True,
                media_type=MESSAGE,
            )
        ],
    )
    @needs("deliver")
    def create(self, request: Request, address: str) -> HttpResponseBase:
        """Deliver a message (RFC 5322): as from an MTA, with its quota, states and limits. 200 if it was before."""
        self.only_large()
        spool = self._spool
        assert spool is not None, "whoever may do this was let in"
        reverse_path = self._reverse_path()
        who = idempotency.identity(self.request._request, self.principal)
        mark = hashlib.sha256(who).hexdigest()[:16] if who else secrets.token_hex(8)
        outcome = self._deliver(spool, reverse_path, mark, who)
        self.would(
            "deliver", f"delivers a message, {octets(spool.octets)}, to {self.mailbox}", messages=1, octets=spool.octets
        )
        if self.is_dry_run:
            return Response(status=200)
        message = self._found(mark)
        shown = None if message is None else self.shown(message)
        headers = {"Location": f"/api/v1/mailboxes/{self.mailbox}/messages/{message.pk}/"} if message else {}
        status = 201 if outcome == Outcome.STORED else 200
        return Response({"outcome": outcome.value, "message": shown}, status=status, headers=headers)

    # --- The body --------------------------------------------------------------------------------------------------

    def largest(self) -> int:
        limit: int = settings.MAILHOST_MAX_MESSAGE
        return limit

    def receive(self, pieces: Iterator[bytes]) -> None:
        self._spool = Spool(limit=self.largest(), directory=str(spool_directory()))
        try:
            for piece in pieces:
                self._spool.write(piece)
            self._spool.finish()
        except TooLarge:
            raise Problem("too-large", f"A message has at most {self.largest()} octets here.") from None
        except SpoolFull:
            raise Problem("unavailable", "There is no space left.", headers={"Retry-After": "60"}) from None
        if not self._spool.octets:
            raise Problem("malformed", "The message is empty.")

    def said(self) -> bytes:
        return super().said() if self._spool is None else self._spool.digest

    def let_go(self) -> None:
        if self._spool is not None:
            self._spool.close()

    # --- The delivery ----------------------------------------------------------------------------------------------

    def _deliver(self, spool: Spool, reverse_path: str, mark: str, who: bytes | None) -> Outcome:
        terms = configured.delivery() | {"role": WEB}
        deliveries = Deliveries(connections=1, tenant_id=self.mailbox.tenant_id, **terms)
        try:
            [outcome] = deliver_spooled(
                spool,
                to=[self.mailbox.address],
                reverse_path=reverse_path,
                deliveries=deliveries,
                received=received(self.principal, host=configured.host_name(), mark=mark),
                retry=who,
                pretend=self.is_dry_run,
            )
        except Unavailable:
            outcome = Outcome.FAILED
        if outcome in (Outcome.STORED, Outcome.ALREADY):
            return outcome
        code, text = _REFUSED[outcome if isinstance(outcome, Outcome) else type(outcome)]
        raise Problem(code, text, headers={"Retry-After": "10"} if code == "unavailable" else {})

    def _found(self, mark: str) -> Message | None:
        """The message that was delivered, by its trace."""
        latest = Message.objects.filter(mailbox=self.mailbox).order_by("-uid").values_list("pk", "trace")[:_LATEST]
        found = next((pk for pk, trace in latest if f" id {mark};".encode() in bytes(trace)), None)
        return self.rows().filter(pk=found).first() if found else None

    def _reverse_path(self) -> str:
        text = self.request.query_params.get("reverse_path", "")
        if not text.isprintable() or any(sign in text for sign in "<> ") or len(text.encode()) > REVERSE_PATH_LIMIT:
            raise Problem("bad-parameter", errors=[FieldError("reverse_path", "bad-address", "It is no address.")])
        return text


def received(principal: Principal, *, host: str, mark: str) -> bytes:
    """The trace field of this hop (RFC 5321 section 4.4): from where, and not by whom."""
    address = principal.address
    client = "localhost" if address is None else f"[{'IPv6:' if isinstance(address, IPv6Address) else ''}{address}]"
    date = format_datetime(datetime.now(UTC))
    return f"Received: from {client}\r\n\tby {host} with HTTP id {mark};\r\n\t{date}\r\n".encode()


_CLOSED: Final = ("takes-no-mail", "It is closed.")
_FULL: Final = ("no-room", "It, or what it belongs to, has no room for the message.")
_LATER: Final = ("takes-no-mail", "It takes no mail for now.")
_SUSPENDED: Final = ("takes-no-mail", "It is suspended.")
_REFUSED: Final[Mapping[Outcome | type[Refused], tuple[str, str]]] = {
    Outcome.FAILED: ("unavailable", "It could not be stored."),
    Outcome.NO_SPACE: ("unavailable", "There is no space left."),
    Outcome.GONE: _CLOSED,
    Outcome.LOOP: ("takes-no-mail", "The message has come too far."),
    Outcome.OVER_QUOTA: _FULL,
    Outcome.DEFERRED: _LATER,
    Outcome.SUSPENDED: _SUSPENDED,
    OverQuota: _FULL,
    Deferred: _LATER,
    Suspended: _SUSPENDED,
    UnknownMailbox: _CLOSED,
    UnknownDomain: ("takes-no-mail", "Nobody has shown yet whose its domain is."),
    UnverifiedDomain: ("takes-no-mail", "Nobody has shown yet whose its domain is."),
}
