"""Webhooks over the API, what was sent to them, and sending it again."""

from typing import Any, ClassVar

import django_filters as filters
from django.conf import settings
from django.http import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import events, webhooks
from accounts.api.fields import plural
from accounts.api.filters import At
from accounts.api.named import GONE
from accounts.api.problems import FieldError, Problem
from accounts.api.serializers import Moment, Strict, Text, Truth, Whole
from accounts.api.views import Resource, needs
from accounts.models import Event, Reseller, Tenant, Webhook, WebhookDelivery

MOST_REPLAYED = 10_000


class WebhookShown(serializers.ModelSerializer[Webhook]):
    """Where events are sent to."""

    tenant = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)
    reseller = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)
    example: ClassVar = {"events": ["mailbox.created"], "enabled": True}

    class Meta:
        model = Webhook
        fields: ClassVar = ["id", "url", "tenant", "reseller", "events", "enabled", "created_at"]
        read_only_fields = fields


class WebhookMade(WebhookShown):
    """A webhook with its secret, which is shown this once."""

    secret = serializers.CharField(read_only=True, help_text="Signs what is sent. Shown this once.")

    class Meta(WebhookShown.Meta):
        fields: ClassVar = [*WebhookShown.Meta.fields, "secret"]
        read_only_fields = fields


class WebhookChange(Strict):
    """What of a webhook is to change."""

    url = Text(max_length=2000, required=False)
    events = serializers.ListField(
        child=serializers.ChoiceField(choices=[(kind, kind) for kind in events.KINDS]),
        required=False,
        help_text="Empty: all.",
    )
    enabled = Truth(required=False)
    example: ClassVar = {"enabled": False}


class WebhookWanted(Strict):
    """What a webhook is to be."""

    url = Text(max_length=2000)
    events = serializers.ListField(
        child=serializers.ChoiceField(choices=[(kind, kind) for kind in events.KINDS]),
        required=False,
        help_text="Empty: all.",
    )
    tenant = Text(max_length=63, required=False, allow_null=True, help_text="Whose events. Yours, if you have but one.")
    reseller = Text(max_length=63, required=False, allow_null=True, help_text="The events of all its tenants.")


class Replaying(Strict):
    """Which of what was sent is to be sent again."""

    state = serializers.ChoiceField(choices=WebhookDelivery.State.choices, default=WebhookDelivery.State.FAILED)
    since = Moment(required=False)
    until = Moment(required=False)
    ids = serializers.ListField(child=Whole(min_value=1, max_value=2**63 - 1), required=False, max_length=1000)


class Replayed(serializers.Serializer[Any]):
    """How many are sent again."""

    deliveries = Whole()


class Webhooks(Resource):
    """Webhooks."""

    resource = "webhooks"
    queryset = Webhook.objects.select_related("tenant", "reseller")
    serializer_class = WebhookShown
    lookup_field = "id"
    lookup_value_regex = "[0-9]{1,18}"
    orderings = ("id",)

    @extend_schema(request=WebhookWanted, responses={201: WebhookMade})
    def create(self, request: Request) -> HttpResponseBase:
        """Add one. Its secret is shown this once."""
        wanted = self.body(WebhookWanted)
        tenant, reseller = self._whose(wanted.pop("tenant", None), wanted.pop("reseller", None))
        made, secret = webhooks.add(
            **wanted, tenant=tenant, reseller=reseller, allow_private=settings.MAILHOST_PRIVATE_TARGETS
        )
        self.would("create", "adds a webhook", webhooks=1)
        return self.answer(made, status=201, headers={"Location": f"/api/v1/webhooks/{made.pk}/"}, secret=secret)

    @extend_schema(request=WebhookChange, responses={200: WebhookShown})
    def partial_update(self, request: Request, id: str) -> HttpResponseBase:
        """Change what the body names."""
        row = self.find(lock=True)
        wanted = self.body(WebhookChange)
        webhooks.change(row, **wanted, allow_private=settings.MAILHOST_PRIVATE_TARGETS)
        return self.answer(row)

    @extend_schema(responses={204: GONE})
    def destroy(self, request: Request, id: str) -> HttpResponseBase:
        """Remove it, with all that is on its way."""
        row = self.find(lock=True)
        self.would("remove", f"removes the webhook {row.pk}", webhooks=1, deliveries=row.deliveries.count())
        webhooks.remove(row)
        return Response(status=204)

    @extend_schema(request=None, responses={200: WebhookMade})
    @needs("change")
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, id: str) -> HttpResponseBase:
        """Give it a new secret; the old one signs, too, until the next rotation."""
        row = self.find(lock=True)
        return self.answer(row, secret=webhooks.rotate_secret(row))

    @extend_schema(request=Replaying, responses={200: Replayed})
    @needs("replay")
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, id: str) -> HttpResponseBase:
        """Send again what failed, or whatever else is named."""
        rows = WebhookDelivery.objects.filter(webhook=self.find(lock=True))
        wanted = self.body(Replaying)
        ids = wanted.get("ids")
        rows = rows.filter(pk__in=ids) if ids else rows.filter(state=wanted["state"])
        if since := wanted.get("since"):
            rows = rows.filter(created_at__gte=since)
        if until := wanted.get("until"):
            rows = rows.filter(created_at__lt=until)
        oldest = list(rows.order_by("pk").values_list("pk", flat=True)[:MOST_REPLAYED])
        count = webhooks.replay(WebhookDelivery.objects.filter(pk__in=oldest))
        self.would("replay", f"sends {plural(count, 'event')} again", deliveries=count)
        return Response({"deliveries": count})

    def _whose(self, tenant: str | None, reseller: str | None) -> tuple[Tenant | None, Reseller | None]:
        """Whose events it gets: by itself, those of all that exists for whoever asks. Raises `Problem`."""
        if tenant and reseller:
            text = "It is of a tenant or of a reseller."
            raise Problem("invalid", text, errors=[FieldError("reseller", "one-of", text)])
        if tenant:
            return self.named(Tenant, "tenant", slug=tenant), None
        if reseller:
            return None, self.named(Reseller, "reseller", slug=reseller)
        who = self.principal
        if who.tenant_id is not None:
            return Tenant.objects.get(pk=who.tenant_id), None
        return None, Reseller.objects.get(pk=who.reseller_id) if who.reseller_id is not None else None


class EventShown(serializers.ModelSerializer[Event]):
    """Something that happened."""

    type = serializers.CharField(source="kind", read_only=True, help_text="Such as mailbox.created.")
    # DRF takes fields out of the class: `Serializer.data` stays what it is.
    data = serializers.JSONField(source="payload", read_only=True)  # type: ignore[assignment]

    class Meta:
        model = Event
        fields: ClassVar = ["id", "type", "data", "created_at"]
        read_only_fields = fields


class WebhookDeliveryShown(serializers.ModelSerializer[WebhookDelivery]):
    """An event on its way to a webhook."""

    event = EventShown(read_only=True)

    class Meta:
        model = WebhookDelivery
        fields: ClassVar = [
            "id", "event", "state", "attempts", "next_attempt_at", "last_status", "last_error", "delivered_at",
            "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class WebhookDeliveryFilters(filters.FilterSet):  # type: ignore[misc] # django-filter has no types
    state = filters.ChoiceFilter(choices=WebhookDelivery.State.choices)
    type = filters.CharFilter(field_name="event__kind")
    created_since = At(field_name="created_at", lookup_expr="gte")
    created_until = At(field_name="created_at", lookup_expr="lt")


class WebhookDeliveries(Resource):
    """What was sent to a webhook, or will be."""

    resource = "webhooks"
    queryset = WebhookDelivery.objects.select_related("event")
    serializer_class = WebhookDeliveryShown
    filterset_class = WebhookDeliveryFilters
    lookup_field = "id"
    lookup_value_regex = "[0-9]{1,18}"
    orderings = ("-id",)

    def rows(self) -> Any:
        webhook = Webhook.objects.visible_to(self.principal).filter(pk=self.kwargs["webhook"]).first()
        if webhook is None:
            raise Problem("not-found")
        return webhooks.deliveries_visible_to(self.principal).select_related("event").filter(webhook=webhook)

    def list(self, request: Request, webhook: str) -> HttpResponseBase:  # type: ignore[override]
        """Those of the webhook, the newest first."""
        return super().list(request)
