"""Examples for the API's description: made of what the schemas say, and of a small world in which names agree."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

_WORLD: Final[Mapping[str, Any]] = {
    "address": "an@example.test",
    "admin_mailbox": "an@example.test",
    "allowed_networks": ["192.0.2.0/24"],
    "at": "2026-01-31T12:00:00Z",
    "action": "mailbox.created",
    "actor": "token 5",
    "created_at": "2026-01-31T12:00:00Z",
    "domain": "example.test",
    "external_id": "customer-4711",
    "id": 7,
    "login": "an",
    "mailbox": "an@example.test",
    "name": "An example",
    "octets": 4402341478,
    "prefix": "h1pw2gqx",
    "role": "tenant-admin",
    "scopes": ["mailboxes:read", "mailboxes:write"],
    "secret": "whsec_shown-this-once",
    "slug": "example",
    "targets": ["an@example.test"],
    "tenant": "example",
    "through": "api",
    "token": "mh_h1pw2gqx_shown-this-once",
    "url": "https://hooks.example.test/mail",
    "webhook": 7,
}
"""By the name of a field, a value of it; where its schema has other types, it is passed over."""

_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}
_FORMATS: Final = {
    "date-time": "2026-01-31T12:00:00Z",
    "uuid": "0b9ed5a0-9a7c-4e0c-9a61-3f5d0f6d2c11",
    "uri": "https://example.test/",
}


def add(paths: Mapping[str, Any], components: Mapping[str, Any]) -> None:
    """Give each request, response and parameter in the path an example, where it has none."""
    for path, operations in paths.items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter.get("in") == "path" and "example" not in parameter:
                    parameter["example"] = _named(path, parameter)
            _give(operation.get("requestBody", {}).get("content", {}), components, only_required=True)
            for status, response in operation["responses"].items():
                if status.startswith("2"):
                    _give(response.get("content", {}), components, only_required=False)


def _named(path: str, parameter: Mapping[str, Any]) -> Any:
    match path.removeprefix("/api/v1/").partition("/")[0], parameter["name"]:
        case "aliases", "address":
            return "sales@example.test"
        case "domains", "name":
            return "example.test"
        case "sessions", "id":
            return _FORMATS["uuid"]
        case _, name:
            found = _WORLD[name]
            return str(found) if parameter["schema"]["type"] == "string" else found


def _give(content: Mapping[str, Any], components: Mapping[str, Any], *, only_required: bool) -> None:
    for media_type, media in content.items():
        if media_type == "application/json" and "schema" in media and not media.keys() & {"example", "examples"}:
            media["example"] = _of(media["schema"], components, only_required=only_required)


def _of(schema: Any, components: Mapping[str, Any], *, name: str = "", only_required: bool = False) -> Any:
    """A value that the schema allows."""
    if "$ref" in schema:
        found = components["schemas"][schema["$ref"].rpartition("/")[2]]
        return _of(found, components, name=name, only_required=only_required)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return _of(schema[several][0], components, name=name, only_required=only_required)
    types = schema.get("type", "null")
    types = [types] if isinstance(types, str) else types
    if "properties" in schema:
        given = dict((schema.get("examples") or [{}])[0])
        wanted = schema.get("required", ()) if only_required else schema["properties"]
        return {
            field: _of(schema["properties"][field], components, name=field, only_required=only_required)
            for field in wanted
            if field not in given
        } | given
    for known in ("const", "default"):
        if known in schema:
            return schema[known]
    if "examples" in schema:
        return schema["examples"][0]
    if name in _WORLD and _fits(_WORLD[name], schema, types, components):
        return _WORLD[name]
    if "enum" in schema:
        return schema["enum"][0]
    if "null" in types:
        return None
    return _plain(schema, types[0], components, only_required=only_required)


def _fits(value: Any, schema: Mapping[str, Any], types: Iterable[str], components: Mapping[str, Any]) -> bool:
    if not any(isinstance(value, _TYPES[kind]) for kind in types if kind in _TYPES):
        return False
    if isinstance(value, list):
        inner = schema["items"]
        inner = components["schemas"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
        return set(value) <= set(inner.get("enum", value))
    return value in schema.get("enum", [value])


def _plain(schema: Mapping[str, Any], kind: str, components: Mapping[str, Any], *, only_required: bool) -> Any:
    match kind:
        case "string":
            return _FORMATS.get(schema.get("format", ""), "" if not schema.get("minLength") else "example")
        case "integer" | "number":
            return max(0, schema.get("minimum", 0))
        case "boolean":
            return False
        case "array":
            return [_of(schema["items"], components, only_required=only_required)]
    return {}
