"""Counting requests in Redis. Where it does not answer, requests go on uncounted."""

import hashlib
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError

from accounts.api.problems import Problem

_PREFIX: Final = "mailhost:api:"
_BREAK: Final = 5.0  # seconds for which a Redis that failed is not asked again

_back_at = 0.0


def take(name: str, *, most: int, window: int) -> None:
    """Count a request of `name`, who has `most` in `window` seconds. Raises `Problem` with 429 for one too many."""
    count, left = add(name, window=window)
    if count > most:
        raise _too_many("too-many-requests", left)


def check(name: str, *, most: int, code: str) -> None:
    """Raise `Problem` with 429 if `most` were counted already."""
    count, left = _ask(lambda pipeline, key: (pipeline.get(key), pipeline.pttl(key)), name)
    if int(count or 0) >= most:
        raise _too_many(code, left)


def add(name: str, *, window: int) -> tuple[int, int]:
    """Count one more. Returns how many in this window there are, and for how many milliseconds it goes on."""
    _, count, left = _ask(
        lambda pipeline, key: (pipeline.set(key, 0, ex=window, nx=True), pipeline.incr(key), pipeline.pttl(key)),
        name,
        3,
    )
    return int(count or 0), int(left or 0)


def _too_many(code: str, left: int) -> Problem:
    return Problem(code, headers={"Retry-After": str(max(1, -(-left // 1000)))})


def _ask(ask: Callable[[Any, str], object], name: str, answers: int = 2) -> list[Any]:
    global _back_at
    if time.monotonic() >= _back_at:
        try:
            with _redis().pipeline(transaction=False) as pipeline:
                ask(pipeline, _PREFIX + hashlib.sha256(name.encode()).hexdigest()[:32])
                found: list[Any] = pipeline.execute()
                return found
        except (RedisError, OSError):
            _back_at = time.monotonic() + _BREAK
    return [None] * answers


@cache
def _redis() -> "Redis":
    return Redis.from_url(settings.REDIS_URL, socket_timeout=0.25, socket_connect_timeout=0.25)
