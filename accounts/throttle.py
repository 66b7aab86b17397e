"""Slowing down who guesses passwords: failures are counted per network and per address, in Redis or in this process."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final, NamedTuple, Protocol, TypeVar

import redis
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

T = TypeVar("T")

FREE_ATTEMPTS: Final = 3
LONGEST_DELAY: Final = 8.0  # seconds
_OF_ADDRESS: Final = 100  # failures in an hour, from wherever
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

    buckets: tuple[_Bucket, ...]  # those that it was counted in
    delay: float  # seconds by which its refusal, should it fail, is put off


class Counters(Protocol):
    """Where the counts are kept."""

    async def add(self, buckets: Sequence[_Bucket], *, number: int) -> list[int]:
        """Add a number to each and return them; one that is new expires after its window."""

    async def first(self, key: str, window: int) -> bool:
        """Whether `key` is seen for the first time in `window` seconds."""

    async def forget(self, key: str) -> None:
        """Take `key` for unseen."""


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
        self,
        *,
        address: str,
        password: str,
        client: IPv4Address | IPv6Address | None,
        known: bool,
        most: int = _OF_ADDRESS,
    ) -> Attempt:
        """Count an attempt. Raises `TooManyFailures`, for an address after `most` failures in an hour.

        The same password from the same host counts once: a client with an old one does not lock out its neighbours. It
        is refused like any other where too many were wrong: else it would be told apart. `known`: the client's network
        signed in to this mailbox before.
        """
        if not self._enabled:
            return Attempt((), 0.0)
        guess = f"{_host(client)}\0{address}\0{password}".encode(errors="replace")
        same = f"{_PREFIX}same:{hmac.digest(self._secret, guess, 'sha256').hex()[:32]}"
        is_new = await self._count(lambda counters: counters.first(same, _WINDOW))
        buckets = _buckets(address, client, known=known, most=most)
        counts = await self._count(lambda counters: counters.add(buckets, number=int(is_new)))
        worst = max(counts, default=0) - FREE_ATTEMPTS
        attempt = Attempt(
            tuple(buckets) if is_new else (), min(LONGEST_DELAY, 2.0 ** (worst - 1)) if worst > 0 else 0.0
        )
        if not known and any(count - is_new >= bucket.limit for count, bucket in zip(counts, buckets, strict=True)):
            if is_new:
                # It was no guess, and does not count. Unless it is forgotten, it could be made later for nothing.
                await self._count(lambda counters: counters.forget(same))
                await self.succeeded(attempt)
            raise TooManyFailures
        return attempt

    async def succeeded(self, attempt: Attempt) -> None:
        """The attempt's password was right: it does not count."""
        if attempt.buckets:
            await self._count(lambda counters: counters.add(attempt.buckets, number=-1))

    async def remember(self, *, address: str, client: IPv4Address | IPv6Address | None) -> None:
        """The client's network signed in by a login without a mailbox, whose networks the database does not keep."""
        try:
            await self._shared.remember(_key("signed-in", f"{address} {near(client)}"), _REMEMBERED)
        except (RedisError, OSError):
            self._away()

    async def remembers(self, *, address: str, client: IPv4Address | IPv6Address | None) -> bool:
        """Whether it did so lately."""
        try:
            return await self._shared.remembers(_key("signed-in", f"{address} {near(client)}"))
        except (RedisError, OSError):
            self._away()
            return False

    async def close(self) -> None:
        """Close the connections to Redis."""
        await self._shared.close()

    async def _count(self, counting: Callable[[Counters], Awaitable[T]]) -> T:
        """Do it in this process, which must know when Redis goes away; and in Redis, which knows more."""
        here = await counting(self._here)
        if time.monotonic() >= self._redis_back_at:
            try:
                return await counting(self._shared)
            except (RedisError, OSError):
                self._away()
        return here

    def _away(self) -> None:
        """Redis failed: count in this process alone for a while."""
        log.warning("Redis does not answer: failed logins are counted per process")
        self._redis_back_at = time.monotonic() + _BREAK


class Away(Exception):
    """Redis does not answer: what is counted cannot be told."""


class Refusing(NamedTuple):
    """Attempts of these are refused unseen now, unless their network signed in to the mailbox before."""

    client: IPv4Address | IPv6Address | None  # None: all of them
    seconds: int  # until the count begins anew


def refusing(*, redis_url: str, address: str, clients: Sequence[IPv4Address | IPv6Address | None]) -> list[Refusing]:
    """At this address: whether from everywhere, and of these clients those whose own attempts are. Raises `Away`.

    Of a client no more is told: what it tried at others' addresses is counted with it.
    """
    asked: list[tuple[IPv4Address | IPv6Address | None, _Bucket]] = [
        (None, bucket) for bucket in _buckets(address, None, known=False)
    ]
    for one in clients:
        if one is not None:
            asked += [(one, bucket) for bucket in _buckets(address, one, known=False)[1:]]
    try:
        with _connection(redis_url).pipeline(transaction=False) as pipeline:
            for _, bucket in asked:
                pipeline.get(bucket.key)
                pipeline.ttl(bucket.key)
            answers = pipeline.execute()
    except (RedisError, OSError):
        raise Away from None
    lives: dict[IPv4Address | IPv6Address | None, int] = {}
    for (client, bucket), count, life in zip(asked, answers[::2], answers[1::2], strict=True):
        if int(count or 0) >= bucket.limit:
            lives[client] = max(life, lives.get(client, 0))
    return [Refusing(client, life) for client, life in lives.items()]


def forget(*, redis_url: str, address: str, client: IPv4Address | IPv6Address | None) -> None:
    """Begin to count anew what fails at this address, and what fails there from this client's network. Raises `Away`.

    What the client's network failed at elsewhere still counts: it is not for who looks after one address to forgive.
    """
    buckets = _buckets(address, None, known=False) + _buckets(address, client, known=True)
    try:
        _connection(redis_url).delete(*(bucket.key for bucket in buckets))
    except (RedisError, OSError):
        raise Away from None


@lru_cache(maxsize=4)
def _connection(redis_url: str) -> "redis.Redis":
    """For those who wait for the answer, and not for long."""
    return redis.Redis.from_url(redis_url, socket_timeout=0.25, socket_connect_timeout=0.25)


_WINDOW: Final = 15 * 60
_REMEMBERED: Final = 30 * 24 * 3600


def _buckets(
    address: str, client: IPv4Address | IPv6Address | None, *, known: bool, most: int = _OF_ADDRESS
) -> list[_Bucket]:
    if known:
        # Its own count, which delays and never refuses: guesses from the owner's network slow down all the same.
        return [_Bucket(_key("known", f"{address} {near(client)}"), 0, _WINDOW)]
    buckets = [_Bucket(_key("address", address), most, 3600)]
    if client is not None:
        buckets.append(_Bucket(_key("host", _host(client)), 15, _WINDOW))
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


def _host(client: IPv4Address | IPv6Address | None) -> str:
    """What counts as one client: an address of IPv4, a /64 of IPv6."""
    if client is None:
        return "local"
    return str(ip_network((client, 32 if client.version == 4 else 64), strict=False))


class RedisCounters:
    """Counts that all processes share."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, socket_timeout=0.25, socket_connect_timeout=0.25)

    async def add(self, buckets: Sequence[_Bucket], *, number: int) -> list[int]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for bucket in buckets:
                pipeline.incrby(bucket.key, number)
                pipeline.ttl(bucket.key)
            counts_and_lives = await pipeline.execute()
            # A key that expired a moment ago was made anew by counting, and would stay for ever. (EXPIRE NX does this
            # in one trip, but needs Redis 7.)
            endless = [bucket for bucket, life in zip(buckets, counts_and_lives[1::2], strict=True) if life < 0]
            for bucket in endless:
                pipeline.expire(bucket.key, bucket.window)
            if endless:
                await pipeline.execute()
        return [int(count) for count in counts_and_lives[::2]]

    async def first(self, key: str, window: int) -> bool:
        return bool(await self._redis.set(key, 1, ex=window, nx=True))

    async def forget(self, key: str) -> None:
        await self._redis.delete(key)

    async def remember(self, key: str, life: int) -> None:
        """Keep `key` for so many seconds."""
        await self._redis.set(key, 1, ex=life)

    async def remembers(self, key: str) -> bool:
        """Whether `key` is kept."""
        return bool(await self._redis.exists(key))

    async def close(self) -> None:
        await self._redis.aclose()


class LocalCounters:
    """Counts of this process, for as long as Redis is away."""

    _MOST = 100_000  # keys; an attack from more networks than that starts over

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}

    async def add(self, buckets: Sequence[_Bucket], *, number: int) -> list[int]:
        return [self._add(bucket.key, bucket.window, number) for bucket in buckets]

    async def first(self, key: str, window: int) -> bool:
        return self._add(key, window, 1) == 1

    async def forget(self, key: str) -> None:
        self._counts.pop(key, None)

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
