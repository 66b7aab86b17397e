"""The admin of app passwords: what devices sign in with."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts import app_passwords
from accounts.admin.provisioned import ProvisioningForm, Revocable, WordsField
from accounts.models import AppPassword
from accounts.scoped import TenantFilter


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


@admin.register(AppPassword)
class AppPasswordAdmin(Revocable):
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
