"""The admin of logins: who may come in here."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts import permissions, principals, provisioning
from accounts.admin.provisioned import (
    Provisioned,
    ProvisioningForm,
    WordsField,
    is_host_wide,
    password_field,
    visible_domains,
)
from accounts.models import Mailbox, Reseller, Role, Tenant, User
from accounts.scoped import TenantFilter, sees_tenants
from accounts.two_factor import row_pages


class UserAddForm(ProvisioningForm):
    password = password_field(_("Empty: nobody can sign in until one is set."))
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
            domains=visible_domains(values["domains"], self.request),
        )

    def _makes(self, role: str) -> bool:
        return permissions.makes(self.principal, role)


class UserForm(ProvisioningForm):
    password = password_field(_("Empty: it stays as it is."))
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
        domains = visible_domains(values["domains"], self.request) if "domains" in values else None
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
            reseller = ("reseller",) if is_host_wide(request) else ()
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
