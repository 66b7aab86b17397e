"""The admin of webhooks and of what they were told."""

from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext, pgettext
from django.utils.translation import gettext_lazy as _

from accounts import events, provisioning, webhooks
from accounts.admin.provisioned import Provisioned, ProvisioningForm, is_host_wide
from accounts.models import Reseller, Tenant, User, Webhook, WebhookDelivery
from accounts.scoped import ReadOnly, TenantFilter, links, sees_tenants


class WebhookAddForm(ProvisioningForm):
    events = forms.MultipleChoiceField(
        label=_("Events"), choices=[(kind, kind) for kind in events.KINDS], required=False, help_text=_("None: all.")
    )

    class Meta:
        model = Webhook
        fields = ("url", "tenant", "reseller")

    def write(self) -> Webhook:
        values = dict(self.cleaned_data)
        if self.principal.tenant_id is not None:
            values["tenant"] = Tenant.objects.get(pk=self.principal.tenant_id)
        elif self.principal.reseller_id is not None and values.get("tenant") is None:
            values["reseller"] = Reseller.objects.get(pk=self.principal.reseller_id)
        if values.get("tenant") and values.get("reseller"):
            raise provisioning.BadValue(gettext("a webhook is of a tenant or of a reseller, not of both"))
        webhook, secret = webhooks.add(values.pop("url"), **values, allow_private=settings.MAILHOST_PRIVATE_TARGETS)
        self.shown_once = (gettext("Secret of the webhook"), secret)
        return webhook


class WebhookForm(ProvisioningForm):
    events = forms.MultipleChoiceField(
        label=_("Events"), choices=[(kind, kind) for kind in events.KINDS], required=False, help_text=_("None: all.")
    )

    class Meta:
        model = Webhook
        fields = ("url", "enabled", "events")

    def write(self) -> Any:
        webhook = Webhook.objects.get(pk=self.instance.pk)
        webhooks.change(webhook, **self.cleaned_data, allow_private=settings.MAILHOST_PRIVATE_TARGETS)
        return webhook


@admin.register(Webhook)
class WebhookAdmin(Provisioned):
    """Where events are sent to. The secret of each is shown once."""

    resource = "webhooks"
    meaning = _("Nothing is sent there any more, also nothing that is on its way.")
    form = WebhookForm
    add_form = WebhookAddForm
    list_display = ("url", "tenant", "reseller", "enabled", "created_at", "pages")
    list_filter = (TenantFilter, "enabled")
    list_select_related = ("tenant", "reseller")
    ordering = ("-pk",)
    search_fields = ("url__startswith",)
    autocomplete_fields = ("tenant", "reseller")
    actions = ("rotate",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            tenant = ("tenant",) if sees_tenants(request) else ()
            return ("url", "events", *tenant, *(("reseller",) if is_host_wide(request) else ()))
        return ("url", "events", "enabled", "tenant", "reseller", "created_at", "pages")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("tenant", "reseller", "created_at", "pages") if obj else ()

    def end(self, row: Any) -> None:
        webhooks.remove(row)

    @admin.action(permissions=["change"], description=_("Give it a new secret; the old one signs, too"))
    def rotate(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> HttpResponse | None:
        found = list(queryset[:2])
        if len(found) != 1:
            self.message_user(request, gettext("Choose one webhook."), messages.WARNING)
            return None
        return self.once(request, found[0], gettext("Secret of the webhook"), webhooks.rotate_secret(found[0]))

    @admin.display(description=_("pages"))
    def pages(self, webhook: Webhook) -> str:
        return links(
            webhook.pk,
            (pgettext("webhook", "Deliveries"), "admin:accounts_webhookdelivery_changelist", "webhook__id__exact"),
        )


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnly):
    """What was sent to webhooks, and what became of it."""

    audited = False
    resource = "webhooks"
    list_display = ("created_at", "webhook", "kind", "state", "attempts", "last_status", "shown_error", "delivered_at")
    list_filter = ("state", TenantFilter)
    list_select_related = ("webhook", "event")
    sortable_by = ()
    ordering = ("-pk",)
    narrowed_by = ("webhook__id__exact",)
    actions = ("replay",)
    fields = (
        "webhook", "kind", "state", "attempts", "next_attempt_at", "last_status", "shown_error", "created_at",
        "delivered_at",
    )  # fmt: skip
    readonly_fields = ("kind", "shown_error")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        found = webhooks.deliveries_visible_to(cast("User", request.user))
        return found.select_related("webhook", "event").order_by(*self.get_ordering(request))

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """For the action."""
        return self.may(request, "replay")

    @admin.action(permissions=["replay"], description=_("Send again"))
    def replay(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        sent = webhooks.replay(queryset.select_related(None).order_by())
        self.message_user(request, gettext("To be sent again: %(sent)s.") % {"sent": sent}, messages.SUCCESS)

    @admin.display(description=_("last error"))
    def shown_error(self, delivery: WebhookDelivery) -> str:
        """What was said in English, since nobody was there to read it."""
        if delivery.last_error == f"it answered {delivery.last_status}":
            return gettext("it answered %(status)s") % {"status": delivery.last_status}
        return gettext(delivery.last_error) if delivery.last_error else ""

    @admin.display(description=_("event"))
    def kind(self, delivery: WebhookDelivery) -> str:
        return delivery.event.kind
