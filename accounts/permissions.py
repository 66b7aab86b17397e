"""Who may do what: the one table, for API and admin alike. What exists for whom is `visible_to`'s to say.

`docs/roles.md` is made from it.
"""

from collections.abc import Collection
from typing import Final

from django.utils.translation import gettext as _

from accounts.models import Role, Tenant
from accounts.principals import Principal

_OPERATOR: Final = frozenset({Role.OPERATOR})
_RESELLER: Final = _OPERATOR | {Role.RESELLER}
_TENANT: Final = _RESELLER | {Role.TENANT_ADMIN}
_DOMAIN: Final = _TENANT | {Role.DOMAIN_ADMIN}
_SUPPORT: Final = _DOMAIN | {Role.SUPPORT}
_EVERYBODY: Final = _SUPPORT | {Role.MEMBER}

TABLE: Final[dict[str, dict[str, frozenset[Role]]]] = {
    "resellers": {
        "read": _RESELLER,
        "create": _OPERATOR,
        "change": _OPERATOR,
        "delete": _OPERATOR,
        "limits": _OPERATOR,
    },
    "plans": {
        "read": _RESELLER,
        "create": _RESELLER,
        "change": _RESELLER,
        "delete": _RESELLER,
    },
    "tenants": {
        "read": _SUPPORT,
        "create": _RESELLER,
        "change": _TENANT,
        "delete": _RESELLER,
        "limits": _RESELLER,
        "content-roles": frozenset({Role.TENANT_ADMIN}),
    },
    "domains": {
        "read": _SUPPORT,
        "create": _TENANT,
        "change": _TENANT,
        "delete": _TENANT,
        "check": _DOMAIN,
        "verify": _OPERATOR,
        "move": _RESELLER,
        "limits": _RESELLER,
    },
    "mailboxes": {
        "read": _EVERYBODY,
        "create": _DOMAIN,
        "change": _DOMAIN,
        "password": _DOMAIN,
        "delete": _DOMAIN,
        "reopen": _DOMAIN,
        "erase": _TENANT,
        "hold": _TENANT,
        "export": _TENANT | {Role.MEMBER},
        "list-export": _DOMAIN,
    },
    "aliases": {
        "read": _SUPPORT,
        "list-export": _DOMAIN,
        "create": _DOMAIN,
        "change": _DOMAIN,
        "delete": _DOMAIN,
    },
    "app-passwords": {
        "read": _DOMAIN | {Role.MEMBER},
        "create": _DOMAIN | {Role.MEMBER},
        "change": _DOMAIN | {Role.MEMBER},
        "delete": _DOMAIN | {Role.MEMBER},
    },
    "messages": {
        "read": _EVERYBODY,
        "content": _EVERYBODY,
        "deliver": _TENANT,
        "expunge": _DOMAIN | {Role.MEMBER},
        "restore": _EVERYBODY,
    },
    "sessions": {
        "read": _EVERYBODY,
        "end": _EVERYBODY,
    },
    "imports": {
        "read": _SUPPORT,
        "create": _DOMAIN,
        "change": _DOMAIN,
    },
    "logins": {
        "read": _TENANT | {Role.SUPPORT},
        "create": _TENANT,
        "change": _TENANT,
        "password": _TENANT,
        "delete": _TENANT,
    },
    "tokens": {
        "read": _TENANT,
        "create": _TENANT,
        "rotate": _TENANT,
        "delete": _TENANT,
    },
    "webhooks": {
        "read": _TENANT,
        "create": _TENANT,
        "change": _TENANT,
        "delete": _TENANT,
        "replay": _TENANT,
    },
    "audit-events": {
        "read": _SUPPORT,
        "export": _TENANT,
    },
    "why": {
        "read": _SUPPORT,
        "reset": _DOMAIN,
    },
    "usage": {
        "read": _SUPPORT,
    },
    "listeners": {
        "read": _OPERATOR,
    },
}
"""By resource and verb, the roles that may; each in what exists for it, and nobody beyond."""

MAKES: Final[dict[str, frozenset[str]]] = {
    Role.OPERATOR: frozenset(Role),
    Role.RESELLER: frozenset(Role) - {Role.OPERATOR},
    Role.TENANT_ADMIN: frozenset({Role.TENANT_ADMIN, Role.DOMAIN_ADMIN, Role.SUPPORT, Role.MEMBER}),
}
"""By role, the roles of the logins and tokens that it makes, and whose passwords it sets."""

CONTENT_ROLES: Final = (Role.OPERATOR, Role.RESELLER, Role.TENANT_ADMIN, Role.DOMAIN_ADMIN, Role.SUPPORT)
"""Of these, a tenant says which may read its messages. The owner of a mailbox always may."""

_READING: Final = frozenset({"read", "content", "export", "list-export"})

SCOPES: Final = tuple(
    f"{resource}:{kind}"
    for resource, verbs in TABLE.items()
    for kind in ("read", "write")
    if kind == "read" or not verbs.keys() <= _READING
)
"""What a token can be given: some of what its role may."""


class NotAllowed(Exception):
    """Whoever asks may see it, and not do that; the text says what is missing."""


def scope_of(resource: str, verb: str) -> str:
    """The scope that a token needs for it."""
    return f"{resource}:{'read' if verb in _READING else 'write'}"


def scopes_of(role: str) -> frozenset[str]:
    """All scopes with which this role may do anything."""
    return frozenset(
        scope_of(resource, verb) for resource, verbs in TABLE.items() for verb, roles in verbs.items() if role in roles
    )


def makes(principal: Principal, role: str) -> bool:
    """Whether it makes somebody, or something, with that role. Nobody makes what may more than himself."""
    return role in MAKES.get(principal.role, ())


def may(principal: Principal, resource: str, verb: str) -> bool:
    """Whether it may do that to what exists for it."""
    try:
        check(principal, resource, verb)
    except NotAllowed:
        return False
    return True


def check(principal: Principal, resource: str, verb: str) -> None:
    """Raises `NotAllowed`."""
    for role in (principal.role, *sorted(principal.told_to)):
        if role not in TABLE[resource][verb]:
            raise NotAllowed(
                _("the role %(role)s may not do that (%(resource)s: %(verb)s)")
                % {"role": role, "resource": resource, "verb": verb}
            )
    if principal.scopes is not None and (scope := scope_of(resource, verb)) not in principal.scopes:
        raise NotAllowed(_("the token does not have the scope %(scope)s") % {"scope": scope})


def check_content(principal: Principal, tenant: Tenant, *, default: Collection[str]) -> None:
    """Raises `NotAllowed` where the tenant's policy, or else the host's, keeps it from reading what is in messages.

    Somebody of the host's, or of the reseller's, support needs both: that support may, and that they may. A token needs
    that whoever was told its text may: else who may not read would make himself a token of somebody who does.
    """
    allowed = set(default if tenant.content_roles is None else tenant.content_roles)
    beyond = Role.OPERATOR if principal.reseller_id is None else Role.RESELLER
    needed = {principal.role} if principal.tenant_id is not None else {principal.role, beyond}
    if principal.role != Role.MEMBER and not needed <= allowed:
        raise NotAllowed(
            _("the tenant's policy does not let the role %(role)s read what is in messages") % {"role": principal.role}
        )
    if withheld := principal.told_to - allowed:
        raise NotAllowed(
            _("the tenant's policy does not let the role %(role)s, which made the token, read what is in messages")
            % {"role": min(withheld)}
        )


def as_markdown() -> str:
    """The table for people: docs/roles.md."""
    lines = [_ABOUT, f"| | {' | '.join(role.value for role in Role)} | scope |", "|---" * (len(Role) + 2) + "|"]
    for resource, verbs in TABLE.items():
        lines.append(f"| **{resource}** |{' |' * (len(Role) + 1)}")
        for verb, roles in verbs.items():
            marks = " | ".join("yes" if role in roles else "–" for role in Role)
            lines.append(f"| {verb} | {marks} | `{scope_of(resource, verb)}` |")
    return "\n".join(lines) + "\n"


_ABOUT = """\
# Roles

Who may do what, in what exists for them. Made from `accounts/permissions.py` by `manage.py writedocs`; the API and the
admin ask the same table.

| role | what exists for it |
|---|---|
| operator | the whole host |
| reseller | its tenants, with all that is in them |
| tenant-admin | its tenant |
| domain-admin | the domains it looks after, with their mailboxes and aliases |
| support | its tenant, its reseller's tenants, or the host: to read, to restore messages, to end sessions |
| member | its own mailbox |

What does not exist for somebody is answered with 404. What exists, and may not be done, with 403 and the code
`not-allowed`. A token may do what its role may, as far as it was given the scope.

What is in messages is read, and exported, only by roles of this table that the tenant's policy (`content_roles`) names,
or where it has none the host's (`MAILHOST_CONTENT_ROLES`); and by their owner. A token reads them where the policy also
names the role of whoever made or rotated it, and changes the policy only if a tenant-admin did. Commands on the host
are not bound.
"""
