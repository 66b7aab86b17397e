"""What schemathesis is told beside the API's description. It loads this by itself (SCHEMATHESIS_HOOKS)."""

import ipaddress
import os
import secrets
from typing import Any
from urllib.parse import quote, urlencode

import schemathesis

KEPT = frozenset(os.environ.get("KEPT_TOKENS", "").split())
"""The prefixes of the tokens with which it asks: it must not revoke them."""

MEANT = frozenset({"differs", "one-of", "blank", "null-characters-not-allowed", "required", "bad-address"})
"""What can be wrong with a field although it has the form that the description asks for."""


@schemathesis.serializer("message/rfc822", "application/mbox", "application/zip", "text/csv")
def as_it_is(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Not our own tokens, and no address so long that gunicorn refuses it unseen (4094 octets)."""
    names = case.path_parameters or {}
    length = len(quote(str(names))) + len(urlencode(case.query or {}, doseq=True))
    return names.get("prefix") not in KEPT and length < 3000


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Each request comes from a network of its own: many of them have wrong tokens."""
    case.headers["X-Forwarded-For"] = str(ipaddress.ip_address(0xFD << 120 | secrets.randbits(40) << 80 | 1))


@schemathesis.check
def refused_for_what_it_means(context: Any, response: Any, case: Any) -> None:
    """What has the form that the description asks for is not refused because of its form."""
    mode = case.meta.generation.mode if case.meta else None
    if mode is None or not mode.is_positive or response.status_code not in (400, 422):
        return
    problem = response.json()
    errors = {error["code"] for error in problem.get("errors", ())}
    assert problem["code"] not in ("invalid", "bad-parameter") or errors <= MEANT, problem
