"""Slowing down who guesses passwords: failures are counted per network and per address, in Redis or in this process."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final, NamedTuple, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

FREE_ATTEMPTS: Final = 3
LONGEST_DELAY: Final = 8.0  # seconds
_BREAK: Final = 5.0  # seconds for which a Redis that failed is not asked again
_PREFIX: Final = "mailhost:throttle:"


class TooManyFailures(Exception):
    """So many attempts failed that this one is not looked at."""


class _Bucket(NamedTuple):
    key: str
    limit: int  # failures, from which on attempts are refused unseen
    window: int  # seconds from the first failure until the count starts anew


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was counted before its password was looked at."""

    keys: tuple[str, ...]
    delay: float  # seconds by which its refusal, should it fail, is put off


class Counters(Protocol):
    """Where the counts are kept."""

    async def add(self, keys: Sequence[str], windows: Sequence[int], *, number: int) -> list[int]:
        """Add a number to each and return them; a key that is new expires after its window."""

    async def take_back(self, keys: Sequence[str]) -> None:
        """Subtract one from each."""

    async def first(self, key: str, window: int) -> bool:
        """Whether `key` is seen for the first time in `window` seconds."""


class Throttle:
    """Counts attempts before the password is looked at, and takes those back that succeed.

    A network (RFC 4632 /32 and /24, IPv6 /64 and /48) that fails again and again waits longer each time and is then
    refused. An address is guarded likewise against guesses from many networks. Neither ever locks its owner out:
    who signs in from a network that signed in to this mailbox before is only ever delayed.
    """

    def __init__(self, *, redis_url: str, secret: bytes, enabled: bool) -> None:
        self._secret = secret
        self._enabled = enabled
        self._here = LocalCounters()
        self._shared = RedisCounters(redis_url)
        self._redis_back_at = 0.0

    async def admit(
        self, *, address: str, password: str, client: IPv4Address | IPv6Address | None, known: bool
    ) -> Attempt:
        """Count an attempt. Raises `TooManyFailures`.

        The same password counts once: a client with an old one does not lock out its neighbours. It is refused like
        any other where too many were wrong: else it would be told apart. `known`: the client's network signed in to
        this mailbox before.
        """
        if not self._enabled:
            return Attempt((), 0.0)
        digest = hmac.digest(self._secret, f"{address}\0{password}".encode(errors="replace"), "sha256")
        is_new = await self._first(f"{_PREFIX}same:{digest.hex()[:32]}")
        buckets = _buckets(address, client, known=known)
        counts = await self._add(buckets, number=1 if is_new else 0)
        keys = tuple(bucket.key for bucket in buckets) if is_new else ()
        if not known and any(count > bucket.limit for count, bucket in zip(counts, buckets, strict=True)):
            raise TooManyFailures
        worst = max(counts, default=0) - FREE_ATTEMPTS
        return Attempt(keys, min(LONGEST_DELAY, 2.0 ** (worst - 1)) if worst > 0 else 0.0)

    async def succeeded(self, attempt: Attempt) -> None:
        """The attempt's password was right: it does not count."""
        if attempt.keys:
            await self._here.take_back(attempt.keys)
            if time.monotonic() >= self._redis_back_at:
                try:
                    await self._shared.take_back(attempt.keys)
                except (RedisError, OSError):
                    self._away()

    async def close(self) -> None:
        """Close the connections to Redis."""
        await self._shared.close()

    async def _add(self, buckets: Sequence[_Bucket], *, number: int) -> list[int]:
        keys, windows = [bucket.key for bucket in buckets], [bucket.window for bucket in buckets]
        here = await self._here.add(keys, windows, number=number)
        if time.monotonic() >= self._redis_back_at:
            try:
                return await self._shared.add(keys, windows, number=number)
            except (RedisError, OSError):
                self._away()
        return here

    async def _first(self, key: str) -> bool:
        here = await self._here.first(key, _WINDOW)
        if time.monotonic() >= self._redis_back_at:
            try:
                return await self._shared.first(key, _WINDOW)
            except (RedisError, OSError):
                self._away()
        return here

    def _away(self) -> None:
        """Redis failed: count in this process alone for a while."""
        log.warning("Redis does not answer: failed logins are counted per process")
        self._redis_back_at = time.monotonic() + _BREAK


_WINDOW: Final = 15 * 60


def _buckets(address: str, client: IPv4Address | IPv6Address | None, *, known: bool) -> list[_Bucket]:
    if known:
        # Its own count, which delays and never refuses: guesses from the owner's network slow down all the same.
        return [_Bucket(_key("known", f"{address} {near(client)}"), 0, _WINDOW)]
    buckets = [_Bucket(_key("address", address), 100, 3600)]
    if client is not None:
        host = 32 if client.version == 4 else 64
        buckets.append(_Bucket(_key("host", str(ip_network((client, host), strict=False))), 15, _WINDOW))
        buckets.append(_Bucket(_key("near", near(client)), 60, _WINDOW))
    return buckets


def _key(kind: str, name: str) -> str:
    return f"{_PREFIX}{kind}:{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@lru_cache(maxsize=4096)
def near(client: IPv4Address | IPv6Address | None) -> str:
    """The network that counts as one place: /24 of IPv4, /48 of IPv6, or the host itself without an address."""
    if client is None:
        return "local"
    return str(ip_network((client, 24 if client.version == 4 else 48), strict=False))


class RedisCounters:
    """Counts that all processes share."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, socket_timeout=0.25, socket_connect_timeout=0.25)

    async def add(self, keys: Sequence[str], windows: Sequence[int], *, number: int) -> list[int]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key, window in zip(keys, windows, strict=True):
                # SET NX with an expiry, then INCRBY: works on every Redis, where EXPIRE NX needs 7.
                pipeline.set(key, 0, ex=window, nx=True)
                pipeline.incrby(key, number)
            return [int(count) for count in (await pipeline.execute())[1::2]]

    async def take_back(self, keys: Sequence[str]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.decr(key)
            await pipeline.execute()

    async def first(self, key: str, window: int) -> bool:
        return bool(await self._redis.set(key, 1, ex=window, nx=True))

    async def close(self) -> None:
        await self._redis.aclose()


class LocalCounters:
    """Counts of this process, for as long as Redis is away."""

    _MOST = 100_000  # keys; an attack from more networks than that starts over

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}

    async def add(self, keys: Sequence[str], windows: Sequence[int], *, number: int) -> list[int]:
        return [self._add(key, window, number) for key, window in zip(keys, windows, strict=True)]

    async def take_back(self, keys: Sequence[str]) -> None:
        for key in keys:
            count, end = self._counts.get(key, (0, 0.0))
            if count:
                self._counts[key] = (count - 1, end)

    async def first(self, key: str, window: int) -> bool:
        return self._add(key, window, 1) == 1

    def _add(self, key: str, window: int, number: int) -> int:
        if len(self._counts) >= self._MOST:
            self._counts.clear()
        now = time.monotonic()
        count, end = self._counts.get(key, (0, 0.0))
        if end <= now:
            count, end = 0, now + window
        self._counts[key] = (count + number, end)
        return count + number


_TICK: Final = 0.5


async def answer_on_tick(*, delay: float) -> None:
    """Wait until a refusal is due: its time tells neither how long the check took nor what it found."""
    now = time.monotonic()
    due = (int((now + delay) / _TICK) + 1) * _TICK
    await asyncio.sleep(due - now)
