"""Pages of lists that stay fast at a million rows: each begins behind the last row of the one before."""

from typing import Any, Final

from django.core import signing
from django.core.exceptions import ValidationError
from django.db.models import F, Q
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.problems import FieldError, Problem

USUAL: Final = 50
MOST: Final = 500
COUNTED: Final = 10_000
"""Rows up to which a list is counted, for who asks for it."""

_SALT: Final = "mailhost.cursor"


class Pages(BasePagination):
    """Pages of a view's list, in one of the orders that it offers (`orderings`, by field; among equals by key).

    A cursor is signed, and holds the order and the last row's place in it.
    """

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        """The rows of the page, which `get_paginated_response` then wraps. Raises `Problem`."""
        self._counted = queryset if _count(request) else None
        limit = _limit(request)
        ordering = _ordering(request, view)
        self._place = (view.resource, ordering)
        nulls_first = view.nulls_first and ordering.startswith("-")
        field, descending = ordering.removeprefix("-"), ordering.startswith("-")
        if text := request.query_params.get("cursor"):
            value, key = self._read(text, queryset.model, field)
            queryset = queryset.filter(
                _behind(queryset.model, field, value, key, descending=descending, nulls_first=nulls_first)
            )
        names = [field] if field in ("id", "pk") else [field, "pk"]
        orders = [F(name).desc() if descending else F(name).asc() for name in names]
        if not nulls_first and queryset.model._meta.get_field(names[0]).null:
            orders[0].nulls_last = True
        rows = list(queryset.order_by(*orders)[: limit + 1])
        self._next = self._write(rows[limit - 1], field) if len(rows) > limit else None
        return rows[:limit]

    def get_paginated_response(self, data: Any) -> Response:
        answer = {"items": data, "next": self._next}
        if self._counted is not None:
            counted = self._counted.order_by()[: COUNTED + 1].count()
            answer["count"] = {"rows": min(counted, COUNTED), "exact": counted <= COUNTED}
        return Response(answer)

    def _write(self, row: Any, field: str) -> str:
        value = getattr(row, field)
        key = row._meta.pk.value_to_string(row)
        return signing.dumps([*self._place, None if value is None else _text(row, field), key], salt=_SALT)

    def _read(self, text: str, model: Any, field: str) -> tuple[Any, Any]:
        try:
            resource, ordering, value, key = signing.loads(text, salt=_SALT)
            if (resource, ordering) != self._place:
                raise Problem("bad-cursor", "The cursor is of another list, or of another order.")
            return model._meta.get_field(field).to_python(value), model._meta.pk.to_python(key)
        except (signing.BadSignature, ValueError, ValidationError):
            raise Problem("bad-cursor") from None

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What `get_paginated_response` answers, for OpenAPI."""
        return {
            "type": "object",
            "required": ["items", "next"],
            "properties": {
                "items": schema,
                "next": {"type": ["string", "null"], "description": "The cursor of the next page."},
                "count": {
                    "type": "object",
                    "description": "For `count=estimate`.",
                    "required": ["rows", "exact"],
                    "properties": {
                        "rows": {"type": "integer", "maximum": COUNTED},
                        "exact": {"type": "boolean", "description": "Whether there are no more."},
                    },
                },
            },
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """The parameters of lists, for OpenAPI."""
        orders = [f"{sign}{name.removeprefix('-')}" for name in view.orderings for sign in ("", "-")]
        return [
            _parameter(
                "limit", {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL}, "Rows of a page."
            ),
            _parameter("cursor", {"type": "string", "minLength": 1}, "`next` of the page before."),
            _parameter("ordering", {"type": "string", "enum": orders, "default": view.orderings[0]}, "Which order."),
            _parameter("count", {"type": "string", "enum": ["estimate"]}, f"Count the rows, up to {COUNTED}."),
        ]


def _parameter(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _bad(name: str, detail: str) -> Problem:
    return Problem("bad-parameter", errors=[FieldError(name, "invalid", detail)])


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(USUAL))
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= MOST:
        raise _bad("limit", f"It is a number from 1 to {MOST}.")
    return int(text[:9])


def _count(request: Request) -> bool:
    text = request.query_params.get("count")
    if text not in (None, "estimate"):
        raise _bad("count", "It is estimate, or is left out.")
    return text is not None


def _ordering(request: Request, view: Any) -> str:
    text = request.query_params.get("ordering", view.orderings[0])
    if text.removeprefix("-") not in [name.removeprefix("-") for name in view.orderings]:
        raise _bad("ordering", f"It is one of: {', '.join(view.orderings)}; with - before it, backwards.")
    return str(text)


def _behind(model: Any, field: str, value: Any, key: Any, *, descending: bool, nulls_first: bool) -> Q:
    """The rows behind a place. Says first what an index can find at once."""
    compare = "lt" if descending else "gt"
    if field in ("id", "pk"):
        return Q(**{f"pk__{compare}": key})
    if value is None:
        behind = Q(**{f"{field}__isnull": True, f"pk__{compare}": key})
        return behind | Q(**{f"{field}__isnull": False}) if nulls_first else behind
    behind = Q(**{f"{field}__{compare}e": value}) & (Q(**{f"{field}__{compare}": value}) | Q(**{f"pk__{compare}": key}))
    nulls_last = model._meta.get_field(field).null and not nulls_first
    return behind | Q(**{f"{field}__isnull": True}) if nulls_last else behind


def _text(row: Any, field: str) -> str:
    return str(row._meta.get_field(field).value_to_string(row))
