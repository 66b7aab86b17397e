"""Every route and verb, for every role, with what is its own and what is another's."""

import re
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from accounts import app_passwords, permissions, provisioning, tokens, webhooks
from accounts.models import AuditEvent, Event, Reseller, WebhookDelivery
from mailstore.models import ImportJob
from tests.accounts.api.programs import ROLES, Program, refusal, token_text
from tests.fixtures import Customer
from tests.mailstore.rows import add_listener, add_message, add_session

Names = dict[str, dict[str, str]]


class Route(NamedTuple):
    """An operation: its path with `{names}`, its method, and what the table calls it."""

    path: str
    method: str
    resource: str
    verb: str


def _routes() -> list[Route]:
    found: list[Route] = []

    def walk(patterns: Any, before: str) -> None:
        for pattern in patterns:
            path = before + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                walk(pattern.url_patterns, path)
            elif isinstance(pattern, URLPattern) and hasattr(pattern.callback, "cls"):
                callback: Any = pattern.callback
                view = callback.cls
                for method, action in callback.actions.items():
                    if method == "head":
                        continue
                    view_ = view(action_map={method: action}, **callback.initkwargs)
                    view_.action = action
                    readable = re.sub(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)", r"{\1}", path)
                    readable = re.sub(r"[\^$]|\\Z", "", readable)
                    found.append(Route("/" + readable, method.upper(), view.resource, view_.verb))

    walk(get_resolver().url_patterns, "")
    return found


ROUTES = [route for route in _routes() if route.path.startswith("/api/v1/")]


@pytest.fixture
def names(acme: Customer, globex: Customer, reseller: Reseller, other_reseller: Reseller) -> Names:
    """By resource, the own and the foreign row's name in addresses."""
    found: Names = {}
    for whose, customer, seller in (("own", acme, reseller), ("foreign", globex, other_reseller)):
        provisioning.change_tenant(customer.tenant, content_roles=[*permissions.CONTENT_ROLES])
        alias, _ = provisioning.add_alias(f"sales@{customer.domain}", mailbox=customer.mailbox)
        webhook, _ = webhooks.add("https://example.com/", tenant=customer.tenant, allow_private=False)
        event = Event.objects.create(tenant=customer.tenant, kind="mailbox.created", payload={})
        delivery = WebhookDelivery.objects.create(tenant=customer.tenant, webhook=webhook, event=event)
        app, _ = app_passwords.create(customer.mailbox, name="phone")
        text = token_text("support", tenant=customer.tenant)
        audited = AuditEvent.objects.create(
            tenant_id=customer.tenant.pk, through="system", action="x", target_kind="x",
            domain_id=customer.domain.pk, mailbox_id=customer.mailbox.pk,
        )  # fmt: skip
        session = add_session(customer.mailbox, add_listener("pop3"))
        job = ImportJob.objects.create(tenant=customer.tenant, mailbox=customer.mailbox, source="pop3")
        for resource, name in {
            "messages": str(add_message(customer.mailbox).pk),
            "sessions": str(session.pk),
            "imports": str(job.pk),
            "resellers": seller.slug,
            "plans": str(provisioning.add_plan("small", reseller=seller)[0].pk),
            "tenants": customer.tenant.slug,
            "domains": customer.domain.name,
            "mailboxes": customer.mailbox.address,
            "aliases": alias.address,
            "app-passwords": str(app.pk),
            "tokens": str(tokens.prefix_of(text)),
            "webhooks": str(webhook.pk),
            "deliveries": str(delivery.pk),
            "audit-events": str(audited.pk),
        }.items():
            found.setdefault(resource, {})[whose] = name
    return found


def path_of(route: Route, names: Names, whose: str) -> str:
    """The route's path, with the names of rows that are whose."""
    parts = route.path.removeprefix("/api/v1").split("/")
    filled = [
        names[before if before in names else route.resource][whose] if part.startswith("{") else part
        for before, part in zip(["", *parts], parts, strict=False)
    ]
    return "/".join(filled)


def sees(role: str, resource: str) -> bool:
    """Whether rows of that kind exist for this role at all."""
    return role in permissions.TABLE[resource]["read"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_each_role_may_do_what_the_table_says(program: Callable[[str], Program], names: Names, route: Route) -> None:
    dry = "" if route.method == "GET" else "dry_run=true"
    for role in ROLES:
        answer = program(role).send(route.method, path_of(route, names, "own"), {}, query=dry)
        if role in permissions.TABLE[route.resource][route.verb]:
            assert answer.status_code in (200, 201, 204, 400, 409, 415, 422), (role, answer.status_code, answer.content)
        elif role in permissions.TABLE[route.resource]["read"] or "{" not in route.path:
            assert refusal(answer, 403)["code"] == "not-allowed", role
        else:
            assert answer.status_code in (403, 404), role


NAMES_ARE_THE_HOSTS = ("PUT /api/v1/domains/{name}/", "PUT /api/v1/tenants/{slug}/", "PUT /api/v1/resellers/{slug}/")
"""A name that somebody else has cannot be taken: so much has to be said."""


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if "{" in route.path], ids=lambda route: f"{route.method} {route.path}"
)
def test_what_is_anothers_does_not_exist(program: Callable[[str], Program], names: Names, route: Route) -> None:
    never = {resource: {"foreign": _never(both["foreign"])} for resource, both in names.items()}
    for role in sorted(set(ROLES) - {"operator"}):
        asking = program(role)
        answer = asking.send(route.method, path_of(route, names, "foreign"), {})
        if f"{route.method} {route.path}" in NAMES_ARE_THE_HOSTS and answer.status_code in (409, 422):
            assert "globex" not in str(answer.json()).replace("globex.test", "")
            continue
        assert refusal(answer, 404)["code"] == "not-found", role
        missing = asking.send(route.method, path_of(route, never, "foreign"), {})
        assert (missing.status_code, missing.json()) == (404, answer.json()), role


def _never(name: str) -> str:
    """A name that nobody has, and that could be one."""
    if re.fullmatch("[0-9a-f-]{36}", name):
        return str(uuid.uuid4())
    return str(10**15) if name.isdecimal() else name.replace(name[-4:], "zzzz")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_token_without_the_scope_may_not(names: Names, route: Route) -> None:
    scope = permissions.scope_of(route.resource, route.verb)
    others = permissions.scopes_of("operator") - {scope}
    answer = Program(token_text("operator", scopes=others)).send(route.method, path_of(route, names, "own"), {})
    problem = refusal(answer, 403)
    assert problem["code"] == "not-allowed"
    assert scope in problem["detail"]


@pytest.mark.parametrize(
    "route",
    [
        route
        for route in ROUTES
        if route.method == "GET" and "{" not in route.path and not route.path.endswith(("/export/", "/usage/", "/why/"))
    ],
    ids=lambda route: route.path,
)
def test_lists_hold_what_is_ones_own(program: Callable[[str], Program], names: Names, route: Route) -> None:
    for role in sorted(permissions.TABLE[route.resource][route.verb] - {"operator"}):
        page = program(role).read(route.path.removeprefix("/api/v1"), "limit=500&count=estimate")
        text = str(page["items"])
        kind = route.path.rstrip("/").rpartition("/")[2]
        assert names[kind]["foreign"] not in re.findall(r"[\w@.-]+", text), role
        assert "globex" not in text, role
        assert "other-reseller" not in text, role
        assert page["count"]["rows"] == len(page["items"]), role


def test_every_route_is_of_the_table() -> None:
    assert {route.resource for route in ROUTES} <= permissions.TABLE.keys()
    assert len(ROUTES) > 30
