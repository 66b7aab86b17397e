"""Whatever people, senders and mail programs may have written is text on every page, and never more than that.

Hostile texts stand in every column that takes them; then every page is read as a browser reads it.
"""

import json
import re
from html.parser import HTMLParser
from typing import Any, Final

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import DatabaseError, models, transaction
from django.test import Client
from django.urls import reverse

from accounts import provisioning
from accounts.models import AuditEvent, Event, Mailbox, Role, User
from mailstore.models import Content, Message
from tests.accounts.admin_places import ROOT, of_kind
from tests.accounts.test_admin import Rows, rows, somebody
from tests.accounts.test_admin_isolation import text_of, undone
from tests.fixtures import Customer

__all__ = ["rows", "somebody"]  # fixtures

ROLES: Final = [Role.OPERATOR, Role.RESELLER, Role.TENANT_ADMIN, Role.DOMAIN_ADMIN, Role.SUPPORT]

MARK: Final = "pr0be"
# It ends an attribute of either kind, and an element; and it is an expression of Alpine, and a tag of Django.
PROBE: Final = f"'\"></textarea></script><{MARK} onclick=x>{{{{7*7}}}}${{{MARK}}}`"
LOCAL_PART: Final = f"{MARK}'&{{{{7*7}}}}`"
"""The worst that can stand before the @ of an address."""

_CODE: Final = re.compile(r"on\w+|x-\w.*|@.*|:.*|style|srcdoc|formaction", re.IGNORECASE)
"""Attributes whose values are run."""


class Reader(HTMLParser):
    """Reads a page as a browser does, and notes what a probe has become besides text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.texts = 0
        self._script: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == MARK:
            self.found.append(f"<{tag}>")
        if tag == "script":
            self._script = values.get("type") or "javascript"
        for name, value in attrs:
            text = value or ""
            if MARK in name or (MARK in text and _CODE.fullmatch(name)):
                self.found.append(f"<{tag} {name}={text[:80]!r}>")
            leads = name in ("href", "src", "action") and MARK in text
            if leads and re.match(r"\s*(javascript|data|vbscript):", text, re.IGNORECASE):
                self.found.append(f"<{tag} {name}={text[:80]!r}>")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        self.texts += MARK in data
        if self._script and "json" not in self._script and MARK in data:
            self.found.append(f"script: {data[:80]!r}")
        if re.search(rf"{MARK}'&49|>49\$", data):
            self.found.append(f"reckoned: {data[:80]!r}")


def read(page: str) -> Reader:
    """A page, read."""
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.fixture
def probed(rows: Rows, acme: Customer, globex: Customer) -> int:
    """Probes in all columns of all tables that take them; returns in how many."""
    provisioning.add_mailbox(f"{LOCAL_PART}@acme.test", password=None, quota_octets=None)
    provisioning.add_alias(f"x{LOCAL_PART}@acme.test", mailbox=acme.mailbox)
    count = 0
    for model in apps.get_models():
        if model._meta.app_label not in ("accounts", "mailstore"):
            continue
        for field in model._meta.concrete_fields:
            if not isinstance(field, models.CharField | models.TextField) or field.choices or field.primary_key:
                continue
            if field.name in ("password", "verification_token", "prefix", "timezone", "language", "time_zone"):
                continue
            value: Any = PROBE[: field.max_length or len(PROBE)]
            try:
                with transaction.atomic():
                    count += bool(model._default_manager.update(**{field.name: value}))
            except DatabaseError:
                continue  # a constraint keeps it out: an address, a slug, what must be unique
    AuditEvent.objects.create(
        tenant_id=acme.tenant.pk, domain_id=acme.domain.pk, mailbox_id=acme.mailbox.pk, through="admin",
        action="mailbox.changed", target_kind="mailbox", target=PROBE, changes={PROBE: [PROBE, PROBE]},
    )  # fmt: skip
    Event.objects.update(payload={PROBE: PROBE})
    Message.objects.update(trace=b"Received: " + PROBE.encode() + b"\r\n")
    body = f"Subject: {PROBE}\r\nContent-Type: text/html\r\n\r\n{PROBE}<script>{MARK}</script>\r\n".encode()
    Content.objects.update(body=body, octets=len(body), header_octets=body.index(b"\r\n\r\n") + 4)
    return count


def test_a_probe_that_is_not_escaped_would_be_seen() -> None:
    assert read(f"<p>{PROBE}").found
    assert read(f"<a x-data=\"{{a: '{MARK}'}}\">").found
    assert read(f"<a href='javascript:{MARK}'>").found
    assert read(f"<script>a = '{MARK}'</script>").found
    assert read("<p>&lt;pr0be&gt;").found == []


@pytest.mark.parametrize("role", ROLES)
def test_what_was_written_is_text_on_every_page(role: str, rows: Rows, somebody: Client, probed: int) -> None:
    assert probed > 15
    wrong, seen = [], 0
    paths = [place.path() for place in of_kind("list", "add", "plain")]
    for place in of_kind("change", "delete", "history", "row"):
        assert place.model
        paths.append(place.path(rows[place.model]["acme"]))
    odd = Mailbox.objects.get(address=f"{LOCAL_PART}@acme.test")
    paths += [place.path(odd) for place in of_kind("change", "delete", "row") if place.model is Mailbox]
    paths += [f"{ROOT}why/?address={LOCAL_PART.replace('&', '%26')}@acme.test", f"{ROOT}search/?s={MARK}"]
    for path in paths:
        with undone():
            answer = somebody.get(path, follow=True)
            shown = text_of(answer)
        if not answer.get("Content-Type", "").startswith("text/html"):
            assert answer.status_code >= 300 or "nosniff" in answer.get("X-Content-Type-Options", ""), path
            continue
        page = read(shown)
        seen += bool(page.texts)
        wrong += [f"{path}: {one}" for one in page.found]
    assert not wrong, "\n".join(wrong)
    assert seen > 10, "the probes stand on pages"


@pytest.mark.parametrize("role", ROLES)
def test_what_is_chosen_from_is_text(role: str, rows: Rows, somebody: Client, probed: int) -> None:
    path = reverse("admin:autocomplete")
    for model, page in admin.site._registry.items():
        for name in getattr(page, "autocomplete_fields", ()):
            where: dict[str, Any] = {"app_label": model._meta.app_label, "model_name": model._meta.model_name}
            answer = somebody.get(path, {**where, "field_name": name})
            if answer.status_code == 200:
                assert answer["Content-Type"] == "application/json"
                json.loads(answer.content)


@pytest.mark.parametrize("action", ["suspend", "set_quota", "delete_selected"])
def test_what_an_action_asks_is_text(action: str, rows: Rows, boss: Client, probed: int) -> None:
    keys = list(Mailbox.objects.filter(tenant__slug="acme").values_list("pk", flat=True))
    chosen = keys or list(Mailbox.objects.filter(address__endswith="@acme.test").values_list("pk", flat=True))
    values = {"action": action, "_selected_action": chosen}
    shown = text_of(boss.post(reverse("admin:accounts_mailbox_changelist"), values))
    assert read(shown).found == []


@pytest.mark.parametrize("view", ["owner-overview", "owner-sessions", "owner-removed", "owner-devices", "owner-set-up"])
def test_on_the_owner_s_pages_it_is_text_too(view: str, rows: Rows, acme: Customer, probed: int) -> None:
    owner = Client()
    owner.force_login(User.objects.get(pk=acme.mailbox.user_id))
    assert read(text_of(owner.get(reverse(view), follow=True))).found == []
