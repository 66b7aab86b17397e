"""Telling others what happened: written in the transaction in which it happens, sent by `accounts.webhooks`."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from celery import current_app
from django.db import connection, transaction

_MAILBOX: Final[dict[str, Any]] = {"id": 42, "address": "an@example.test", "external_id": "user-7"}
_DOMAIN: Final[dict[str, Any]] = {"id": 5, "name": "example.test", "external_id": None}
_ALIAS: Final[dict[str, Any]] = {"id": 9, "address": "sales@example.test"}
_TENANT: Final[dict[str, Any]] = {"id": 3, "slug": "example", "external_id": "customer-7"}

KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "tenant.created": _TENANT,
    "tenant.changed": _TENANT | {"fields": ["retention"]},
    "tenant.closed": _TENANT,
    "tenant.warned": _TENANT
    | {"domain": None, "what": "octets", "used": 966367642, "limit": 1073741824, "percent": 90},
    "domain.added": _DOMAIN,
    "domain.changed": _DOMAIN | {"fields": ["subaddress"]},
    "domain.verified": _DOMAIN,
    "domain.failing": _DOMAIN | {"failing_since": "2026-11-01T09:00:00+00:00"},
    "domain.moved": _DOMAIN | {"from_tenant": 3, "to_tenant": 4, "mailboxes": 3, "messages": 812, "octets": 4402341478},
    "domain.closed": _DOMAIN,
    "domain.reopened": _DOMAIN,
    "alias.created": _ALIAS,
    "alias.changed": _ALIAS | {"fields": ["targets"]},
    "alias.removed": _ALIAS,
    "mailbox.created": _MAILBOX,
    "mailbox.changed": _MAILBOX | {"fields": ["quota_octets"]},
    "mailbox.password_changed": _MAILBOX,
    "mailbox.suspended": _MAILBOX,
    "mailbox.resumed": _MAILBOX,
    "mailbox.renamed": _MAILBOX | {"from_address": "an@old.example.test"},
    "mailbox.closed": _MAILBOX,
    "mailbox.reopened": _MAILBOX,
    "mailbox.erased": _MAILBOX,
    "mailbox.quota_warning": _MAILBOX | {"used_octets": 870318489, "quota_octets": 1073741824, "percent": 80},
    "mailbox.over_quota": _MAILBOX | {"used_octets": 1073740001, "quota_octets": 1073741824, "percent": 100},
    "mailbox.delivery_refused": _MAILBOX | {"reason": "over quota"},
}
"""What may happen, with an example of what is told: ids, names and numbers, nothing secret."""

SEND: Final = "accounts.tasks.send_webhooks"
"""The task that sends what is written here. The queue only says "go": whatever gets lost there is found later."""

# Where no webhook wants an event no row is written. With definer's rights: whoever acts need not see the webhooks of
# his reseller and of the host.
_EMIT = "SELECT mailhost_emit(%s, %s::text[], %s::text[], %s::jsonb[])"


class Happened(NamedTuple):
    """An event, before it is written. `domain` is the name of the domain that it is about."""

    kind: str
    tenant_id: int
    payload: Mapping[str, Any]
    domain: str = ""


def emit(kind: str, *, tenant_id: int, domain: str = "", payload: Mapping[str, Any]) -> None:
    """Tell every webhook that wants it that this happened. Belongs into the transaction in which it does."""
    emit_many([Happened(kind, tenant_id, payload, domain)])


def emit_many(happened: Iterable[Happened]) -> None:
    """As `emit`, in one query for each tenant. Raises `KeyError` for what `KINDS` does not tell of."""
    by_tenant: dict[int, list[Happened]] = {}
    for one in happened:
        if one.kind not in KINDS:
            raise KeyError(one.kind)
        by_tenant.setdefault(one.tenant_id, []).append(one)
    told = 0
    with connection.cursor() as cursor:
        for tenant_id, events in by_tenant.items():
            payloads = [json.dumps(one.payload) for one in events]
            cursor.execute(_EMIT, (tenant_id, [one.kind for one in events], [one.domain for one in events], payloads))
            told += cursor.fetchone()[0]
    if told:
        say_go()


def say_go() -> None:
    """Have sent what this transaction writes, as soon as it is committed."""
    if not any(hook is _hint for _, hook, *_ in connection.run_on_commit):
        transaction.on_commit(_hint, robust=True)


def _hint() -> None:
    current_app.send_task(SEND, expires=60, retry=False)
