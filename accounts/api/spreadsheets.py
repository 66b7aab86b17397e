"""Mailboxes and aliases as CSV files over the API: streamed out, and taken in whole or not at all."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final

from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse, UnreadablePostError
from django_filters import FilterSet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.response import Response

from accounts import audit, permissions, scope
from accounts.api.negotiation import Anything
from accounts.api.problems import FieldError, Problem
from accounts.api.serializers import Whole
from accounts.api.views import H, Resource, needs
from accounts.models import AuditEvent, Domain, Tenant
from accounts.spreadsheets import LIMIT, BadLines, Report, Table

CSV: Final = "text/csv"


class ReportShown(serializers.Serializer[Any]):
    """What became of a file's lines."""

    created = Whole(min_value=0)
    changed = Whole(min_value=0)
    unchanged = Whole(min_value=0)
    example: ClassVar = {"created": 2, "changed": 0, "unchanged": 1}


def imports_file(operation: str, example: str) -> Callable[[H], H]:
    """The route `import/` of a handler that takes such a file, and how it is described."""
    described: Callable[[H], H] = extend_schema(
        operation_id=operation,
        parameters=[
            OpenApiParameter("update", bool, default=False, description="Also give those that exist what lines say.")
        ],
        request={CSV: OpenApiTypes.STR},
        responses={200: ReportShown},
        filters=False,
        examples=[OpenApiExample("file", value=example, request_only=True, media_type=CSV)],
    )
    routed: Any = action(
        detail=False,
        methods=["post"],
        url_path="import",
        pagination_class=None,
        extra_parameters=frozenset({"update"}),
    )
    return lambda handler: described(needs("create")(routed(handler)))


def exports_file(operation: str, example: str, *, filters: type[FilterSet]) -> Callable[[H], H]:
    """The route `export/` of a handler that sends such a file of what `filters` find, and how it is described."""
    described: Callable[[H], H] = extend_schema(
        operation_id=operation,
        responses={(200, CSV): OpenApiTypes.STR},
        filters=True,
        examples=[OpenApiExample("file", value=example, response_only=True, media_type=CSV)],
    )
    routed: Any = action(
        detail=False,
        methods=["get"],
        url_path="export",
        pagination_class=None,
        content_negotiation_class=Anything,
        filterset_class=filters,
        extra_parameters=frozenset(filters.base_filters),
    )
    return lambda handler: described(needs("list-export")(routed(handler)))


class Spreadsheets(Resource):
    """A resource whose `import_file` takes a CSV file as its body, and whose `export_file` sends one."""

    _file = b""

    def exported(self, rows: QuerySet[Any], write: Callable[[QuerySet[Any]], Iterator[bytes]]) -> HttpResponseBase:
        """The file of these rows. Each tenant's audit tells how many were taken along, and by whom."""
        rows = rows.select_related(None)
        counts = dict(rows.order_by().values_list("tenant").annotate(Count("pk", distinct=True)))
        tenants = Tenant.objects.filter(pk__in=counts).order_by("pk")
        AuditEvent.objects.bulk_create(
            [
                audit.event(f"{self.resource}.exported", tenant, detail={"count": counts[tenant.pk]})
                for tenant in tenants
            ]
        )
        return StreamingHttpResponse(
            scope.streamed(self.principal, lambda: write(rows)),
            content_type=f"{CSV}; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="{self.resource}.csv"',
                "Cache-Control": "private, no-store",
            },
        )

    def imported(self, sheet: Any, *, updating: Sequence[str], most: Callable[[Table], None], **how: Any) -> Response:
        """Carry out the file, all or none; `sheet` is of `accounts.spreadsheets`, `how` what it needs besides.

        `updating`: the verbs that are needed to change what is there. `most` raises `Problem` where the file asks for
        more than one request may. Raises `BadFile`, `BadLines`.
        """
        if not self.is_file:
            raise UnsupportedMediaType(self._type())
        how |= {"update": self._is_update(updating), "within": Domain.objects.visible_to(self.principal)}
        table = sheet.read(self._file)
        most(table)
        report: Report = (sheet.check if self.is_dry_run else sheet.apply)(table, **how)
        if report.problems:
            raise BadLines(report)
        counts = {"created": report.created, "changed": report.changed, "unchanged": report.unchanged}
        self.would("import", ", ".join(f"{count} {what}" for what, count in counts.items()), **counts)
        return Response(counts)

    def _is_update(self, verbs: Sequence[str]) -> bool:
        text = self.request.query_params.get("update", "false")
        if text not in ("true", "false"):
            raise Problem("bad-parameter", errors=[FieldError("update", "invalid", "It is true or false.")])
        if text == "true":
            for verb in verbs:
                permissions.check(self.principal, self.resource, verb)
        return text == "true"

    # --- The body --------------------------------------------------------------------------------------------------

    @property
    def is_file(self) -> bool:
        """Whether this request has a CSV file as its body."""
        return self.action == "import_file" and self._type() == CSV

    def body_limit(self) -> int:
        return LIMIT if self.is_file else super().body_limit()

    def said(self) -> bytes:
        return hashlib.sha256(self._file).digest() if self.is_file else super().said()

    def _begin(self, request: HttpRequest) -> None:
        super()._begin(request)
        # Nothing is read for who may not do it: he is refused later, as everybody.
        if self.is_file and permissions.may(self.principal, self.resource, self.verb):
            length = int(request.META.get("CONTENT_LENGTH") or 0)
            try:
                self._file = request.read(length)
            except UnreadablePostError:
                self._file = b""
            if len(self._file) != length:
                raise Problem("malformed", "The body broke off.")

    def _type(self) -> str:
        return str(self.request._request.content_type or "").lower()
