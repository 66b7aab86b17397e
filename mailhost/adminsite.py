"""The admin as one site: what stands in its side bar, and how it looks."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from django.contrib.admin.utils import quote
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.urls import path, reverse
from django.utils.translation import gettext_lazy as _

from accounts.two_factor.site import SecondStepSite

_MY_OWN: Final = _("My own")
NAVIGATION: Final[tuple[tuple[Any, tuple[tuple[str, str], ...]], ...]] = (
    ("", (("index", "space_dashboard"), ("why", "help"))),
    (
        _("Mail"),
        (
            ("accounts.mailbox", "inbox"),
            ("mailstore.message", "mail"),
            ("mailstore.maildropsession", "devices"),
            ("mailstore.importjob", "move_to_inbox"),
        ),
    ),
    (
        _("Customers"),
        (
            ("accounts.reseller", "storefront"),
            ("accounts.tenant", "apartment"),
            ("accounts.plan", "sell"),
            ("accounts.domain", "language"),
            ("accounts.alias", "alternate_email"),
        ),
    ),
    (
        _("Access"),
        (
            ("accounts.user", "group"),
            ("accounts.apppassword", "phonelink_lock"),
            ("accounts.apitoken", "key"),
        ),
    ),
    (
        _MY_OWN,
        (
            ("security", "passkey"),
            ("my-sessions", "computer"),
            ("language", "translate"),
        ),
    ),
    (
        _("What happened"),
        (
            ("accounts.auditevent", "history"),
            ("accounts.failedlogin", "lock_clock"),
            ("accounts.webhook", "webhook"),
            ("accounts.webhookdelivery", "outgoing_mail"),
            ("mailstore.refusal", "block"),
            ("mailstore.dailystatistics", "bar_chart"),
            ("mailstore.hourlystatistics", "show_chart"),
            ("mailstore.purgeforecast", "auto_delete"),
            ("mailstore.listener", "dns"),
            ("mailstore.backgroundrun", "autorenew"),
        ),
    ),
)
"""The side bar: by heading, models (lists) and names of URLs below `admin:` (single pages), each with its icon."""

PAGES: Final[dict[str, Any]] = {
    "index": _("Today"),
    "why": _("Why?"),
    "security": _("Signing in"),
    "my-sessions": _("Where I am signed in"),
    "language": _("Language and time"),
}
"""Titles of the single pages."""


SEARCHED: Final = frozenset(
    {"accounts.mailbox", "accounts.alias", "accounts.domain", "accounts.tenant", "accounts.reseller"}
)
"""Models of which the search in the side bar finds rows."""
MOST_FOUND: Final = 8
"""Of each."""


class Site(SecondStepSite):
    """Unfold's, with a side bar that shows what exists for whoever looks."""

    site_header = "Mailhost"
    site_title = "Mailhost"
    index_title = _("Today")
    site_url = None

    def get_urls(self) -> list[Any]:
        from accounts.language_page import language  # once there are models
        from mailstore import why_pages

        chosen = path("language/", self.admin_view(partial(language, self)), name="language")
        return [chosen, *why_pages.urls(self), *super().get_urls()]

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        context = super().each_context(request)
        # Unfold writes its colours into each page; ours stand in a file, and no page has a style of its own.
        context["colors"] = None
        context["styles"] = [static("admin-mailhost/admin.css"), static("admin-mailhost/mailbox.css")]
        context["scripts"] = [static("admin-mailhost/admin.js"), static("zone.js")]
        return context

    def search(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """What the search in the side bar finds: lists by their names, and rows by how theirs begin.

        Instead of unfold's own, which keeps for minutes what somebody found.
        """
        began = time.monotonic()
        term = request.GET.get("s", "").strip()
        if not term or "\0" in term:
            return HttpResponse()
        found = Paginator([*self._lists(request, term.lower()), *self._rows(request, term)], 100)
        context = {
            "page_obj": found,
            "results": found.page(1),
            "page_counter": 0,
            "execution_time": time.monotonic() - began,
            "command_show_history": False,
        }
        return TemplateResponse(
            request, "unfold/helpers/command_results.html", context, headers={"HX-Trigger": "search"}
        )

    def _lists(self, request: HttpRequest, term: str) -> Iterator[dict[str, Any]]:
        for group in self.get_sidebar_list(request):
            for item in group["items"]:
                if term in str(item["title"]).lower():
                    yield {**item, "description": group.get("title", "")}

    def _rows(self, request: HttpRequest, term: str) -> Iterator[dict[str, Any]]:
        icons = {name: icon for _title, entries in NAVIGATION for name, icon in entries}
        for page in self._registry.values():  # all of them are `Scoped`
            name = page.opts.label_lower
            if name in SEARCHED and page.has_view_permission(request):
                rows, _more = page.get_search_results(request, page.get_queryset(request), term)
                for row in rows[:MOST_FOUND]:
                    view = f"{name.replace('.', '_')}_{page.front}"  # type: ignore[attr-defined] # see above
                    link = reverse(f"{self.name}:{view}", args=[quote(row.pk)])
                    kind = page.opts.verbose_name
                    yield {"title": str(row), "description": kind, "link": link, "icon": icons[name]}

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        from mailstore import why_pages

        pages = {page.opts.label_lower: page for page in self._registry.values()}
        groups: list[dict[str, Any]] = []
        for title, entries in NAVIGATION:
            if getattr(request, "only_enrols", False) and title != _MY_OWN:
                continue  # nothing else can be reached yet
            items = []
            for name, icon in entries:
                if name == "why" and not why_pages.may_look(request):
                    continue
                if name in PAGES:
                    items.append(self._item(request, PAGES[name], icon, name))
                elif name in pages and pages[name].has_view_permission(request):
                    text = str(pages[name].opts.verbose_name_plural)
                    view = f"{name.replace('.', '_')}_changelist"
                    items.append(self._item(request, text[:1].upper() + text[1:], icon, view))
            if items:
                groups.append({"title": title, "items": items})
        return groups

    def _item(self, request: HttpRequest, title: Any, icon: str, view: str) -> dict[str, Any]:
        link = reverse(f"{self.name}:{view}")
        active = request.path == link if view == "index" else request.path.startswith(link)
        return {"title": title, "icon": icon, "link": link, "active": active, "has_permission": True}
