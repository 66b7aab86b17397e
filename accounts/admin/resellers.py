"""The admin of resellers."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext

from accounts import provisioning
from accounts.admin.provisioned import Limited, LimitedPage, ProvisioningForm
from accounts.models import Reseller


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


class ResellerForm(Limited):
    class Meta:
        model = Reseller
        fields = ("name", "external_id")

    def write(self) -> Any:
        provisioning.change_reseller(self.instance, **self.given("name", "external_id"))
        self.limit(self.instance)
        return self.instance


@admin.register(Reseller)
class ResellerAdmin(LimitedPage):
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
