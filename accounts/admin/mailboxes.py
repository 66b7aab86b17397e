"""The admin of mailboxes: state, quota, password, retention."""

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget

from accounts import addresses, languages, provisioning, quotas, together
from accounts.admin.provisioned import (
    DaysField,
    Provisioned,
    ProvisioningForm,
    QuotaField,
    password_field,
    visible_domain,
)
from accounts.importing import Importing
from accounts.models import Alias, Mailbox, little_room
from accounts.scoped import RowPage, TenantFilter
from accounts.spreadsheets import mailboxes as mailbox_sheets

if TYPE_CHECKING:  # unfold has no types
    from django.contrib.admin.views.main import ChangeList
else:
    from unfold.views import ChangeList


def _language_field() -> forms.ChoiceField:
    return forms.ChoiceField(
        label=_("Language"),
        required=False,
        widget=UnfoldAdminSelectWidget,
        choices=[("", _("As the browser asks")), *languages.NAMES],
        help_text=_("In which its owner reads pages and what is written to him; he can choose another one."),
    )


class MailboxAddForm(ProvisioningForm):
    password = password_field(_("Empty: nobody can sign in until one is set."))
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
        visible_domain(address, self.request)
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
    password = password_field(_("Empty: it stays as it is."))
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
            visible_domain(address, self.request)
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
