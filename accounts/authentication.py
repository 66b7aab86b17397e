"""Checking the passwords of mailboxes: slowly the first time, in bounded threads, and at once when verified before."""

import asyncio
import hmac
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple, ParamSpec, TypeVar

from django.contrib.auth.hashers import check_password, identify_hasher, make_password

P = ParamSpec("P")
T = TypeVar("T")

REFUSED_AFTER: Final = 1.0
"""Seconds from the beginning of a check to its refusal: longer than any hash takes that `accounts.hashes` lets in.

A hash that came from another server is checked faster or slower than those made here, and than the check for an
address that does not exist: the difference is gone when this time has passed.
"""

_LIFE: Final = 600.0  # seconds for which a verified password is remembered
_MOST: Final = 50_000  # remembered passwords
_QUEUE: Final = 200  # checks that may wait for a thread


class Busy(Exception):
    """More passwords are waiting to be checked than can be: come again."""


class Proof(NamedTuple):
    """What a password was found right by. It proves nothing any more once the database says something else."""

    stored: str
    """The stored hash that it matched; empty if it is an app password."""
    app_password_id: int | None = None
    own_copy: bool = False
    """Whether that app password's device has its own copy of the maildrop."""

    @property
    def view(self) -> int:
        """Which view of the maildrop it opens: 0 is the maildrop itself, else it is a device's own."""
        return self.app_password_id or 0 if self.own_copy else 0


class Passwords:
    """Checks passwords for one process. Made after the fork.

    What it remembers is a keyed digest of network, address and password, with what proved them right. That is compared
    with what is stored at every login, in the statement that opens the maildrop: so a changed password takes effect at
    once. It is remembered for one network, because from another the attempt is to be counted
    first: else a guess would be told apart although it was refused unseen.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, tuple[Proof, float]] = OrderedDict()
        self._threads = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="password")
        self._waiting = 0
        # For addresses that do not exist: the check takes as long as any.
        self._nobody = make_password(secrets.token_urlsafe())

    def verified(self, address: str, password: str, *, network: str) -> Proof | None:
        """What this password, coming from there, was found right by lately."""
        found = self._verified.get(self._digest(address, password, network))
        return found[0] if found and found[1] > time.monotonic() else None

    async def check(self, address: str, password: str, stored: str | None, *, network: str) -> bool:
        """Whether the password matches the stored hash; `None` never matches, and takes as long. Raises `Busy`.

        It is refused `REFUSED_AFTER` seconds after it was asked, whatever the stored hash is.
        """
        began = time.monotonic()
        matches = await self._in_thread(check_password, password, stored or self._nobody)
        if not matches or stored is None:
            await asyncio.sleep(began + REFUSED_AFTER - time.monotonic())
            return False
        self.remember(address, password, Proof(stored), network=network)
        return True

    async def upgraded(self, password: str, stored: str) -> str | None:
        """The hash to store in place of one that this password matched: one of another server, or of other costs.

        None if the stored one may stay, or there is no time to make another: the next login will.
        """
        if not identify_hasher(stored).must_update(stored):
            return None
        try:
            return await self._in_thread(make_password, password)
        except Busy:
            return None

    def remember(self, address: str, password: str, proof: Proof, *, network: str) -> None:
        """Take the password for verified, coming from there."""
        self._verified[self._digest(address, password, network)] = (proof, time.monotonic() + _LIFE)
        if len(self._verified) > _MOST:
            self._verified.popitem(last=False)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T:
        if self._waiting >= _QUEUE:
            raise Busy
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **keywords))
        finally:
            self._waiting -= 1

    def _digest(self, address: str, password: str, network: str) -> bytes:
        known = f"{network}\0{address}\0{password}".encode(errors="surrogateescape")
        return hmac.digest(self._secret, known, "sha256")
