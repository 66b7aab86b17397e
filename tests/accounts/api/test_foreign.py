"""What is another tenant's is told apart from what there never was by nothing: bodies, filters, orders, pages, tags."""

import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import django_filters
import pytest
from django.urls import resolve

from accounts.models import Reseller
from tests.accounts.api.programs import Program, refusal, token_text
from tests.accounts.api.test_who_may import NAMES_ARE_THE_HOSTS, ROUTES, Names, Route, _never, names, path_of
from tests.fixtures import Customer

__all__ = ["names"]  # a fixture

LISTS = [
    route
    for route in ROUTES
    if route.method == "GET" and "{" not in route.path and not route.path.endswith(("/export/", "/usage/", "/why/"))
]

# What a body may name, by role: how the body is made of a name, and of which resource the name is.
Said = tuple[str, str, str, str, Callable[[Any], dict[str, Any]]]
BODIES: list[Said] = [
    ("tenant-admin", "POST", "/domains/", "tenants", lambda name: {"name": "new.test", "tenant": name}),
    ("reseller", "POST", "/domains/", "tenants", lambda name: {"name": "new.test", "tenant": name}),
    ("tenant-admin", "POST", "/domains/", "domains", lambda name: {"name": "new.test", "alias_of": name}),
    ("tenant-admin", "PATCH", "/domains/acme.test/", "domains", lambda name: {"alias_of": name}),
    ("tenant-admin", "PUT", "/domains/new.test/", "domains", lambda name: {"alias_of": name}),
    ("reseller", "POST", "/domains/acme.test/move/", "tenants", lambda name: {"tenant": name}),
    ("reseller", "PATCH", "/tenants/acme/", "resellers", lambda name: {"reseller": name}),
    ("tenant-admin", "PATCH", "/tenants/acme/", "resellers", lambda name: {"reseller": name}),
    ("tenant-admin", "PATCH", "/tenants/acme/", "mailboxes", lambda name: {"admin_mailbox": name}),
    ("reseller", "POST", "/tenants/", "mailboxes", lambda name: {"slug": "new", "admin_mailbox": name}),
    ("tenant-admin", "POST", "/mailboxes/", "mailboxes", lambda name: {"address": name}),
    ("domain-admin", "POST", "/mailboxes/", "mailboxes", lambda name: {"address": name}),
    ("tenant-admin", "POST", "/mailboxes/an@acme.test/rename/", "mailboxes", lambda name: {"address": name}),
    ("tenant-admin", "POST", "/aliases/", "aliases", lambda name: {"address": name, "targets": ["an@acme.test"]}),
    # As for any address outside: it is the MTA that finds it here.
    ("tenant-admin", "PATCH", "/aliases/sales@acme.test/", "mailboxes", lambda name: {"targets": [name]}),
    ("tenant-admin", "POST", "/webhooks/", "tenants", lambda name: {"url": "https://example.com/", "tenant": name}),
    ("reseller", "POST", "/webhooks/", "resellers", lambda name: {"url": "https://example.com/", "reseller": name}),
    ("tenant-admin", "POST", "/messages/expunge/", "messages", lambda name: {"ids": [int(name)]}),
    ("tenant-admin", "POST", "/messages/restore/", "messages", lambda name: {"ids": [int(name)]}),
    ("member", "POST", "/messages/restore/", "messages", lambda name: {"ids": [int(name)]}),
    ("support", "POST", "/messages/restore/", "sessions", lambda name: {"session": name}),
    ("tenant-admin", "POST", "/mailboxes/an@acme.test/messages/restore/", "sessions", lambda name: {"session": name}),
    *(
        (
            "tenant-admin", "POST", "/tokens/", resource,
            lambda name, field=field, role=role: {
                "name": "x", "role": role, "scopes": ["mailboxes:read"], "tenant": "acme",
                field: [name] if field == "domains" else name,
            },
        )
        for field, role, resource in (
            ("tenant", "support", "tenants"),
            ("reseller", "reseller", "resellers"),
            ("domains", "domain-admin", "domains"),
            ("mailbox", "member", "mailboxes"),
        )
    ),
]  # fmt: skip


def told(answer: Any, name: str) -> tuple[int, str]:
    """An answer without the name that was asked for."""
    text = answer.content.decode().replace(name, "NAME")
    return answer.status_code, text.replace(name.partition("@")[2] or name, "NAME")


@pytest.mark.parametrize(
    ("role", "method", "path", "resource", "body"), BODIES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_body_that_names_what_is_anothers_is_answered_as_if_there_were_no_such_thing(
    program: Callable[[str], Program],
    names: Names,
    role: str,
    method: str,
    path: str,
    resource: str,
    body: Callable[[Any], dict[str, Any]],
) -> None:
    foreign = names[resource]["foreign"]
    never = _never(foreign).replace("globex", "gloxxx")
    found = program(role).send(method, path, body(foreign))
    missing = program(role).send(method, path, body(never))
    assert found.status_code in (403, 409, 422) or path.startswith("/aliases/"), found.content
    assert told(found, foreign) == told(missing, never)


def test_many_items_that_name_what_is_anothers_are_refused_each_as_unknown(
    program: Callable[[str], Program], names: Names
) -> None:
    foreign, never = "an@globex.test", "an@glnone.test"
    for action in ("create", "update", "put", "close"):
        for atomic in (False, True):
            answers = []
            for name in (foreign, never):
                items = [{"action": action, "address": name}, {"action": "put", "address": "an@acme.test"}]
                answer = program("tenant-admin").send("POST", "/mailboxes/bulk/", {"items": items, "atomic": atomic})
                answers.append(told(answer, name))
            assert answers[0] == answers[1], action


def role_for(route: Route) -> str:
    """Who sees such a list, and not all of the host."""
    return "reseller" if route.resource in ("resellers", "plans") else "tenant-admin"


def filters_of(route: Route) -> dict[str, Any]:
    """The filters that a list has, by parameter."""
    kind = getattr(resolve(route.path).func, "cls", None)
    filterset = kind.filterset_class if kind else None
    return dict(filterset.base_filters) if filterset else {}


def texts_of(name: str, filter_: Any, names: Names) -> Iterator[tuple[str, str]]:
    """Values for a filter that say something of the other tenant, and values that say nothing of anybody."""
    foreign = {resource: both["foreign"] for resource, both in names.items()}
    match filter_:
        case django_filters.UUIDFilter():
            yield foreign["sessions"], str(uuid.uuid4())
        case django_filters.NumberFilter():
            for resource in ("messages", "app-passwords"):
                yield foreign[resource], str(10**15)
        case django_filters.CharFilter():
            for text in {*foreign.values(), "globex", "@globex.test", "user 1", "token 1"}:
                yield text, "zzzz-none" if " " not in text else "user 999999"


@pytest.mark.parametrize("route", LISTS, ids=lambda route: route.path)
def test_a_filter_by_what_is_anothers_finds_what_one_by_nothing_finds(
    program: Callable[[str], Program], names: Names, route: Route
) -> None:
    path = route.path.removeprefix("/api/v1")
    asking = program(role_for(route))
    own = {str(row) for row in asking.read(path, "limit=500")["items"]}
    for name, filter_ in filters_of(route).items():
        if name in ("used_percent", "min_octets", "max_octets"):
            continue
        for text, nothing in texts_of(name, filter_, names):
            found = asking.send("GET", path, query=f"{name}={quote(text)}&count=estimate")
            missing = asking.send("GET", path, query=f"{name}={quote(nothing)}&count=estimate")
            assert found.status_code == missing.status_code == 200, (name, found.content)
            page = found.json()
            assert {str(row) for row in page["items"]} <= own, (name, text)
            assert page["count"]["rows"] == len(page["items"])
            if text in {both["foreign"] for both in names.values()} - {"globex"}:
                assert found.json() == missing.json(), (name, text)


@pytest.mark.parametrize("route", LISTS, ids=lambda route: route.path)
def test_no_order_shows_what_is_anothers(program: Callable[[str], Program], names: Names, route: Route) -> None:
    kind: Any = getattr(resolve(route.path).func, "cls", None)
    path = route.path.removeprefix("/api/v1")
    asking = program(role_for(route))
    whole = asking.read(path, "limit=500")["items"]
    for field in kind.orderings:
        for order in (field.removeprefix("-"), f"-{field.removeprefix('-')}"):
            found = asking.read(path, f"ordering={order}&limit=500")["items"]
            assert sorted(map(str, found)) == sorted(map(str, whole)), order


def test_a_cursor_of_anothers_list_shows_ones_own(
    admin: Program, foreign_admin: Program, acme: Customer, globex: Customer
) -> None:
    for customer in (acme, globex):
        for number in range(3):
            customer.add(f"u{number}")
    cursor = foreign_admin.read("/mailboxes/", "limit=1")["next"]
    addresses = [row["address"] for row in admin.read("/mailboxes/", f"cursor={cursor}")["items"]]
    assert addresses
    assert all(address.endswith("@acme.test") for address in addresses)


WRITES = [
    (route, header)
    for route in ROUTES
    if "{" in route.path and route.method != "GET"
    for header in ("If_Match", "If_None_Match")
    # Whose name is taken has to be said.
    if header == "If_Match" or f"{route.method} {route.path}" not in NAMES_ARE_THE_HOSTS
]


@pytest.mark.parametrize(
    ("route", "header"), WRITES, ids=lambda value: value if isinstance(value, str) else f"{value.method} {value.path}"
)
def test_a_precondition_tells_nothing_of_what_is_anothers(
    program: Callable[[str], Program], names: Names, route: Route, header: str
) -> None:
    never = {resource: {"foreign": _never(both["foreign"])} for resource, both in names.items()}
    asking = program("tenant-admin")
    found = asking.send(route.method, path_of(route, names, "foreign"), {}, **{header: "*"})
    missing = asking.send(route.method, path_of(route, never, "foreign"), {}, **{header: "*"})
    assert (found.status_code, found.json()) == (missing.status_code, missing.json())


def test_names_of_ones_own_system_are_free_whoever_else_has_them(
    admin: Program, host: Program, acme: Customer, globex: Customer
) -> None:
    host.send("PATCH", "/mailboxes/an@globex.test/", {"external_id": "4711"})
    host.send("PATCH", "/domains/globex.test/", {"external_id": "4711"})
    for path in ("/mailboxes/an@acme.test/", "/domains/acme.test/"):
        assert admin.send("PATCH", path, {"external_id": "4711"}).status_code == 200, path


def test_a_resellers_names_of_its_own_system_are_free_whoever_else_has_them(
    host: Program, reseller: Reseller, other_reseller: Reseller
) -> None:
    assert host.send("PATCH", "/tenants/globex/", {"external_id": "4711"}).status_code == 200
    asking = Program(token_text("reseller", reseller=reseller))
    assert asking.send("PATCH", "/tenants/acme/", {"external_id": "4711"}).status_code == 200


@pytest.mark.parametrize("domain", ["globex.test", "GLOBEX.test"])
def test_that_a_domain_is_anothers_is_all_that_is_told(admin: Program, globex: Customer, domain: str) -> None:
    problem = refusal(admin.send("POST", "/domains/", {"name": domain}), 409)
    assert problem["code"] == "domain-taken"
    assert str(problem).count("globex") == str(problem).count("globex.test")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "foreign", "never"),
    [
        ("/mailboxes/{}/", "an@globex.test", "an@nobody.test"),
        ("/domains/{}/", "globex.test", "nobody.test"),
        ("/tenants/{}/", "globex", "nobody"),
        ("/mailboxes/?domain={}", "globex.test", "nobody.test"),
    ],
)
def test_what_is_anothers_takes_as_long_as_what_there_is_not(
    admin: Program, globex: Customer, path: str, foreign: str, never: str
) -> None:
    """Medians of many requests in turn: closer to each other than the quarter of either is to its median."""
    times: dict[str, list[float]] = {foreign: [], never: []}
    for _ in range(400):
        for name, taken in times.items():
            place, _, query = path.format(name).partition("?")
            began = time.perf_counter()
            admin.send("GET", place, query=query)
            taken.append(time.perf_counter() - began)
    first, second = (statistics.quantiles(taken, n=4) for taken in times.values())
    assert abs(first[1] - second[1]) < max(first[2] - first[0], second[2] - second[0])
