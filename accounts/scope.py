"""The second wall: what the database lets whoever asks see and change, by row-level security.

Web and API work as a role of the database (`WEB`) for which every tenant-owned table shows only the rows of the
tenants that the transaction names. One that names none sees nothing. Commands, listeners and workers work as other
roles (`accounts.database_roles`) and name nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from django.db import connection, transaction

from accounts import principals
from accounts.principals import Principal

T = TypeVar("T")

WEB: Final = "mailhost_web"

_GET = """
SELECT current_setting('role'), current_setting('mailhost.host', true), current_setting('mailhost.reseller', true),
    current_setting('mailhost.tenants', true)
"""
_SET = """
SELECT set_config('role', %s, true), set_config('mailhost.host', %s, true),
    set_config('mailhost.reseller', %s, true), set_config('mailhost.tenants', %s, true)
"""
_TENANTS = "SELECT coalesce(array_agg(id), '{}')::text FROM accounts_tenant WHERE reseller_id = %s"

_INCLUDE = """
SELECT set_config('mailhost.tenants', array_append(current_setting('mailhost.tenants')::bigint[], %s)::text, true)
FROM accounts_tenant
WHERE id = %s AND reseller_id = nullif(current_setting('mailhost.reseller', true), '')::bigint
"""

_HOST: Final = ("on", "", "")
_NOTHING: Final = ("", "", "")


@contextmanager
def entered(principal: Principal | None) -> Iterator[None]:
    """A transaction in which `principal` acts, and the database shows what exists for it; for None, nothing.

    Scopes nest; the one around is back afterwards.
    """
    with _transaction():
        _enter(principal)
        if principal is None:
            yield
            return
        with principals.acting_as(principal):
            yield


@contextmanager
def whole_host() -> Iterator[None]:
    """A transaction that sees every tenant: for finding out who asks, before anything is done for him."""
    with _transaction():
        _set(*_HOST)
        yield


def include(tenant_id: int) -> None:
    """A tenant that a reseller has just made belongs to the scope in which it was, from now on."""
    with connection.cursor() as cursor:
        cursor.execute(_INCLUDE, (tenant_id, tenant_id))


def attempt(principal: Principal | None, answer: Callable[[], T], *, keeps: Callable[[T], bool]) -> T:
    """What `answer` gives, in the scope of `principal`. Unless that `keeps` what was done, nothing was."""
    try:
        with entered(principal):
            return _kept(answer(), keeps)
    except _Undone as undone:
        kept: T = undone.answer
        return kept


def let_go() -> None:
    """Give the connection back, for as long as something else is waited for than the database. Outside of scopes."""
    if not connection.in_atomic_block:
        connection.close()


class _Undone(Exception):
    def __init__(self, answer: Any) -> None:
        self.answer = answer


def _kept(answer: T, keeps: Callable[[T], bool]) -> T:
    if not keeps(answer):
        raise _Undone(answer)
    return answer


def streamed(principal: Principal | None, rows: Callable[[], Iterable[T]]) -> Iterator[T]:
    """What `rows` gives, in a scope of its own that lasts as long as somebody reads: for answers that are streamed.

    The scope of the request has ended by then.
    """
    with entered(principal):
        yield from rows()


def _enter(principal: Principal | None) -> None:
    if principal is None:
        _set(*_NOTHING)
    elif principal.is_host_wide:
        _set(*_HOST)
    elif principal.tenant_id is not None:
        _set("", "", f"{{{principal.tenant_id}}}")
    else:
        _set(*_HOST)
        with connection.cursor() as cursor:
            cursor.execute(_TENANTS, (principal.reseller_id,))
            [tenants] = cursor.fetchone()
        _set("", str(principal.reseller_id), tenants)


def _set(host: str, reseller: str, tenants: str, role: str = WEB) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_SET, (role, host, reseller, tenants))


@contextmanager
def _transaction() -> Iterator[None]:
    """A transaction, or a savepoint after which the scope around is back."""
    if not connection.in_atomic_block:
        with transaction.atomic():
            yield  # what is set within ends with it
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_GET)
            role, host, reseller, tenants = cursor.fetchone()
        yield
        # Not after an error: the savepoint that is undone undoes what was set within.
        _set(host or "", reseller or "", tenants or "", role)
