"""Finding out who asks: a program by its token, or somebody who is in the admin by his session."""

from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from rest_framework.authentication import CSRFCheck

from accounts import clients, principals, scope, throttle, tokens
from accounts.api import rates
from accounts.api.problems import Problem
from accounts.clients import Address
from accounts.models import ApiToken
from accounts.principals import Principal
from accounts.two_factor import gate

SESSION_REQUESTS: Final = 600
"""Requests per minute of somebody who has signed in."""

_FAILURES: Final = 30  # wrong tokens of one network
_FAILURES_WINDOW: Final = 15 * 60  # seconds
_USED_EVERY: Final = timedelta(minutes=1)
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="mailhost"'}


def authenticate(request: HttpRequest) -> Principal:
    """Who asks. Raises `Problem`: 401, 403 for a request of another site, 429.

    Each has a number of requests per minute. A network with many wrong tokens is refused unseen, but for the tokens
    that were used from there before.
    """
    address = clients.address_of(request, proxies=settings.MAILHOST_HTTP_PROXIES)
    kind, _, text = request.headers.get("Authorization", "").partition(" ")
    if kind:
        if kind.lower() != "bearer":
            raise Problem("unauthenticated", "Only bearer tokens are understood.", headers=_CHALLENGE)
        token = _token(text.strip(), address)
        rates.take(f"token {token.prefix}", most=token.requests_per_minute, window=60)
        return principals.of_token(token).via("api", address)
    principal = gate.principal_of(request)
    if principal is None:
        raise Problem("unauthenticated", headers=_CHALLENGE)
    # Browsers send the cookie whoever asks them to.
    check = CSRFCheck(_nothing)
    check.process_request(request)
    if check.process_view(request, _nothing, (), {}):
        raise Problem("csrf-failed")
    rates.take(f"user {principal.user_id}", most=SESSION_REQUESTS, window=60)
    return principal.via("api", address)


def _nothing(*_: Any) -> Any:
    """What the check would go on with."""


def _token(text: str, address: Address | None) -> ApiToken:
    network = throttle.near(address)
    with scope.whole_host():
        prefix = tokens.prefix_of(text)
        found = ApiToken.objects.select_related("tenant", "mailbox").filter(prefix=prefix)
        token = found.first() if prefix else None
        used_from = clients.parsed(token.last_used_address or "") if token else None
        known = used_from is not None and throttle.near(used_from) == network
        if not known:
            rates.check(f"failures {network}", most=_FAILURES, code="too-many-failures")
        problem = _wrong(token, text, address)
        if problem is None:
            assert token
            _used(token, address)
            return token
    rates.add(f"failures {network}", window=_FAILURES_WINDOW)
    raise Problem(problem, headers=_CHALLENGE)


def _wrong(token: ApiToken | None, text: str, address: Address | None) -> str | None:
    if token is None or not tokens.is_text_of(token, text) or token.revoked_at is not None:
        return "bad-token"
    if any(holder is not None and holder.closed_at is not None for holder in (token.tenant, token.mailbox)):
        return "bad-token"
    if token.expires_at is not None and token.expires_at <= timezone.now():
        return "expired-token"
    if not clients.is_allowed(address, tokens.networks_of(token)):
        return "wrong-network"
    return None


def _used(token: ApiToken, address: Address | None) -> None:
    """Keep that it was used, at most once a minute."""
    now = timezone.now()
    if token.last_used_at is None or token.last_used_at < now - _USED_EVERY:
        due = Q(last_used_at=None) | Q(last_used_at__lt=now - _USED_EVERY)
        ApiToken.objects.filter(due, pk=token.pk).update(
            last_used_at=now, last_used_address=str(address) if address else None
        )
