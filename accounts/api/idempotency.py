"""Carrying a request out once, however often it comes: the answer is kept in the transaction that it tells of."""

import base64
import hashlib
import hmac
import re
from typing import Final, NamedTuple

from cryptography.fernet import Fernet
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from accounts.api.problems import Problem
from accounts.models import IdempotencyKey
from accounts.principals import Principal

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_KEPT: Final = ("Content-Type", "Cache-Control", "Location", "ETag")  # headers


class Claim(NamedTuple):
    """The right to carry a request out."""

    row: IdempotencyKey
    box: Fernet


def claim(request: HttpRequest, principal: Principal, body: bytes) -> Claim | HttpResponse | None:
    """The right to carry this request out; the answer that it was given before; or None for one without a key.

    `body` is its body, or what stands for it. Belongs into the transaction of the request. Waits for one with the same
    key that is being carried out. Raises `Problem`.
    """
    key = key_of(request)
    if key is None:
        return None
    whose = _whose(principal)
    box = _box(whose, key)
    # Whoever has rotated the token since is not told what it was told before, which may be more than he may be.
    told_to = " ".join(sorted(principal.told_to))
    said = f"{request.method} {request.get_full_path()}\n{told_to}\n".encode() + body
    row = IdempotencyKey(principal=whose, key=key, digest=hashlib.sha256(said).digest(), status=0, body=b"")
    IdempotencyKey.objects.bulk_create([row], ignore_conflicts=True)  # waits for whoever inserts the same
    kept = IdempotencyKey.objects.get(principal=whose, key=key)
    if not kept.status:
        return Claim(kept, box)
    if not hmac.compare_digest(bytes(kept.digest), row.digest):
        raise Problem("idempotency-key-reused")
    answer = HttpResponse(box.decrypt(bytes(kept.body)), status=kept.status, headers=kept.headers)
    answer["Idempotent-Replayed"] = "true"
    return answer


def identity(request: HttpRequest, principal: Principal) -> bytes | None:
    """What all attempts of this request have in common, and no other has; None for one without a key."""
    key = request.headers.get("Idempotency-Key")
    return None if key is None else hashlib.sha256(f"{_whose(principal)}\0{key}".encode()).digest()


def key_of(request: HttpRequest) -> str | None:
    """The request's key, if it has one. Raises `Problem`."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise Problem("bad-idempotency-key")
    return key


def keep(claim: Claim, answer: HttpResponse) -> None:
    """Keep the answer for whoever sends the request again.

    It may hold a password that is shown once: it is sealed with a key that stands in no database.
    """
    IdempotencyKey.objects.filter(pk=claim.row.pk).update(
        status=answer.status_code,
        headers={name: answer[name] for name in _KEPT if name in answer},
        body=claim.box.encrypt(answer.content),
    )


def is_kept(answer: HttpResponse) -> bool:
    """Whether the request would be answered like that again: not where it was not carried out for another reason."""
    return answer.status_code < 500 and answer.status_code not in (401, 429)


def _whose(principal: Principal) -> str:
    return f"token {principal.token_id}" if principal.token_id else f"user {principal.user_id}"


def _box(whose: str, key: str) -> Fernet:
    secret = hmac.digest(settings.SECRET_KEY.encode(), f"idempotency\0{whose}\0{key}".encode(), "sha256")
    return Fernet(base64.urlsafe_b64encode(secret))
