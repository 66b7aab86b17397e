"""A tenant that grows, all in one domain, and what a program that manages it waits for meanwhile.

Each step is what a request of the tenant's own program does: a transaction of the database's role of the web, within
row-level security.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Self

from django.core.management import call_command
from django.db import connection, connections
from django.test import Client

from accounts import permissions, provisioning, scope, tokens
from accounts.models import Mailbox
from accounts.principals import SYSTEM, Principal
from accounts.provisioning import bulk
from bench.web import Web

HASH: Final = (  # as it comes along from another server
    "{SHA512-CRYPT}$6$rounds=5000$usesomesillystri$"
    "D4IrlXatmP7rx3P3InaxBeoomnAihCKRVQAr/36eYqQRnQ8RHTnMeKxCyjnpJx1qFpNPDqWqXXWVYwYjVXFW3."
)
TIMES: Final = 200
BULK: Final = 500
MANY: Final = 10_000
BY: Final = 100


class Growth:
    """The tenant. A context manager."""

    def __enter__(self) -> Self:
        call_command("migrate", verbosity=0)
        tenant, _ = provisioning.add_tenant("bench")
        provisioning.add_domain("bench.test", tenant=tenant)
        self._principal = Principal(role="tenant-admin", tenant_id=tenant.pk)
        made = tokens.make(
            by=SYSTEM,
            name="bench",
            role="tenant-admin",
            scopes=permissions.scopes_of("tenant-admin"),
            tenant=tenant,
            requests_per_minute=100_000,
        )
        self._token = made.text
        self._client = Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {made.text}"})
        self._first = self._next = 0  # numbers of its open mailboxes
        return self

    def __exit__(self, *_: object) -> None:
        connections.close_all()

    def fill(self, size: int) -> None:
        """Have so many open mailboxes, and PostgreSQL know it."""
        began = time.monotonic()
        while (there := self._next - self._first) < size:
            self._bulk(min(1000, size - there))
            print(
                f"\r{self._next - self._first:,} mailboxes, {time.monotonic() - began:.0f} s", end="", file=sys.stderr
            )
        print(file=sys.stderr)
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")

    def measured(self) -> dict[str, str]:
        """By what is done, how long it takes."""
        rows = {"mailboxes": f"{self._next - self._first:,}"}
        rows["add one"] = _usual(self._add)
        rows[f"add one, {BULK} at a time"] = _usual(lambda: self._bulk(BULK), times=10, of=BULK)
        rows["look one up by its address"] = _usual(self._look_up)
        rows["list the first 100"] = _usual(lambda: self._page(""))
        rows["list 100 from the middle on"] = _usual(lambda: self._page(self._some()))
        rows["change one"] = _usual(self._change)
        rows["close one"] = _usual(self._close)
        rows["POST one"] = _usual(lambda: self._post(1))
        rows[f"POST {BULK}, each"] = _usual(lambda: self._post(BULK), times=10, of=BULK)
        for name, add in (("add", self._bulk), ("POST", self._post)):
            seconds = _timed(lambda add=add: [add(BY) for _ in range(MANY // BY)])  # type: ignore[misc]
            rows[f"{name} {MANY:,}, {BY} at a time"] = f"{seconds:.1f} s"
        with Web(self._token) as web:
            seconds = _timed(lambda: [self._send(web) for _ in range(MANY // BULK)])
        rows[f"POST {MANY:,} over HTTP, {BULK} at a time"] = f"{seconds:.1f} s"
        return rows

    def explain(self) -> None:
        """Print how PostgreSQL does what is looked up."""
        with scope.entered(self._principal):
            visible = Mailbox.objects.visible_to(self._principal)
            print(_page_of(visible, self._some()).explain(analyze=True), end="\n\n")
            print(visible.filter(address=self._some()).explain(analyze=True), end="\n\n")

    def _add(self) -> None:
        with scope.entered(self._principal):
            provisioning.add_mailbox(self._new(), password=None, password_hash=HASH, quota_octets=None)

    def _bulk(self, count: int) -> None:
        items = [bulk.Item(action="create", address=self._new(), password_hash=HASH) for _ in range(count)]
        with scope.entered(self._principal):
            results = bulk.apply(items, atomic=True)
        if any(result.done != "created" for result in results):
            raise AssertionError(results)

    def _send(self, web: Web) -> None:
        """One request, by a connection of its own."""
        results = web.post("/api/v1/mailboxes/bulk/", {"atomic": True, "items": self._items(BULK)})["results"]
        if any(result["done"] != "created" for result in results):
            raise AssertionError(results)

    def _items(self, count: int) -> list[dict[str, str]]:
        return [{"action": "create", "address": self._new(), "password_hash": HASH} for _ in range(count)]

    def _post(self, count: int) -> None:
        """The whole way through the API, but for the socket."""
        items = self._items(count)
        answer = self._client.post(
            "/api/v1/mailboxes/bulk/", {"atomic": True, "items": items}, content_type="application/json"
        )
        if answer.status_code != 200:
            raise AssertionError(answer.content)

    def _look_up(self) -> None:
        self._within(lambda mailboxes: mailboxes.get(address=self._some()))

    def _page(self, after: str) -> None:
        self._within(lambda mailboxes: list(_page_of(mailboxes, after)))

    def _change(self) -> None:
        octets = random.randrange(10**12)
        self._within(
            lambda mailboxes: provisioning.change_mailbox(mailboxes.get(address=self._some()), quota_octets=octets)
        )

    def _close(self) -> None:
        self._first += 1
        self._within(lambda mailboxes: provisioning.close_mailbox(mailboxes.get(address=_address(self._first - 1))))

    def _within(self, work: Callable[[Any], object]) -> None:
        with scope.entered(self._principal):
            work(Mailbox.objects.visible_to(self._principal).open())

    def _new(self) -> str:
        self._next += 1
        return _address(self._next - 1)

    def _some(self) -> str:
        return _address(random.randrange(self._first, self._next))


def _address(number: int) -> str:
    """The address of each number is another, and they do not come in order."""
    return f"u{number * 7919 % 1_000_003:07}@bench.test"


def _page_of(mailboxes: Any, after: str) -> Any:
    return mailboxes.filter(address__gt=after).order_by("address", "pk")[:100]


def _usual(work: Callable[[], object], *, times: int = TIMES, of: int = 1) -> str:
    """Median, and the least, which others on the machine disturb least."""
    taken = [_timed(work) * 1000 / of for _ in range(times)]
    return f"{statistics.median(taken):.2f} ms ({min(taken):.2f})"


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
