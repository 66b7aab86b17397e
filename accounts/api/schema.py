"""The API's own description (OpenAPI 3.1): what each operation has besides what its view says."""

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from rest_framework.fields import ListField

from accounts import permissions
from accounts.api import examples
from accounts.api.problems import KINDS, MEDIA_TYPE, TYPES
from accounts.api.serializers import Strict
from accounts.models import Role

if TYPE_CHECKING:
    from accounts.api.views import Resource

_ABOUT: Final = """\
Manages who has mail. Ask with `Authorization: Bearer` and a token, or from the admin with its session.

* **Names** in addresses come in any spelling: `AN@Example.TEST` is `an@example.test`.
* **Lists** come in pages: pass `next` as `cursor`.
* **Fields**: whatever is read takes `fields=`, with names separated by commas, and shows these alone. That is for
  scripts, and left out of the operations below, so that typed clients know that all fields are there.
* **Retries** are safe: `PUT` and `DELETE` by themselves, `POST` with an `Idempotency-Key` of your own. The same key and
  body get the same answer for a day.
* **Writes** take `If-Match` with the ETag that you saw, and answer 412 if it was changed meanwhile. The ETag's first
  part stands for what can be written; mail that arrives does not change it.
* **Dry runs**: with `dry_run=true` a write answers what it would do, and does nothing.
* **Failures** are problem documents (RFC 9457) with a `code` that never changes. What is not yours does not exist: 404.
"""

_ALWAYS: Final = (400, 401, 403, 406, 429, 503)
_OF_NAMES: Final = (404,)
_OF_WRITES: Final = (409, 411, 412, 413, 415, 422)


@cache
def as_json() -> str:
    """The description, as it is served and as it is committed (docs/openapi.json)."""
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


class Schema(AutoSchema):
    """An operation of a `Resource`, with its scope, its headers and how it fails."""

    def get_auth(self) -> list[dict[str, Any]]:
        return [{"token": []}, {"session": []}]

    def get_summary(self) -> str:
        return self.get_description().partition("\n")[0]

    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        is_write = self.method != "GET"
        self._say_who_may(operation)
        parameters = operation.setdefault("parameters", [])
        if is_write:
            parameters.append(_ref("parameters", "DryRun"))
            if self.method == "POST":
                parameters.append(_ref("parameters", "IdempotencyKey"))
            if self.method != "POST":
                parameters.append(_ref("parameters", "IfMatch"))
        elif "{" in self.path:
            parameters.append(_ref("parameters", "IfNoneMatch"))
        self._say_how_it_ends(operation["responses"], is_write=is_write)
        return operation

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        schema: Any = super()._map_serializer_field(field, direction, bypass_extensions)  # type: ignore[no-untyped-call]
        if (
            direction == "request"
            and isinstance(field, ListField)
            and not field.allow_empty
            and "minItems" not in schema
        ):
            schema = {**schema, "minItems": 1}
        return schema

    def _postprocess_serializer_schema(self, schema: Any, serializer: Any, direction: Any) -> Any:
        schema = super()._postprocess_serializer_schema(schema, serializer, direction)  # type: ignore[no-untyped-call]
        if isinstance(serializer, Strict) and "properties" in schema:
            schema["additionalProperties"] = False
        if example := getattr(serializer, "example", None):
            schema["examples"] = [example]
        return schema

    def _get_filter_parameters(self) -> Any:
        parameters = super()._get_filter_parameters()  # type: ignore[no-untyped-call]
        filterset = cast("Resource", self.view).filterset_class
        filters = filterset.base_filters if filterset else {}
        for parameter in parameters:
            if parameter["name"] in filters:
                extra = filters[parameter["name"]].extra
                bounds = {f"{end}imum": extra[f"{end}_value"] for end in ("min", "max") if f"{end}_value" in extra}
                parameter["schema"] |= bounds
        return parameters

    def _get_request_body(self, direction: Any = "request") -> Any:
        body = super()._get_request_body(direction)  # type: ignore[no-untyped-call]
        if body and body["content"].keys() - {"application/json"}:
            body["required"] = True  # a file is no less of a body for being described by its type alone
        return body

    def _say_who_may(self, operation: dict[str, Any]) -> None:
        view = cast("Resource", self.view)
        roles = permissions.TABLE[view.resource][view.verb]
        scope = permissions.scope_of(view.resource, view.verb)
        who = ", ".join(role.value for role in Role if role in roles)
        said = operation.get("description", "")
        operation["description"] = f"{said}\n\nRoles: {who}. Scope: `{scope}`.".strip()

    def _say_how_it_ends(self, responses: dict[str, Any], *, is_write: bool) -> None:
        for code, response in responses.items():
            if code.startswith("2") and ("{" in self.path or self.method == "POST") and "content" in response:
                response.setdefault("headers", {})["ETag"] = _ref("headers", "ETag")
        if is_write:
            _or_dry_run(responses)
        elif "{" in self.path:
            responses["304"] = {"description": "As you have it."}
        statuses = (
            *_ALWAYS,
            *(_OF_NAMES if "{" in self.path or is_write else ()),
            *(_OF_WRITES if is_write else ()),
        )
        for status in statuses:
            responses[str(status)] = _ref("responses", f"Problem{status}")
        ordered = sorted(responses.items())
        responses.clear()
        responses.update(ordered)


def complete(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A hook of drf-spectacular: add what operations refer to."""
    result["info"]["description"] = _ABOUT
    for path in result["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                schema = parameter.get("schema", {})
                if parameter.get("in") == "query" and schema.get("type") == "string" and "enum" not in schema:
                    schema["minLength"] = 1
    components = result.setdefault("components", {})
    for kind, more in _COMPONENTS.items():
        components[kind] = dict(sorted({**components.get(kind, {}), **more}.items()))
    examples.add(result["paths"], components)
    return result


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _or_dry_run(responses: dict[str, Any]) -> None:
    shown = responses.setdefault("200", {"description": "With `dry_run=true`: what would happen."})
    media = shown.setdefault("content", {}).setdefault("application/json", {})
    schema = media.get("schema")
    media["schema"] = {"anyOf": [schema, _ref("schemas", "DryRun")]} if schema else _ref("schemas", "DryRun")
    shown["description"] = shown.get("description") or "Done; or, with `dry_run=true`, what would happen."


def _problems(status: int) -> dict[str, Any]:
    codes = [code for code, kind in KINDS.items() if kind.status == status]
    examples = {
        code: {
            "value": {
                "type": f"{TYPES}{code}/",
                "title": KINDS[code].title,
                "status": status,
                "code": code,
                **({"detail": KINDS[code].advice} if KINDS[code].advice else {}),
            }
        }
        for code in codes
    }
    response: dict[str, Any] = {
        "description": "; ".join(KINDS[code].title for code in codes) + ".",
        "content": {MEDIA_TYPE: {"schema": _ref("schemas", "Problem"), "examples": examples}},
    }
    if status in (429, 503):
        response["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
        }
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return response


def _query(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


_COMPONENTS: Final[dict[str, dict[str, Any]]] = {
    "securitySchemes": {
        "token": {"type": "http", "scheme": "bearer", "description": "An API token: mh_…"},
        "session": {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "Signed in to the admin."},
    },
    "parameters": {
        "DryRun": _query("dry_run", "Only say what would happen.", {"type": "boolean", "default": False}),
        "IdempotencyKey": {
            **_header("Idempotency-Key", "Yours: a retry with it gets the first answer again."),
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        },
        "IfMatch": _header("If-Match", "The ETag that you saw: 412 if it was changed meanwhile."),
        "IfNoneMatch": _header("If-None-Match", "The ETag that you have: 304 if it is still so."),
    },
    "headers": {
        "ETag": {"description": "Stands for what is shown.", "schema": {"type": "string"}},
    },
    "responses": {f"Problem{status}": _problems(status) for status in {kind.status for kind in KINDS.values()}},
    "schemas": {
        "Problem": {
            "type": "object",
            "description": "What went wrong (RFC 9457).",
            "required": ["type", "title", "status", "code"],
            "properties": {
                "type": {"type": "string", "description": "Explains the code."},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "code": {"type": "string", "enum": sorted(KINDS)},
                "detail": {"type": "string", "description": "What is wrong this time, or what to do."},
                "errors": {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}},
                "errors_total": {"type": "integer", "description": "How many there are, where not all are told."},
            },
        },
        "FieldError": {
            "type": "object",
            "required": ["field", "code", "detail"],
            "properties": {
                "field": {"type": "string", "description": "Its path in the body, a parameter, or a column."},
                "line": {"type": "integer", "description": "Of a file, from 1."},
                "code": {"type": "string"},
                "detail": {"type": "string"},
            },
        },
        "DryRun": {
            "type": "object",
            "description": "What would happen; nothing did.",
            "examples": [
                {
                    "dry_run": True,
                    "would": {
                        "action": "close",
                        "summary": "closes 3 mailboxes, 4.1 GB in 812 messages",
                        "counts": {"mailboxes": 3, "messages": 812, "octets": 4402341478},
                    },
                }
            ],
            "required": ["dry_run", "would"],
            "properties": {
                "dry_run": {"type": "boolean", "const": True},
                "would": {
                    "type": "object",
                    "required": ["action", "summary", "counts"],
                    "properties": {
                        "action": {"type": "string"},
                        "summary": {"type": "string", "examples": ["closes 3 mailboxes, 4.1 GB in 812 messages"]},
                        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
                    },
                },
            },
        },
    },
}
