"""The admin of tokens: what programs sign in with."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts import permissions, provisioning, tokens
from accounts.admin.provisioned import ProvisioningForm, Revocable, WordsField, is_host_wide, visible_domains
from accounts.models import ApiToken, Reseller, Role, Tenant
from accounts.scoped import TenantFilter, sees_tenants


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
        values["domains"] = visible_domains(values["domains"], self.request)
        token, text = tokens.make(by=self.principal, **values)
        self.shown_once = (gettext("API token"), text)
        return token


@admin.register(ApiToken)
class ApiTokenAdmin(Revocable):
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
            *(("reseller",) if is_host_wide(request) else ()),
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
