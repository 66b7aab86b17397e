"""Where events are sent to: webhooks are added, changed and removed here, and what they got is sent again."""

import base64
import re
import secrets
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from accounts import addresses, audit, events, outside
from accounts.models import Reseller, Tenant, Webhook, WebhookDelivery
from accounts.principals import Who
from accounts.provisioning import BadValue

MOST: Final = 20
"""Webhooks of one tenant or one reseller: each of them costs every event a row."""

_URL = re.compile(r"[!#-;=?-\[\]_a-z~]+")  # RFC 3986 section 2: visible ASCII without " < > \ ^ ` { | }
_URL_LIMIT: Final = 2000
_SECRET: Final = "whsec_"  # noqa: S105 - how such a secret begins (Standard Webhooks)


def add(
    url: str,
    *,
    events: Collection[str] = (),
    tenant: Tenant | None = None,
    reseller: Reseller | None = None,
    allow_private: bool,
) -> tuple[Webhook, str]:
    """A webhook, and its secret, which is not shown again. It gets the events of a tenant, of all tenants of a
    reseller or, with neither, of the host: of these kinds, or without any of all.

    `allow_private` allows http, and hosts that are not on the public internet. Raises `BadValue`.
    """
    secret = _new_secret()
    webhook = Webhook(
        tenant=tenant,
        reseller=reseller,
        url=_checked_url(url, allow_private=allow_private),
        events=_checked_kinds(events),
        secret=secret,
    )
    with transaction.atomic():
        if whose := tenant or reseller:
            type(whose).objects.select_for_update(no_key=True).get(pk=whose.pk)
            if Webhook.objects.filter(tenant=tenant, reseller=reseller).count() >= MOST:
                raise BadValue(
                    _("%(whose)s has %(most)s webhooks, and cannot have more") % {"whose": whose, "most": MOST}
                )
        webhook.save(force_insert=True)
        audit.record("webhook.created", webhook, {"url": ("", url), "events": ([], webhook.events)})
    return webhook, secret


def change(
    webhook: Webhook,
    *,
    url: str | None = None,
    events: Collection[str] | None = None,
    enabled: bool | None = None,
    allow_private: bool,
) -> None:
    """Give a webhook these values; None leaves one as it is. What is on its way goes to the new URL.

    While it is not enabled nothing is written for it, and what is on its way waits. Raises `BadValue`.
    """
    wanted = {
        "url": None if url is None else _checked_url(url, allow_private=allow_private),
        "events": None if events is None else _checked_kinds(events),
        "enabled": enabled,
    }
    with transaction.atomic():
        row = Webhook.objects.select_for_update(no_key=True).get(pk=webhook.pk)
        changes = {
            name: (getattr(row, name), value)
            for name, value in wanted.items()
            if value is not None and value != getattr(row, name)
        }
        if changes:
            values = {name: value for name, (_, value) in changes.items()}
            # Whatever was wrong there may be right now.
            Webhook.objects.filter(pk=webhook.pk).update(**values, held_until=None)
            audit.record("webhook.changed", row, changes)
    webhook.refresh_from_db()


def rotate_secret(webhook: Webhook) -> str:
    """A new secret, which is not shown again.

    What is sent is signed with the one before, too, until the next rotation: whoever receives it can change over in
    peace.
    """
    secret = _new_secret()
    with transaction.atomic():
        row = Webhook.objects.select_for_update(no_key=True).get(pk=webhook.pk)
        before = row.secret.split(" ")[0]
        Webhook.objects.filter(pk=webhook.pk).update(secret=f"{secret} {before}")
        audit.record("webhook.secret_rotated", row)
    webhook.refresh_from_db()
    return secret


def remove(webhook: Webhook) -> None:
    """Send nothing there any more, also nothing that is on its way."""
    with transaction.atomic():
        # Whoever writes an event for it is done then, and nobody else begins.
        if not Webhook.objects.select_for_update().filter(pk=webhook.pk).first():
            return
        audit.record("webhook.removed", webhook)
        WebhookDelivery.objects.filter(webhook_id=webhook.pk).delete()
        Webhook.objects.filter(pk=webhook.pk).delete()


def deliveries_visible_to(who: Who) -> QuerySet[WebhookDelivery]:
    """What was sent, or is to be, to webhooks that exist for `who`: a tenant's event goes to its reseller's and the
    host's, too, and of those a tenant knows nothing.
    """
    found: QuerySet[WebhookDelivery] = WebhookDelivery.objects.visible_to(who)
    return found.filter(webhook__in=Webhook.objects.visible_to(who))


def replay(deliveries: QuerySet[WebhookDelivery]) -> int:
    """Send these once more, from now on, whatever became of them. Returns how many there are.

    They keep their `Webhook-Id`, so that whoever got one already can tell.
    """
    with transaction.atomic():
        rows = list(deliveries.select_for_update(no_key=True, of=("self",)).select_related("webhook").order_by("pk"))
        WebhookDelivery.objects.filter(pk__in=[row.pk for row in rows]).update(
            state=WebhookDelivery.State.PENDING,
            attempts=0,
            next_attempt_at=Now(),
            last_status=None,
            last_error="",
            delivered_at=None,
        )
        for webhook in {row.webhook for row in rows}:
            count = sum(row.webhook_id == webhook.pk for row in rows)
            audit.record("webhook.replayed", webhook, detail={"deliveries": count})
        if rows:
            events.say_go()
    return len(rows)


def _new_secret() -> str:
    # 24 octets, the least that the standard has: two of them fit the column.
    return _SECRET + base64.b64encode(secrets.token_bytes(24)).decode()


def keys(webhook: Webhook) -> list[bytes]:
    """What signs, the newest first."""
    return [base64.b64decode(secret.removeprefix(_SECRET)) for secret in webhook.secret.split(" ")]


def _checked_kinds(kinds: Collection[str]) -> list[str]:
    for kind in kinds:
        if kind not in events.KINDS:
            raise BadValue(_("there is no event %(kind)r") % {"kind": str(kind)[:40]})
    return sorted(set(kinds))


def _checked_url(url: str, *, allow_private: bool) -> str:
    """The URL, if events can be sent there. What its host's name leads to is looked at whenever something is sent."""
    if len(url) > _URL_LIMIT or not _URL.fullmatch(url):
        raise BadValue(
            _("a webhook's URL has at most %(url_limit)s characters, all of them such as URLs may have")
            % {"url_limit": _URL_LIMIT}
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise BadValue(_("the webhook's URL is none")) from None
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_private):
        raise BadValue(_("a webhook's URL begins with https://"))
    if parts.username is not None or parts.password is not None:
        raise BadValue(_("a webhook's URL has no name or password: what is sent is signed"))
    if parts.fragment or "#" in url:
        raise BadValue(_("a webhook's URL has no fragment"))
    if port is not None and port not in (80, 443) and not (port >= 1024 or (allow_private and port)):
        raise BadValue(_("a webhook's port is 443, 80, or from 1024 on"))
    try:
        if not allow_private and not outside.is_public(ip_address(host)):
            raise BadValue(_("the webhook's host is not on the public internet"))
    except ValueError:  # it is a name
        try:
            addresses.domain(host)
        except addresses.BadAddress:
            raise BadValue(_("the webhook's URL names no host")) from None
    return url
