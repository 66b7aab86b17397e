"""Tenancy: what belongs to another tenant does not exist, and `visible_to` is the one door."""

from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from django.db import models
from django.db.models import Q

from accounts import principals

if TYPE_CHECKING:
    from accounts.principals import Who

M = TypeVar("M", bound=models.Model)


class TenantQuerySet(models.QuerySet[M]):
    """Rows of tenants.

    A model whose rows belong to a domain or to a mailbox says where: `domain_path` and `mailbox_path` are lookups of
    their keys. Where it has none, its rows do not exist for who sees one domain or one mailbox only.
    """

    def visible_to(self, who: "Who") -> Self:
        """The rows that exist for `who`."""
        principal = principals.of(who)
        if principal is None:
            return self.none()
        if principal.mailbox_id is not None:
            path = getattr(self.model, "mailbox_path", None)
            return self.filter(**{path: principal.mailbox_id}) if path else self.none()
        if principal.domain_ids is not None:
            path = getattr(self.model, "domain_path", None)
            return self.filter(**{f"{path}__in": principal.domain_ids}) if path else self.none()
        if principal.tenant_id is not None:
            return self.filter(tenant_id=principal.tenant_id)
        if principal.reseller_id is not None:
            of_tenants = Q(tenant_id__in=principals.tenants_of(principal.reseller_id))
            if hasattr(self.model, "reseller_id"):
                return self.filter(of_tenants | Q(tenant_id=None, reseller_id=principal.reseller_id))
            return self.filter(of_tenants)
        return self


class RootQuerySet(models.QuerySet[M]):
    """Resellers, plans and tenants themselves."""

    def visible_to(self, who: "Who") -> Self:
        """As `TenantQuerySet.visible_to`: everybody sees the tenant that he is in, a reseller itself and its own."""
        principal = principals.of(who)
        if principal is None:
            return self.none()
        is_tenant = self.model._meta.model_name == "tenant"
        if principal.tenant_id is not None:
            return self.filter(pk=principal.tenant_id) if is_tenant else self.none()
        if principal.reseller_id is not None:
            is_itself = self.model._meta.model_name == "reseller"
            return self.filter(**{"pk" if is_itself else "reseller_id": principal.reseller_id})
        return self


class TenantOwned(models.Model):
    """A row of one tenant.

    `tenant_id` stands in every table, with composite foreign keys `(tenant_id, x_id)` made in the migrations,
    so that the database itself refuses a reference across tenants and row-level security can stand on it.
    Django knows no composite foreign keys: hence `db_constraint=False` on the relations that one of them
    covers.
    """

    tenant = models.ForeignKey("accounts.Tenant", models.PROTECT, related_name="+", db_index=False, db_constraint=False)

    objects: ClassVar[Any] = TenantQuerySet.as_manager()

    class Meta:
        abstract = True


class OfLogin(models.Model):
    """A row of one login, which goes with it: the database removes it (ON DELETE CASCADE), whoever removes the login.

    No worker and no listener reads such rows, and none could remove them first.
    """

    user = models.ForeignKey("accounts.User", models.DO_NOTHING, db_constraint=False, related_name="+")

    class Meta:
        abstract = True


def owned(to: str, on_delete: Any = models.PROTECT, **options: Any) -> Any:
    """A relation to a row of the same tenant; a composite foreign key in a migration constrains it."""
    return models.ForeignKey(to, on_delete, db_constraint=False, **options)
