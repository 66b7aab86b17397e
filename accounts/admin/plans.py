"""The admin of plans."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts import languages, limits, provisioning, quotas
from accounts.admin.provisioned import Provisioned, ProvisioningForm, QuotaField, is_host_wide
from accounts.models import Plan, Reseller
from accounts.scoped import links


class PlanAddForm(ProvisioningForm):
    max_octets = QuotaField(label=_("Max octets"))

    class Meta:
        model = Plan
        fields = ("slug", "name", "reseller", "max_domains", "max_mailboxes", "max_aliases")

    def write(self) -> Plan:
        values = dict(self.cleaned_data)
        if self.principal.reseller_id is not None:
            values["reseller"] = Reseller.objects.get(pk=self.principal.reseller_id)
        plan, added = provisioning.add_plan(values.pop("slug"), **values)
        if not added:
            raise provisioning.Taken(gettext("there is a plan %(plan)s already") % {"plan": plan})
        return plan


class PlanForm(ProvisioningForm):
    max_octets = QuotaField(label=_("Max octets"))

    class Meta:
        model = Plan
        fields = ("name", "max_domains", "max_mailboxes", "max_aliases")

    def write(self) -> Any:
        plan = Plan.objects.get(pk=self.instance.pk)
        provisioning.change_plan(plan, **self.given("name", *limits.FIELDS))
        return plan


@admin.register(Plan)
class PlanAdmin(Provisioned):
    """Plans: what tenants may have, under a name. A change holds for all who have it."""

    resource = "plans"
    meaning = _("No tenant may have it any more.")
    form = PlanForm
    add_form = PlanAddForm
    list_display = ("slug", "name", "reseller", "max_domains", "max_mailboxes", "max_aliases", "octets", "tenants")
    list_select_related = ("reseller",)
    ordering = ("slug", "pk")
    search_fields = ("slug__startswith", "name__icontains")
    autocomplete_fields = ("reseller",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        found: QuerySet[Any] = super().get_queryset(request).annotate(having=Count("tenants"))
        return found

    def get_list_display(self, request: HttpRequest) -> Any:
        shown = super().get_list_display(request)
        return shown if is_host_wide(request) else [column for column in shown if column != "reseller"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        whose = ("reseller",) if is_host_wide(request) else ()
        return ("slug", "name", *whose, *limits.FIELDS, *(("tenants", "created_at") if obj else ()))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("slug", "reseller", "tenants", "created_at") if obj else ()

    def end(self, row: Any) -> None:
        provisioning.remove_plan(row)

    @admin.display(description=_("octets"))
    def octets(self, plan: Plan) -> str:
        return quotas.rounded(plan.max_octets)

    @admin.display(description=_("tenants"))
    def tenants(self, plan: Any) -> str:
        return links(plan.pk, (languages.number(plan.having), "admin:accounts_tenant_changelist", "plan__id__exact"))
