"""Telling whether something is as the caller last saw it (RFC 9110 section 13).

A tag has two parts. The first stands for what can be written, and is what `If-Match` compares: mail that arrives
meanwhile is no reason to refuse a write. The whole stands for all that is shown, for `If-None-Match`.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest

from accounts.api.problems import Problem

_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')


def of(shown: Mapping[str, Any], *, volatile: Collection[str] = ()) -> str:
    """The tag of what is shown. The fields in `volatile` change by themselves."""
    lasting = {name: value for name, value in shown.items() if name not in volatile}
    return f'"{_digest(lasting)}.{_digest(shown)}"'


def check_unchanged(request: HttpRequest, tag: str | None) -> None:
    """Raise `Problem` with 412 unless the preconditions of a write hold; `tag` is None where there is nothing yet."""
    if wanted := request.headers.get("If-Match"):
        lasting = [text.partition(".")[0] for text in _TAG.findall(wanted) if not _is_weak(wanted, text)]
        present = tag.strip('"').partition(".")[0] if tag else None
        if present is None or (wanted.strip() != "*" and present not in lasting):
            raise Problem("changed-meanwhile")
    if request.headers.get("If-None-Match", "").strip() == "*" and tag is not None:
        raise Problem("changed-meanwhile", "It exists already.")


def is_conditional(request: HttpRequest) -> bool:
    """Whether a write has preconditions."""
    return "If-Match" in request.headers or "If-None-Match" in request.headers


def is_known(request: HttpRequest, tag: str) -> bool:
    """Whether the caller has what is shown already."""
    known = request.headers.get("If-None-Match", "")
    return known.strip() == "*" or tag.strip('"') in _TAG.findall(known)


def _is_weak(header: str, text: str) -> bool:
    return f'W/"{text}"' in header


def _digest(shown: Mapping[str, Any]) -> str:
    text = json.dumps(shown, cls=DjangoJSONEncoder, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
