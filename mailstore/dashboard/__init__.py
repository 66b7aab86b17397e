"""The first page of the admin: what matters today to whoever looks, each number a link to the rows behind it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.http import HttpRequest
from django.templatetags.static import static

from accounts import principals
from mailstore.dashboard import charts, numbers
from mailstore.models import Rollup


class _Counter:
    """Counts what is asked of the database, and for how long."""

    def __init__(self) -> None:
        self.queries = 0
        self._began = time.perf_counter()

    def __call__(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        self.queries += 1
        return execute(*arguments)

    @property
    def milliseconds(self) -> int:
        return round((time.perf_counter() - self._began) * 1000)


def today(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the page shows, with what it cost: as unfold's DASHBOARD_CALLBACK."""
    principal = principals.of(request.user)
    if principal is None:
        return context
    span = charts.span(request.GET.get("span", ""))
    with _counted() as counter:
        rollup = Rollup.objects.first()
        context |= numbers.of(request, principal, rollup)
        context["charts"] = charts.of(request, principal, span, has_counted=bool(rollup and rollup.counted_at))
    return context | {
        "span": span,
        "spans": charts.SPANS,
        "chart_options": charts.options(),
        "counted_at": rollup.counted_at if rollup else None,
        "queries": counter.queries,
        "milliseconds": counter.milliseconds,
        "styles": [*context.get("styles", ()), static("admin-mailhost/dashboard.css")],
    }


@contextmanager
def _counted() -> Iterator[_Counter]:
    counter = _Counter()
    with connection.execute_wrapper(counter):
        yield counter
