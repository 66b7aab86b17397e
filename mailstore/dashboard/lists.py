"""The lists behind the numbers of the first page: refused mail, statistics, what will be purged, what Celery did."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import formats
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.timezone import now
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from accounts import languages, principals, quotas
from accounts.scoped import ReadOnly, SinceFilter, TenantFilter
from mailstore import usage
from mailstore.dashboard import words
from mailstore.models import (
    BackgroundRun,
    DailyStatistics,
    HourlyStatistics,
    PurgeForecast,
    Refusal,
)
from mailstore.statistics import DAYS_AHEAD


class ReasonFilter(admin.SimpleListFilter):
    title = _("reason")
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(words.REASONS.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(reason=self.value()) if self.value() in words.REASONS else queryset


class RefusalAdmin(ReadOnly):
    """Mail that was refused, hour by hour."""

    audited = False
    resource = "why"
    list_display = ("last_at", "domain", "mailbox", "tenant", "shown_reason", "count", "sender_domain")
    list_filter = (SinceFilter, ReasonFilter, TenantFilter)
    list_select_related = ("domain", "mailbox", "tenant")
    sortable_by = ()
    ordering = ("-last_at",)
    narrowed_by = ("mailbox__id__exact", "domain__id__exact")
    search_fields = ("domain__name__startswith", "mailbox__address__startswith")
    search_help_text = _("The beginning of a domain, or of a mailbox's address.")
    fields = ("domain", "mailbox", "shown_reason", "count", "first_at", "last_at", "sender_domain")
    readonly_fields = ("shown_reason",)

    @admin.display(description=_("reason"))
    def shown_reason(self, refusal: Refusal) -> str:
        return words.reason(refusal.reason)


class WholeFilter(admin.SimpleListFilter):
    """For whoever sees the whole host, of which there are rows of its own."""

    title = pgettext_lazy("rows", "of")
    parameter_name = "of"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        principal = principals.of(request.user)
        if principal is None or not principal.is_host_wide:
            return []
        return [("host", _("The whole host")), ("domains", _("Each domain"))]

    def has_output(self) -> bool:
        return bool(self.value() or self.lookup_choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "host":
                return queryset.filter(domain=None)
            case "domains":
                return queryset.exclude(domain=None)
        return queryset


class _OfDomains(ReadOnly):
    """Rows of domains, and of the whole host. A domain may be gone before its rows."""

    audited = False
    resource = "usage"
    list_select_related = ("domain", "tenant")
    sortable_by = ()
    narrowed_by = ("domain__id__exact",)
    search_fields = ("domain__name__startswith",)
    search_help_text = _("The beginning of a domain.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related(*self.list_select_related)

    @admin.display(description=_("domain"))
    def whose(self, row: Any) -> str:
        if row.domain_id is None:
            return gettext("the whole host")
        return str(row.domain) if row.domain else gettext("a domain that is gone")


class _StatisticsSince(SinceFilter):
    column = "start"


class StatisticsAdmin(_OfDomains):
    """What happened in a domain in an hour or a day."""

    list_display = (
        "begins", "whose", "tenant", "delivered", "delivered_size", "refused", "sessions", "fetched", "removed",
        "stored_messages", "stored_size",
    )  # fmt: skip
    list_filter = (_StatisticsSince, WholeFilter, TenantFilter)
    ordering = ("-start", "domain")
    fields = (
        "begins", "whose", "delivered", "delivered_octets", "refused", "sessions", "fetched", "removed",
        "stored_messages", "stored_octets",
    )  # fmt: skip
    readonly_fields = ("begins", "whose")

    @admin.display(description=_("from (UTC)"))
    def begins(self, row: Any) -> str:
        return formats.date_format(row.start, "DATETIME_FORMAT" if isinstance(row, HourlyStatistics) else "DATE_FORMAT")

    @admin.display(description=_("octets"))
    def delivered_size(self, row: Any) -> str:
        return quotas.rounded(row.delivered_octets)

    @admin.display(description=_("in maildrops"))
    def stored_size(self, row: Any) -> str:
        return "–" if row.stored_octets is None else quotas.rounded(row.stored_octets)


class DayFilter(admin.SimpleListFilter):
    title = _("day (UTC)")
    parameter_name = "day"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return _days_ahead()

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        try:
            return queryset.filter(day=date.fromisoformat(self.value() or ""))
        except ValueError:
            return queryset


class PurgeForecastAdmin(_OfDomains):
    """What goes for good in the next days, as it was seen at the last full hour."""

    list_display = ("day", "whose", "tenant", "shown_messages", "size", "mailboxes")
    list_filter = (DayFilter, WholeFilter, TenantFilter)
    ordering = ("day", "domain")
    fields = ("day", "whose", "shown_messages", "size", "mailboxes")
    readonly_fields = ("whose", "shown_messages", "size")

    @admin.display(description=_("messages"))
    def shown_messages(self, row: PurgeForecast) -> str:
        query = {"goes": row.day.isoformat()}
        if row.domain_id:
            query["mailbox__domain__id__exact"] = str(row.domain_id)
        link = f"{reverse('admin:mailstore_message_changelist')}?{urlencode(query)}"
        return format_html('<a href="{}">{}</a>', link, languages.number(row.messages))

    @admin.display(description=_("octets"))
    def size(self, row: PurgeForecast) -> str:
        return quotas.rounded(row.octets)


class GoesFilter(admin.SimpleListFilter):
    """Messages by the day (UTC) on which they go for good; what is due already goes today."""

    title = _("goes for good")
    parameter_name = "goes"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return _days_ahead()

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        try:
            day = date.fromisoformat(self.value() or "")
            end = datetime.combine(day, time(), UTC) + timedelta(days=1)
        except (ValueError, OverflowError):
            return queryset
        due: QuerySet[Any] = queryset.annotate(due_at=usage.due_at(settings.MAILHOST_RETENTION)).filter(due_at__lt=end)
        return due if day <= _today() else due.filter(due_at__gte=end - timedelta(days=1))


class BackgroundRunAdmin(ReadOnly):
    """What workers did last, and when beat last asked for it."""

    audited = False
    resource = "listeners"
    list_display = ("at", "what", "kind", "process", "took", "error")
    list_filter = ("kind",)
    sortable_by = ()
    ordering = ("-at",)
    search_fields = ("process__startswith", "task__startswith")
    fields = ("what", "task", "kind", "process", "at", "took", "error")
    readonly_fields = ("what", "took")

    @admin.display(description=_("what"))
    def what(self, run: BackgroundRun) -> str:
        return words.task(run.task)

    @admin.display(description=_("took"))
    def took(self, run: BackgroundRun) -> str:
        return "–" if run.seconds is None else gettext("%(seconds)s s") % {"seconds": languages.number(run.seconds, 1)}


def _days_ahead() -> list[tuple[str, Any]]:
    today = _today()
    days = (today + timedelta(days=number) for number in range(DAYS_AHEAD))

    def named(day: date) -> str:
        return f"{formats.date_format(day, 'D')} {formats.date_format(day, 'MONTH_DAY_FORMAT')}"

    return [(day.isoformat(), _("today") if day == today else named(day)) for day in days]


def _today() -> date:
    return now().astimezone(UTC).date()


PAGES: Final[dict[Any, Any]] = {
    Refusal: RefusalAdmin,
    HourlyStatistics: StatisticsAdmin,
    DailyStatistics: StatisticsAdmin,
    PurgeForecast: PurgeForecastAdmin,
    BackgroundRun: BackgroundRunAdmin,
}
"""By model, its page."""
