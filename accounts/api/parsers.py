"""Reading bodies: JSON as RFC 8259 writes it, small, flat and without names that come twice."""

import json
from collections.abc import Mapping
from typing import IO, Any, Final

from rest_framework.parsers import BaseParser

from accounts.api.problems import Problem

DEEPEST: Final = 16
"""Objects and lists within each other."""


class Json(BaseParser):
    """One JSON object."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The object. Raises `Problem`."""
        try:
            text = stream.read().decode()
            if not text.strip():
                return {}
            _check_depth(text)
            return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
        except (ValueError, RecursionError):
            raise Problem("malformed") from None


def _check_depth(text: str) -> None:
    """Refuse what is nested too deep, before anything is built of it. Brackets in strings do not count."""
    depth = 0
    within = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif within:
            escaped, within = character == "\\", character != '"'
        elif character == '"':
            within = True
        elif character in "[{":
            depth += 1
            if depth > DEEPEST:
                raise Problem("malformed", f"It is nested deeper than {DEEPEST}.")
        elif character in "]}":
            depth -= 1


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Problem("malformed", "A name comes twice in one object.")
    return found
