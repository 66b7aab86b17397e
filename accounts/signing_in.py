"""Signing in to the web: throttled by the same counters as POP3, and refused at the same pace whoever it is.

What waits, waits in a loop of its own: the thread that answers a request only waits for the outcome, and holds no
connection to the database meanwhile.
"""

import asyncio
import atexit
import hashlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

from django.conf import settings
from django.contrib.auth.hashers import identify_hasher
from django.db import connection
from django.utils import timezone

from accounts import addresses, app_passwords, failed_logins, scope, throttle
from accounts.authentication import Busy, Passwords
from accounts.clients import Address
from accounts.models import AppPassword, FailedLogin, KnownNetwork, Mailbox, User
from accounts.throttle import Attempt, Throttle, TooManyFailures

log = logging.getLogger(__name__)

T = TypeVar("T")

AT_ONCE: Final = 6
"""Attempts of one process that are looked at together. A refusal takes seconds: they must not take every thread."""

_AGAIN_AFTER: Final = timedelta(days=1)

CODES_AN_HOUR: Final = 10
"""Wrong codes of one login's app, from wherever, after which none of it is looked at for an hour.

Whoever guesses knows the password already. Three codes of a million are right at a time: ten an hour find one with a
chance of 1 in 33,000 in an hour, 1 in 1,400 in a day, 1 in 4 in a year. Each is in the list of failed logins.
"""


class WrongPassword(Exception):
    """No such login, or not its password: which of the two is not told."""


class WrongCode(Exception):
    """The second step failed."""


class SignedIn(NamedTuple):
    """Whose password it was."""

    user: User
    app_password_id: int | None = None  # if it was not the login's own


class _Login(NamedTuple):
    """What is stored of a login."""

    user: User | None
    mailbox: Mailbox | None
    known: bool  # the network signed in to the mailbox before
    app_password_id: int | None
    why_not: str | None  # the app password is not good


def verify(
    login: str,
    password: str,
    *,
    client: Address | None,
    app_scope: str | None = None,
    through: str = FailedLogin.Through.PAGES,
    typed_whole: bool = True,
) -> SignedIn:
    """Whose password this is: one of a login, or an app password with `app_scope`, if that is given.

    A failure is kept (`accounts.failed_logins`) as one `through` there; `typed_whole` says whether the domain of the
    login was typed. Raises `WrongPassword`, `TooManyFailures`, `Busy`; each takes as long as for any other login.
    """
    if not _seats.acquire(blocking=False):
        raise Busy
    try:
        return _verify(login, password, client, app_scope, through, typed_whole)
    finally:
        _seats.release()


def second_step(user: User, is_right: Callable[[], bool], *, client: Address | None, guessable: bool) -> None:
    """Do the second step of signing in. Failures are counted by login, and delay the next.

    What is `guessable`, a code of an app, is refused after `CODES_AN_HOUR`. A passkey or a recovery code never is: else
    whoever knows the password could keep its owner out. What failed at other logins in the same network is not counted
    here: whoever gets so far has just given the password from there. Raises `WrongCode`, `TooManyFailures`, `Busy`.
    """
    if not _seats.acquire(blocking=False):
        raise Busy
    try:
        _second_step(user, is_right, client, guessable)
    finally:
        _seats.release()


def _second_step(user: User, is_right: Callable[[], bool], client: Address | None, guessable: bool) -> None:
    with scope.whole_host():
        mailbox = Mailbox.objects.open().filter(user=user).first()
    scope.let_go()

    def keep(reason: str) -> None:
        failed = failed_logins.failure(
            str(user),
            mailbox_id=mailbox.pk if mailbox else None,
            user_id=user.pk,
            reason=reason,
            through=FailedLogin.Through.ADMIN,
            client=client,
            typed_whole=True,
        )
        failed_logins.write(failed, client)
        scope.let_go()

    desk = _desk()
    try:
        attempt = desk.wait(desk.admit_second_step(user, client, guessable))
    except TooManyFailures:
        log.warning("second step refused unseen, after too many failures: %s from %s", user, client)
        keep(FailedLogin.Reason.UNSEEN)
        desk.wait(throttle.answer_on_tick(delay=0.0))
        raise
    if not is_right():
        log.info("second step failed: %s from %s", user, client)
        keep(FailedLogin.Reason.SECOND_STEP)
        desk.wait(throttle.answer_on_tick(delay=attempt.delay))
        raise WrongCode
    desk.wait(desk.took_second_step(attempt))


def _verify(
    login: str, password: str, client: Address | None, app_scope: str | None, through: str, typed_whole: bool
) -> SignedIn:
    try:
        address = addresses.address(login)
    except addresses.BadAddress:
        address = ""  # nobody has it; the refusal takes as long as any other
    found = _look_up(address, password, client, app_scope)
    scope.let_go()

    def keep(reason: str, app_password_id: int | None = None) -> None:
        failed = failed_logins.failure(
            address,
            mailbox_id=found.mailbox.pk if found.mailbox else None,
            user_id=found.user.pk if found.user else None,
            reason=reason,
            through=through,
            client=client,
            app_password_id=app_password_id,
            typed_whole=typed_whole,
        )
        failed_logins.write(failed, client)
        scope.let_go()

    desk = _desk()
    try:
        attempt = desk.wait(desk.admit(address, password, client, found))
    except TooManyFailures:
        log.warning("sign-in refused unseen, after too many failures: %s from %s", address or "no address", client)
        keep(FailedLogin.Reason.UNSEEN)
        desk.wait(throttle.answer_on_tick(delay=0.0))
        raise
    if not desk.wait(desk.check(password, found, attempt, client)):
        reason = f": app password {found.app_password_id} is {found.why_not}" if found.why_not else ""
        log.info("sign-in failed: %s from %s%s", address or "no address", client, reason)
        keep(failed_logins.reason(known=found.user is not None, app_password_is=found.why_not), found.app_password_id)
        desk.wait(throttle.answer_on_tick(delay=attempt.delay))
        raise WrongPassword
    assert found.user
    _succeeded(found, password, client)
    return SignedIn(found.user, found.app_password_id if found.why_not is None else None)


def _look_up(address: str, password: str, client: Address | None, app_scope: str | None) -> _Login:
    with scope.whole_host():
        user = User.objects.filter(email=address, is_active=True).first() if address else None
        mailbox = Mailbox.objects.open().filter(user=user).first() if user else None
        if mailbox is None:
            return _Login(user, None, known=False, app_password_id=None, why_not=None)
        networks = KnownNetwork.objects.filter(mailbox=mailbox, network=throttle.near(client))
        known = networks.filter(last_login_at__gt=timezone.now() - failed_logins.KNOWN_FOR).exists()
        app_password_id, why_not = None, None
        digest = app_passwords.digest(password) if app_scope else None
        if app_scope and digest:
            app_password_id, why_not = app_password_of(mailbox, client, app_scope, digest=digest)
        return _Login(user, mailbox, known, app_password_id, why_not)


def app_password_of(mailbox: Mailbox, client: Address | None, app_scope: str, **which: Any) -> tuple[Any, str | None]:
    """The id of an app password of the mailbox, found by its `digest` or `id`, and why it is not good from there.

    The id is None if there is none. Belongs into a scope that sees it.
    """
    assert app_scope in AppPassword.Scope.values
    ((column, value),) = which.items()
    assert column in ("digest", "id")
    statement = f"""
        SELECT app.id, {app_passwords.why_not(scope=app_scope, client="%(client)s::inet")}
        FROM accounts_apppassword app WHERE app.mailbox_id = %(mailbox)s AND app.{column} = %(value)s
    """
    with connection.cursor() as cursor:
        cursor.execute(
            statement, {"mailbox": mailbox.pk, "value": value, "client": str(client) if client is not None else None}
        )
        return cursor.fetchone() or (None, None)


def _succeeded(found: _Login, password: str, client: Address | None) -> None:
    """Keep what follows from a right password: where it came from, and a hash of ours in place of another server's."""
    with scope.whole_host():
        user, mailbox, now = found.user, found.mailbox, timezone.now()
        assert user
        if found.app_password_id is None or found.why_not is not None:
            if identify_hasher(user.password).must_update(user.password):
                user.check_password(password)
        else:
            AppPassword.objects.filter(pk=found.app_password_id).update(
                last_used_at=now, last_used_address=str(client) if client is not None else None
            )
        if mailbox is None:
            return
        network, made = KnownNetwork.objects.get_or_create(
            mailbox=mailbox,
            network=throttle.near(client),
            defaults={"tenant_id": mailbox.tenant_id, "last_login_at": now},
        )
        if not made and network.last_login_at < now - _AGAIN_AFTER:
            KnownNetwork.objects.filter(pk=network.pk).update(last_login_at=now)


class _Desk:
    """Where attempts wait: a thread with an event loop, the counters and the threads that check passwords."""

    def __init__(self) -> None:
        self._passwords = Passwords()
        self._throttle = Throttle(
            redis_url=settings.REDIS_URL,
            secret=hashlib.sha256(b"throttle" + settings.SECRET_KEY.encode()).digest(),
            enabled=settings.MAILHOST_THROTTLE,
        )
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="signing-in", daemon=True).start()
        atexit.register(self._close)

    def forget(self) -> None:
        """It is another process's."""
        atexit.unregister(self._close)

    def _close(self) -> None:
        self.wait(self._throttle.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._passwords.close()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of `work`, which is done in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def admit(self, address: str, password: str, client: Address | None, found: _Login) -> Attempt:
        """Count the attempt. Raises `TooManyFailures`."""
        known = found.known or (
            found.mailbox is None and await self._throttle.remembers(address=address, client=client)
        )
        return await self._throttle.admit(address=address, password=password, client=client, known=known)

    async def check(self, password: str, found: _Login, attempt: Attempt, client: Address | None) -> bool:
        """Whether the password is right. Raises `Busy`."""
        if found.app_password_id is None or found.why_not is not None:
            stored = found.user.password if found.user else None
            # Under no name: what was right once is checked again each time here.
            if not await self._passwords.check("", password, stored, network=""):
                return False
        await self._throttle.succeeded(attempt)
        if found.user and found.mailbox is None:
            await self._throttle.remember(address=str(found.user), client=client)
        return True

    async def admit_second_step(self, user: User, client: Address | None, guessable: bool) -> Attempt:
        """Count an attempt at the second step. Raises `TooManyFailures`."""
        # Each by itself: a code that was wrong may be right half a minute later.
        each = secrets.token_hex()
        if guessable:
            # Under no client: of the login alone.
            return await self._throttle.admit(
                address=f"codes of {user.pk}", password=each, client=None, known=False, most=CODES_AN_HOUR
            )
        return await self._throttle.admit(address=f"second step of {user.pk}", password=each, client=client, known=True)

    async def took_second_step(self, attempt: Attempt) -> None:
        """It was right, and does not count."""
        await self._throttle.succeeded(attempt)


_seats = threading.BoundedSemaphore(AT_ONCE)


@cache
def _desk() -> _Desk:
    return _Desk()


def _anew() -> None:
    """In a forked process, which has none of the threads."""
    global _seats
    _seats = threading.BoundedSemaphore(AT_ONCE)
    if _desk.cache_info().currsize:
        _desk().forget()
        _desk.cache_clear()


os.register_at_fork(after_in_child=_anew)
