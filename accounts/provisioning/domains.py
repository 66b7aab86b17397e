"""Domains of tenants: added, changed, closed and reopened."""

from typing import Any, Final, TypedDict, Unpack

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from accounts import addresses, limits, principals
from accounts.models import Alias, Domain, Mailbox, Tenant
from accounts.provisioning import happened, values
from accounts.provisioning.aliases import remove_alias
from accounts.provisioning.lookups import hold
from accounts.provisioning.mailboxes import close_mailbox
from accounts.provisioning.refusals import BadValue, DomainTaken, OtherTenant, StillInUse, UnknownDomain

SEPARATORS: Final = ("", "+", "-", "=", "_", "#")
"""What can separate a subaddress."""


class DomainValues(TypedDict, total=False):
    """What of a domain can be changed."""

    external_id: str | None
    alias_of: Domain | None
    subaddress: str | None


def add_domain(
    name: str,
    *,
    tenant: Tenant,
    external_id: str | None = None,
    alias_of: Domain | None = None,
    subaddress: str | None = None,
    verified: bool | None = None,
) -> tuple[Domain, bool]:
    """A domain of a tenant; an existing one stays as it is.

    `verified`: whether it is known to be the tenant's; None: only if an operator adds it. Raises `DomainTaken`,
    `LimitReached`, `BadAddress`, `BadValue`, `OtherTenant`, `Taken`.
    """
    host = addresses.domain(name)
    wanted = _checked({"external_id": external_id, "alias_of": alias_of, "subaddress": subaddress}, tenant=tenant)
    if verified is None:
        acting = principals.acting()
        verified = acting.role == "operator" and acting.is_host_wide
    with transaction.atomic():
        if domain := Domain.objects.filter(name=host).first():
            if domain.tenant_id != tenant.pk:
                raise DomainTaken(_("%(host)s belongs to another tenant") % {"host": host})
            if domain.closed_at:
                raise DomainTaken(_("%(host)s was closed: reopen it") % {"host": host})
            return domain, False
        held = Tenant.objects.select_for_update(no_key=True).filter(pk=tenant.pk, closed_at=None)
        if held.first() is None:
            raise BadValue(_("%(tenant)s is closed") % {"tenant": tenant}, field="tenant")
        try:
            with transaction.atomic():
                domain = Domain.objects.create(
                    name=host,
                    tenant=tenant,
                    state=Domain.State.VERIFIED if verified else Domain.State.PENDING,
                    **wanted,
                )
        except IntegrityError as error:
            if values.is_of_external_id(error):
                raise values.taken(error) from None
            values.taken(error)
            raise DomainTaken(_("%(host)s belongs to another tenant") % {"host": host}) from None
        limits.open_for(domain)
        limits.charge(tenant_id=tenant.pk, domains=1)
        happened.to_domain("added", domain)
    return domain, True


def change_domain(domain: Domain, **given: Unpack[DomainValues]) -> None:
    """Give a domain these values. Raises `UnknownDomain`, `BadValue`, `OtherTenant`, `StillInUse`, `Taken`."""
    with transaction.atomic():
        found = Domain.objects.select_related("tenant", "alias_of").filter(pk=domain.pk, closed_at=None)
        row = found.select_for_update(no_key=True, of=("self",)).first()
        if row is None:
            raise UnknownDomain(_("%(domain)s is closed") % {"domain": domain})
        wanted = _checked(dict(given), tenant=row.tenant, domain=row)
        if changes := values.changed(row, wanted):
            values.write(Domain.objects.filter(pk=domain.pk), changes)
            happened.to_domain("changed", domain, changes)
    domain.refresh_from_db()


def close_domain(domain: Domain) -> bool:
    """End the use of a domain: its mailboxes are closed, its aliases removed; nothing of it takes mail.

    Its name is in quarantine until the last of its mailboxes is purged. Closing what is closed changes nothing.
    Returns whether it was open.
    """
    with transaction.atomic():
        if not Domain.objects.select_for_update().filter(pk=domain.pk, closed_at=None).first():
            return False
        for mailbox in hold(Mailbox.objects.filter(domain=domain)):
            close_mailbox(mailbox)
        for alias in Alias.objects.filter(domain=domain).order_by("pk"):
            remove_alias(alias)
        Domain.objects.filter(alias_of=domain).update(alias_of=None)
        Domain.objects.filter(pk=domain.pk).update(closed_at=Now(), alias_of=None)
        limits.charge(tenant_id=domain.tenant_id, domains=-1)
        happened.to_domain("closed", domain)
    domain.refresh_from_db()
    return True


def reopen_domain(domain: Domain) -> bool:
    """Undo `close_domain`, for the domain alone: its mailboxes are reopened each. Whether it was closed.

    Raises `UnknownDomain`.
    """
    with transaction.atomic():
        row = Domain.objects.select_related("tenant").select_for_update(of=("self",)).filter(pk=domain.pk).first()
        if row is None or row.tenant.closed_at:
            raise UnknownDomain(
                _("%(domain)s cannot be reopened: it was removed, or its tenant is closed") % {"domain": domain}
            )
        was_closed = row.closed_at is not None
        if was_closed:
            limits.charge(tenant_id=row.tenant_id, domains=1)
            Domain.objects.filter(pk=domain.pk).update(closed_at=None)
            happened.to_domain("reopened", row)
    domain.refresh_from_db()
    return was_closed


def _checked(wanted: dict[str, Any], *, tenant: Tenant, domain: Domain | None = None) -> dict[str, Any]:
    if "external_id" in wanted:
        wanted["external_id"] = values.external_id(wanted["external_id"])
    if wanted.get("subaddress") not in (None, *SEPARATORS):
        raise BadValue(
            _("a subaddress is separated by one of %(separators)s, or by nothing")
            % {"separators": " ".join(SEPARATORS[1:])},
            field="subaddress",
        )
    if target := wanted.get("alias_of"):
        if target.tenant_id != tenant.pk or target.closed_at:
            raise OtherTenant(_("%(target)s is not a domain of %(tenant)s") % {"target": target, "tenant": tenant})
        if target.alias_of_id or target == domain:
            raise BadValue(_("an alias domain stands for a domain that is none itself"), field="alias_of")
        if domain is not None:
            if Domain.objects.filter(alias_of=domain).exists():
                raise StillInUse(_("other domains are aliases of %(domain)s") % {"domain": domain})
            own = Q(domain=domain)
            if Mailbox.objects.open().filter(own).exists() or Alias.objects.filter(own).exists():
                raise StillInUse(_("%(domain)s has mailboxes or aliases of its own") % {"domain": domain})
    return wanted
