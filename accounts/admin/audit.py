"""The admin of the audit: who did what."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models import AuditEvent, Role
from accounts.scoped import ReadOnly


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
