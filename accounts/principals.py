"""Who asks: a person or a program, what it is, and which part of the host exists for it."""

from collections.abc import Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from django.apps import apps
from django.contrib.auth.models import AnonymousUser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accounts.models import ApiToken, User

Through = Literal["api", "admin", "pages", "command", "system"]


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who asks. The narrowest of its ids says what exists for it; with none of them all does.

    `domain_ids` may be a subquery. `scopes` are what a token was given; None, as for people, is all that the role may.
    `told_to` are the roles of whoever was told its text: what a tenant keeps from them, it keeps from the token.
    """

    role: str
    reseller_id: int | None = None
    tenant_id: int | None = None
    domain_ids: Any = None
    mailbox_id: int | None = None
    user_id: int | None = None
    token_id: int | None = None
    scopes: frozenset[str] | None = None
    told_to: frozenset[str] = frozenset()
    through: Through = "system"
    address: IPv4Address | IPv6Address | str | None = None  # where it asks from
    name: str = field(default="", compare=False)  # for people to read

    @property
    def is_host_wide(self) -> bool:
        """Whether every tenant exists for it."""
        return self.reseller_id is None and self.tenant_id is None

    def via(self, through: Through, address: Any = None) -> "Principal":
        """The same, asking in this way from there."""
        return replace(self, through=through, address=address)


Who: TypeAlias = "User | AnonymousUser | ApiToken | Principal"

SYSTEM: Final = Principal(role="operator", through="system", name="system")
"""What happens by itself: tasks, listeners."""
COMMAND: Final = Principal(role="operator", through="command", name="manage.py")
"""Whoever can run commands on the host."""

_acting: ContextVar[Principal] = ContextVar("acting", default=SYSTEM)


def acting() -> Principal:
    """On whose behalf what is written now is written: the audit's "who"."""
    return _acting.get()


@contextmanager
def acting_as(principal: Principal) -> "Iterator[Principal]":
    """Within, `principal` is who acts. For what the database lets it see, use `accounts.scope.entered` instead."""
    token = _acting.set(principal)
    try:
        yield principal
    finally:
        _acting.reset(token)


def of(who: Who) -> Principal | None:
    """The principal that a user, a token or a principal is; None for whom nothing exists."""
    from accounts.models import ApiToken, User

    if isinstance(who, Principal):
        return who
    if isinstance(who, User):
        return of_user(who)
    if isinstance(who, ApiToken):
        return of_token(who)
    return None


def of_user(user: "User") -> Principal | None:
    """What a person is. Somebody with a role that manages others must be allowed to use the admin (`is_staff`)."""
    if not user.is_active or (user.role != "member" and not user.is_staff):
        return None
    base = Principal(role=user.role, user_id=user.pk, name=str(user))
    match user.role:
        case "operator":
            return base
        case "reseller":
            return replace(base, reseller_id=user.reseller_id) if user.reseller_id else None
        case "support":
            return replace(base, reseller_id=user.reseller_id, tenant_id=user.tenant_id)
        case "tenant-admin":
            return replace(base, tenant_id=user.tenant_id) if user.tenant_id else None
        case "domain-admin" if user.tenant_id:
            looked_after = apps.get_model("accounts", "DomainAdmin").objects.filter(user_id=user.pk)
            return replace(base, tenant_id=user.tenant_id, domain_ids=looked_after.values("domain_id"))
        case "member" if user.tenant_id:
            own = apps.get_model("accounts", "Mailbox").objects.open().filter(user_id=user.pk)
            mailbox_id = own.values_list("pk", flat=True).first()
            return replace(base, tenant_id=user.tenant_id, mailbox_id=mailbox_id) if mailbox_id else None
    return None


def of_token(token: "ApiToken") -> Principal:
    """What a program with this token is. Whether the token still holds is asked where it is presented."""
    return Principal(
        role=token.role,
        reseller_id=token.reseller_id,
        tenant_id=token.tenant_id,
        domain_ids=token.domains.through.objects.filter(apitoken_id=token.pk).values("domain_id")
        if token.role == "domain-admin"
        else None,
        mailbox_id=token.mailbox_id,
        token_id=token.pk,
        scopes=frozenset(token.scopes),
        told_to=frozenset(token.told_to),
        name=str(token),
    )


def tenants_of(reseller_id: int) -> Iterable[int]:
    """The ids of a reseller's tenants, as a subquery."""
    found: Any = apps.get_model("accounts", "Tenant").objects.filter(reseller_id=reseller_id).values("pk")
    return found  # type: ignore[no-any-return]
