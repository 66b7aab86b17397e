"""The statistics over time, as unfold draws them, and as a table for whoever does not see them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db.models import Sum
from django.http import HttpRequest
from django.urls import reverse
from django.utils import formats
from django.utils.timezone import localtime, now
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from accounts import languages, quotas
from accounts.principals import Principal
from accounts.scoped import may
from mailstore import statistics
from mailstore.models import DailyStatistics, HourlyStatistics, Statistics

_COUNTED: Final = ("delivered", "refused", "fetched", "removed")
_STORED: Final = "stored_octets"


class Span(NamedTuple):
    """How far back the charts go, and in which steps."""

    name: str
    title: Any
    model: type[Statistics]
    step: timedelta
    steps: int
    format: str  # of the time at which a step begins


SPANS: Final = (
    Span("day", gettext_lazy("24 hours"), HourlyStatistics, timedelta(hours=1), 24, "H:i"),
    Span("week", gettext_lazy("7 days"), HourlyStatistics, timedelta(hours=6), 28, "D H:i"),
    Span("month", gettext_lazy("30 days"), DailyStatistics, timedelta(days=1), 30, "MONTH_DAY_FORMAT"),
    Span("year", gettext_lazy("1 year"), DailyStatistics, timedelta(days=7), 53, "DATE_FORMAT"),
)


def span(name: str) -> Span:
    """The span of that name; of none, the last day."""
    return next((one for one in SPANS if one.name == name), SPANS[0])


@dataclass(frozen=True, kw_only=True)
class Series:
    """What one line or one kind of bar shows; None where nothing is known."""

    label: str
    colour: str  # a variable of the style sheet
    values: Sequence[int | None]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart."""

    name: str
    title: str
    kind: str  # line or bar
    labels: Sequence[str]
    series: Sequence[Series]
    empty: str  # what is said if there is nothing to draw
    link: str  # to the rows
    unit: int = 1
    is_size: bool = False  # and numbers are octets

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(value for one in self.series for value in one.values)

    @property
    def value(self) -> str:
        """What unfold draws."""
        return json.dumps({"labels": self.labels, "datasets": [self._dataset(one) for one in self.series]})

    @property
    def rows(self) -> Iterable[tuple[str, list[str]]]:
        """The same for a table, the latest first, without the steps in which nothing happened."""
        for number in reversed(range(len(self.labels))):
            values = [one.values[number] for one in self.series]
            if any(values):
                yield self.labels[number], [self._text(value) for value in values]

    def _text(self, value: int | None) -> str:
        if value is None:
            return "–"
        return quotas.rounded(value) if self.is_size else languages.number(value)

    def _dataset(self, one: Series) -> dict[str, Any]:
        data = [value if value is None or self.unit == 1 else round(value / self.unit, 2) for value in one.values]
        colour = f"var({one.colour})"
        shown = {"label": one.label, "data": data, "borderColor": colour, "backgroundColor": colour}
        if self.kind == "bar":
            return shown | {"maxBarThickness": 12, "borderRadius": 2}
        alone = sum(value is not None for value in data) == 1  # makes no line
        return shown | {"spanGaps": True, "tension": 0.2, "borderWidth": 2, "pointRadius": 3 if alone else 0}


_TICKS: Final = {"color": "#7b8494", "maxRotation": 0}
_OPTIONS: Final = {
    "responsive": True,
    "maintainAspectRatio": False,
    "animation": False,
    "interaction": {"mode": "index", "intersect": False},
    "plugins": {"legend": {"display": False}},
    "scales": {
        "x": {"grid": {"display": False}, "border": {"display": False}, "ticks": _TICKS | {"maxTicksLimit": 6}},
        "y": {"beginAtZero": True, "grid": {}, "border": {"display": False}, "ticks": _TICKS | {"maxTicksLimit": 5}},
    },
}


def options() -> str:
    """How they are drawn, instead of unfold's own way: from zero, with numbers as the page's language writes them."""
    return json.dumps({**_OPTIONS, "locale": get_language()})


def of(request: HttpRequest, principal: Principal, span: Span, *, has_counted: bool) -> list[Chart]:
    """The charts for somebody."""
    if not may(request, "usage", "read"):
        return []
    starts = _starts(span)
    rows: Any = (
        statistics.of(span.model, principal)
        .filter(start__gte=starts[0])
        .values("start")
        .annotate(**{f"all_{name}": Sum(name) for name in (*_COUNTED, _STORED)})
        .order_by("start")
    )
    sums: dict[str, list[int | None]] = {name: [0] * len(starts) for name in _COUNTED}
    sums[_STORED] = [None] * len(starts)
    for row in rows:
        number = min((row["start"] - starts[0]) // span.step, len(starts) - 1)
        for name in _COUNTED:
            sums[name][number] = (sums[name][number] or 0) + int(row[f"all_{name}"] or 0)
        if row[f"all_{_STORED}"] is not None:
            sums[_STORED][number] = int(row[f"all_{_STORED}"])  # the last look at it in the step
    labels = [_label(start, span) for start in starts]
    link = rows_of(span.model, principal, since=span.name)
    unit, suffix = _unit(max((octets or 0 for octets in sums[_STORED]), default=0))
    nothing_yet = _("Nothing has been counted yet. The first numbers come a few minutes after the start.")

    def empty(text: str) -> str:
        return text if has_counted else nothing_yet

    return [
        Chart(
            name="deliveries",
            title=_("Deliveries"),
            kind="bar",
            labels=labels,
            series=(
                Series(label=_("Delivered"), colour="--chart-main", values=sums["delivered"]),
                Series(label=_("Refused"), colour="--chart-bad", values=sums["refused"]),
            ),
            empty=empty(_("No mail came in this time.")),
            link=link,
        ),
        Chart(
            name="fetches",
            title=_("Fetches"),
            kind="bar",
            labels=labels,
            series=(
                Series(label=_("Fetched"), colour="--chart-main", values=sums["fetched"]),
                Series(label=_("Removed"), colour="--chart-second", values=sums["removed"]),
            ),
            empty=empty(_("No mail was fetched in this time.")),
            link=link,
        ),
        Chart(
            name="storage",
            title=_("Mail in maildrops"),
            kind="line",
            labels=labels,
            series=(Series(label=_unit_name(suffix), colour="--chart-main", values=sums[_STORED]),),
            empty=empty(_("No maildrop had any mail when that was last looked at, which is once an hour.")),
            link=link,
            unit=unit,
            is_size=True,
        ),
    ]


def rows_of(model: type[Statistics], principal: Principal, *, since: str) -> str:
    """The list of the rows that are added up for somebody."""
    whole = "&of=host" if principal.is_host_wide else ""
    return f"{reverse(f'admin:mailstore_{model._meta.model_name}_changelist')}?since={since}{whole}"


def _starts(span: Span) -> list[datetime]:
    last = now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if span.model is DailyStatistics:
        last = last.replace(hour=0) - (span.step - timedelta(days=1))  # the last step ends with today
    else:
        last -= timedelta(hours=last.hour % (span.step // timedelta(hours=1)))
    return [last - span.step * number for number in reversed(range(span.steps))]


def _label(start: datetime, span: Span) -> str:
    return formats.date_format(start if span.model is DailyStatistics else localtime(start), span.format)


def _unit_name(suffix: str) -> str:
    return _("%(unit)s octets") % {"unit": suffix} if suffix else _("octets")


def _unit(most: int) -> tuple[int, str]:
    for power, suffix in ((4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if most >= 1024**power:
            return 1024**power, suffix
    return 1, ""
