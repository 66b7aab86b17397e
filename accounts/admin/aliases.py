"""The admin of aliases."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts import addresses, provisioning
from accounts.admin.provisioned import Provisioned, ProvisioningForm, visible_domain
from accounts.importing import Importing
from accounts.models import Alias, Mailbox
from accounts.scoped import TenantFilter
from accounts.spreadsheets import aliases as alias_sheets


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
        domain = visible_domain(addresses.alias(address), self.request)
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
