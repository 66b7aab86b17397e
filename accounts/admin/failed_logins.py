"""The admin of failed logins."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models import AppPassword, FailedLogin
from accounts.scoped import ReadOnly, SinceFilter, TenantFilter


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
