"""What every resource of the API stands on: who asks, his scope, the preconditions, and how it is answered.

A request is one transaction in the scope of whoever asks. An answer that says it failed, or a dry run, leaves nothing
behind. What is not allowed is refused before a handler runs: 404 for what does not exist for him, 403 for what he sees
and may not do.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, cast

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django_filters import FilterSet
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer, Serializer
from rest_framework.viewsets import ViewSetMixin

from accounts import permissions, scope
from accounts.api import authentication, etags, idempotency
from accounts.api.pagination import Pages
from accounts.api.parsers import Json
from accounts.api.problems import FieldError, Problem
from accounts.principals import Principal

H = TypeVar("H", bound=Callable[..., Any])

MAX_BODY: Final = 1024 * 1024
"""Octets of a body, where a view does not say otherwise."""

_SAFE: Final = ("GET", "HEAD")


class Would(NamedTuple):
    """What a request would do, for who only asks: in a sentence, and in numbers."""

    action: str
    summary: str
    counts: dict[str, int]


def needs(verb: str) -> Callable[[H], H]:
    """A handler that `permissions.TABLE` has under another verb than its name suggests."""

    def mark(handler: H) -> H:
        handler.verb = verb  # type: ignore[attr-defined]
        return handler

    return mark


class Resource(ViewSetMixin, GenericAPIView[Any]):
    """One kind of thing.

    A subclass says what it is called in the table of permissions (`resource`), which rows there are (`rows`), by what
    they are named in addresses (`lookup_field`), in what orders its lists come, and how it is shown
    (`serializer_class`). Its handlers are named as those of a viewset.
    """

    resource: ClassVar[str]
    orderings: ClassVar[tuple[str, ...]] = ("id",)
    nulls_first: ClassVar[bool] = False
    """Whether rows without a value come first in descending order, as indexes have them; else they come last."""
    volatile: ClassVar[frozenset[str]] = frozenset()
    """Fields that change by themselves: a write is not refused because of them."""
    filterset_class: ClassVar[type[FilterSet] | None] = None
    max_body: ClassVar[int] = MAX_BODY
    extra_parameters: ClassVar[frozenset[str]] = frozenset()
    """Parameters of the query that a handler reads itself."""

    authentication_classes = ()
    permission_classes = ()
    parser_classes = (Json,)
    filter_backends = (DjangoFilterBackend,)
    pagination_class = Pages
    metadata_class = None
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]

    queryset: Any
    principal: Principal
    request: Request
    _said: Would | None

    # --- What subclasses use ---------------------------------------------------------------------------------------

    def rows(self) -> QuerySet[Any]:
        """All rows that exist for whoever asks."""
        found: QuerySet[Any] = self.queryset.all().visible_to(self.principal)
        return found

    def listed(self) -> QuerySet[Any]:
        """Those of them that a list begins with, before it is filtered."""
        return self.rows()

    def find(self, *, lock: bool = False) -> Any:
        """The row that the address names. Raises `Problem` with 404, and where it is to be written with 412.

        With `lock` nobody changes it until the transaction ends.
        """
        found = self.find_or_none(lock=lock)
        if found is None:
            raise Problem("not-found")
        return found

    def find_or_none(self, *, lock: bool = False) -> Any:
        """As `find`, for what may be there or not. Without preconditions nothing need be locked yet."""
        conditional = lock and etags.is_conditional(self.request._request)
        found = self.look_up(self.kwargs[self.lookup_field], lock=conditional)
        if conditional:
            etags.check_unchanged(self.request._request, None if found is None else self.tag(found))
        return found

    def named(self, model: Any, kind: str, field: str = "", **key: Any) -> Any:
        """What a field of the body names, of what exists for whoever asks. Raises `Problem`."""
        row = model.objects.visible_to(self.principal).filter(**key).first()
        if row is None:
            text = f"There is no {kind} {next(iter(key.values()))}."
            raise Problem(f"unknown-{kind}", text, errors=[FieldError(field or kind, f"unknown-{kind}", text)])
        return row

    def look_up(self, name: str, *, lock: bool = False) -> Any:
        """The row of that name, or None. To be overridden where a name has several spellings."""
        rows = self.rows()
        if lock:
            rows = rows.select_for_update(no_key=True, of=("self",))
        try:
            return rows.filter(**{self.lookup_field: name}).first() if "\0" not in name else None
        except ValueError:
            return None

    def body(self, kind: type[BaseSerializer[Any]], **options: Any) -> dict[str, Any]:
        """The body of the request, as `kind` reads it. Raises `ValidationError`."""
        serializer = kind(data=self.request.data, context=self.get_serializer_context(), **options)
        serializer.is_valid(raise_exception=True)
        found: dict[str, Any] = serializer.validated_data
        return found

    def shown(self, row: Any) -> dict[str, Any]:
        """The row as it is shown, with all its fields."""
        return dict(self.get_serializer(row).data)

    def tag(self, row: Any) -> str:
        """The row's ETag."""
        return etags.of(self.shown(row), volatile=self.volatile)

    def answer(
        self, row: Any, *, status: int = 200, headers: Mapping[str, str] | None = None, **more: Any
    ) -> HttpResponseBase:
        """The row as an answer. `more` is shown beside its fields, this once."""
        shown = self.shown(row)
        tag = etags.of(shown, volatile=self.volatile)
        if self.request.method in _SAFE and etags.is_known(self.request._request, tag):
            return HttpResponse(status=304, headers={"ETag": tag})
        return Response(self._selected(shown) | more, status=status, headers={"ETag": tag, **(headers or {})})

    def said(self) -> bytes:
        """What stands for the body of a request: a retry has the same."""
        return self.request._request.body

    def body_limit(self) -> int:
        """Octets that the body of this request may have."""
        return self.max_body

    def prepare(self) -> None:
        """What takes long, and is done before the transaction of the request begins. Raises `Problem`."""

    def would(self, action: str, summary: str, **counts: int) -> None:
        """Say what is done: `closes 3 mailboxes, 4.1 GB in 812 messages`."""
        self._said = Would(action, summary, counts)

    def describe(self) -> Would:
        """What a handler that said nothing does."""
        return Would(self.verb, f"{_DOES.get(self.verb, self.verb)} {self._subject()}", {})

    # --- Reading, which is the same for all ------------------------------------------------------------------------

    def list(self, request: Request, **names: str) -> HttpResponseBase:
        """Those that exist for whoever asks, a page at a time."""
        page = self.paginate_queryset(self._filtered(self.listed()))
        assert page is not None
        data = self.get_serializer(page, many=True).data
        return self.get_paginated_response([self._selected(shown) for shown in data])

    def retrieve(self, request: Request, **names: str) -> HttpResponseBase:
        """One of them."""
        return self.answer(self.find())

    # --- How a request is answered ---------------------------------------------------------------------------------

    @property
    def verb(self) -> str:
        """What the table of permissions calls that which is done."""
        handler = getattr(self, self.action or "", None)
        return str(getattr(handler, "verb", None) or _VERBS[self.action or ""])

    @property
    def is_dry_run(self) -> bool:
        """Whether it is only asked what would happen."""
        return self.request.method not in _SAFE and self.request.query_params.get("dry_run") == "true"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        self.args, self.kwargs = args, kwargs
        self.headers: dict[str, str] = {}
        self._said = None
        self.request = self.initialize_request(request, *args, **kwargs)
        try:
            self._begin(request)
            self.prepare()
        except Exception as error:
            response: HttpResponseBase = self.handle_exception(error)
        else:
            response = scope.attempt(self.principal, self._answer_once, keeps=idempotency_or_success)
        return self._finished(response)

    def _begin(self, request: HttpRequest) -> None:
        """All that is asked before anything of the host is looked at."""
        if self.action not in self.action_map.values():
            raise Problem("method-not-allowed", headers={"Allow": ", ".join(self.allowed_methods)})
        self.format_kwarg = None
        self.principal = authentication.authenticate(request)
        self.request.principal = self.principal  # type: ignore[attr-defined] # for filters
        self.request.accepted_renderer, self.request.accepted_media_type = self.perform_content_negotiation(
            self.request
        )
        if request.method not in _SAFE:
            self._check_body(request)
        if request.method == "POST":
            idempotency.key_of(request)
        self._check_parameters()

    def _check_body(self, request: HttpRequest) -> None:
        if "Transfer-Encoding" in request.headers and not request.headers.get("Content-Length"):
            raise Problem("length-required")
        length = request.META.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal() or int(length) > self.body_limit():
            raise Problem("too-large", f"A body has at most {self.body_limit()} octets here.")

    def _check_parameters(self) -> None:
        known = set(self.extra_parameters)
        if self.request.method in _SAFE:
            known |= {"fields"}
            if self.action == "list":
                filters = self.filterset_class.base_filters if self.filterset_class else ()
                known |= {"limit", "cursor", "ordering", "count", *filters}
        else:
            known |= {"dry_run"}
        given = self.request.query_params
        errors = [FieldError(name, "unknown", "There is no such parameter.") for name in given if name not in known]
        errors += [FieldError(name, "repeated", "It comes twice.") for name, all_ in given.lists() if len(all_) > 1]
        errors += [FieldError(name, "empty", "It says nothing.") for name, text in given.items() if not text]
        errors += [
            FieldError(name, "null-characters-not-allowed", "It has a NUL.")
            for name, text in given.items()
            if "\0" in text
        ]
        if given.get("dry_run", "true") not in ("true", "false"):
            errors.append(FieldError("dry_run", "invalid", "It is true or false."))
        if errors:
            raise Problem("bad-parameter", errors=errors)

    def _answer_once(self) -> HttpResponseBase:
        """The answer, or the one that this request was given before."""
        if self.request.method != "POST" or self.is_dry_run:
            return self._answered()
        try:
            claim = idempotency.claim(self.request._request, self.principal, self.said())
        except Problem as problem:
            return problem.answer()
        if claim is None or isinstance(claim, HttpResponseBase):
            return claim or self._answered()
        response = scope.attempt(self.principal, self._answered, keeps=_succeeded)
        assert isinstance(response, HttpResponse)
        if idempotency.is_kept(response):
            idempotency.keep(claim, response)
            response.is_remembered = True  # type: ignore[attr-defined]
        return response

    def _answered(self) -> HttpResponseBase:
        try:
            self._check_allowed()
            response = getattr(self, self.action or "")(self.request, **self.kwargs)
        except Exception as error:
            return self._finished(self.handle_exception(error))
        if self.is_dry_run and response.status_code < 400:
            would = (self._said or self.describe())._asdict()
            response = Response({"dry_run": True, "would": would})
            response.is_dry = True  # type: ignore[attr-defined]
        return self._finished(response)

    def _check_allowed(self) -> None:
        try:
            permissions.check(self.principal, self.resource, self.verb)
        except permissions.NotAllowed:
            if self.lookup_field not in self.kwargs:
                self.rows()  # may say that what they belong to does not exist
            elif self.look_up(self.kwargs[self.lookup_field]) is None:
                raise Problem("not-found") from None
            raise

    def _finished(self, response: HttpResponseBase) -> HttpResponseBase:
        if isinstance(response, Response):
            if response.is_rendered:
                return response
            response = self.finalize_response(self.request, response)
            response["Cache-Control"] = "no-store" if self.request.method not in _SAFE else "private, no-cache"
            response.render()
        return response

    def _filtered(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        if self.filterset_class is None:
            return rows
        given = dict(self.request.query_params.items())
        filters = self.filterset_class(data=given, queryset=rows, request=self.request)
        if not filters.is_valid():
            raise Problem(
                "bad-parameter",
                errors=[
                    FieldError(name, "invalid", " ".join(error["message"] for error in errors))
                    for name, errors in filters.errors.get_json_data().items()
                ],
            )
        found: QuerySet[Any] = filters.qs
        return found

    def _selected(self, shown: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that were asked for."""
        text = self.request.query_params.get("fields")
        if text is None or self.request.method not in _SAFE:
            return dict(shown)
        names = text.split(",")
        known = cast("Serializer[Any]", self.get_serializer()).fields
        if unknown := [name for name in names if name not in known]:
            raise Problem(
                "bad-parameter", errors=[FieldError("fields", "unknown", f"There is no field {unknown[0][:40]!r}.")]
            )
        return {name: value for name, value in shown.items() if name in names}

    def _subject(self) -> str:
        name = self.kwargs.get(self.lookup_field, "")
        return f"{self.resource}: {name}" if name else self.resource


def idempotency_or_success(response: HttpResponseBase) -> bool:
    """Whether what was done for this answer stays done."""
    return _succeeded(response) or getattr(response, "is_remembered", False)


def _succeeded(response: HttpResponseBase) -> bool:
    return response.status_code < 400 and not getattr(response, "is_dry", False)


_VERBS: Final = {
    "list": "read",
    "retrieve": "read",
    "create": "create",
    "update": "change",
    "partial_update": "change",
    "destroy": "delete",
}
_DOES: Final = {"create": "adds to", "change": "changes", "delete": "removes from"}
