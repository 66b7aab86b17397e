"""What follows every change: its record in the audit, and the event that others are told."""

from collections.abc import Iterable, Mapping
from typing import Any

from accounts import audit, events
from accounts.events import Happened
from accounts.models import Alias, AuditEvent, Domain, Mailbox, Tenant

Changes = Mapping[str, tuple[Any, Any]]


def to_tenant(what: str, tenant: Tenant, changes: Changes | None = None) -> None:
    """Record and tell that `what`, such as `changed`, happened to a tenant."""
    audit.record(f"tenant.{what}", tenant, changes)
    events.emit(
        f"tenant.{what}",
        tenant_id=tenant.pk,
        payload=_told(tenant, changes, slug=tenant.slug),
    )


def to_domain(what: str, domain: Domain, changes: Changes | None = None, **told: Any) -> None:
    """Record and tell that `what` happened to a domain, and what else is `told`."""
    audit.record(f"domain.{what}", domain, changes, detail=told)
    events.emit(
        f"domain.{what}",
        tenant_id=domain.tenant_id,
        domain=domain.name,
        payload=_told(domain, changes, name=domain.name, **told),
    )


def to_mailbox(what: str, mailbox: Mailbox, changes: Changes | None = None, **told: Any) -> None:
    """Record and tell that `what` happened to a mailbox."""
    audit.record(f"mailbox.{what}", mailbox, changes)
    events.emit_many([_mailbox_event(what, mailbox, changes, **told)])


def to_mailboxes(what: str, mailboxes: Iterable[Mailbox]) -> None:
    """As `to_mailbox`, for many at once."""
    mailboxes = list(mailboxes)
    AuditEvent.objects.bulk_create([audit.event(f"mailbox.{what}", mailbox) for mailbox in mailboxes], batch_size=1000)
    events.emit_many(_mailbox_event(what, mailbox, None) for mailbox in mailboxes)


def to_alias(what: str, alias: Alias, changes: Changes | None = None) -> None:
    """Record and tell that `what` happened to an alias."""
    audit.record(f"alias.{what}", alias, changes)
    domain = alias.address.rpartition("@")[2]
    events.emit(
        f"alias.{what}", tenant_id=alias.tenant_id, domain=domain, payload={"id": alias.pk, "address": alias.address}
    )


def _mailbox_event(what: str, mailbox: Mailbox, changes: Changes | None, **more: Any) -> Happened:
    return Happened(
        f"mailbox.{what}",
        mailbox.tenant_id,
        _told(mailbox, changes, address=mailbox.address, **more),
        mailbox.address.rpartition("@")[2],
    )


def _told(row: Tenant | Domain | Mailbox, changes: Changes | None, **names: Any) -> dict[str, Any]:
    told = {"id": row.pk, **names, "external_id": row.external_id}
    return told | {"fields": sorted(changes)} if changes else told
