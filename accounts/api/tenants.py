"""Resellers and tenants over the API."""

from typing import Any, ClassVar

import django_filters as filters
from django.db.models import Prefetch, Q, QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers

from accounts import addresses, permissions, provisioning
from accounts.api.fields import (
    Days,
    ExternalId,
    HasShown,
    LimitsShown,
    LimitsWanted,
    Seconds,
    closing,
    plural,
    set_limits,
)
from accounts.api.filters import At, Flag
from accounts.api.named import GONE, Named
from accounts.api.problems import Problem, about
from accounts.api.serializers import Strict, Text
from accounts.models import Allowance, Domain, Mailbox, Plan, Reseller, Tenant


class ResellerShown(serializers.ModelSerializer[Reseller]):
    """Sells mail hosting: owns tenants."""

    limits = LimitsShown(source="allowance", read_only=True)
    has = HasShown(source="allowance", read_only=True)

    class Meta:
        model = Reseller
        fields: ClassVar = ["slug", "name", "external_id", "limits", "has", "created_at"]
        read_only_fields = fields


class ResellerWanted(Strict):
    """What a reseller is to be."""

    slug = Text(max_length=63, required=False, help_text="Its short name, as the address has it.")
    name = Text(max_length=200, required=False)
    external_id = ExternalId()
    limits = LimitsWanted(required=False)
    example: ClassVar = {"name": "North Hosting", "limits": {"max_mailboxes": 10000}}


class ResellerAdded(ResellerWanted):
    """A reseller to be."""

    slug = Text(max_length=63, help_text="Its short name.")
    example: ClassVar = {"slug": "north", "name": "North Hosting", "limits": {"max_mailboxes": 10000}}


def written(added: type[Strict], wanted: type[Strict], shown: type[serializers.BaseSerializer[Any]]) -> Any:
    """How the handlers of a `Named` are described."""
    return extend_schema_view(
        create=extend_schema(request=added, responses={201: shown}),
        update=extend_schema(request=wanted, responses={200: shown, 201: shown}),
        partial_update=extend_schema(request=wanted, responses={200: shown}),
        destroy=extend_schema(responses={204: GONE}),
    )


class NameFilters(filters.FilterSet):  # type: ignore[misc] # django-filter has no types
    """What all that have names are looked for by."""

    external_id = filters.CharFilter()
    created_since = At(field_name="created_at", lookup_expr="gte")
    created_until = At(field_name="created_at", lookup_expr="lt")


class ResellerFilters(NameFilters):
    search = filters.CharFilter(method="begins", help_text="How the slug or the name begins.")

    def begins(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        return rows.filter(Q(slug__startswith=text.lower()) | Q(name__istartswith=text))


@written(ResellerAdded, ResellerWanted, ResellerShown)
class Resellers(Named):
    """Resellers, who own tenants."""

    resource = "resellers"
    queryset = Reseller.objects.select_related("allowance")
    serializer_class = ResellerShown
    wanted = ResellerWanted
    added = ResellerAdded
    filterset_class = ResellerFilters
    lookup_field = "slug"
    lookup_value_regex = "[^/]+"
    orderings = ("slug", "created_at")
    volatile = frozenset({"has"})

    def add(self, name: str, values: dict[str, Any]) -> tuple[Any, bool]:
        wanted = values.pop("limits", None)
        reseller, added = provisioning.add_reseller(name, **values)
        if added:
            set_limits(reseller, wanted, resource=self.resource, by=self.principal)
        else:
            values["limits"] = wanted
        return reseller, added

    def change(self, row: Any, values: dict[str, Any]) -> None:
        set_limits(row, values.pop("limits", None), resource=self.resource, by=self.principal)
        provisioning.change_reseller(row, **values)

    def remove(self, row: Any) -> None:
        self.would("remove", f"removes the reseller {row}", resellers=1)
        provisioning.remove_reseller(row)


class TenantShown(serializers.ModelSerializer[Tenant]):
    """A customer; owns domains."""

    reseller = serializers.SlugRelatedField[Reseller](slug_field="slug", read_only=True, allow_null=True)
    retention = Seconds(read_only=True, allow_null=True, help_text="Seconds. Null: the host's.")
    keep_time = Seconds(
        read_only=True,
        allow_null=True,
        help_text="Seconds, of whole days: mail that is in a maildrop for longer is expunged. Null: none is.",
    )
    admin_mailbox = serializers.SlugRelatedField[Any](slug_field="address", read_only=True, allow_null=True)
    plan = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)
    limits = serializers.SerializerMethodField()
    has = serializers.SerializerMethodField()

    class Meta:
        model = Tenant
        fields: ClassVar = [
            "slug", "name", "external_id", "reseller", "plan", "retention", "keep_time", "admin_mailbox",
            "content_roles", "limits", "has", "closed_at", "created_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(LimitsShown)
    def get_limits(self, tenant: Any) -> Any:
        return LimitsShown(tenant.own_allowance[0]).data

    @extend_schema_field(HasShown)
    def get_has(self, tenant: Any) -> Any:
        return HasShown(tenant.own_allowance[0]).data


class TenantWanted(Strict):
    """What a tenant is to be."""

    slug = Text(max_length=63, required=False, help_text="Its short name, as the address has it.")
    name = Text(max_length=200, required=False)
    external_id = ExternalId()
    reseller = Text(max_length=63, required=False, allow_null=True, help_text="Whose it is. Operators say.")
    retention = Seconds(
        required=False, allow_null=True, help_text="Seconds that expunged mail can be restored. Null: the host's."
    )
    keep_time = Days(
        required=False,
        allow_null=True,
        help_text="Seconds, of whole days: mail that is in a maildrop for longer is expunged. Null: none is.",
    )
    admin_mailbox = Text(
        max_length=320, required=False, allow_null=True, help_text="Takes the mail to postmaster@ where nobody does."
    )
    content_roles = serializers.ListField(
        child=serializers.ChoiceField([role.value for role in permissions.CONTENT_ROLES]),
        required=False,
        allow_null=True,
        help_text="Who may read what is in messages, beside their owners. Null: the host's. The tenant's admins say.",
    )
    plan = Text(
        max_length=63, required=False, allow_null=True, help_text="Whose limits it gets. Null: it keeps what it has."
    )
    limits = LimitsWanted(required=False, help_text="Of its own, after those of a plan.")
    example: ClassVar = {"name": "An Example", "external_id": "customer-4711", "limits": {"max_mailboxes": 50}}


class TenantAdded(TenantWanted):
    """A tenant to be."""

    slug = Text(max_length=63, help_text="Its short name.")
    example: ClassVar = {"slug": "example", **TenantWanted.example}


class TenantFilters(NameFilters):
    search = filters.CharFilter(method="begins", help_text="How the slug or the name begins.")
    reseller = filters.CharFilter(field_name="reseller__slug")
    plan = filters.CharFilter(field_name="plan__slug")
    closed = Flag(field_name="closed_at", lookup_expr="isnull", exclude=True)

    def begins(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        return rows.filter(Q(slug__startswith=text.lower()) | Q(name__istartswith=text))


@written(TenantAdded, TenantWanted, TenantShown)
class Tenants(Named):
    """Tenants, who own domains."""

    resource = "tenants"
    queryset = Tenant.objects.select_related("reseller", "admin_mailbox", "plan").prefetch_related(
        Prefetch("allowances", Allowance.objects.filter(domain=None), to_attr="own_allowance")
    )
    serializer_class = TenantShown
    wanted = TenantWanted
    added = TenantAdded
    filterset_class = TenantFilters
    lookup_field = "slug"
    lookup_value_regex = "[^/]+"
    orderings = ("slug", "created_at")
    volatile = frozenset({"has"})

    def add(self, name: str, values: dict[str, Any]) -> tuple[Any, bool]:
        given = self._named(dict(values), None)
        wanted, plan = given.pop("limits", None), given.pop("plan", None)
        later = {field: given.pop(field) for field in ("admin_mailbox",) if given.get(field)}
        given.pop("admin_mailbox", None)
        given.pop("content_roles", None)
        if self.principal.reseller_id is not None:
            given["reseller"] = Reseller.objects.get(pk=self.principal.reseller_id)
        tenant, added = provisioning.add_tenant(name, **given)
        if added:
            if later:
                provisioning.change_tenant(tenant, **later)
            self._move(tenant, plan)
            set_limits(tenant, wanted, resource=self.resource, by=self.principal)
        return tenant, added

    def change(self, row: Any, values: dict[str, Any]) -> None:
        values = self._named(dict(values), row)
        wanted = values.pop("limits", None)
        moves, plan = "plan" in values, values.pop("plan", None)
        provisioning.change_tenant(row, **values)
        if moves:
            self._move(row, plan)
        set_limits(row, wanted, resource=self.resource, by=self.principal)

    def remove(self, row: Any) -> None:
        domains = Domain.objects.filter(tenant=row, closed_at=None).count()
        summary, counts = closing(f"{plural(domains, 'domain')} and ", tenant=row)
        self.would("close", summary, domains=domains, **counts)
        provisioning.close_tenant(row)

    def _move(self, tenant: Tenant, slug: str | None) -> None:
        """Give it a plan, of those for its reseller's tenants."""
        if slug == (tenant.plan.slug if tenant.plan else None):
            return
        permissions.check(self.principal, self.resource, "limits")
        plan = self.named(Plan, "plan", slug=slug, reseller=tenant.reseller_id) if slug else None
        provisioning.move_to_plan(tenant, plan)

    def _named(self, values: dict[str, Any], tenant: Tenant | None) -> dict[str, Any]:
        if values.get("admin_mailbox"):
            with about("admin_mailbox"):
                address = addresses.address(values["admin_mailbox"])
            values["admin_mailbox"] = self.named(
                Mailbox, "mailbox", "admin_mailbox", address=address, closed_at=None, tenant=tenant
            )
        if values.get("content_roles") != (tenant.content_roles if tenant else None) and "content_roles" in values:
            permissions.check(self.principal, self.resource, "content-roles")
        if "reseller" in values:
            before = tenant.reseller_id if tenant else self.principal.reseller_id
            found = self.named(Reseller, "reseller", slug=values["reseller"]) if values["reseller"] else None
            if not self.principal.is_host_wide and (found.pk if found else None) != before:
                raise Problem("not-allowed", "Only operators say whose a tenant is.", field="reseller")
            values["reseller"] = found
        return values
