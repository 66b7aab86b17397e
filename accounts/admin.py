"""The admin of who has mail. Its forms write through `accounts.provisioning`, and so does everything else here."""

from typing import Any, ClassVar, Final

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from accounts import addresses, provisioning, quotas
from accounts.models import Alias, Domain, Mailbox, Tenant, User
from accounts.provisioning import REFUSALS, UnknownDomain, UnknownMailbox
from accounts.scoped import OperatorsOnly, Scoped, TenantFilter, is_operator, links

MAILBOX_PAGES: Final[list[tuple[str, str]]] = []
"""Lists that can be narrowed to one mailbox, to be linked from it: title, name of the URL. Other apps add theirs."""


# --- Forms that write ----------------------------------------------------------------------------------------------


class ProvisioningForm(forms.ModelForm):  # type: ignore[type-arg] # Django's is not generic when it runs
    """A form that is checked by doing what it asks for.

    So a check has one home, and what is refused stands in the form. The page is one transaction: if anything is
    wrong after this, nothing was done.
    """

    request: HttpRequest  # set by `Provisioned.get_form`

    def write(self) -> Any:
        """Do it, and return what was written. Raises any of `REFUSALS`."""
        raise NotImplementedError

    def _post_clean(self) -> None:
        if self.errors:
            return
        try:
            self.instance = self.write()
        except REFUSALS as refusal:
            self.add_error(None, f"{refusal}.")


class Provisioned(Scoped):
    """A page whose forms write."""

    form = ProvisioningForm
    add_form: ClassVar[type[ProvisioningForm]]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = self.add_form
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.request = request
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The form has written it."""


class QuotaField(forms.Field):
    """Octets as people write them; empty is no limit."""

    widget = forms.TextInput

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, "help_text": "Such as 500M or 1G. Empty: no limit.", **options})

    def prepare_value(self, value: Any) -> Any:
        return quotas.exact(value) if isinstance(value, int) else value

    def to_python(self, value: Any) -> int | None:
        try:
            return quotas.parse(value) if value else None
        except ValueError as error:
            raise ValidationError(f"{error}.") from None


def _password_field(help_text: str) -> forms.CharField:
    return forms.CharField(
        label="Password",
        required=False,
        strip=False,
        help_text=help_text,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )


def _visible_domain(address: str, request: HttpRequest) -> Domain:
    """The domain of an address. Raises `UnknownDomain` where it does not exist for whoever asks."""
    host = addresses.split(address)[1]
    domain: Domain | None = Domain.objects.visible_to(request.user).filter(name=host).first()
    if domain is None:
        raise UnknownDomain(f"{host} is not hosted here")
    return domain


# --- Tenants and domains -------------------------------------------------------------------------------------------


class TenantAddForm(ProvisioningForm):
    class Meta:
        model = Tenant
        fields = ("slug", "name")

    def write(self) -> Tenant:
        tenant, added = provisioning.add_tenant(self.cleaned_data["slug"], name=self.cleaned_data["name"])
        if not added:
            raise provisioning.Refused(f"there is a tenant {tenant} already")
        return tenant


class TenantForm(ProvisioningForm):
    class Meta:
        model = Tenant
        fields = ("name", "retention", "admin_mailbox")

    def write(self) -> Any:
        provisioning.change_tenant(self.instance, **self.cleaned_data)
        return self.instance


@admin.register(Tenant)
class TenantAdmin(Provisioned):
    form = TenantForm
    add_form = TenantAddForm
    list_display = ("slug", "name", "admin_mailbox", "retention", "created_at", "pages")
    list_select_related = ("admin_mailbox",)
    ordering = ("slug",)
    search_fields = ("slug__startswith", "name__icontains")
    autocomplete_fields = ("admin_mailbox",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("slug", "name", "retention", "admin_mailbox", "created_at", "pages") if obj else ("slug", "name")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("slug", "created_at", "pages") if obj else ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_operator(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="what it has")
    def pages(self, tenant: Tenant) -> str:
        return links(
            [("Domains", "admin:accounts_domain_changelist"), ("Mailboxes", "admin:accounts_mailbox_changelist")],
            tenant__id__exact=tenant.pk,
        )


class DomainForm(ProvisioningForm):
    class Meta:
        model = Domain
        fields = ("tenant", "name")
        help_texts: ClassVar = {"name": "Such as example.test."}

    def write(self) -> Domain:
        domain, added = provisioning.add_domain(self.cleaned_data["name"], tenant=self.cleaned_data["tenant"])
        if not added:
            raise provisioning.DomainTaken(f"{domain} is hosted here already")
        return domain


@admin.register(Domain)
class DomainAdmin(Provisioned):
    add_form = DomainForm
    list_display = ("name", "tenant", "created_at")
    list_filter = (TenantFilter,)
    list_select_related = ("tenant",)
    ordering = ("name",)
    search_fields = ("name__startswith",)
    autocomplete_fields = ("tenant",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("tenant", "name", "created_at") if obj else ("tenant", "name")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_operator(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


# --- Logins --------------------------------------------------------------------------------------------------------

admin.site.unregister(Group)


@admin.register(Group)
class Groups(OperatorsOnly, GroupAdmin):
    """Sets of permissions: whoever changes one gives himself what he likes."""


class UserAddForm(ProvisioningForm):
    password = _password_field("Empty: nobody can sign in until one is set.")

    class Meta:
        model = User
        fields = ("email", "tenant")
        help_texts: ClassVar = {
            "email": "An address, which needs no mailbox here.",
            "tenant": "Whose staff it is. Empty: an operator, who may do everything everywhere.",
        }

    def write(self) -> User:
        return provisioning.add_staff(
            self.cleaned_data["email"] or "",
            password=self.cleaned_data["password"] or None,
            tenant=self.cleaned_data["tenant"],
        )


class UserForm(ProvisioningForm):
    password = _password_field("Empty: it stays as it is.")

    class Meta:
        model = User
        fields = ("is_active", "is_staff", "groups", "user_permissions")

    def write(self) -> Any:
        active, staff = self.cleaned_data["is_active"], self.cleaned_data["is_staff"]
        if self.instance == self.request.user and not (active and staff):
            raise provisioning.Refused("nobody can lock himself out")
        provisioning.change_login(self.instance, is_active=active, is_staff=staff)
        if self.cleaned_data["password"]:
            provisioning.set_password(self.instance, self.cleaned_data["password"])
        return self.instance


@admin.register(User)
class UserAdmin(Provisioned):
    """Operators, staff, and the owners of mailboxes. Only operators say who may do what."""

    form = UserForm
    add_form = UserAddForm
    list_display = ("__str__", "tenant", "mailbox", "is_active", "is_staff", "is_superuser", "last_login")
    list_filter = (TenantFilter, "is_staff", "is_superuser", "is_active")
    list_select_related = ("tenant", "mailbox")
    ordering = ("email", "pk")
    search_fields = ("email__startswith",)
    autocomplete_fields = ("tenant",)
    filter_horizontal = ("groups", "user_permissions")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ("email", "tenant", "password")
        rights = ("groups", "user_permissions") if self.has_change_permission(request, obj) else ()
        secret = ("password",) if self.has_change_permission(request, obj) else ()
        return (
            "email", "tenant", "mailbox", *secret, "is_active", "is_staff", "is_superuser", *rights,
            "last_login", "created_at",
        )  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("email", "tenant", "mailbox", "is_superuser", "last_login", "created_at") if obj else ()

    def get_field_queryset(self, db: Any, db_field: Any, request: HttpRequest) -> QuerySet[Any]:
        found = super().get_field_queryset(db, db_field, request)
        return found.select_related("content_type") if db_field.name == "user_permissions" else found

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_operator(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_operator(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


# --- Mailboxes and aliases -----------------------------------------------------------------------------------------


class MailboxAddForm(ProvisioningForm):
    password = _password_field("Empty: nobody can sign in until one is set.")
    quota_octets = QuotaField(label="Quota")
    release = forms.BooleanField(
        required=False, help_text="Give the address away although it is in quarantine after a closed mailbox."
    )

    class Meta:
        model = Mailbox
        fields = ("address",)
        help_texts: ClassVar = {"address": "In a domain that is hosted here."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["initial"] = {"quota_octets": settings.MAILHOST_DEFAULT_QUOTA} | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)

    def write(self) -> Mailbox:
        address = addresses.address(self.cleaned_data["address"])
        _visible_domain(address, self.request)
        mailbox, added = provisioning.add_mailbox(
            address,
            password=self.cleaned_data["password"] or None,
            quota_octets=self.cleaned_data["quota_octets"],
            release=self.cleaned_data["release"],
        )
        if not added:
            raise provisioning.AddressTaken(f"there is a mailbox {mailbox} already")
        return mailbox


class MailboxForm(ProvisioningForm):
    password = _password_field("Empty: it stays as it is.")
    quota_octets = QuotaField(label="Quota")

    class Meta:
        model = Mailbox
        fields = ("quota_octets", "pop3_enabled", "allowed_networks", "retention")

    def write(self) -> Any:
        values = dict(self.cleaned_data)
        password = values.pop("password")
        provisioning.change_mailbox(self.instance, **values)
        if password:
            provisioning.set_password(self.instance.user, password)
        return self.instance


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "Active"), ("suspended", "Suspended"), ("closed", "Closed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "closed":
                return queryset.exclude(closed_at=None)
            case "active" | "suspended" as state:
                return queryset.filter(closed_at=None, state=state)
        return queryset


@admin.register(Mailbox)
class MailboxAdmin(Provisioned):
    form = MailboxForm
    add_form = MailboxAddForm
    list_display = (
        "address", "tenant", "shown_state", "used", "quota", "message_count", "last_login_at", "last_login_address",
    )  # fmt: skip
    list_filter = (StateFilter, TenantFilter, "pop3_enabled")
    list_select_related = ("tenant",)
    ordering = ("address", "pk")
    search_fields = ("address__startswith",)
    search_help_text = "The beginning of an address or of an alias, or @ and a domain."
    actions = ("suspend", "resume", "delete_selected")

    def matching(self, term: str) -> Q:
        if term.startswith("@"):
            return Q(domain__name=term[1:])
        aliases = Alias.objects.filter(address__startswith=term)
        return Q(address__startswith=term) | Q(pk__in=aliases.values("targets__mailbox"))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("address", "password", "quota_octets", "release")})]
        changing = self.has_change_permission(request, obj)
        return [
            (None, {"fields": ("address", "tenant", "aliases", "pages")}),
            (
                "Use",
                {"fields": ("shown_state", "used", "message_count", "last_login_at", "last_login_address")},
            ),
            (
                "Settings",
                {
                    "fields": (
                        *(("password",) if changing else ()),
                        "quota_octets" if changing else "quota",
                        "pop3_enabled",
                        "allowed_networks",
                        "retention",
                    )
                },
            ),
            ("Life", {"fields": ("created_at", "closed_at")}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return (
            "address", "tenant", "aliases", "pages", "shown_state", "used", "quota", "message_count",
            "last_login_at", "last_login_address", "created_at", "closed_at",
        )  # fmt: skip

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or obj.closed_at is None)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or obj.closed_at is None)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        provisioning.close_mailbox(obj)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        self.message_user(request, f"Closed: {obj_display}.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:accounts_mailbox_changelist"))

    @admin.action(permissions=["change"], description="Suspend: no mail in or out until resumed")
    def suspend(self, request: HttpRequest, queryset: QuerySet[Mailbox]) -> None:
        self._do_to_open(request, queryset, provisioning.suspend, "suspended")

    @admin.action(permissions=["change"], description="Resume")
    def resume(self, request: HttpRequest, queryset: QuerySet[Mailbox]) -> None:
        self._do_to_open(request, queryset, provisioning.resume, "active")

    @admin.action(permissions=["delete"], description="Close: purged after the retention")
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Mailbox]) -> HttpResponse | None:
        if not request.POST.get("post"):
            return delete_selected(self, request, queryset)  # asks
        self._do_to_open(request, queryset, provisioning.close_mailbox, "closed")
        return None

    def _do_to_open(self, request: HttpRequest, queryset: QuerySet[Mailbox], change: Any, said: str) -> None:
        done = closed = 0
        for mailbox in queryset.iterator():
            if mailbox.closed_at:
                closed += 1
                continue
            try:
                change(mailbox)
            except UnknownMailbox:
                closed += 1
                continue
            self.log_change(request, mailbox, f"{said.capitalize()}.")
            done += 1
        self.message_user(request, f"Now {said}: {done} of the mailboxes.", messages.SUCCESS)
        if closed:
            self.message_user(request, f"Left as they were, since they are closed: {closed}.", messages.WARNING)

    @admin.display(description="state", ordering="state")
    def shown_state(self, mailbox: Mailbox) -> str:
        return "Closed" if mailbox.closed_at else mailbox.get_state_display()

    @admin.display(description="used", ordering="used_octets")
    def used(self, mailbox: Mailbox) -> str:
        return quotas.rounded(mailbox.used_octets)

    @admin.display(description="quota", ordering="quota_octets")
    def quota(self, mailbox: Mailbox) -> str:
        return quotas.rounded(mailbox.quota_octets)

    @admin.display(description="aliases")
    def aliases(self, mailbox: Mailbox) -> str:
        return ", ".join(map(str, Alias.objects.filter(targets__mailbox=mailbox)[:100])) or "none"

    @admin.display(description="pages")
    def pages(self, mailbox: Mailbox) -> str:
        return links(MAILBOX_PAGES, mailbox__id__exact=mailbox.pk)


class AliasForm(ProvisioningForm):
    targets = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 5}),
        help_text="Where its mail goes: mailboxes of the same tenant, and addresses outside; one in each line.",
    )
    release = forms.BooleanField(
        required=False, help_text="Give the address away although it is in quarantine after a closed mailbox."
    )

    class Meta:
        model = Alias
        fields = ("address", "expires_at")
        help_texts: ClassVar = {"address": "Or @ and the domain, for what no other address of it takes."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if alias := kwargs.get("instance"):
            kwargs["initial"] = {"targets": "\n".join(provisioning.targets_of(alias))} | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)

    def write(self) -> Alias:
        address = self.cleaned_data.get("address") or self.instance.address
        mailboxes, outside = self._targets()
        domain = _visible_domain(addresses.alias(address), self.request)
        if self.instance.pk is None and Alias.objects.filter(address=addresses.alias(address)).exists():
            raise provisioning.AddressTaken(f"there is an alias {address} already")
        alias, _ = provisioning.set_alias(
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
class AliasAdmin(Provisioned):
    form = AliasForm
    add_form = AliasForm
    list_display = ("address", "shown_targets", "tenant", "expires_at", "created_at")
    list_filter = (TenantFilter,)
    list_select_related = ("tenant",)
    ordering = ("address",)
    search_fields = ("address__startswith", "targets__mailbox__address__startswith")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Alias]:
        return super().get_queryset(request).prefetch_related("targets__mailbox")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("address", "targets", "expires_at", *(("tenant", "created_at") if obj else ("release",)))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("address", "tenant", "created_at") if obj else ()

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        provisioning.remove_alias(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Alias]) -> None:
        for alias in queryset:
            provisioning.remove_alias(alias)

    @admin.display(description="targets")
    def shown_targets(self, alias: Alias) -> str:
        names = sorted(str(target) for target in alias.targets.all())
        return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
