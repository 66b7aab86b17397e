"""Answers that are no JSON."""

from typing import Any

from rest_framework.negotiation import BaseContentNegotiation


class Anything(BaseContentNegotiation):
    """For answers that have a type of their own, whatever is accepted."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type
