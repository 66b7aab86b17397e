"""Resellers and tenants: made, changed, closed and removed."""

from datetime import timedelta
from typing import Any, TypedDict, Unpack

from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from accounts import audit, limits, notices, scope
from accounts.models import Domain, Mailbox, Reseller, Tenant, User, WebhookDelivery
from accounts.provisioning import happened, values
from accounts.provisioning.domains import close_domain
from accounts.provisioning.lookups import hold, lock_open
from accounts.provisioning.refusals import BadValue, OtherTenant, StillInUse, UnknownReseller, UnknownTenant


class ResellerValues(TypedDict, total=False):
    """What of a reseller can be changed."""

    name: str
    external_id: str | None


class TenantValues(TypedDict, total=False):
    """What of a tenant can be changed."""

    name: str
    external_id: str | None
    reseller: Reseller | None
    retention: timedelta | None
    keep_time: timedelta | None
    admin_mailbox: Mailbox | None
    content_roles: list[str] | None


def add_reseller(slug: str, *, name: str = "", external_id: str | None = None) -> tuple[Reseller, bool]:
    """A reseller, called `name` or after its slug; an existing one stays as it is. Raises `BadValue`, `Taken`."""
    fields = {
        "name": values.name(name or values.slug(slug), of="reseller"),
        "external_id": values.external_id(external_id),
    }
    with transaction.atomic():
        if found := Reseller.objects.filter(slug=values.slug(slug)).first():
            return found, False
        try:
            with transaction.atomic():
                reseller = Reseller.objects.create(slug=slug, **fields)
        except IntegrityError as error:
            raise values.taken(error) from None
        limits.open_for(reseller)
        audit.record("reseller.created", reseller)
    return reseller, True


def change_reseller(reseller: Reseller, **given: Unpack[ResellerValues]) -> bool:
    """Give a reseller these values; whether any is new. Raises `UnknownReseller`, `BadValue`, `Taken`."""
    wanted: dict[str, Any] = dict(given)
    if "name" in wanted:
        wanted["name"] = values.name(wanted["name"], of="reseller")
    if "external_id" in wanted:
        wanted["external_id"] = values.external_id(wanted["external_id"])
    with transaction.atomic():
        row = Reseller.objects.select_for_update(no_key=True).filter(pk=reseller.pk).first()
        if row is None:
            raise UnknownReseller(_("%(reseller)s was removed") % {"reseller": reseller})
        if changes := values.changed(row, wanted):
            values.write(Reseller.objects.filter(pk=row.pk), changes)
            audit.record("reseller.changed", reseller, changes)
    reseller.refresh_from_db()
    return bool(changes)


def remove_reseller(reseller: Reseller) -> None:
    """Remove a reseller that owns nothing any more. Raises `StillInUse`."""
    with transaction.atomic():
        Reseller.objects.select_for_update().filter(pk=reseller.pk).first()
        if Tenant.objects.filter(reseller=reseller).exists():
            raise StillInUse(
                _("%(reseller)s has tenants: close them, or give them to another reseller") % {"reseller": reseller}
            )
        if User.objects.filter(reseller=reseller).exists():
            raise StillInUse(_("%(reseller)s has logins: remove them first") % {"reseller": reseller})
        audit.record("reseller.removed", reseller)
        Reseller.objects.filter(pk=reseller.pk).delete()


def add_tenant(
    slug: str,
    *,
    name: str = "",
    reseller: Reseller | None = None,
    external_id: str | None = None,
    retention: timedelta | None = None,
    keep_time: timedelta | None = None,
) -> tuple[Tenant, bool]:
    """A tenant, called `name` or after its slug; an existing one stays as it is. Raises `BadValue`, `Taken`."""
    fields = {
        "name": values.name(name or values.slug(slug), of="tenant"),
        "external_id": values.external_id(external_id),
        "retention": values.retention(retention),
        "keep_time": values.keep_time(keep_time),
    }
    with transaction.atomic():
        if found := Tenant.objects.filter(slug=values.slug(slug)).first():
            return found, False
        try:
            with transaction.atomic():
                tenant = Tenant.objects.create(slug=slug, reseller=reseller, **fields)
        except IntegrityError as error:  # somebody else's, who does not exist for whoever asks
            raise values.taken(error) from None
        scope.include(tenant.pk)
        limits.open_for(tenant)
        happened.to_tenant("created", tenant)
        if keep_time is not None:
            notices.all_changed()
    return tenant, True


def change_tenant(tenant: Tenant, **given: Unpack[TenantValues]) -> bool:
    """Give a tenant these values; whether any is new.

    Raises `UnknownTenant`, `BadValue`, `OtherTenant`, `UnknownMailbox`, `Taken`.
    """
    wanted: dict[str, Any] = dict(given)
    if "name" in wanted:
        wanted["name"] = values.name(wanted["name"], of="tenant")
    if "external_id" in wanted:
        wanted["external_id"] = values.external_id(wanted["external_id"])
    if "retention" in wanted:
        values.retention(wanted["retention"])
    if "keep_time" in wanted:
        values.keep_time(wanted["keep_time"])
    if "content_roles" in wanted:
        wanted["content_roles"] = values.content_roles(wanted["content_roles"])
    with transaction.atomic():
        if mailbox := wanted.get("admin_mailbox"):
            if mailbox.tenant_id != tenant.pk:
                raise OtherTenant(
                    _("%(mailbox)s is not a mailbox of %(tenant)s") % {"mailbox": mailbox, "tenant": tenant}
                )
            lock_open(mailbox)
        row = Tenant.objects.select_related("reseller", "admin_mailbox").filter(pk=tenant.pk)
        found = row.select_for_update(no_key=True, of=("self",)).first()
        if found is None:
            raise UnknownTenant(_("%(tenant)s was removed") % {"tenant": tenant})
        if changes := values.changed(found, wanted):
            if "reseller" in changes:
                _hand_over(found, *changes["reseller"])
            values.write(Tenant.objects.filter(pk=tenant.pk), changes)
            happened.to_tenant("changed", tenant, changes)
            if "keep_time" in changes:
                notices.all_changed()
    tenant.refresh_from_db()
    return bool(changes)


def close_tenant(tenant: Tenant) -> bool:
    """End the use of a tenant: its domains and mailboxes are closed, its people cannot sign in.

    Once all its mail is purged, the purge removes it. Closing what is closed changes nothing. Returns whether it was
    open.
    """
    with transaction.atomic():
        domains = list(Domain.objects.filter(tenant=tenant, closed_at=None).order_by("pk").select_for_update())
        hold(Mailbox.objects.filter(domain__in=domains))
        # Whoever adds a domain holds the tenant: after this it is there, and nobody begins to add another.
        Tenant.objects.select_for_update(no_key=True).filter(pk=tenant.pk).first()
        for domain in Domain.objects.filter(tenant=tenant, closed_at=None).order_by("pk"):
            close_domain(domain)
        was_open = bool(Tenant.objects.filter(pk=tenant.pk, closed_at=None).update(closed_at=Now()))
        if was_open:
            User.objects.filter(tenant=tenant).update(is_active=False)
            happened.to_tenant("closed", tenant)
    tenant.refresh_from_db()
    return was_open


def _hand_over(tenant: Tenant, before: Reseller | None, after: Reseller | None) -> None:
    """Count a tenant's all against its new reseller instead of the old, who is told nothing more. Raises `BadValue`."""
    if before is not None:
        WebhookDelivery.objects.filter(tenant=tenant, webhook__reseller=before, webhook__tenant=None).delete()
    try:
        limits.hand_over(tenant, before=before, after=after)
    except limits.LimitReached as refusal:
        raise BadValue(
            _("%(after)s cannot take %(tenant)s: %(refusal)s") % {"after": after, "tenant": tenant, "refusal": refusal},
            field="reseller",
        ) from None
    Tenant.objects.filter(pk=tenant.pk).update(plan=None)  # it was the old one's; the limits stay
