"""The admin of domains: whether they are verified, and what DNS says of them."""

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts import languages, provisioning, tasks, together, verification
from accounts.admin.provisioned import Limited, LimitedPage, ProvisioningForm
from accounts.middleware import Waiting
from accounts.models import Alias, Domain, Mailbox
from accounts.scoped import RowPage, Scoped, TenantFilter
from accounts.zone import page as zone_page


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


class DomainForm(Limited):
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
class DomainAdmin(LimitedPage):
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
