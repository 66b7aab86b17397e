"""Times as RFC 3339 writes them: with a zone, so that nobody has to guess."""

import re
from typing import Any, Final

ADVICE: Final = "It is a time with its zone, such as 2026-01-31T12:00:00Z."

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def is_one(value: Any) -> bool:
    """Whether a value of JSON has that form (section 5.6); whether there is such a day is not looked at."""
    return isinstance(value, str) and _MOMENT.fullmatch(value) is not None
