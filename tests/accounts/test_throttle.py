"""Guessing is slowed, and nobody can lock an owner out."""

import time
from collections.abc import AsyncIterator
from ipaddress import ip_address
from uuid import uuid4

import pytest
from django.conf import settings
from redis.asyncio import Redis

from accounts import throttle
from accounts.throttle import Attempt, Throttle, TooManyFailures

HERE = ip_address("192.0.2.7")


@pytest.fixture(params=["Redis", "this process"])
async def guard(request: pytest.FixtureRequest) -> AsyncIterator[Throttle]:
    """A throttle of its own: no other test's failures count."""
    url = settings.REDIS_URL if request.param == "Redis" else "redis://127.0.0.1:1/0"
    guard = Throttle(redis_url=url, secret=b"secret", enabled=True)
    yield guard
    await guard.close()


@pytest.fixture
def address() -> str:
    """An address that no other test guesses at."""
    return f"{uuid4()}@example.test"


def elsewhere() -> str:
    """A client in a /48 that no other test uses."""
    return f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::1"


async def guess(guard: Throttle, address: str, client: str | None, *, known: bool = False) -> Attempt:
    return await guard.admit(
        address=address, password=str(uuid4()), client=ip_address(client) if client else None, known=known
    )


async def test_the_delay_grows_and_then_the_network_is_refused(guard: Throttle, address: str) -> None:
    client = elsewhere()
    delays = [(await guess(guard, address, client)).delay for _ in range(15)]
    assert delays == sorted(delays)
    assert delays[:3] == [0, 0, 0]
    assert delays[3:7] == [1, 2, 4, 8]
    assert max(delays) == throttle.LONGEST_DELAY
    with pytest.raises(TooManyFailures):
        await guess(guard, address, client)
    with pytest.raises(TooManyFailures):  # whatever the address
        await guess(guard, f"other-{address}", client)


async def test_a_network_that_signed_in_before_is_never_refused(guard: Throttle, address: str) -> None:
    client = elsewhere()
    for _ in range(120):
        attempt = await guess(guard, address, client, known=True)
    assert attempt.delay == throttle.LONGEST_DELAY
    with pytest.raises(TooManyFailures):
        for _ in range(200):
            await guess(guard, address, elsewhere())
    await guess(guard, address, client, known=True)


async def test_guesses_from_many_networks_at_one_address_are_refused(guard: Throttle, address: str) -> None:
    for _ in range(100):
        await guess(guard, address, elsewhere())
    with pytest.raises(TooManyFailures):
        await guess(guard, address, elsewhere())


async def test_hosts_of_one_network_count_together(guard: Throttle, address: str) -> None:
    network = f"2001:db8:{uuid4().hex[:4]}"
    for host in range(60):
        await guess(guard, f"{host}-{address}", f"{network}:{host:x}::1")
    with pytest.raises(TooManyFailures):
        await guess(guard, address, f"{network}:ffff::1")


async def test_the_same_wrong_password_counts_once(guard: Throttle, address: str) -> None:
    client = ip_address(elsewhere())
    for _ in range(50):
        attempt = await guard.admit(address=address, password="old", client=client, known=False)
    assert attempt.delay == 0
    assert (await guess(guard, address, str(client))).delay == 0


async def test_a_password_that_was_tried_before_is_refused_like_any_other(guard: Throttle, address: str) -> None:
    """Else who is refused unseen could tell the owner's own password by its not being refused."""
    await guard.succeeded(
        await guard.admit(address=address, password="the owner's", client=ip_address(elsewhere()), known=False)
    )
    client = elsewhere()
    with pytest.raises(TooManyFailures):
        for _ in range(16):
            await guess(guard, address, client)
    with pytest.raises(TooManyFailures):
        await guard.admit(address=address, password="the owner's", client=ip_address(client), known=False)


async def test_what_was_refused_unseen_is_not_known_later(guard: Throttle, address: str) -> None:
    """Else a client that is refused anyway could announce the guesses that another then makes for nothing."""
    blocked = elsewhere()
    for _ in range(15):
        await guess(guard, address, blocked)
    passwords = [str(uuid4()) for _ in range(20)]
    for password in passwords:
        with pytest.raises(TooManyFailures):
            await guard.admit(address=address, password=password, client=ip_address(blocked), known=False)
    other = ip_address(elsewhere())
    with pytest.raises(TooManyFailures):
        for password in passwords:
            await guard.admit(address=address, password=password, client=other, known=False)


async def test_another_hosts_guess_counts_again(guard: Throttle, address: str) -> None:
    passwords = [str(uuid4()) for _ in range(16)]
    for password in passwords:
        await guard.admit(address=address, password=password, client=ip_address(elsewhere()), known=False)
    other = ip_address(elsewhere())
    with pytest.raises(TooManyFailures):
        for password in passwords:
            await guard.admit(address=address, password=password, client=other, known=False)


async def test_who_is_refused_does_not_have_others_refused(guard: Throttle, address: str) -> None:
    network = f"2001:db8:{uuid4().hex[:4]}"
    for _ in range(15):
        await guess(guard, address, f"{network}:1::1")
    for _ in range(100):
        with pytest.raises(TooManyFailures):
            await guess(guard, address, f"{network}:1::1")
    await guess(guard, address, f"{network}:2::1")  # of the same network
    await guess(guard, address, elsewhere())  # at the same address


async def test_what_succeeds_does_not_count(guard: Throttle, address: str) -> None:
    client = elsewhere()
    for _ in range(50):
        await guard.succeeded(await guess(guard, address, client))
    assert (await guess(guard, address, client)).delay == 0


async def test_processes_count_together_in_redis(address: str) -> None:
    client = elsewhere()
    for _ in range(15):
        guard = Throttle(redis_url=settings.REDIS_URL, secret=b"secret", enabled=True)
        await guess(guard, address, client)
        await guard.close()
    guard = Throttle(redis_url=settings.REDIS_URL, secret=b"secret", enabled=True)
    with pytest.raises(TooManyFailures):
        await guess(guard, address, client)
    await guard.close()


async def test_every_count_ends(address: str) -> None:
    """Also one that expired while the password was being looked at: nobody is refused for ever."""
    guard = Throttle(redis_url=settings.REDIS_URL, secret=b"secret", enabled=True)
    async with Redis.from_url(settings.REDIS_URL) as redis:
        attempt = await guess(guard, address, elsewhere())
        await redis.delete(*(bucket.key for bucket in attempt.buckets))
        await guard.succeeded(attempt)
        assert [0 < await redis.ttl(bucket.key) <= bucket.window for bucket in attempt.buckets] == [True] * 3
    await guard.close()


async def test_off_means_off(address: str) -> None:
    guard = Throttle(redis_url=settings.REDIS_URL, secret=b"secret", enabled=False)
    for _ in range(50):
        assert await guess(guard, address, str(HERE)) == Attempt((), 0.0)
    await guard.close()


async def test_a_client_without_an_address_is_counted_by_what_it_guesses_at(guard: Throttle, address: str) -> None:
    with pytest.raises(TooManyFailures):
        for _ in range(101):
            await guess(guard, address, None)


@pytest.mark.parametrize(
    ("client", "network"),
    [("192.0.2.7", "192.0.2.0/24"), ("2001:db8:1:2::3", "2001:db8:1::/48")],
)
def test_near_is_a_network(client: str, network: str) -> None:
    assert throttle.near(ip_address(client)) == network


async def test_a_refusal_comes_on_a_tick() -> None:
    for delay in (0.0, 0.3):
        behind = 0.5
        for _ in range(10):  # a busy machine is late, but not each time
            begun = time.monotonic()
            await throttle.answer_on_tick(delay=delay)
            behind = min(behind, time.monotonic() % 0.5)
            assert time.monotonic() - begun >= delay
            if behind < 0.1:
                break
        assert behind < 0.1
