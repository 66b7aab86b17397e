"""Plans over the API: what tenants may have, under a name."""

from typing import Any, ClassVar

import django_filters as filters
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import provisioning
from accounts.api.fields import LimitsShown, LimitsWanted, plural
from accounts.api.named import GONE
from accounts.api.problems import FieldError, Problem
from accounts.api.serializers import Strict, Text
from accounts.api.views import Resource
from accounts.models import Plan, Reseller, Tenant

# A subquery, since a row that is grouped cannot be locked.
_HAVING = Tenant.objects.filter(plan=OuterRef("pk")).order_by().values("plan").annotate(n=Count("pk")).values("n")


class PlanShown(serializers.ModelSerializer[Plan]):
    """What a tenant may have, under a name."""

    reseller = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)
    limits = LimitsShown(source="*", read_only=True)
    tenants = serializers.IntegerField(source="having", read_only=True, help_text="How many have it.")

    class Meta:
        model = Plan
        fields: ClassVar = ["id", "slug", "name", "reseller", "limits", "tenants", "created_at"]
        read_only_fields = fields


class PlanChange(Strict):
    """What of a plan is to change; its limits become those of every tenant that has it."""

    name = Text(max_length=200, required=False)
    limits = LimitsWanted(required=False)
    example: ClassVar = {"limits": {"max_mailboxes": 100}}


class PlanWanted(PlanChange):
    """A plan to be."""

    slug = Text(max_length=63, help_text="Its short name.")
    reseller = Text(max_length=63, required=False, allow_null=True, help_text="Whose it is. Operators say.")
    example: ClassVar = {"slug": "small", "name": "Small", "limits": {"max_mailboxes": 50, "max_octets": 53687091200}}


class PlanFilters(filters.FilterSet):  # type: ignore[misc] # django-filter has no types
    slug = filters.CharFilter()
    reseller = filters.CharFilter(field_name="reseller__slug")


class Plans(Resource):
    """Plans: the host's own, and each reseller's for its tenants."""

    resource = "plans"
    queryset = Plan.objects.select_related("reseller").annotate(having=Coalesce(Subquery(_HAVING), 0))
    serializer_class = PlanShown
    filterset_class = PlanFilters
    lookup_field = "id"
    lookup_value_regex = "[0-9]{1,18}"
    orderings = ("id",)
    volatile = frozenset({"tenants"})

    @extend_schema(request=PlanWanted, responses={201: PlanShown})
    def create(self, request: Request) -> HttpResponseBase:
        """Add one. 409 if it is there already."""
        wanted = self.body(PlanWanted)
        reseller = self._reseller(wanted.pop("reseller", None))
        plan, added = provisioning.add_plan(wanted.pop("slug"), reseller=reseller, **_flat(wanted))
        if not added:
            text = f"There is {plan} already."
            raise Problem("taken", text, errors=[FieldError("slug", "taken", text)])
        self.would("create", f"adds the plan {plan}", plans=1)
        return self.answer(self.rows().get(pk=plan.pk), status=201, headers={"Location": f"/api/v1/plans/{plan.pk}/"})

    @extend_schema(request=PlanChange, responses={200: PlanShown})
    def partial_update(self, request: Request, id: str) -> HttpResponseBase:
        """Change what the body names, for every tenant that has it, too."""
        plan = self.find(lock=True)
        provisioning.change_plan(plan, **_flat(self.body(PlanChange)))
        self.would("change", f"changes {plural(plan.having, 'tenant')}", tenants=plan.having)
        return self.answer(self.rows().get(pk=plan.pk))

    @extend_schema(responses={204: GONE})
    def destroy(self, request: Request, id: str) -> HttpResponseBase:
        """Remove it. 409 while tenants have it."""
        plan = self.find(lock=True)
        self.would("remove", f"removes the plan {plan}", plans=1)
        provisioning.remove_plan(plan)
        return Response(status=204)

    def _reseller(self, slug: str | None) -> Reseller | None:
        if self.principal.reseller_id is not None:
            own = Reseller.objects.get(pk=self.principal.reseller_id)
            if slug not in (None, own.slug):
                raise Problem("not-allowed", "Only operators say whose a plan is.", field="reseller")
            return own
        return self.named(Reseller, "reseller", slug=slug) if slug else None


def _flat(wanted: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = wanted.pop("limits", {})
    return wanted | given
