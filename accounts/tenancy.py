"""Tenancy: what belongs to another tenant does not exist, and `visible_to` is the one door."""

from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from django.contrib.auth.models import AnonymousUser
from django.db import models

if TYPE_CHECKING:
    from accounts.models import User

M = TypeVar("M", bound=models.Model)


class TenantQuerySet(models.QuerySet[M]):
    """Rows of tenants."""

    def visible_to(self, principal: "User | AnonymousUser") -> Self:
        """The rows that exist for `principal`: all for an operator, for a tenant's staff its own."""
        if not principal.is_active or not principal.is_staff:
            return self.none()
        if principal.is_superuser:
            return self
        return self.filter(tenant_id=principal.tenant_id) if principal.tenant_id else self.none()


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


def owned(to: str, on_delete: Any = models.PROTECT, **options: Any) -> Any:
    """A relation to a row of the same tenant; a composite foreign key in a migration constrains it."""
    return models.ForeignKey(to, on_delete, db_constraint=False, **options)
