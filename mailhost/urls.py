"""The addresses of the web side."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path, re_path
from django.views import defaults
from django.views.generic import RedirectView
from django.views.i18n import set_language

from accounts.api import pages, problems

# /healthz and /readyz are answered before any of these (mailhost.health.Probes).
urlpatterns = [
    path("", RedirectView.as_view(pattern_name="owner-overview")),
    path("favicon.ico", lambda request: HttpResponse(status=204)),  # there is none, and browsers always ask
    path("language/", set_language, name="set-language"),  # before somebody signs in
    path("me/", include("mailstore.pages.urls")),
    path("me/", include("accounts.pages.urls")),
    path("admin/", admin.site.urls),
    path("api/openapi.json", pages.description),
    path("api/docs/", pages.docs),
    path("api/problems/", pages.problems),
    path("api/problems/<slug:code>/", pages.problem),
    path("api/v1/", include("accounts.api.urls")),
    path("api/v1/", include("mailstore.api.urls")),
    re_path("^api/", problems.unknown_address),
]


def _told(default: Any, code: str) -> Any:
    """How a request that failed outside of any view of the API is answered: below /api/ with a problem document."""

    def handler(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.path.startswith("/api/"):
            return problems.Problem(code).answer()
        answer: HttpResponse = default(request, *args, **kwargs)
        return answer

    return handler


handler400 = _told(defaults.bad_request, "bad-request")
handler403 = _told(defaults.permission_denied, "not-allowed")
handler404 = _told(defaults.page_not_found, "not-found")
handler500 = _told(defaults.server_error, "fault")
