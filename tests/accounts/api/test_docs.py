import json
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from jsonschema_rs import Draft202012Validator as Validator

from accounts import limits, permissions, provisioning
from accounts.api import problems
from accounts.api.views import Resource
from mailhost.management.commands import writedocs

JSON = ("application/json", "application/problem+json")
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.mark.parametrize("name", ["openapi.json", "problems.md", "roles.md"])
def test_the_committed_document_is_current(name: str) -> None:
    assert (settings.BASE_DIR / "docs" / name).read_text() == writedocs.documents()[name], "run manage.py writedocs"


def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Client().get("/api/openapi.json").content)
    return found


def test_the_description_says_of_each_operation_how_it_ends() -> None:
    schema = described()
    assert schema["openapi"].startswith("3.1")
    for path, operations in schema["paths"].items():
        for method, operation in ((method, operations[method]) for method in METHODS if method in operations):
            statuses = set(operation["responses"])
            assert {"400", "401", "403", "429", "503"} <= statuses, (method, path)
            assert operation["security"] == [{"token": []}, {"session": []}]
            assert "Scope:" in operation["description"], (method, path)
            if method != "get":
                assert {"409", "412", "422"} <= statuses
                assert {"$ref": "#/components/parameters/DryRun"} in operation["parameters"]


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, operations in described()["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    ]


def has_example(media: dict[str, Any]) -> bool:
    return "example" in media or bool(media.get("examples"))


def test_the_description_says_of_each_operation_what_it_is_for_and_shows_it() -> None:
    problems = described()["components"]["responses"]
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations():
        where = f"{method} {path}"
        assert operation["summary"].endswith((".", ":")), where
        assert operation["tags"], where
        for parameter in operation["parameters"]:
            assert parameter.get("in") != "path" or parameter["example"], where
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            assert has_example(media) or kind != "application/json", where
        succeeds = [status for status in operation["responses"] if status.startswith("2")]
        assert succeeds, where
        for status, response in operation["responses"].items():
            if "$ref" in response:
                response = problems[response["$ref"].rpartition("/")[2]]
                assert list(response["content"]) == ["application/problem+json"]
            for kind, media in response.get("content", {}).items():
                assert has_example(media) or kind not in ("application/json", "application/problem+json"), (
                    where,
                    status,
                )
            assert status != "404" or "{" in path or method != "get"
        assert "404" in operation["responses"] or "{" not in path, where


def test_the_examples_are_as_the_description_says() -> None:
    schema = described()
    for path, method, operation in operations():
        media = operation.get("requestBody", {}).get("content", {}).get("application/json")
        given = [(media, "request")] if media else []
        given += [
            (response["content"]["application/json"], status)
            for status, response in operation["responses"].items()
            if "application/json" in response.get("content", {})
        ]
        for media, what in given:
            values = (
                [media["example"]] if "example" in media else [each["value"] for each in media["examples"].values()]
            )
            for value in values:
                wrong = list(Validator({**media["schema"], "components": schema["components"]}).iter_errors(value))
                assert not wrong, (method, path, what, wrong[0].message)


def test_all_references_of_the_description_are_there() -> None:
    schema = described()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                found = schema
                for name in reference.removeprefix("#/").split("/"):
                    found = found[name]
            for inner in node.values():
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)

    walk(schema)


def test_the_pages_need_nothing_from_elsewhere_and_no_script_of_their_own() -> None:
    page = Client().get("/api/docs/").content.decode()
    assert "http" not in page
    assert "<script>" not in page
    assert "<style" not in page


def views() -> list[type[Resource]]:
    found: dict[str, type[Resource]] = {}

    def walk(patterns: Any) -> None:
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                walk(pattern.url_patterns)
            elif isinstance(pattern, URLPattern) and (view := getattr(pattern.callback, "cls", None)):
                found[view.__name__] = view

    walk(get_resolver().url_patterns)
    return list(found.values())


def test_every_view_of_the_api_is_a_resource_of_the_table() -> None:
    assert views()
    for view in views():
        assert issubclass(view, Resource)
        assert view.resource in permissions.TABLE


def subclasses(kind: type) -> set[type]:
    return {kind} | {inner for one in kind.__subclasses__() for inner in subclasses(one)}


def test_every_refusal_has_a_code_of_its_own_or_its_kinds() -> None:
    for kind in provisioning.REFUSALS:
        assert problems._kebab(kind.__name__) in problems.KINDS, kind
    assert problems.of(limits.LimitReached("x"))
    for refusal in subclasses(provisioning.Refused):
        if refusal.__module__.startswith("accounts.provisioning") and not refusal.__name__.startswith("_"):
            assert problems._kebab(refusal.__name__) in problems.KINDS, refusal
