"""The scope of a request: what the database shows and takes while it is answered (accounts.scope)."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, UnreadablePostError
from django.utils.translation import gettext as _

from accounts import clients, languages, scope
from accounts.principals import Through

SCOPED: Final[dict[str, Through]] = {"/admin/": "admin"}
"""By the beginning of the path, what is asked through. The API enters its scope itself, once it knows the token."""

_SIGNING_IN: Final = "/admin/login/"  # takes seconds, and finds out itself who somebody is: no transaction waits for it


class WithinScope:
    """Middleware that answers a request in one transaction, in the scope of whoever has signed in.

    An answer that says the request failed leaves nothing behind. Outside these paths nothing exists at all.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        for prefix, through in SCOPED.items():
            if request.path_info.startswith(prefix) and request.path_info != _SIGNING_IN:
                return self._answer(request, through)
        return self._get_response(request)

    def _answer(self, request: HttpRequest, through: Through) -> HttpResponseBase:
        principal = scope.principal_of(request.user)
        # Django looks at no file's size; without a length it reads nothing.
        largest = settings.MAILHOST_MAX_UPLOAD if principal else 0
        if _length(request) > largest + settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return HttpResponse(_("That is too large."), status=413, content_type="text/plain")
        if principal is not None:
            languages.speak_to(request.user, request)
            address = clients.address_of(request, proxies=settings.MAILHOST_HTTP_PROXIES)
            principal = principal.via(through, address)
            with suppress(UnreadablePostError):
                request.POST  # noqa: B018 # read now: no transaction waits for a browser that sends a large file
        return scope.attempt(
            principal, lambda: self._get_response(request), keeps=lambda response: response.status_code < 400
        )


def _length(request: HttpRequest) -> int:
    """The octets that will be read of what is sent."""
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0
