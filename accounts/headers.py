"""What browsers are told about pages: nothing of others is loaded, nothing that we did not write runs."""

from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponseBase

HEADERS: Final[dict[str, dict[str, str]]] = {
    "/me/": {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",  # CSRF protection asks for it over https
    },
    "/admin/": {
        # 'unsafe-eval' is for unfold's Alpine, which compiles what stands in its own templates' attributes, and sets
        # an attribute of style there. Nothing inline runs, and no file of others.
        "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-eval'; "
        "style-src-attr 'unsafe-inline'; img-src 'self' data:; "
        "object-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        "Referrer-Policy": "same-origin",
    },
}
"""By the beginning of the path. A view that needs others sets its own."""


class Headers:
    """Middleware that puts `HEADERS` on every answer, whoever made it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        for prefix, headers in HEADERS.items():
            if request.path_info.startswith(prefix):
                for name, value in headers.items():
                    response.headers.setdefault(name, value)
        return response
