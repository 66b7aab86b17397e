"""The scope of a request: what the database shows and takes while it is answered (accounts.scope)."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, HttpResponseBase, UnreadablePostError
from django.shortcuts import redirect
from django.template.response import SimpleTemplateResponse
from django.utils.translation import gettext as _

from accounts import clients, languages, principals, scope
from accounts.principals import Principal, Through
from accounts.two_factor import gate
from accounts.two_factor.gate import Way

T = TypeVar("T")

SCOPED: Final[dict[str, Through]] = {"/admin/": "admin"}
"""By the beginning of the path, what is asked through. The API enters its scope itself, once it knows the token."""

_SIGNING_IN: Final = "/admin/login/"  # takes seconds, and finds out itself who somebody is: no transaction waits for it
_ENROLLING: Final = ("/admin/security/", "/admin/logout/", "/admin/jsi18n/")
"""All that is there for who must add a second step first."""


class Waiting(HttpResponse, Generic[T]):
    """What a view within a scope answers that has to wait for something else than the database.

    `wait` is called once the scope has ended, and holds nothing of the database; `then` makes the answer of what it
    gave, within the same scope again.
    """

    def __init__(self, wait: Callable[[], T], then: Callable[[T], HttpResponseBase]) -> None:
        super().__init__()
        self.wait, self.then = wait, then


class WithinScope:
    """Middleware that answers a request in one transaction, in the scope of whoever has signed in, with both steps.

    An answer that says the request failed leaves nothing behind. Outside these paths nothing exists at all.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        for prefix, through in SCOPED.items():
            if request.path_info.startswith(prefix) and not request.path_info.startswith(_SIGNING_IN):
                return self._answer(request, through)
        return self._get_response(request)

    def _answer(self, request: HttpRequest, through: Through) -> HttpResponseBase:
        with scope.whole_host():
            way = gate.way_of(request) if request.user.is_authenticated else Way.IN
            principal = principals.of(request.user) if way is not Way.OUT else None
        if way is Way.OUT:
            logout(request)
        elif way is Way.TO_ENROL and not request.path_info.startswith(_ENROLLING):
            return redirect(_ENROLLING[0])
        request.only_enrols = way is Way.TO_ENROL  # type: ignore[attr-defined] # for the side bar
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
        response = _attempt(principal, lambda: self._get_response(request))
        if isinstance(response, Waiting):
            scope.let_go()
            found, then = response.wait(), response.then
            response = _attempt(principal, lambda: _rendered(then(found)))
        return response


def _attempt(principal: Principal | None, answer: Callable[[], HttpResponseBase]) -> HttpResponseBase:
    return scope.attempt(principal, answer, keeps=lambda response: response.status_code < 400)


def _rendered(response: HttpResponseBase) -> HttpResponseBase:
    """Django renders only what views answer by themselves."""
    return response.render() if isinstance(response, SimpleTemplateResponse) else response


def _length(request: HttpRequest) -> int:
    """The octets that will be read of what is sent."""
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0
