"""Saying what went wrong: problem documents (RFC 9457), with codes that never change."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DatabaseError, DataError, IntegrityError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions

from accounts import limits
from accounts.limits import LimitReached
from accounts.permissions import NotAllowed
from accounts.provisioning import REFUSALS
from accounts.spreadsheets import BadLines

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
MOST_LINE_ERRORS: Final = 1000
"""Of one answer."""
TYPES: Final = "/api/problems/"
"""Where each code is explained: the `type` of a problem is this and the code."""


class Kind(NamedTuple):
    """What a code means."""

    status: int
    title: str
    advice: str = ""


KINDS: Final[Mapping[str, Kind]] = {
    "too-broad": Kind(400, "That takes too long to find", "Narrow it down: say a mailbox, or a time."),
    "malformed": Kind(400, "The body cannot be read", "Send one JSON object, in UTF-8."),
    "bad-parameter": Kind(400, "A parameter of the query is wrong", "See `errors`."),
    "bad-cursor": Kind(400, "The cursor is none of this list", "Begin again without a cursor."),
    "bad-idempotency-key": Kind(400, "The Idempotency-Key is wrong", "Send 1 to 255 printable ASCII characters."),
    "bad-request": Kind(400, "The request is wrong"),
    "unauthenticated": Kind(401, "Who asks is not known", "Send `Authorization: Bearer` and a token."),
    "bad-token": Kind(401, "The token is not valid", "It was never made, was rotated or revoked."),
    "expired-token": Kind(401, "The token has expired", "Make a new one."),
    "wrong-network": Kind(401, "The token may not be used from here"),
    "not-allowed": Kind(403, "That may not be done", "Ask with a role, or a token's scope, that may."),
    "csrf-failed": Kind(403, "The request may come from another site", "Send the X-CSRFToken, or use a token."),
    "too-strong": Kind(403, "A token can be no stronger than who makes it"),
    "not-found": Kind(404, "It does not exist", "It never did, is gone, or is not yours."),
    "method-not-allowed": Kind(405, "The method is not allowed here", "See `Allow`."),
    "not-acceptable": Kind(406, "It cannot be sent in that form", "Accept application/json."),
    "conflict": Kind(409, "It is in conflict with what there is"),
    "taken": Kind(409, "The name is taken"),
    "domain-taken": Kind(409, "The domain is another tenant's"),
    "address-taken": Kind(409, "The address is taken"),
    "in-quarantine": Kind(409, "The address is in quarantine", "Wait, reopen the mailbox, or say `release`."),
    "other-tenant": Kind(409, "The two belong to different tenants"),
    "owns-mailbox": Kind(409, "What this login may do follows from its mailbox"),
    "tied": Kind(409, "Other things hold on to it", "See `detail`, and let go of them."),
    "busy": Kind(409, "Somebody else works on it", "Try again."),
    "still-in-use": Kind(409, "Something else depends on it"),
    "on-hold": Kind(409, "Its mail must be kept"),
    "no-room": Kind(409, "The mailbox has no room for so much", "Raise a quota or a limit, or remove messages."),
    "takes-no-mail": Kind(409, "The mailbox takes no mail now"),
    "import-running": Kind(409, "An import of the mailbox has not ended", "Wait for it, or cancel it."),
    "limit-reached": Kind(409, "A limit is reached", "Raise the limit, or remove something."),
    "refused": Kind(409, "It cannot be done"),
    "too-many": Kind(409, "There are as many as there may be"),
    "not-in-use": Kind(409, "It was revoked"),
    "closed": Kind(409, "It is closed", "Reopen it first."),
    "not-all": Kind(409, "Nothing was done, because of some items", "See `results`."),
    "length-required": Kind(411, "The length of the body is not known", "Send Content-Length."),
    "changed-meanwhile": Kind(412, "It is not as you expected", "Get it again, and decide anew."),
    "too-large": Kind(413, "The body is too large"),
    "unsupported-media-type": Kind(415, "The body has a type that is not understood", "Send application/json."),
    "invalid": Kind(422, "Some values cannot be accepted", "See `errors`."),
    "bad-value": Kind(422, "A value cannot be accepted"),
    "bad-address": Kind(422, "That is no address"),
    "bad-password": Kind(422, "That cannot be a password"),
    "bad-hash": Kind(422, "That is no password hash that we know"),
    "bad-file": Kind(422, "The file cannot be read"),
    "bad-rows": Kind(422, "Some rows cannot be carried out, and none was", "See `errors`."),
    "unknown-plan": Kind(422, "There is no such plan"),
    "unknown-reseller": Kind(422, "There is no such reseller"),
    "unknown-tenant": Kind(422, "There is no such tenant"),
    "unknown-domain": Kind(422, "The domain is not hosted here"),
    "unknown-mailbox": Kind(422, "There is no such mailbox"),
    "unknown-message": Kind(422, "There is no such message"),
    "unknown-session": Kind(422, "There is no such session"),
    "bad-import": Kind(422, "It cannot be imported so"),
    "idempotency-key-reused": Kind(422, "The Idempotency-Key was another request's", "Use a new key for each request."),
    "too-many-requests": Kind(429, "Too many requests", "Wait as long as Retry-After says."),
    "too-many-failures": Kind(429, "Too many wrong tokens from there", "Wait as long as Retry-After says."),
    "fault": Kind(500, "Something is wrong on our side", "It is logged. Try again later."),
    "unavailable": Kind(503, "The database does not answer", "Try again later."),
}
"""Every code that the API answers with. They never change their meaning."""


class FieldError(NamedTuple):
    """What is wrong with one field: its path in the body (`targets.0`), or the name of a parameter."""

    field: str
    code: str
    detail: str


class LineError(NamedTuple):
    """What is wrong with one line of a file, and in which of its columns, if in one."""

    line: int
    field: str
    code: str
    detail: str


class Problem(Exception):
    """An answer that says what went wrong. `more` stands in the document as it is."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        field: str = "",
        errors: Iterable[FieldError | LineError] = (),
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.kind = KINDS[code]
        self.detail = detail
        self.errors: list[FieldError | LineError] = [*errors, *([FieldError(field, code, detail)] if field else [])]
        self.headers = dict(headers or {})
        self.more = more

    def document(self) -> dict[str, Any]:
        """The problem as RFC 9457 writes it."""
        found: dict[str, Any] = {
            "type": f"{TYPES}{self.code}/",
            "title": self.kind.title,
            "status": self.kind.status,
            "code": self.code,
        }
        if detail := self.detail or self.kind.advice:
            found["detail"] = detail
        if self.errors:
            found["errors"] = [error._asdict() for error in self.errors]
        return found | self.more

    def answer(self) -> HttpResponse:
        """The HTTP response."""
        response = JsonResponse(self.document(), status=self.kind.status, content_type=MEDIA_TYPE)
        response["Cache-Control"] = "no-store"
        for name, value in self.headers.items():
            response[name] = value
        return response


@contextmanager
def about(field: str) -> Iterator[None]:
    """What is refused within is because of this field of the body."""
    try:
        yield
    except REFUSALS as refusal:
        problem = of_refusal(refusal)
        problem.errors = problem.errors or [FieldError(field, problem.code, problem.detail)]
        raise problem from None


def handler(error: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """What REST framework answers with instead of an exception; None for faults, which are not to be hidden."""
    problem = of(error)
    return problem.answer() if problem else None


def of(error: Exception) -> Problem | None:
    """The problem that an exception is. Only the texts of our own refusals are told."""
    match error:
        case Problem():
            return error
        case BadLines():
            return _of_lines(error)
        case NotAllowed():
            return Problem("not-allowed", f"{error}.")
        case exceptions.ValidationError():
            return Problem("invalid", errors=_flat(error.detail))
        case exceptions.ParseError() | MultiPartParserError():
            return Problem("malformed")
        case exceptions.MethodNotAllowed() | exceptions.NotAcceptable() | exceptions.UnsupportedMediaType():
            return Problem(error.default_code.replace("_", "-") if error.status_code != 415 else _UNSUPPORTED)
        case Http404() | exceptions.NotFound():
            return Problem("not-found")
        case PermissionDenied() | exceptions.PermissionDenied():
            return Problem("not-allowed")
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return Problem("unauthenticated", headers={"WWW-Authenticate": "Bearer"})
        case RequestDataTooBig():
            return Problem("too-large")
        case SuspiciousOperation():
            return Problem("bad-request")
        case DatabaseError():
            return _of_database(error)
    return of_refusal(error) if isinstance(error, (*REFUSALS, LimitReached)) else None


def of_refusal(error: Exception) -> Problem:
    """The problem that a refusal is: its code is the name of the nearest of its classes that has one."""
    code = next(code for kind in type(error).__mro__ if (code := _kebab(kind.__name__)) in KINDS)
    return Problem(code, f"{error}.", field=getattr(error, "field", ""))


def as_markdown() -> str:
    """The codes, as `docs/problems.md` shows them."""
    rows = "".join(f"| `{code}` | {kind.status} | {kind.title} | {kind.advice} |\n" for code, kind in KINDS.items())
    return f"{_PREFACE}\n| code | status | title | what to do |\n|---|---|---|---|\n{rows}"


_PREFACE: Final = """\
# Problems

What the API answers with when something is wrong: problem documents (RFC 9457), told by their `code`. Codes never
change their meaning; titles and details are for people, and may. Made from `accounts/api/problems.py` by `manage.py
writedocs`; a running system has the same at `/api/problems/`.
"""


@csrf_exempt  # there is nothing to forge
def unknown_address(request: HttpRequest, *_: Any, **__: Any) -> HttpResponse:
    """The answer below /api/ where there is nothing."""
    hint = "" if request.path.endswith("/") else " Addresses end with a slash."
    return Problem("not-found", f"There is nothing at this address.{hint}").answer()


def _of_lines(refused: BadLines) -> Problem:
    found = refused.report.problems
    told = [LineError(line, column, "refused", f"{reason}.") for line, column, reason in found[:MOST_LINE_ERRORS]]
    return Problem("bad-rows", f"{refused}.", errors=told, errors_total=len(found))


_UNSUPPORTED: Final = "unsupported-media-type"


def _of_database(error: DatabaseError) -> Problem | None:
    if limits.is_over_quota(error):
        return Problem("limit-reached", "There is no room for so much mail.")
    match error:
        case IntegrityError():
            log.warning("a constraint refused what no check had: %s", _constraint(error))
            return Problem("conflict")
        case DataError():
            return Problem("invalid", "A value is out of range.")
        case OperationalError():
            log.warning("the database failed a request: %s", type(error.__cause__).__name__)
            return Problem("unavailable", headers={"Retry-After": "2"})
    return None


def _constraint(error: IntegrityError) -> str:
    return str(getattr(getattr(error.__cause__, "diag", None), "constraint_name", None))


def _flat(detail: Any, path: str = "") -> Iterator[FieldError]:
    if isinstance(detail, dict):
        for name, inner in detail.items():
            own = "" if name == "non_field_errors" else str(name)
            yield from _flat(inner, ".".join(filter(None, (path, own))))
    elif isinstance(detail, list):
        for number, inner in enumerate(detail):
            yield from _flat(
                inner, path if isinstance(inner, exceptions.ErrorDetail) else f"{path}.{number}".strip(".")
            )
    elif detail:
        yield FieldError(path, getattr(detail, "code", "invalid").replace("_", "-"), str(detail))


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
