"""The audit over the API: who changed what, to read and to take along."""

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

import django_filters as filters
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpResponseBase, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request

from accounts import addresses, permissions, scope
from accounts.addresses import BadAddress
from accounts.api.filters import At, Whole
from accounts.api.negotiation import Anything
from accounts.api.problems import FieldError, Problem
from accounts.api.views import Resource, needs
from accounts.models import ApiToken, AuditEvent, Domain, Mailbox, Tenant

_BATCH: Final = 500  # rows


class AuditEventShown(serializers.ModelSerializer[AuditEvent]):
    """Who changed what. People are named by the ids of their rows."""

    actor = serializers.SerializerMethodField(help_text="`user 7`, `token 5`; empty: the system.")
    token_prefix = serializers.CharField(
        read_only=True,
        allow_null=True,
        help_text="Of the token that did it, as `/tokens/` has it now, to whoever may see it.",
    )

    class Meta:
        model = AuditEvent
        fields: ClassVar = [
            "id", "at", "actor", "token_prefix", "role", "through", "client_address", "action", "target_kind",
            "target_id", "target", "tenant_id", "reseller_id", "domain_id", "mailbox_id", "changes",
        ]  # fmt: skip
        read_only_fields = fields

    def get_actor(self, event: AuditEvent) -> str:
        return actor_of(event)


def actor_of(event: AuditEvent) -> str:
    """Who did it, as filters name him."""
    if event.token_id:
        return f"token {event.token_id}"
    return f"user {event.user_id}" if event.user_id else ""


class AuditFilters(filters.FilterSet):  # type: ignore[misc] # django-filter has no types
    """What one would look for."""

    actor = filters.CharFilter(method="of_actor", help_text="`user 7` or `token 5`.")
    action = filters.CharFilter(help_text="Such as mailbox.closed.")
    target_kind = filters.CharFilter()
    target_id = Whole(min_value=0, max_value=2**63 - 1)
    tenant = filters.CharFilter(method="of_tenant", help_text="Its slug.")
    domain = filters.CharFilter(method="of_domain", help_text="Its name.")
    mailbox = filters.CharFilter(method="of_mailbox", help_text="Its address; those that had it before, too.")
    role = filters.CharFilter()
    through = filters.ChoiceFilter(choices=AuditEvent.Through.choices)
    since = At(field_name="at", lookup_expr="gte")
    until = At(field_name="at", lookup_expr="lt")

    class Meta:
        model = AuditEvent
        fields: ClassVar[list[str]] = []

    def of_actor(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        kind, _, number = text.partition(" ")
        if kind not in ("user", "token") or not number.isascii() or not number.isdecimal() or len(number) > 18:
            return rows.none()
        return rows.filter(**{f"{kind}_id": int(number)})

    def of_tenant(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        return rows.filter(tenant_id__in=self._ids(Tenant, Q(slug=text)))

    def of_domain(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        try:
            return rows.filter(domain_id__in=self._ids(Domain, Q(name=addresses.domain(text))))
        except BadAddress:
            return rows.none()

    def of_mailbox(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        try:
            return rows.filter(mailbox_id__in=self._ids(Mailbox, Q(address=addresses.address(text))))
        except BadAddress:
            return rows.none()

    def _ids(self, model: Any, wanted: Q) -> list[int]:
        """Of what exists for whoever asks. A list: as a subquery it would hide from the planner how few they are."""
        found = model.objects.visible_to(self.request.principal).filter(wanted)
        return list(found.values_list("pk", flat=True)[:1000])


class AuditEvents(Resource):
    """The audit. It can only be read."""

    resource = "audit-events"
    queryset = AuditEvent.objects.all()
    serializer_class = AuditEventShown
    lookup_value_regex = "[0-9]{1,18}"
    lookup_field = "id"
    orderings = ("-id",)
    filterset_class = AuditFilters

    def rows(self) -> QuerySet[Any]:
        may = permissions.may(self.principal, "tokens", "read")
        tokens = ApiToken.objects.visible_to(self.principal) if may else ApiToken.objects.none()
        prefix = tokens.filter(pk=OuterRef("token_id")).values("prefix")
        found: QuerySet[Any] = super().rows().annotate(token_prefix=Subquery(prefix))
        return found

    @extend_schema(
        parameters=[OpenApiParameter("format", str, enum=["ndjson", "csv"], default="ndjson")],
        responses={(200, "application/x-ndjson"): OpenApiTypes.STR, (200, "text/csv"): OpenApiTypes.STR},
        filters=True,
    )
    @needs("export")
    @action(
        detail=False,
        methods=["get"],
        pagination_class=None,
        content_negotiation_class=Anything,
        extra_parameters=frozenset({"format", *AuditFilters.base_filters}),
    )
    def export(self, request: Request) -> HttpResponseBase:
        """All that match, oldest first: a JSON object or a row of CSV in each line."""
        form = request.query_params.get("format", "ndjson")
        if form not in _FORMS:
            raise Problem("bad-parameter", errors=[FieldError("format", "invalid", "It is ndjson or csv.")])
        media_type, lines = _FORMS[form]
        rows = self._filtered(self.rows()).order_by("pk")
        found = scope.streamed(self.principal, lambda: rows.iterator(chunk_size=_BATCH))
        return StreamingHttpResponse(
            lines(found),
            content_type=media_type,
            headers={"Content-Disposition": f'attachment; filename="audit.{form}"', "Cache-Control": "no-store"},
        )


def _ndjson(events: Iterable[AuditEvent]) -> Iterator[str]:
    for event in events:
        yield json.dumps(_plain(event), ensure_ascii=False) + "\n"


def _csv(events: Iterable[AuditEvent]) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield str(writer.writerow(AuditEventShown.Meta.fields))
    for event in events:
        shown = _plain(event)
        shown["changes"] = json.dumps(shown["changes"], ensure_ascii=False)
        yield str(writer.writerow(shown.values()))


class _Echo:
    def write(self, line: str) -> str:
        return line


def _plain(event: AuditEvent) -> dict[str, Any]:
    return dict(AuditEventShown(event).data)


_FORMS: Final = {"ndjson": ("application/x-ndjson", _ndjson), "csv": ("text/csv; charset=utf-8", _csv)}
