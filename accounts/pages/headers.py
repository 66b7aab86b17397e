"""What browsers are told about the owner's pages: nothing of others is loaded, nothing is kept."""

from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponseBase

PREFIX: Final = "/me/"

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # CSRF protection asks for it over https
}


class Headers:
    """Middleware that puts `HEADERS` on every answer below `PREFIX`, whoever made it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        if request.path_info.startswith(PREFIX):
            for name, value in HEADERS.items():
                response[name] = value
        return response
