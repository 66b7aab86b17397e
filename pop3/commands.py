"""What a POP3 command line may look like: its keyword and its arguments, judged on octets.

Nothing is converted before it has matched: `int()` alone would take `+3`, `1_0` and `٣` as message-numbers.
"""

import re
from typing import Final, NamedTuple

from pop3.replies import Code

LINE_LIMIT: Final = 255
"""Octets of a command line, its CRLF included (RFC 2449 section 4)."""

SASL_LINE_LIMIT: Final = 12288
"""Octets of a line inside an AUTH exchange, its CRLF included (RFC 5034 section 4)."""


class Rejected(Exception):
    """The line cannot be carried out; the reply is `-ERR` with this text."""

    def __init__(self, text: str, code: Code | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class NotACommand(Rejected):
    """The line is no POP3 at all. Too many of these in a row, and there is no POP3 client behind them."""


Arguments = re.Match[bytes]
"""The arguments of a command that was well formed, by name."""


class Form(NamedTuple):
    """What may follow a keyword. Blanks at the very end are forgiven, nothing else is: people type them."""

    pattern: re.Pattern[bytes]
    described: str


_NUMBER = rb" (?P<number>[1-9][0-9]{0,9})"  # RFC 1939 section 3: decimal, from 1; no sign, no zero in front
_COUNT = rb" (?P<count>0|[1-9][0-9]{0,9})"

NOTHING: Final = Form(re.compile(rb" *"), "no argument")
NUMBER: Final = Form(re.compile(_NUMBER + rb" *"), "a message-number")
PERHAPS_NUMBER: Final = Form(re.compile(rb"(?:" + _NUMBER + rb")? *"), "a message-number or nothing")
NUMBER_AND_COUNT: Final = Form(re.compile(_NUMBER + _COUNT + rb" *"), "a message-number and a number of lines")
NAME: Final = Form(re.compile(rb" (?P<name>[^ ].*?) *"), "a name")
PASSWORD: Final = Form(re.compile(rb" (?P<password>.*)"), "a password")  # RFC 1939 section 7: with blanks
MECHANISM: Final = Form(
    re.compile(rb"(?: (?P<mechanism>[A-Za-z0-9_-]{1,20})(?: (?P<initial>[^ ]+))?)? *"),
    "a mechanism and perhaps an initial response",
)

_LINE = re.compile(rb"([!-~]+)((?: [^\x00-\x1f\x7f]*)?)")


def split(line: bytes) -> tuple[bytes, bytes]:
    """Split a line into its keyword in capitals and what follows, blank included.

    Raises `NotACommand` for anything else, and for a control character anywhere: a NUL ends no argument.
    """
    if not (found := _LINE.fullmatch(line)):
        raise NotACommand("not a command")
    keyword, rest = found.groups()
    return keyword.upper(), rest
