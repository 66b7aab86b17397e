"""The admin of tenants: limits, plan, and who may read."""

from functools import partial
from typing import Any, ClassVar

from django import forms
from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from accounts import limits, permissions, provisioning, together
from accounts.admin.provisioned import DaysField, Limited, LimitedPage, ProvisioningForm, is_host_wide
from accounts.models import Mailbox, Plan, Reseller, Role, Tenant
from accounts.scoped import links


class TenantAddForm(ProvisioningForm):
    class Meta:
        model = Tenant
        fields = ("slug", "name", "reseller", "external_id", "plan")

    def write(self) -> Tenant:
        values = dict(self.cleaned_data)
        plan = values.pop("plan")
        if self.principal.reseller_id is not None:
            values["reseller"] = Reseller.objects.get(pk=self.principal.reseller_id)
        tenant, added = provisioning.add_tenant(values.pop("slug"), **values)
        if not added:
            raise provisioning.Taken(gettext("there is a tenant %(tenant)s already") % {"tenant": tenant})
        if plan is not None:
            provisioning.move_to_plan(tenant, plan)
        return tenant


class TenantForm(Limited):
    keep_time = DaysField(
        label=_("Keep-time"),
        help_text=_("Days that mail stays in a maildrop; then it is removed, and can be restored. Empty: for ever."),
    )
    content_by_host = forms.BooleanField(required=False, label=_("Messages are read by whom the host says"))
    content_roles = forms.MultipleChoiceField(
        required=False,
        label=_("Messages are read by"),
        choices=[(role.value, role.label) for role in permissions.CONTENT_ROLES],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text=_(
            "Who may read, and export, what is in messages, where its role may at all. Their owner always may. "
            "Support: this tenant's; that of the host or of the reseller only if these may, too."
        ),
    )
    fields_for: ClassVar = {**Limited.fields_for, "content-roles": ("content_by_host", "content_roles")}

    class Meta:
        model = Tenant
        fields = ("name", "external_id", "reseller", "plan", "retention", "admin_mailbox")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if tenant := kwargs.get("instance"):
            policy = {"content_by_host": tenant.content_roles is None, "content_roles": tenant.content_roles or []}
            kwargs["initial"] = policy | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)
        if "content_by_host" in self.fields:
            self.fields["content_by_host"].help_text = gettext("Now: %(roles)s.") % {"roles": _host_readers()}
        if not self.principal.is_host_wide:  # whose it is, the host says
            self.fields.pop("reseller", None)

    def write(self) -> Any:
        values = self.given("name", "external_id", "reseller", "retention", "keep_time", "admin_mailbox")
        before = self.instance.plan_id if "plan" not in self.fields else Tenant.objects.get(pk=self.instance.pk).plan_id
        if policy := self.given("content_by_host", "content_roles"):
            values["content_roles"] = None if policy["content_by_host"] else policy["content_roles"]
            if policy["content_by_host"] and policy["content_roles"]:
                raise provisioning.BadValue(
                    gettext("choose roles, or that the host says; not both"), field="content_by_host"
                )
        provisioning.change_tenant(self.instance, **values)
        plan = self.cleaned_data.get("plan")
        if "plan" in self.fields and (plan.pk if plan else None) != before:
            provisioning.move_to_plan(self.instance, plan)  # with its limits, whatever else stands in the form
        else:
            self.limit(self.instance)
        return self.instance


def _host_readers() -> str:
    """Whom the host lets read messages, where the tenant says nothing."""
    roles = [str(role.label) for role in permissions.CONTENT_ROLES if role in settings.MAILHOST_CONTENT_ROLES]
    return ", ".join(roles) or gettext("nobody but their owners")


class _PlanForm(forms.Form):
    def __init__(self, *args: Any, request: HttpRequest) -> None:
        super().__init__(*args)
        self.fields["plan"] = forms.ModelChoiceField(Plan.objects.visible_to(request.user), label=_("Plan"))


class LimitsFilter(admin.SimpleListFilter):
    title = _("limits")
    parameter_name = "limits"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("near", _("Nearly reached"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() != "near":
            return queryset
        return queryset.filter(pk__in=limits.nearly_reached().values("pk"))


@admin.register(Tenant)
class TenantAdmin(LimitedPage):
    """Tenants, who own domains."""

    resource = "tenants"
    ending = (_("Close"), _("Closed"))
    ended = "closed_at"
    meaning = _("Its domains and mailboxes are closed, its people cannot sign in, and it goes when its mail is purged.")
    form = TenantForm
    add_form = TenantAddForm
    list_display = ("slug", "name", "reseller", "plan", "created_at", "closed_at", "pages")
    list_filter = (LimitsFilter,)
    list_select_related = ("admin_mailbox", "reseller", "plan")
    ordering = ("slug",)
    search_fields = ("slug__startswith", "name__icontains", "external_id__startswith")
    autocomplete_fields = ("admin_mailbox", "reseller", "plan")
    narrowed_by = ("plan__id__exact",)
    actions = ("move_plan",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related(*self.list_select_related)

    def get_list_display(self, request: HttpRequest) -> Any:
        shown = super().get_list_display(request)
        return shown if self.may(request, "limits") else [column for column in shown if column != "plan"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        whose = ("reseller",) if is_host_wide(request) else ()
        plan = ("plan",) if self.may(request, "limits") else ()
        if obj is None:
            return ("slug", "name", *whose, *plan, "external_id")
        return (
            "slug", "name", "external_id", *whose, "retention", "keep_time", "admin_mailbox", "has", *plan,
            *self.limit_fields(request),
            *(("content_by_host", "content_roles") if self.may(request, "content-roles") else ("read_by",)),
            "created_at", "closed_at", "pages",
        )  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("slug", "has", "read_by", "created_at", "closed_at", "pages") if obj else ()

    def has_limits_permission(self, request: HttpRequest) -> bool:
        """For the action."""
        return self.may(request, "limits")

    @admin.action(permissions=["limits"], description=_("Move to a plan"))
    def move_plan(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> HttpResponse | None:
        form = _PlanForm(together.answers(request), request=request)
        asking = together.confirmed(
            self,
            request,
            queryset,
            title=gettext("Move tenants to a plan"),
            meaning=gettext(
                "They get its limits at once. What is more than a limit stays; nothing can be added to it."
            ),
            facts=lambda given: together.of_plan(queryset, given),
            form=form,
            button=gettext("Move"),
        )
        if asking is None:
            plan = form.cleaned_data["plan"]
            move = partial(provisioning.move_to_plan, plan=plan)
            self.each(request, queryset, move, gettext("on the plan %(plan)s") % {"plan": plan})
        return asking

    def facts(self, rows: QuerySet[Any]) -> together.Facts:
        return together.of_mailboxes(Mailbox.objects.filter(tenant__in=rows, closed_at=None))

    def end(self, row: Any) -> bool:
        return provisioning.close_tenant(row)

    @admin.display(description=_("messages are read by"))
    def read_by(self, tenant: Tenant) -> str:
        if tenant.content_roles is None:
            return gettext("%(roles)s, as the host says") % {"roles": _host_readers()}
        return ", ".join(Role(role).label for role in tenant.content_roles) or gettext("nobody but their owners")

    @admin.display(description=_("what it has"))
    def pages(self, tenant: Tenant) -> str:
        return links(
            tenant.pk,
            (gettext("Domains"), "admin:accounts_domain_changelist", "tenant__id__exact"),
            (gettext("Mailboxes"), "admin:accounts_mailbox_changelist", "tenant__id__exact"),
        )
