"""The admin of who has mail. Its forms write through `accounts.provisioning`, and so does everything else here."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import quote, unquote
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext, pgettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminSelectWidget

from accounts import (
    addresses,
    app_passwords,
    events,
    languages,
    limits,
    permissions,
    principals,
    provisioning,
    quotas,
    tasks,
    together,
    tokens,
    verification,
    webhooks,
)
from accounts.importing import Importing
from accounts.middleware import Waiting
from accounts.models import (
    Alias,
    ApiToken,
    AppPassword,
    AuditEvent,
    Domain,
    FailedLogin,
    Mailbox,
    Plan,
    Reseller,
    Role,
    Tenant,
    User,
    Webhook,
    WebhookDelivery,
    little_room,
)
from accounts.principals import Principal
from accounts.provisioning import REFUSALS, UnknownDomain
from accounts.scoped import ReadOnly, RowPage, Scoped, SinceFilter, TenantFilter, dress, links, sees_tenants
from accounts.spreadsheets import aliases as alias_sheets
from accounts.spreadsheets import mailboxes as mailbox_sheets
from accounts.two_factor import row_pages
from accounts.zone import page as zone_page

if TYPE_CHECKING:  # unfold has no types
    from django.contrib.admin.views.main import ChangeList
else:
    from unfold.views import ChangeList

admin.site.unregister(Group)  # what somebody may do follows from his role


# --- Forms that write ----------------------------------------------------------------------------------------------


class ProvisioningForm(forms.ModelForm):  # type: ignore[type-arg] # Django's is not generic when it runs
    """A form that is checked by doing what it asks for.

    So a check has one home, and what is refused stands in the form. The page is one transaction: if anything is
    wrong after this, nothing was done.
    """

    request: HttpRequest  # set by `Provisioned.get_form`
    page: "Provisioned"  # so, too
    fields_for: ClassVar[dict[str, tuple[str, ...]]] = {}
    """By verb of the table, the fields that are only there for who may do that."""

    shown_once: tuple[str, str] | None = None
    """A secret that was made: what it is, and its text."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for verb, names in self.fields_for.items():
            if not self.page.may(self.request, verb):
                for name in names:
                    self.fields.pop(name, None)
        dress(self)

    @property
    def principal(self) -> Principal:
        """Who fills it in."""
        return cast("Principal", principals.of(self.request.user))

    def write(self) -> Any:
        """Do it, and return what was written. Raises any of `REFUSALS`."""
        raise NotImplementedError

    def given(self, *names: str) -> dict[str, Any]:
        """Those of these fields that are there."""
        return {name: self.cleaned_data[name] for name in names if name in self.fields}

    def _post_clean(self) -> None:
        if self.errors:
            return
        try:
            with transaction.atomic():
                self.instance = self.write()
        except REFUSALS as refusal:
            field = getattr(refusal, "field", "")
            self.add_error(field if field in self.fields else None, f"{refusal}.")


class Provisioned(Scoped):
    """A page whose forms write, and whose rows end by `end`."""

    form = ProvisioningForm
    add_form: ClassVar[type[ProvisioningForm]]
    ending: ClassVar[tuple[Any, Any]] = (_("Remove"), _("Removed"))
    """What the end of a row is called: to be done, and done."""
    ended: ClassVar[str] = ""
    """The column that says since when a row has ended, where it stays in the list. It does not end again."""
    meaning: ClassVar[Any] = ""
    """What it means."""
    delete_confirmation_template = "admin/accounts/end_confirmation.html"
    delete_selected_confirmation_template = "admin/accounts/end_selected_confirmation.html"

    def end(self, row: Any) -> bool | None:
        """End a row's use; False if it had ended. Raises any of `REFUSALS`."""
        raise NotImplementedError

    def facts(self, rows: QuerySet[Any]) -> together.Facts:
        """What goes with these rows, in numbers: told before they are ended."""
        return ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        has_ended = obj is not None and self.ended and getattr(obj, self.ended) is not None
        return super().has_delete_permission(request, obj) and not has_ended

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = self.add_form
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.request = request
        form.page = self
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The form has written it."""
        if form.shown_once:
            request.shown_once = form.shown_once  # type: ignore[attr-defined] # for `response_add`

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """And what belongs to it."""

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Where something secret was made, a page that shows it: it is not kept for another one."""
        secret = getattr(request, "shown_once", None)
        if secret is None:
            return super().response_add(request, obj, post_url_continue)
        return self.once(request, obj, *secret)

    def once(self, request: HttpRequest, obj: Any, what: str, text: str) -> HttpResponse:
        """A page that shows a secret, this once."""
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": what, "object": obj}
        response = TemplateResponse(request, "admin/accounts/shown_once.html", {**context, "text": text})
        response["Cache-Control"] = "no-store"
        return response

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        context["ending"] = self.ending[0]
        return super().render_change_form(request, context, *args, **kwargs)

    def get_actions(self, request: HttpRequest) -> Any:
        found = super().get_actions(request)
        if "delete_selected" in found:
            found["delete_selected"] = (
                Provisioned._end_selected,
                "delete_selected",
                gettext("%(end)s these") % {"end": self.ending[0]},
            )  # type: ignore[assignment] # it may answer
        return found

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        row = self.get_object(request, unquote(object_id)) if request.method == "GET" else None
        facts = self.facts(self.model._default_manager.filter(pk=row.pk)) if row is not None else ()
        words = {"ending": self.ending[0], "meaning": self.meaning, "facts": facts}
        try:
            return super().delete_view(request, object_id, (extra_context or {}) | words)
        except REFUSALS as refusal:
            self.message_user(request, f"{refusal}.", messages.ERROR)
            return self.to_list()

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.end(obj)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        self.message_user(request, f"{self.ending[1]}: {obj_display}.", messages.SUCCESS)
        return self.to_list()

    def _end_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        going = queryset.filter(**{self.ended: None}) if self.ended else queryset
        if not request.POST.get("post") and going.exists():
            answer = delete_selected(self, request, going)  # asks
            if isinstance(answer, TemplateResponse):
                left = together.left(self.ending[1], queryset.exclude(pk__in=going.values("pk")))
                words = {"ending": self.ending[0], "meaning": self.meaning, "facts": [*self.facts(going), *left]}
                answer.context_data = (answer.context_data or {}) | words
            return answer
        self.each(request, queryset, self.end, self.ending[1].lower())
        return None

    def each(self, request: HttpRequest, queryset: QuerySet[Any], change: Callable[[Any], Any], said: str) -> None:
        """Do something to each of these; those to which it cannot be done are told.

        `change` returns False where a row was so already: such rows are counted, and not in the history.
        """
        done = same = 0
        for row in queryset:
            try:
                with transaction.atomic():
                    is_new = change(row) is not False
            except REFUSALS as refusal:
                self.message_user(
                    request,
                    gettext("Left as it was, %(row)s: %(refusal)s.") % {"row": row, "refusal": refusal},
                    messages.WARNING,
                )
                continue
            if is_new:
                self.log_change(request, row, f"{said.capitalize()}.")
            done += is_new
            same += not is_new
        text = gettext("Now %(said)s: %(done)s.") % {"said": said, "done": languages.number(done)}
        if same:
            text += " " + gettext("So already: %(same)s.") % {"same": languages.number(same)}
        self.message_user(request, text, messages.SUCCESS)


class QuotaField(forms.Field):
    """Octets as people write them; empty is no limit."""

    widget = forms.TextInput

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, "help_text": _("Such as 500M or 1G. Empty: no limit."), **options})

    def prepare_value(self, value: Any) -> Any:
        return quotas.exact(value) if isinstance(value, int) else value

    def to_python(self, value: Any) -> int | None:
        try:
            return quotas.parse(value) if value else None
        except ValueError as error:
            raise ValidationError(f"{error}.") from None


class DaysField(forms.Field):
    """A time in whole days; empty is none."""

    widget = forms.NumberInput

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, **options})

    def prepare_value(self, value: Any) -> Any:
        return value.days if isinstance(value, timedelta) else value

    def to_python(self, value: Any) -> timedelta | None:
        try:
            return timedelta(days=int(value)) if value else None
        except (ValueError, OverflowError):
            raise ValidationError(gettext("Say a number of days.")) from None


class WordsField(forms.CharField):
    """Words separated by blanks or commas, as a list."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, **options})

    def prepare_value(self, value: Any) -> Any:
        return " ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        return str(super().clean(value)).replace(",", " ").split()


def _password_field(help_text: Any) -> forms.CharField:
    return forms.CharField(
        label=_("Password"),
        required=False,
        strip=False,
        help_text=help_text,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )


def _visible_domains(names: list[str], request: HttpRequest) -> list[Domain]:
    """The domains of these names. Raises `UnknownDomain` where one does not exist for whoever asks."""
    return [_visible_domain(f"@{addresses.domain(name)}", request) for name in names]


def _visible_domain(address: str, request: HttpRequest) -> Domain:
    """The domain of an address. Raises `UnknownDomain` where it does not exist for whoever asks."""
    host = addresses.split(address)[1]
    domain: Domain | None = Domain.objects.visible_to(request.user).filter(name=host).first()
    if domain is None:
        raise UnknownDomain(gettext("%(host)s is not hosted here") % {"host": host})
    return domain


class _Limited(ProvisioningForm):
    """A form of what has limits."""

    max_domains = forms.IntegerField(
        label=_("Max domains"), required=False, min_value=0, help_text=_("Empty: no limit.")
    )
    max_mailboxes = forms.IntegerField(
        label=_("Max mailboxes"), required=False, min_value=0, help_text=_("Empty: no limit.")
    )
    max_aliases = forms.IntegerField(
        label=_("Max aliases"), required=False, min_value=0, help_text=_("Empty: no limit.")
    )
    max_octets = QuotaField(label=_("Max octets"), help_text=_("Of all its mail together: 500M, 1G. Empty: no limit."))
    fields_for: ClassVar = {"limits": (*limits.FIELDS, "plan")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if target := kwargs.get("instance"):
            now = limits.of(target)
            kwargs["initial"] = {name: getattr(now, name) for name in limits.FIELDS} | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)

    def limit(self, target: Reseller | Tenant | Domain) -> None:
        """Give it the limits that were filled in."""
        try:
            if wanted := self.given(*limits.FIELDS):
                limits.set_limits(target, **wanted)
        except ValueError as error:
            raise provisioning.BadValue(str(error)) from None


class _LimitedPage(Provisioned):
    """A page of what has limits: they are shown with what there is, and set by whoever may."""

    limited: ClassVar[tuple[str, ...]] = limits.FIELDS

    def limit_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """The limits, for whoever may set them."""
        return self.limited if self.may(request, "limits") else ()

    @admin.display(description=_("has, of what it may have"))
    def has(self, target: Any) -> str:
        allowance = limits.of(target)
        found = []
        for what in ("domains", "mailboxes", "aliases"):
            if f"max_{what}" in self.limited:
                has, most = getattr(allowance, what), getattr(allowance, f"max_{what}")
                found.append(
                    limits.told(limits.so_many(what, has), None)
                    if most is None
                    else limits.told(languages.number(has), limits.so_many(what, most))
                )
        used, room = quotas.rounded(limits.used_octets(target)), allowance.max_octets
        found.append(
            limits.told(_octets(used), None) if room is None else limits.told(used, _octets(quotas.exact(room)))
        )
        return "; ".join(found)


def _octets(size: str) -> str:
    return gettext("%(size)s octets") % {"size": size}


# --- Resellers, tenants and domains --------------------------------------------------------------------------------


class ResellerAddForm(ProvisioningForm):
    class Meta:
        model = Reseller
        fields = ("slug", "name", "external_id")

    def write(self) -> Reseller:
        values = dict(self.cleaned_data)
        reseller, added = provisioning.add_reseller(values.pop("slug"), **values)
        if not added:
            raise provisioning.Taken(gettext("there is a reseller %(reseller)s already") % {"reseller": reseller})
        return reseller


class ResellerForm(_Limited):
    class Meta:
        model = Reseller
        fields = ("name", "external_id")

    def write(self) -> Any:
        provisioning.change_reseller(self.instance, **self.given("name", "external_id"))
        self.limit(self.instance)
        return self.instance


@admin.register(Reseller)
class ResellerAdmin(_LimitedPage):
    """Resellers, who own tenants."""

    resource = "resellers"
    form = ResellerForm
    add_form = ResellerAddForm
    list_display = ("slug", "name", "external_id", "created_at")
    ordering = ("slug",)
    search_fields = ("slug__startswith", "name__icontains", "external_id__startswith")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ("slug", "name", "external_id")
        return ("slug", "name", "external_id", "has", *self.limit_fields(request), "created_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("slug", "has", "created_at") if obj else ()

    def end(self, row: Any) -> None:
        provisioning.remove_reseller(row)


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
        return shown if _is_host_wide(request) else [column for column in shown if column != "reseller"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        whose = ("reseller",) if _is_host_wide(request) else ()
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


class TenantForm(_Limited):
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
    fields_for: ClassVar = {**_Limited.fields_for, "content-roles": ("content_by_host", "content_roles")}

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
class TenantAdmin(_LimitedPage):
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
        whose = ("reseller",) if _is_host_wide(request) else ()
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


class DomainAddForm(ProvisioningForm):
    class Meta:
        model = Domain
        fields = ("tenant", "name", "external_id", "alias_of", "subaddress")
        help_texts: ClassVar = {"name": _("Such as example.test.")}

    def write(self) -> Domain:
        values = dict(self.cleaned_data)
        values["subaddress"] = values["subaddress"] or None
        domain, added = provisioning.add_domain(values.pop("name"), **values)
        if not added:
            raise provisioning.DomainTaken(gettext("%(domain)s is hosted here already") % {"domain": domain})
        return domain


class DomainForm(_Limited):
    class Meta:
        model = Domain
        fields = ("external_id", "alias_of", "subaddress")

    max_domains = None  # type: ignore[assignment] # it has none

    def write(self) -> Any:
        provisioning.change_domain(self.instance, **self.given("external_id", "alias_of", "subaddress"))
        self.limit(self.instance)
        return self.instance


def _check_dns(page: Scoped, request: HttpRequest, domain: Domain) -> HttpResponseBase:
    """Show what is looked for; look."""
    if request.method == "POST":
        config = tasks.verification_config()

        def conclude(finding: verification.Finding) -> HttpResponseBase:
            try:
                verification.conclude(domain, finding, config)
            except Domain.DoesNotExist:
                return page.to_list()  # it was moved away meanwhile
            said = {
                verification.Finding.FOUND: (gettext("The record is there."), messages.SUCCESS),
                verification.Finding.MISSING: (gettext("DNS has no such record."), messages.WARNING),
                verification.Finding.UNKNOWN: (gettext("DNS does not answer. Nothing is changed."), messages.WARNING),
            }
            page.message_user(request, *said[finding])
            return page.to_row(domain)

        return Waiting(lambda: verification.look(domain, config), conclude)
    name, text = verification.record(domain)
    facts = [(gettext("TXT record"), name), (gettext("Its text"), text), (gettext("State"), domain.get_state_display())]
    title = gettext("Check DNS for %(domain)s") % {"domain": domain}
    return page.asking(request, domain, title, facts=facts, button=gettext("Check now"))


def _is_open(domain: Domain) -> bool:
    return domain.closed_at is None


class VerifiedFilter(admin.SimpleListFilter):
    title = _("verified")
    parameter_name = "verified"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("no", _("Not verified")),
            ("lapsing", _("Claim lapses within 7 days")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "no":
                return queryset.filter(closed_at=None).exclude(state=Domain.State.VERIFIED)
            case "lapsing":
                return queryset.filter(verification.lapsing(verification.SOON))
        return queryset


@admin.register(Domain)
class DomainAdmin(_LimitedPage):
    """Domains of tenants."""

    resource = "domains"
    ending = (_("Close"), _("Closed"))
    ended = "closed_at"
    meaning = _("Its mailboxes are closed, its aliases removed, and nothing of it takes mail. It can be reopened.")
    limited = ("max_mailboxes", "max_aliases", "max_octets")
    form = DomainForm
    add_form = DomainAddForm
    list_display = ("name", "tenant", "shown_state", "alias_of", "created_at", "dns_page")
    list_filter = ("state", VerifiedFilter, TenantFilter)
    list_select_related = ("tenant", "alias_of")
    row_pages: ClassVar[list[RowPage]] = [
        RowPage("dns", _("DNS"), "domains", "read", zone_page.dns, _is_open),
        RowPage("check", _("Check DNS now"), "domains", "check", _check_dns, _is_open),
    ]
    ordering = ("name",)
    search_fields = ("name__startswith",)
    autocomplete_fields = ("tenant", "alias_of")
    actions = ("reopen",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ("tenant", "name", "external_id", "alias_of", "subaddress")
        return (
            "tenant", "name", "external_id", "alias_of", "subaddress", "has", *self.limit_fields(request),
            "shown_state", "record", "checked_at", "created_at", "closed_at",
        )  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (
            ("tenant", "name", "has", "shown_state", "record", "checked_at", "created_at", "closed_at") if obj else ()
        )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or obj.closed_at is None)

    def facts(self, rows: QuerySet[Any]) -> together.Facts:
        aliases = Alias.objects.filter(domain__in=rows).count()
        mailboxes = Mailbox.objects.filter(domain__in=rows, closed_at=None)
        return [*together.of_mailboxes(mailboxes), (gettext("Aliases"), languages.number(aliases))]

    def end(self, row: Any) -> bool:
        return provisioning.close_domain(row)

    @admin.action(permissions=["delete"], description=_("Reopen"))
    def reopen(self, request: HttpRequest, queryset: QuerySet[Domain]) -> None:
        self.each(request, queryset, provisioning.reopen_domain, gettext("open"))

    @admin.display(description=_("state"), ordering="state")
    def shown_state(self, domain: Domain) -> str:
        return gettext("Closed") if domain.closed_at else domain.get_state_display()

    @admin.display(description=_("DNS"))
    def dns_page(self, domain: Domain) -> str:
        if not _is_open(domain):
            return ""
        return format_html(
            '<a href="{}">{}</a>', reverse("admin:accounts_domain_dns", args=[domain.pk]), gettext("Records")
        )

    @admin.display(description=_("TXT record that shows whose it is"))
    def record(self, domain: Domain) -> str:
        name, text = verification.record(domain)
        return f"{name} {text}"


# --- Logins --------------------------------------------------------------------------------------------------------


class UserAddForm(ProvisioningForm):
    password = _password_field(_("Empty: nobody can sign in until one is set."))
    domains = WordsField(
        label=_("Domains"), help_text=_("For a domain admin: what he looks after, separated by blanks.")
    )

    class Meta:
        model = User
        fields = ("email", "role", "tenant", "reseller")
        help_texts: ClassVar = {
            "email": _("An address, which needs no mailbox here."),
            "tenant": _("Whose staff it is."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        made = [(role, label) for role, label in Role.choices if role != Role.MEMBER and self._makes(role)]
        self.fields["role"] = forms.ChoiceField(label=gettext("Role"), choices=made)
        if not sees_tenants(self.request):
            self.fields.pop("tenant", None)

    def write(self) -> User:
        values = self.cleaned_data
        tenant, reseller = values.get("tenant"), values.get("reseller")
        if self.principal.tenant_id is not None:
            tenant = Tenant.objects.get(pk=self.principal.tenant_id)
        elif self.principal.reseller_id is not None and tenant is None:
            reseller = Reseller.objects.get(pk=self.principal.reseller_id)
        return provisioning.add_staff(
            values["email"] or "",
            password=values["password"] or None,
            role=values["role"],
            tenant=tenant,
            reseller=reseller,
            domains=_visible_domains(values["domains"], self.request),
        )

    def _makes(self, role: str) -> bool:
        return permissions.makes(self.principal, role)


class UserForm(ProvisioningForm):
    password = _password_field(_("Empty: it stays as it is."))
    domains = WordsField(label=_("Domains"), help_text=_("What a domain admin looks after, separated by blanks."))
    fields_for: ClassVar = {"password": ("password",)}

    class Meta:
        model = User
        fields = ("role", "is_active", "is_staff")
        help_texts: ClassVar = {"role": _("Of the owner of a mailbox; others keep theirs.")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        names = list(kwargs["instance"].domains.values_list("name", flat=True))
        kwargs["initial"] = {"domains": names} | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)
        if not Mailbox.objects.open().filter(user=self.instance).exists():
            self.fields.pop("role", None)
        if self.instance.role != Role.DOMAIN_ADMIN:
            self.fields.pop("domains", None)

    def write(self) -> Any:
        user, values = self.instance, self.cleaned_data
        before = User.objects.get(pk=user.pk)
        active, staff = values["is_active"], values["is_staff"]
        role = values.get("role", before.role)
        if user == self.request.user and not (active and staff and role == before.role):
            raise provisioning.Refused(gettext("nobody can lock himself out"))
        if role != before.role:
            provisioning.set_role(before, role)
            staff = before.is_staff
        elif role == Role.MEMBER and staff:
            raise provisioning.BadValue(
                gettext("the owner of a mailbox uses the admin only with another role"), field="role"
            )
        domains = _visible_domains(values["domains"], self.request) if "domains" in values else None
        provisioning.change_login(before, is_active=active, is_staff=staff, domains=domains)
        if values.get("password"):
            provisioning.set_password(before, values["password"])
        return before


@admin.register(User)
class UserAdmin(Provisioned):
    """Operators, staff, and the owners of mailboxes."""

    resource = "logins"
    form = UserForm
    add_form = UserAddForm
    list_display = ("__str__", "role", "tenant", "reseller", "mailbox", "is_active", "last_login")
    list_filter = (TenantFilter, "role", "is_active")
    list_select_related = ("tenant", "reseller", "mailbox")
    ordering = ("email", "pk")
    search_fields = ("email__startswith",)
    autocomplete_fields = ("tenant", "reseller")
    row_pages = row_pages.OF_LOGINS

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            tenant = ("tenant",) if sees_tenants(request) else ()
            reseller = ("reseller",) if _is_host_wide(request) else ()
            return ("email", "role", *tenant, *reseller, "domains", "password")
        secret = ("password",) if self.has_change_permission(request, obj) else ()
        role = "role" if Mailbox.objects.open().filter(user=obj).exists() else "shown_role"
        changing = self.has_change_permission(request, obj)
        domains = ("domains" if changing else "shown_domains",) if obj.role == Role.DOMAIN_ADMIN else ()
        return (
            "email", "tenant", "reseller", "mailbox", role, *domains, *secret, "is_active", "is_staff",
            "last_login", "created_at",
        )  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return ("email", "tenant", "reseller", "mailbox", "shown_role", "shown_domains", "last_login", "created_at")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or _reaches(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or _reaches(request, obj))

    def end(self, row: Any) -> None:
        if principals.acting().user_id == row.pk:
            raise provisioning.Refused(gettext("nobody can lock himself out"))
        provisioning.remove_login(row)

    @admin.display(description=_("domains"))
    def shown_domains(self, user: User) -> str:
        return ", ".join(user.domains.values_list("name", flat=True))

    @admin.display(description=_("role"))
    def shown_role(self, user: User) -> str:
        return user.get_role_display()


def _reaches(request: HttpRequest, user: User) -> bool:
    principal = principals.of(request.user)
    return principal is not None and permissions.makes(principal, user.role)


def _is_host_wide(request: HttpRequest) -> bool:
    principal = principals.of(request.user)
    return principal is not None and principal.is_host_wide


# --- Mailboxes and aliases -----------------------------------------------------------------------------------------


def _language_field() -> forms.ChoiceField:
    return forms.ChoiceField(
        label=_("Language"),
        required=False,
        widget=UnfoldAdminSelectWidget,
        choices=[("", _("As the browser asks")), *languages.NAMES],
        help_text=_("In which its owner reads pages and what is written to him; he can choose another one."),
    )


class MailboxAddForm(ProvisioningForm):
    password = _password_field(_("Empty: nobody can sign in until one is set."))
    quota_octets = QuotaField(label=_("Quota"))
    language = _language_field()
    release = forms.BooleanField(
        label=_("Release"),
        required=False,
        help_text=_("Give the address away although it is in quarantine after a closed mailbox."),
    )

    class Meta:
        model = Mailbox
        fields = ("address", "name", "external_id")
        help_texts: ClassVar = {"address": _("In a domain that is hosted here.")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["initial"] = {"quota_octets": settings.MAILHOST_DEFAULT_QUOTA} | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)

    def write(self) -> Mailbox:
        address = addresses.address(self.cleaned_data["address"])
        _visible_domain(address, self.request)
        mailbox, added = provisioning.add_mailbox(
            address,
            password=self.cleaned_data["password"] or None,
            **self.given("quota_octets", "language", "release", "name", "external_id"),
        )
        if not added:
            raise provisioning.AddressTaken(gettext("there is a mailbox %(mailbox)s already") % {"mailbox": mailbox})
        return mailbox


class MailboxForm(ProvisioningForm):
    new_address = forms.CharField(
        label=_("New address"),
        required=False,
        help_text=_("In any domain of its tenant; the old address stays as an alias. Empty: no other."),
    )
    password = _password_field(_("Empty: it stays as it is."))
    keep_sessions = forms.BooleanField(
        required=False,
        label=_("Let open sessions go on"),
        help_text=_(
            "With a new password. Else sessions that signed in with the old one end at once, and remove nothing."
            " Devices with an app password go on in either case."
        ),
    )
    quota_octets = QuotaField(label=_("Quota"))
    keep_time = DaysField(
        label=_("Keep-time"),
        help_text=_(
            "Days that mail stays in the maildrop; then it is removed, and can be restored. Empty: the tenant's."
        ),
    )
    language = _language_field()
    fields_for: ClassVar = {"password": ("password", "keep_sessions"), "hold": ("legal_hold",)}

    class Meta:
        model = Mailbox
        fields = (
            "name", "external_id", "quota_octets", "pop3_enabled", "allowed_networks", "retention", "state",
            "state_reason", "legal_hold",
        )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        language = kwargs["instance"].user.language if kwargs.get("instance") else None
        kwargs["initial"] = {"language": language} | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)

    def write(self) -> Any:
        mailbox = Mailbox.objects.select_related("user").get(pk=self.instance.pk)
        provisioning.change_mailbox(
            mailbox,
            **self.given(
                "name", "external_id", "quota_octets", "pop3_enabled", "allowed_networks", "retention", "keep_time",
                "language",
            ),
        )  # fmt: skip
        provisioning.set_state(mailbox, self.cleaned_data["state"], reason=self.cleaned_data["state_reason"])
        if "legal_hold" in self.fields:
            provisioning.set_legal_hold(mailbox, self.cleaned_data["legal_hold"])
        if self.cleaned_data.get("password"):
            keep = self.cleaned_data.get("keep_sessions", False)
            provisioning.set_password(mailbox.user, self.cleaned_data["password"], keep_sessions=keep)
        if new := self.cleaned_data["new_address"]:
            address = addresses.address(new)
            _visible_domain(address, self.request)
            provisioning.rename_mailbox(mailbox, address)
        return mailbox


class _SuspendForm(forms.Form):
    reason = forms.CharField(label=_("Reason"), required=False, max_length=500, help_text=_("Why; its owner reads it."))


class _QuotaForm(forms.Form):
    quota_octets = QuotaField(label=_("Quota"))


class _Mailboxes(ChangeList):
    """The list, whose rows lead to what most want to know of a mailbox."""

    model_admin: "MailboxAdmin"

    def url_for_result(self, result: Any) -> str:
        return reverse(f"admin:accounts_mailbox_{self.model_admin.front}", args=[quote(result.pk)])


class StateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((state.value, state.label.capitalize()) for state in Mailbox.State), ("closed", gettext("Closed"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value == "closed":
            return queryset.exclude(closed_at=None)
        return queryset.filter(closed_at=None, state=value) if value in Mailbox.State.values else queryset


class RoomFilter(admin.SimpleListFilter):
    title = _("little room")
    parameter_name = "room"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        more = gettext("%(share)s or more")
        return [("80", more % {"share": "80 %"}), ("90", more % {"share": "90 %"}), ("100", gettext("Full"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(little_room(int(value))) if value in ("80", "90", "100") else queryset


@admin.register(Mailbox)
class MailboxAdmin(Importing, Provisioned):
    """Mailboxes, with what they are used for."""

    resource = "mailboxes"
    ending = (_("Close"), _("Closed"))
    ended = "closed_at"
    meaning = _(
        "From then on it takes no mail and nobody can sign in. It is purged with its mail after the retention; until "
        "then nobody else can have the address, and it can be reopened."
    )
    imports = ("create", "change")
    sheet_columns = mailbox_sheets.COLUMNS
    form = MailboxForm
    add_form = MailboxAddForm
    list_display = ("address", "tenant", "shown_state", "used", "quota", "last_login_at")
    list_filter = (StateFilter, RoomFilter, TenantFilter, "pop3_enabled", "legal_hold")
    list_select_related = ("tenant",)
    ordering = ("address", "pk")
    search_fields = ("address__startswith",)
    search_help_text = _("The beginning of an address or of an alias, or @ and a domain.")
    actions = ("suspend", "resume", "set_quota", "reopen", "export_chosen", "delete_selected")
    row_pages: ClassVar[list[RowPage]] = []

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return _Mailboxes

    def matching(self, term: str) -> Q:
        if term.startswith("@"):
            return Q(domain__name=term[1:])
        aliases = Alias.objects.filter(address__startswith=term)
        return Q(address__startswith=term) | Q(pk__in=aliases.values("targets__mailbox"))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            fields = ("address", "name", "external_id", "password", "quota_octets", "language", "release")
            return [(None, {"fields": fields})]
        changing = self.has_change_permission(request, obj)
        hold = "legal_hold" if changing and self.may(request, "hold") else "shown_hold"
        return [
            (None, {"fields": ("address", "name", "external_id", "tenant", "aliases")}),
            (
                gettext("Use"),
                {"fields": ("shown_state", "used", "message_count", "last_login_at", "last_login_address")},
            ),
            (
                gettext("Settings"),
                {
                    "fields": (
                        *(("new_address", "password", "keep_sessions") if changing else ()),
                        *(("state",) if changing else ()),
                        "state_reason",
                        "quota_octets" if changing else "quota",
                        "pop3_enabled",
                        "allowed_networks",
                        "retention",
                        "keep_time",
                        *(("language",) if changing else ()),
                        hold,
                    )
                },
            ),
            (gettext("Life"), {"fields": ("created_at", "closed_at")}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return (
            "address", "tenant", "aliases", "shown_state", "used", "quota", "message_count",
            "last_login_at", "last_login_address", "created_at", "closed_at", "shown_hold",
        )  # fmt: skip

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or obj.closed_at is None)

    def has_reopen_permission(self, request: HttpRequest) -> bool:
        """For the action."""
        return self.may(request, "reopen")

    def end(self, row: Any) -> bool:
        return provisioning.close_mailbox(row)

    @admin.action(permissions=["change"], description=_("Suspend: no mail in or out until resumed"))
    def suspend(self, request: HttpRequest, queryset: QuerySet[Mailbox]) -> HttpResponse | None:
        form = _SuspendForm(together.answers(request))
        asking = together.confirmed(
            self,
            request,
            queryset,
            title=gettext("Suspend mailboxes"),
            meaning=gettext("They take no mail and nobody can fetch any until they are resumed; open sessions end."),
            facts=lambda given: together.of_state(
                queryset, Mailbox.State.SUSPENDED, given["reason"] if given else None
            ),
            form=form,
            button=gettext("Suspend"),
        )
        if asking is None:
            reason = form.cleaned_data["reason"]
            self.each(request, queryset, partial(provisioning.suspend, reason=reason), gettext("suspended"))
        return asking

    @admin.action(permissions=["change"], description=_("Resume"))
    def resume(self, request: HttpRequest, queryset: QuerySet[Mailbox]) -> HttpResponse | None:
        asking = together.confirmed(
            self,
            request,
            queryset,
            title=gettext("Resume mailboxes"),
            meaning=gettext("They take mail and can be used again, whatever state they are in."),
            facts=lambda given: together.of_state(queryset, Mailbox.State.ACTIVE, ""),
            button=gettext("Resume"),
        )
        if asking is None:
            self.each(request, queryset, provisioning.resume, gettext("active"))
        return asking

    @admin.action(permissions=["change"], description=_("Set the quota"))
    def set_quota(self, request: HttpRequest, queryset: QuerySet[Mailbox]) -> HttpResponse | None:
        form = _QuotaForm(together.answers(request))
        asking = together.confirmed(
            self,
            request,
            queryset,
            title=gettext("Set the quota of mailboxes"),
            facts=lambda given: together.of_quota(queryset, given),
            form=form,
            button=gettext("Set the quota"),
        )
        if asking is None:
            octets = form.cleaned_data["quota_octets"]
            self.each(
                request,
                queryset,
                lambda mailbox: provisioning.change_mailbox(mailbox, quota_octets=octets),
                gettext("with that quota"),
            )
        return asking

    @admin.action(permissions=["reopen"], description=_("Reopen, if closed and not purged yet"))
    def reopen(self, request: HttpRequest, queryset: QuerySet[Mailbox]) -> HttpResponse | None:
        asking = together.confirmed(
            self,
            request,
            queryset,
            title=gettext("Reopen mailboxes"),
            meaning=gettext(
                "Closed ones come back with their mail and their password, where their address is still free."
            ),
            facts=lambda given: together.of_reopening(queryset),
            button=gettext("Reopen"),
        )
        if asking is None:
            self.each(request, queryset, provisioning.reopen_mailbox, gettext("open"))
        return asking

    def facts(self, rows: QuerySet[Any]) -> together.Facts:
        return together.of_mailboxes(rows)

    def read_sheet(self, octets: bytes) -> Any:
        return mailbox_sheets.read(octets)

    def check_sheet(self, table: Any, **how: Any) -> Any:
        return mailbox_sheets.check(table, default_quota=settings.MAILHOST_DEFAULT_QUOTA, **how)

    def apply_sheet(self, table: Any, **how: Any) -> Any:
        return mailbox_sheets.apply(table, default_quota=settings.MAILHOST_DEFAULT_QUOTA, **how)

    def write_sheet(self, rows: Any) -> Any:
        return mailbox_sheets.write(rows)

    @admin.display(description=_("state"), ordering="state")
    def shown_state(self, mailbox: Mailbox) -> str:
        return gettext("Closed") if mailbox.closed_at else mailbox.get_state_display()

    @admin.display(description=_("legal hold"), boolean=True)
    def shown_hold(self, mailbox: Mailbox) -> bool:
        return mailbox.legal_hold

    @admin.display(description=_("used"), ordering="used_octets")
    def used(self, mailbox: Mailbox) -> str:
        return quotas.rounded(mailbox.used_octets)

    @admin.display(description=_("quota"), ordering="quota_octets")
    def quota(self, mailbox: Mailbox) -> str:
        return quotas.rounded(mailbox.quota_octets)

    @admin.display(description=_("aliases"))
    def aliases(self, mailbox: Mailbox) -> str:
        return ", ".join(map(str, Alias.objects.filter(targets__mailbox=mailbox)[:100])) or gettext("none")


class AliasForm(ProvisioningForm):
    targets = forms.CharField(
        label=_("Targets"),
        widget=forms.Textarea(attrs={"rows": 5}),
        help_text=_("Where its mail goes: mailboxes of the same tenant, and addresses outside; one in each line."),
    )
    release = forms.BooleanField(
        label=_("Release"),
        required=False,
        help_text=_("Give the address away although it is in quarantine after a closed mailbox."),
    )

    class Meta:
        model = Alias
        fields = ("address", "expires_at")
        help_texts: ClassVar = {"address": _("Or @ and the domain, for what no other address of it takes.")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if alias := kwargs.get("instance"):
            kwargs["initial"] = {"targets": "\n".join(provisioning.targets_of(alias))} | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)

    def write(self) -> Alias:
        address = self.cleaned_data.get("address") or self.instance.address
        mailboxes, outside = self._targets()
        domain = _visible_domain(addresses.alias(address), self.request)
        if self.instance.pk is None and Alias.objects.filter(address=addresses.alias(address)).exists():
            raise provisioning.AddressTaken(gettext("there is an alias %(address)s already") % {"address": address})
        alias, _is_new = provisioning.set_alias(
            address,
            tenant_id=domain.tenant_id,
            mailboxes=mailboxes,
            outside=outside,
            expires_at=self.cleaned_data["expires_at"],
            release=self.cleaned_data.get("release", False),
        )
        return alias

    def _targets(self) -> tuple[list[Mailbox], list[str]]:
        """The mailboxes among the targets that exist for whoever asks, and the addresses outside."""
        names = [addresses.address(text) for text in self.cleaned_data["targets"].split()]
        found = {
            mailbox.address: mailbox
            for mailbox in Mailbox.objects.visible_to(self.request.user).open().filter(address__in=names)
        }
        return list(found.values()), [name for name in names if name not in found]


@admin.register(Alias)
class AliasAdmin(Importing, Provisioned):
    """Further addresses."""

    resource = "aliases"
    imports = ("create", "change")
    sheet_columns = alias_sheets.COLUMNS
    form = AliasForm
    add_form = AliasForm
    list_display = ("address", "shown_targets", "tenant", "expires_at", "created_at")
    list_filter = (TenantFilter,)
    list_select_related = ("tenant",)
    ordering = ("address",)
    search_fields = ("address__startswith", "targets__mailbox__address__startswith")
    actions = ("export_chosen",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Alias]:
        return super().get_queryset(request).prefetch_related("targets__mailbox")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        targets = "targets" if self.has_change_permission(request, obj) or obj is None else "shown_targets"
        return ("address", targets, "expires_at", *(("tenant", "created_at") if obj else ("release",)))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("address", "shown_targets", "tenant", "created_at") if obj else ()

    def end(self, row: Any) -> None:
        provisioning.remove_alias(row)

    def read_sheet(self, octets: bytes) -> Any:
        return alias_sheets.read(octets)

    def check_sheet(self, table: Any, **how: Any) -> Any:
        return alias_sheets.check(table, **how)

    def apply_sheet(self, table: Any, **how: Any) -> Any:
        return alias_sheets.apply(table, **how)

    def write_sheet(self, rows: Any) -> Any:
        return alias_sheets.write(rows)

    @admin.display(description=_("targets"))
    def shown_targets(self, alias: Alias) -> str:
        names = sorted(str(target) for target in alias.targets.all())
        return ", ".join(names[:5]) + (
            gettext(" and %(number)s more") % {"number": len(names) - 5} if len(names) > 5 else ""
        )


# --- What devices and programs sign in with ------------------------------------------------------------------------


class AppPasswordForm(ProvisioningForm):
    scopes = forms.MultipleChoiceField(
        label=_("Scopes"), choices=AppPassword.Scope.choices, initial=[AppPassword.Scope.POP3]
    )
    allowed_networks = WordsField(
        label=_("Allowed networks"), help_text=_("Where it may be used from, such as 192.0.2.0/24. Empty: anywhere.")
    )

    class Meta:
        model = AppPassword
        fields: tuple[str, ...] = ("name", "expires_at", "own_copy")
        help_texts: ClassVar = {
            "own_copy": _(
                "The device has its own view of the maildrop: what it removes is gone for that device only, and"
                " another device still gets it. A message leaves the mailbox when every device with an own copy has"
                " removed it. Without: what it removes is gone for everybody."
            )
        }

    def write(self) -> AppPassword:
        row = AppPassword.objects.get(pk=self.instance.pk)
        app_passwords.change(row, **self.cleaned_data)
        return row


class AppPasswordAddForm(AppPasswordForm):
    class Meta(AppPasswordForm.Meta):
        fields = ("mailbox", *AppPasswordForm.Meta.fields)

    def write(self) -> AppPassword:
        values = dict(self.cleaned_data)
        made, text = app_passwords.create(values.pop("mailbox"), **values)
        self.shown_once = (gettext("App password"), text)
        return made


class _Revocable(Provisioned):
    """A page of what somebody signs in with, until it is revoked."""

    ending = (_("Revoke"), _("Revoked"))
    ended = "revoked_at"
    meaning = _("Nothing can sign in with it any more.")


@admin.register(AppPassword)
class AppPasswordAdmin(_Revocable):
    """Passwords of single devices. Each is shown once."""

    resource = "app-passwords"
    form = AppPasswordForm
    add_form = AppPasswordAddForm
    list_display = (
        "name", "mailbox", "tenant", "own_copy", "expires_at", "last_used_at", "last_used_address", "revoked_at",
    )  # fmt: skip
    list_filter = ("own_copy", TenantFilter)
    list_select_related = ("mailbox", "tenant")
    ordering = ("-pk",)
    search_fields = ("mailbox__address__startswith",)
    autocomplete_fields = ("mailbox",)
    narrowed_by = ("mailbox__id__exact",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ("mailbox", "name", "own_copy", "scopes", "allowed_networks", "expires_at")
        return (
            "mailbox", "name", "own_copy", "scopes", "allowed_networks", "expires_at", "last_used_at",
            "last_used_address", "created_at", "revoked_at",
        )  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("mailbox", "last_used_at", "last_used_address", "created_at", "revoked_at") if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or obj.revoked_at is None)

    def end(self, row: Any) -> bool:
        return app_passwords.revoke(row)


class ApiTokenAddForm(ProvisioningForm):
    domains = WordsField(label=_("Domains"), help_text=_("Of a domain admin, separated by blanks."))
    scopes = WordsField(
        label=_("Scopes"),
        help_text=_(
            "Such as mailboxes:read mailboxes:write. What is in messages it reads only where the tenant's policy lets"
            " you, too."
        ),
    )
    everything = forms.BooleanField(
        required=False, label=_("Everything that its role may"), help_text=_("Instead of scopes.")
    )
    allowed_networks = WordsField(
        label=_("Allowed networks"), help_text=_("Where it may be used from, such as 192.0.2.0/24. Empty: anywhere.")
    )

    class Meta:
        model = ApiToken
        fields = ("name", "role", "tenant", "reseller", "mailbox", "expires_at", "requests_per_minute")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        made = [(role, label) for role, label in Role.choices if permissions.makes(self.principal, role)]
        self.fields["role"] = forms.ChoiceField(label=gettext("Role"), choices=[("", "---------"), *made])

    def write(self) -> ApiToken:
        values = dict(self.cleaned_data)
        if values.pop("everything"):
            if values["scopes"]:
                raise provisioning.BadValue(gettext("name scopes or choose everything, not both"), field="scopes")
            values["scopes"] = permissions.scopes_of(values["role"])
        elif not values["scopes"]:
            raise provisioning.BadValue(gettext("name scopes, or choose everything that the role may"), field="scopes")
        if self.principal.tenant_id is not None:
            values["tenant"] = Tenant.objects.get(pk=self.principal.tenant_id)
        elif self.principal.reseller_id is not None and values["role"] == Role.RESELLER:
            values["reseller"] = Reseller.objects.get(pk=self.principal.reseller_id)
        values["domains"] = _visible_domains(values["domains"], self.request)
        token, text = tokens.make(by=self.principal, **values)
        self.shown_once = (gettext("API token"), text)
        return token


@admin.register(ApiToken)
class ApiTokenAdmin(_Revocable):
    """What programs sign in with. Each is shown once."""

    resource = "tokens"
    add_form = ApiTokenAddForm
    list_display = ("name", "role", "tenant", "expires_at", "last_used_at", "revoked_at")
    list_filter = (TenantFilter, "role")
    list_select_related = ("tenant", "reseller")
    ordering = ("-pk",)
    search_fields = ("prefix", "name__icontains")
    autocomplete_fields = ("tenant", "reseller", "mailbox")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        whose = (
            *(("tenant",) if sees_tenants(request) else ()),
            *(("reseller",) if _is_host_wide(request) else ()),
            "shown_domains" if obj else "domains",
            "mailbox",
        )
        everything = ("everything",) if obj is None else ()
        said = ("name", "role", *whose, "scopes", *everything, "allowed_networks", "requests_per_minute", "expires_at")
        if obj is None:
            return said
        return (*said, "prefix", "last_used_at", "last_used_address", "created_by", "created_at", "revoked_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("shown_domains",) if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def end(self, row: Any) -> bool:
        return tokens.revoke(row)

    @admin.display(description=_("domains"))
    def shown_domains(self, token: ApiToken) -> str:
        return ", ".join(token.domains.values_list("name", flat=True))


# --- What others are told, and what is written down ----------------------------------------------------------------


class WebhookAddForm(ProvisioningForm):
    events = forms.MultipleChoiceField(
        label=_("Events"), choices=[(kind, kind) for kind in events.KINDS], required=False, help_text=_("None: all.")
    )

    class Meta:
        model = Webhook
        fields = ("url", "tenant", "reseller")

    def write(self) -> Webhook:
        values = dict(self.cleaned_data)
        if self.principal.tenant_id is not None:
            values["tenant"] = Tenant.objects.get(pk=self.principal.tenant_id)
        elif self.principal.reseller_id is not None and values.get("tenant") is None:
            values["reseller"] = Reseller.objects.get(pk=self.principal.reseller_id)
        if values.get("tenant") and values.get("reseller"):
            raise provisioning.BadValue(gettext("a webhook is of a tenant or of a reseller, not of both"))
        webhook, secret = webhooks.add(values.pop("url"), **values, allow_private=settings.MAILHOST_PRIVATE_TARGETS)
        self.shown_once = (gettext("Secret of the webhook"), secret)
        return webhook


class WebhookForm(ProvisioningForm):
    events = forms.MultipleChoiceField(
        label=_("Events"), choices=[(kind, kind) for kind in events.KINDS], required=False, help_text=_("None: all.")
    )

    class Meta:
        model = Webhook
        fields = ("url", "enabled", "events")

    def write(self) -> Any:
        webhook = Webhook.objects.get(pk=self.instance.pk)
        webhooks.change(webhook, **self.cleaned_data, allow_private=settings.MAILHOST_PRIVATE_TARGETS)
        return webhook


@admin.register(Webhook)
class WebhookAdmin(Provisioned):
    """Where events are sent to. The secret of each is shown once."""

    resource = "webhooks"
    meaning = _("Nothing is sent there any more, also nothing that is on its way.")
    form = WebhookForm
    add_form = WebhookAddForm
    list_display = ("url", "tenant", "reseller", "enabled", "created_at", "pages")
    list_filter = (TenantFilter, "enabled")
    list_select_related = ("tenant", "reseller")
    ordering = ("-pk",)
    search_fields = ("url__startswith",)
    autocomplete_fields = ("tenant", "reseller")
    actions = ("rotate",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            tenant = ("tenant",) if sees_tenants(request) else ()
            return ("url", "events", *tenant, *(("reseller",) if _is_host_wide(request) else ()))
        return ("url", "events", "enabled", "tenant", "reseller", "created_at", "pages")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("tenant", "reseller", "created_at", "pages") if obj else ()

    def end(self, row: Any) -> None:
        webhooks.remove(row)

    @admin.action(permissions=["change"], description=_("Give it a new secret; the old one signs, too"))
    def rotate(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> HttpResponse | None:
        found = list(queryset[:2])
        if len(found) != 1:
            self.message_user(request, gettext("Choose one webhook."), messages.WARNING)
            return None
        return self.once(request, found[0], gettext("Secret of the webhook"), webhooks.rotate_secret(found[0]))

    @admin.display(description=_("pages"))
    def pages(self, webhook: Webhook) -> str:
        return links(
            webhook.pk,
            (pgettext("webhook", "Deliveries"), "admin:accounts_webhookdelivery_changelist", "webhook__id__exact"),
        )


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnly):
    """What was sent to webhooks, and what became of it."""

    audited = False
    resource = "webhooks"
    list_display = ("created_at", "webhook", "kind", "state", "attempts", "last_status", "shown_error", "delivered_at")
    list_filter = ("state", TenantFilter)
    list_select_related = ("webhook", "event")
    sortable_by = ()
    ordering = ("-pk",)
    narrowed_by = ("webhook__id__exact",)
    actions = ("replay",)
    fields = (
        "webhook", "kind", "state", "attempts", "next_attempt_at", "last_status", "shown_error", "created_at",
        "delivered_at",
    )  # fmt: skip
    readonly_fields = ("kind", "shown_error")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        found = webhooks.deliveries_visible_to(cast("User", request.user))
        return found.select_related("webhook", "event").order_by(*self.get_ordering(request))

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """For the action."""
        return self.may(request, "replay")

    @admin.action(permissions=["replay"], description=_("Send again"))
    def replay(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        sent = webhooks.replay(queryset.select_related(None).order_by())
        self.message_user(request, gettext("To be sent again: %(sent)s.") % {"sent": sent}, messages.SUCCESS)

    @admin.display(description=_("last error"))
    def shown_error(self, delivery: WebhookDelivery) -> str:
        """What was said in English, since nobody was there to read it."""
        if delivery.last_error == f"it answered {delivery.last_status}":
            return gettext("it answered %(status)s") % {"status": delivery.last_status}
        return gettext(delivery.last_error) if delivery.last_error else ""

    @admin.display(description=_("event"))
    def kind(self, delivery: WebhookDelivery) -> str:
        return delivery.event.kind


class ActorRoleFilter(admin.SimpleListFilter):
    """By what they were who did it. Django's own would read the whole table for what there is to choose."""

    title = _("role")
    parameter_name = "role"
    _NOBODY = "none"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((role.value, role.label) for role in Role), (self._NOBODY, gettext("manage.py / system"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(role="" if value == self._NOBODY else value) if value else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnly):
    """Who changed what. People are named by the ids of their rows."""

    resource = "audit-events"
    audited = False
    list_display = ("at", "action", "shown_target", "actor", "through")
    list_filter = ("through", ActorRoleFilter)
    sortable_by = ()
    ordering = ("-pk",)
    search_fields = ("action__startswith", "target__startswith")
    search_help_text = _("The beginning of an action, such as mailbox., or of a name.")
    narrowed_by = (
        "mailbox_id__exact", "domain_id__exact", "tenant_id__exact", "user_id__exact", "token_id__exact",
        "target_kind__exact", "target_id__exact",
    )  # fmt: skip
    fields = (
        "at", "action", "shown_target", "changes", "actor", "role", "through", "client_address", "tenant_id",
        "reseller_id", "domain_id", "mailbox_id",
    )  # fmt: skip
    readonly_fields = ("shown_target", "actor")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        found: Any = super().get_changelist_instance(request)
        self._find_pages(request, found.result_list)
        return found

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        found = super().get_object(request, object_id, from_field)
        self._find_pages(request, [found] if found else [])
        return found

    def _find_pages(self, request: HttpRequest, shown: Iterable[Any]) -> None:
        """Give each its `pages`: by model and key, the page and the name of what exists for whoever looks.

        The audit itself names people by ids.
        """
        named: dict[str, set[int]] = defaultdict(set)
        pages: dict[tuple[str, int], tuple[str, str]] = {}
        for event in shown:
            event.pages = pages
            for kind, key in (
                (event.target_kind, event.target_id),
                ("apitoken", event.token_id),
                ("user", event.user_id),
            ):
                if key is not None:
                    named[kind].add(key)
        for page in self.admin_site._registry.values():  # all of them are `Scoped`
            keys = named.get(page.opts.model_name or "")
            if keys and page.has_view_permission(request):
                there = page.get_queryset(request).order_by().filter(pk__in=keys)
                view = f"admin:{page.opts.app_label}_{page.opts.model_name}_change"
                kind = str(page.opts.model_name)
                pages |= {(kind, row.pk): (reverse(view, args=[quote(row.pk)]), str(row)) for row in there}

    @admin.display(description=_("target"))
    def shown_target(self, event: Any) -> str:
        page, name = event.pages.get((event.target_kind, event.target_id), ("", ""))
        return _linked(f"{_kind(event.target_kind)} {name or event.target or event.target_id or ''}", page)

    @admin.display(description=_("who"))
    def actor(self, event: Any) -> str:
        if event.token_id:
            page, name = event.pages.get(("apitoken", event.token_id), ("", event.token_id))
            return _linked(gettext("token %(id)s") % {"id": name}, page)
        if event.user_id:
            page, name = event.pages.get(("user", event.user_id), ("", ""))
            return _linked(name or gettext("user %(id)s") % {"id": event.user_id}, page)
        return str(event.get_through_display())


def _kind(name: str) -> str:
    """What a model of that name calls itself."""
    named = {model._meta.model_name: str(model._meta.verbose_name) for model in admin.site._registry}
    return named.get(name, name)


def _linked(text: str, page: str) -> str:
    return format_html('<a href="{}">{}</a>', page, text) if page else text


class LatelyFailedFilter(SinceFilter):
    column = "hour"


@admin.register(FailedLogin)
class FailedLoginAdmin(ReadOnly):
    """Logins that failed, hour by hour."""

    resource = "why"
    audited = False
    list_display = ("last_at", "whose", "reason", "count", "whence", "through")
    list_filter = (LatelyFailedFilter, "reason", "through", TenantFilter)
    list_select_related = ("mailbox", "user", "domain")
    sortable_by = ()
    ordering = ("-hour", "-pk")
    narrowed_by = ("mailbox__id__exact",)
    search_fields = ("mailbox__address__startswith", "address__startswith")
    search_help_text = _("The beginning of an address.")
    fields = ("whose", "reason", "device", "through", "whence", "network", "count", "first_at", "last_at")
    readonly_fields = ("whose", "whence", "device")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related(*self.list_select_related)

    @admin.display(description=_("whose"))
    def whose(self, failed: FailedLogin) -> str:
        if found := failed.mailbox or failed.user:
            return str(found)
        if failed.address:
            return failed.address
        return str(gettext("others of %(domain)s") % {"domain": failed.domain} if failed.domain else gettext("others"))

    @admin.display(description=_("from"))
    def whence(self, failed: FailedLogin) -> str:
        return failed.client_address or str(
            gettext("this machine") if failed.network == "local" else gettext("several networks")
        )

    @admin.display(description=_("device"))
    def device(self, failed: FailedLogin) -> str:
        found = AppPassword.objects.filter(pk=failed.app_password_id).first() if failed.app_password_id else None
        return str(found) if found else "–"
