"""Who guesses passwords is slowed down and learns nothing; who owns the mailbox gets in."""

import base64
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from accounts import hashes, provisioning
from accounts.models import User
from mailstore.models import MaildropSession
from tests.fixtures import PASSWORD, Customer
from tests.servers import eventually
from tests.system import Pop3, Pop3Listener, System, elapsed, failures

TICK = 0.5
"""Refusals are answered when the clock of the machine shows a multiple of this, in seconds."""


def attempt(listener: Pop3Listener, name: object, password: str, *, source: str = "127.0.0.1") -> tuple[bytes, float]:
    """The reply to PASS, and how long it took."""
    with listener.client(source=source) as client:
        assert client.ask(f"USER {name}".encode()).startswith(b"+OK")
        began = time.monotonic()
        return client.ask(f"PASS {password}".encode()), elapsed(began)


@pytest.fixture(scope="module")
def guarded(system: System) -> Iterator[Pop3Listener]:
    """A listener with its throttle on."""
    with system.pop3(MAILHOST_THROTTLE="on") as listener:
        yield listener


def test_guesses_wait_longer_and_are_then_refused_unseen_but_the_owner_gets_in(
    guarded: Pop3Listener, acme: Customer
) -> None:
    owner, attacker, elsewhere = "127.1.1.1", "127.1.2.1", "127.1.3.1"
    assert attempt(guarded, acme.mailbox, PASSWORD, source=owner)[0].startswith(b"+OK")

    # All at once: the attempts are counted before passwords are looked at.
    with ThreadPoolExecutor(24) as threads:
        guesses = threads.map(
            lambda number: attempt(guarded, acme.mailbox, f"guess{number}", source=attacker), range(24)
        )
        answers = sorted(guesses, key=lambda answer: answer[1])
    assert {reply[:11] for reply, _ in answers} == {b"-ERR [AUTH]"}
    unseen = [took for reply, took in answers if b"too many" in reply]
    seen = [took for reply, took in answers if b"too many" not in reply]
    assert len(unseen) == 24 - 15
    assert seen[0] < 5  # the first few wait no longer than anybody
    assert seen[-1] > 8
    # Not even the right one is told apart any more, though the listener has verified it for the owner.
    assert all(b"too many" in attempt(guarded, acme.mailbox, PASSWORD, source=attacker)[0] for _ in range(4))

    reply, took = attempt(guarded, acme.mailbox, PASSWORD, source="127.1.1.99")  # the owner's network
    assert reply.startswith(b"+OK")
    assert took < 5
    assert attempt(guarded, acme.mailbox, PASSWORD, source=elsewhere)[0].startswith(b"+OK")


def test_a_client_with_an_old_password_does_not_lock_its_network_out(guarded: Pop3Listener, acme: Customer) -> None:
    """The same wrong password counts once, however often it comes."""
    with ThreadPoolExecutor(20) as threads:
        replies = list(
            threads.map(lambda _: attempt(guarded, acme.mailbox, "last year's", source="127.2.1.1")[0], range(40))
        )
    assert {reply[:11] for reply in replies} == {b"-ERR [AUTH]"}
    assert not any(b"too many" in reply for reply in replies)
    assert attempt(guarded, acme.mailbox, PASSWORD, source="127.2.1.1")[0].startswith(b"+OK")


def test_refusals_say_the_same_whatever_the_reason(pop3: Pop3Listener, acme: Customer) -> None:
    suspended = acme.add("suspended")
    provisioning.suspend(suspended)
    names = [
        acme.mailbox,  # which has another password
        suspended,
        acme.add("no-password"),
        f"nobody@{acme.domain}",
        "an@nowhere.test",
        "nobody",
        "a@b@c",
        "@",
    ]
    with ThreadPoolExecutor(len(names)) as threads:
        replies = list(threads.map(lambda name: attempt(pop3, name, "wrong")[0], names))
    assert len(set(replies)) == 1
    assert replies[0].startswith(b"-ERR [AUTH]")


def quickest(listener: Pop3Listener, names: Sequence[object], *, before: float) -> list[float]:
    """For each name, the seconds from a tick to the refusal of what was asked so long before it, all at once.

    The least of some rounds: what a busy machine adds is not in all of them, what tells names apart is.
    """

    def timed(name: object) -> float:
        with listener.client() as client:
            client.ask(f"USER {name}".encode())
            tick = (time.monotonic() // TICK + 2) * TICK
            time.sleep(max(0, tick - before - time.monotonic()))
            assert client.ask(b"PASS wrong").startswith(b"-ERR [AUTH]")
            return time.monotonic() - tick

    least = [math.inf] * len(names)
    with ThreadPoolExecutor(len(names)) as threads:
        for number in range(20):
            least = list(map(min, least, threads.map(timed, names)))
            if number >= 4 and max(least) - min(least) < 0.05:
                break
    print("refused after", ", ".join(f"{took:.4f} s: {name}" for name, took in zip(names, least, strict=True)))
    return least


def test_a_refusal_takes_as_long_for_an_address_that_does_not_exist(pop3: Pop3Listener, acme: Customer) -> None:
    """What differs is hidden behind the tick, so the attempts are made well before one."""
    there, not_there = quickest(pop3, [acme.mailbox, f"nobody@{acme.domain}"], before=TICK * 4 / 5)
    assert abs(there - not_there) < 0.05
    # It was a tick that they waited for; timers may be a moment early.
    assert abs((there + TICK / 2) % TICK - TICK / 2) < TICK / 5


def test_a_refusal_takes_as_long_whatever_hash_came_along(pop3: Pop3Listener, acme: Customer) -> None:
    """Of attempts made 0.1 s before a tick, bcrypt's cost of 12 would miss it: it takes twice that."""
    along = {
        "sha": "{SHA}AMr9EmGC6KnnwBuy8N/QBJa+ck8=",
        "bcrypt": "$2a$12$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    }
    for name, text in along.items():
        User.objects.filter(mailbox=acme.add(name)).update(password=hashes.parse(text))
    least = quickest(pop3, [f"{name}@{acme.domain}" for name in ("an", "nobody", *along)], before=0.1)
    assert max(least) - min(least) < 0.05


# Passwords in clear.


def plain(mailbox: object) -> bytes:
    return b"AUTH PLAIN " + base64.b64encode(f"\0{mailbox}\0{PASSWORD}".encode())


def allowed(client: Pop3, mailbox: object) -> bool:
    """Whether this client may sign in here; what it is offered must agree with what it is answered."""
    capabilities = client.many(b"CAPA")
    offered = b"USER" in capabilities
    assert any(line.startswith(b"SASL") for line in capabilities) == offered
    user = client.ask(f"USER {mailbox}".encode())
    assert user.startswith(b"+OK") == offered, user  # refused at USER: the password is never sent
    signed_in = client.ask(plain(mailbox)).startswith(b"+OK")
    assert signed_in == offered
    return signed_in


def test_never_means_never(system: System, acme: Customer) -> None:
    with system.pop3(MAILHOST_PLAINTEXT_AUTH="never") as listener:
        with listener.client() as client:
            assert not allowed(client, acme.mailbox)
            assert client.ask(b"STLS").startswith(b"+OK")
            client.secure(system.trusting())
            assert allowed(client, acme.mailbox)
            client.ask(b"QUIT")
        with listener.client(tls=True) as client:
            assert allowed(client, acme.mailbox)


@pytest.fixture(scope="module")
def behind_proxy(system: System) -> Iterator[Callable[[str], Pop3Listener]]:
    """Listeners with each policy, to which only a proxy on this machine connects."""
    listeners: dict[str, Pop3Listener] = {}

    def listener(policy: str) -> Pop3Listener:
        if policy not in listeners:
            listeners[policy] = system.pop3(
                MAILHOST_PLAINTEXT_AUTH=policy,
                MAILHOST_PROXY_NETWORKS="127.0.0.0/8",
                MAILHOST_THROTTLE="on",
                MAILHOST_WORKERS="1",
            )
            listeners[policy].start()
        return listeners[policy]

    yield listener
    for each in listeners.values():
        each.end()


@contextmanager
def proxied(listener: Pop3Listener, client_address: str, *, tls: bool = False) -> Iterator[Pop3]:
    """Connected by a proxy for a client at this address."""
    family = "TCP6" if ":" in client_address else "TCP4"
    header = f"PROXY {family} {client_address} {'::1' if family == 'TCP6' else '192.0.2.1'} 4711 110\r\n"
    with Pop3.to(listener.tls_address if tls else listener.address) as client:
        client.send((header if client_address else "PROXY UNKNOWN\r\n").encode())
        if tls:
            client.secure()
        assert client.line() == b"+OK POP3 server ready"
        yield client


@pytest.mark.parametrize(
    ("policy", "client_address", "tls", "may"),
    [
        ("loopback", "127.0.0.1", False, True),
        ("loopback", "::1", False, True),
        ("loopback", "::ffff:127.0.0.1", False, True),
        ("loopback", "192.0.2.7", False, False),
        ("loopback", "2001:db8::7", False, False),
        ("loopback", "", False, False),  # the proxy does not say who
        ("loopback", "192.0.2.7", True, True),
        ("always", "192.0.2.7", False, True),
        ("always", "", False, True),
    ],
)
def test_the_clients_own_address_decides_not_the_proxys(
    behind_proxy: Callable[[str], Pop3Listener],
    acme: Customer,
    policy: str,
    client_address: str,
    tls: bool,
    may: bool,
) -> None:
    with proxied(behind_proxy(policy), client_address, tls=tls) as client:
        assert allowed(client, acme.mailbox) == may
        if may:
            session = MaildropSession.objects.get(mailbox=acme.mailbox, ended_at=None)
            assert session.client_address == (client_address.removeprefix("::ffff:") or None)
            assert session.secure == tls


def test_guesses_count_for_the_client_behind_the_proxy(
    system: System, behind_proxy: Callable[[str], Pop3Listener], acme: Customer
) -> None:
    listener = behind_proxy("always")

    with ExitStack() as until_the_end:
        for number in range(15):  # their refusals are put off; nobody waits for them
            client = until_the_end.enter_context(proxied(listener, "203.0.113.5"))
            client.ask(f"USER {acme.mailbox}".encode())
            client.send(b"PASS guess%d\r\n" % number)
        eventually(lambda: failures(system, "203.0.113.5") == 15)
        with proxied(listener, "203.0.113.5") as client:
            assert b"too many" in client.log_in(acme.mailbox)
    with proxied(listener, "198.51.100.5") as client:
        assert client.log_in(acme.mailbox).startswith(b"+OK")


def test_a_header_from_elsewhere_is_garbage(pop3: Pop3Listener, acme: Customer) -> None:
    """Nobody names an address for himself."""
    with pop3.client() as client:
        assert client.ask(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 110").startswith(b"-ERR")
