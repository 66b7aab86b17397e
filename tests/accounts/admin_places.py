"""Every address of the admin, by what kind of page is there: read off the site, so that new pages are found."""

import re
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple, get_args

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import Model
from django.urls import URLPattern, URLResolver

from accounts.models import Domain, Mailbox
from mailstore.models import MaildropSession

Kind = Literal["list", "add", "change", "delete", "history", "row", "plain", "old", "site"]
"""`row` is a page about one row beside its form, `plain` one about none."""

SITE: Final = {
    "login", "logout", "password_change", "password_change_done", "jsi18n", "view_on_site", "autocomplete", "app_list",
    "search", "second-step", "password-again", "security", "security-app", "security-app-remove", "security-passkey",
    "security-passkey-remove", "security-recovery-codes", "my-sessions",
}  # fmt: skip
"""Addresses of Django's and unfold's own, and of whoever looks: what belongs to nobody else than him."""
OF_MODELS: Final = {"changelist": "list", "add": "add", "change": "change", "delete": "delete", "history": "history"}

ACTS: Final = {
    "why_act": [
        ("why/end-session/<path:object_id>/", MaildropSession),
        ("why/resume/<path:object_id>/", Mailbox),
        ("why/enable-pop3/<path:object_id>/", Mailbox),
        ("why/reopen/<path:object_id>/", Mailbox),
        ("why/reopen-domain/<path:object_id>/", Domain),
        ("why/let-in/<path:object_id>/198.51.100.7/", Mailbox),
    ]
}
"""What stands at addresses of several rows' keys: each with whose key it is."""

ROOT: Final = "/admin/"


class Place(NamedTuple):
    """An address, with `<…>` where something is to be filled in."""

    pattern: str
    kind: Kind
    name: str
    model: type[Model] | None

    def path(self, row: Model | None = None) -> str:
        """The address, for a row where it is of one."""
        found = self.pattern if row is None else self.pattern.replace("<path:object_id>", str(quote(row.pk)))
        assert "<" not in found, found
        return ROOT + found


def places() -> list[Place]:
    """All of them. Raises `AssertionError` for an address of which nobody has said what it is."""
    found = []
    for pattern, name in _patterns(admin.site.urls[0], ""):
        if name in ACTS:
            found += [Place(act, "row", name, model) for act, model in ACTS[name]]
        else:
            found.append(_place(pattern, name))
    return found


def _patterns(patterns: Any, before: str) -> Iterator[tuple[str, str | None]]:
    for pattern in patterns:
        path = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern):
            yield path, pattern.name


def _place(pattern: str, name: str | None) -> Place:
    parts = pattern.split("/")
    model = None
    if len(parts) > 2 and (parts[0], parts[1]) in {
        (page.opts.app_label, page.opts.model_name) for page in admin.site._registry.values()
    }:
        model = apps.get_model(parts[0], parts[1])
    if name is None:
        assert pattern == "(?P<url>.*)$" or (model and pattern.endswith("<path:object_id>/")), pattern
        return Place(pattern, "old" if model else "site", "", model)
    if name in SITE:
        return Place(pattern, "site", name, None)
    arguments = re.findall(r"<(?:\w+:)?(\w+)>", pattern)
    if model is None:
        assert not arguments, f"{pattern}: of what kind is it?"
        return Place(pattern, "plain", name, None)
    last = name.rpartition("_")[2]
    if name == f"{model._meta.app_label}_{model._meta.model_name}_{last}" and last in OF_MODELS:
        kind: Any = OF_MODELS[last]
    elif not arguments:
        kind = "plain"
    else:
        assert arguments == ["object_id"], f"{pattern}: of whose keys are these?"
        kind = "row"
    assert kind in get_args(Kind)
    return Place(pattern, kind, name, model)


PLACES: Final = places()


def of_kind(*kinds: Kind) -> list[Place]:
    """Those of these kinds."""
    return [place for place in PLACES if place.kind in kinds]
