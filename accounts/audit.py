"""The audit: who changed what, written in the transaction of the change. Only ever added to."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from django.db.models import Model

from accounts import principals
from accounts.models import Alias, AuditEvent, Domain, Mailbox, Plan, Reseller, Tenant, User

PERSONAL: Final = frozenset(
    {"address", "addresses", "allowed_networks", "email", "external_id", "name", "password", "state_reason", "targets",
     "url"}
)  # fmt: skip
"""Fields of which only is told that they changed."""

Changes = Mapping[str, tuple[Any, Any]]


def record(
    action: str, target: Model, changes: Changes | None = None, *, detail: Mapping[str, Any] | None = None
) -> None:
    """Write that whoever acts (`principals.acting`) did `action`, such as `mailbox.suspended`, to `target`.

    `changes` are before and after, by field; those of `PERSONAL` are not told. `detail` is told as it is: numbers and
    words of ours. Belongs into the transaction of the change.
    """
    AuditEvent.objects.bulk_create([event(action, target, changes, detail=detail)])


def event(
    action: str, target: Model, changes: Changes | None = None, *, detail: Mapping[str, Any] | None = None
) -> AuditEvent:
    """The row that `record` writes, for those who write many at once."""
    who = principals.acting()
    told = {
        name: None if name in PERSONAL else [_plain(before), _plain(after)]
        for name, (before, after) in (changes or {}).items()
        if before != after
    }
    return AuditEvent(
        user_id=who.user_id,
        token_id=who.token_id,
        role=who.role if who.user_id or who.token_id else "",
        through=who.through,
        client_address=str(who.address) if who.address else None,
        action=action,
        target_kind=target._meta.model_name or "",
        target_id=target.pk if isinstance(target.pk, int) else None,
        target=str(target)[:253] if isinstance(target, Reseller | Plan | Tenant | Domain) else "",
        tenant_id=target.pk if isinstance(target, Tenant) else getattr(target, "tenant_id", None),
        reseller_id=target.pk if isinstance(target, Reseller) else getattr(target, "reseller_id", None),
        domain_id=_domain_of(target),
        mailbox_id=_mailbox_of(target),
        changes=told | dict(detail or {}),
    )


def _domain_of(target: Model) -> int | None:
    if isinstance(target, Domain):
        return target.pk
    domain: int | None = getattr(target, "domain_id", None)
    if domain is None and (mailbox := _mailbox_of(target)):  # its domain's admins see that, too
        domain = Mailbox.objects.filter(pk=mailbox).values_list("domain_id", flat=True).first()
    return domain


def _mailbox_of(target: Model) -> int | None:
    if isinstance(target, Mailbox):
        return target.pk
    if isinstance(target, User | Alias):
        return None
    mailbox: int | None = getattr(target, "mailbox_id", None)
    return mailbox


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)
