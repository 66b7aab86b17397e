"""What an LMTP command line may look like: its keyword, its paths, its parameters.

Octets that are not UTF-8 become lone surrogates here, which no form below allows where it matters.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from lmtp import replies
from lmtp.replies import Reply

LINE_LIMIT: Final = 4096
"""Octets of a command line, its CRLF included: RFC 5321 section 4.5.3.1.4 asks for 512, each extension for more."""

ADDRESS_LIMIT: Final = 512
"""Octets of an address. RFC 5321 section 4.5.3.1 asks for 64 before the `@` and 256 in all. Reverse-paths that name
the recipient (VERP) are longer, and to refuse one here is to lose mail that somebody else already accepted."""

DOMAIN_LIMIT: Final = 255
"""Octets of a domain (RFC 5321 section 4.5.3.1.2): longer ones cannot be in the DNS."""


class Rejected(Exception):
    """The line cannot be carried out, and this is why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class NotACommand(Rejected):
    """The line is no LMTP at all. Too many of these in a row, and there is no LMTP client behind them."""


Arguments = re.Match[str]
"""The arguments of a command that was well formed, by name."""


class Form(NamedTuple):
    """What may follow a keyword. Blanks at the very end are forgiven (RFC 5321 section 4.1.1)."""

    pattern: re.Pattern[str]
    refusal: Reply


_NON_ASCII = "\u00a0-\ud7ff\ue000-\U0010ffff"  # RFC 6531 section 3.3, without control characters
_ATOM = rf"A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_NON_ASCII}-"
# More than RFC 5321 section 4.1.2 says: dots anywhere, which large Japanese providers have, and underscores in
# domains. Who sent the mail is not ours to judge, and what is not hosted here is unknown anyway.
_DOT_STRING = rf"[{_ATOM}.]+"
_QUOTED = rf'"(?:[ !#-\[\]-~{_NON_ASCII}]|\\[ -~])*"'
_DOMAIN = rf"[A-Za-z0-9_{_NON_ASCII}-]+(?:\.[A-Za-z0-9_{_NON_ASCII}-]+)*"
_LITERAL = r"\[[!-Z^-~]+\]"
_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"  # RFC 5321 section 4.1.1.3: accepted, and ignored
_MAILBOX = rf"{_ROUTE}(?P<local>{_DOT_STRING}|{_QUOTED})@(?P<domain>{_DOMAIN}|{_LITERAL})"
_PARAMETERS = r"(?P<parameters>(?: +[^ ]+)*) *"


def _form(pattern: str, described: str, status: str = "5.5.4") -> Form:
    return Form(re.compile(pattern, re.IGNORECASE | re.ASCII), replies.syntax(described, status))


ANYTHING: Final = _form(r".*", "anything")
NOTHING: Final = _form(r" *", "no argument")
TEXT: Final = _form(r" +[^ ].*", "VRFY name")
CLIENT: Final = _form(r" +(?P<client>[a-z0-9._-]{1,255}|\[[a-z0-9.:-]{1,253}\]) *", "LHLO domain")
REVERSE_PATH: Final = _form(rf" +FROM: *<(?:{_MAILBOX})?>{_PARAMETERS}", "MAIL FROM:<address> [parameters]", "5.1.7")
FORWARD_PATH: Final = _form(
    rf" +TO: *<(?:{_MAILBOX}|(?P<postmaster>postmaster))>{_PARAMETERS}",
    "RCPT TO:<address> [parameters]",
    "5.1.3",
)
# After a BDAT that cannot be read, the message's octets would be taken for commands: so it ends the connection.
CHUNK: Final = Form(
    re.compile(r" +(?P<count>[0-9]{1,20})(?: +(?P<last>LAST))? *", re.IGNORECASE | re.ASCII),
    Reply(421, "4.5.4", "Syntax: BDAT octets [LAST]"),
)

MAIL_PARAMETERS: Final[Mapping[str, re.Pattern[str]]] = {
    "SIZE": re.compile(r"[0-9]{1,20}"),  # RFC 1870 section 3
    "BODY": re.compile(r"7BIT|8BITMIME", re.IGNORECASE | re.ASCII),  # RFC 6152 section 2
    "SMTPUTF8": re.compile(r""),  # RFC 6531 section 3.4
}
RCPT_PARAMETERS: Final[Mapping[str, re.Pattern[str]]] = {}

_LINE = re.compile(r"([A-Za-z]+)((?: [^\x00-\x1f\x7f]*)?)")
_PARAMETER = re.compile(rf"(?P<keyword>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[!-<>-~{_NON_ASCII}]+))?")


def split(line: bytes) -> tuple[str, str]:
    """Split a line into its keyword in capitals and what follows, blank included.

    Raises `NotACommand` for anything else, and for a control character anywhere: no CR or LF alone ends a
    line (RFC 5321 section 2.3.8), and no NUL an argument.
    """
    if not (found := _LINE.fullmatch(line.decode("utf-8", "surrogateescape"))):
        raise NotACommand(replies.NOT_A_COMMAND)
    keyword, rest = found.groups()
    return keyword.upper(), rest


def parameters(arguments: Arguments, known: Mapping[str, re.Pattern[str]]) -> dict[str, str]:
    """Return the parameters given (RFC 5321 section 4.1.2), each of them known and there once."""
    given: dict[str, str] = {}
    for word in filter(None, arguments["parameters"].split(" ")):
        if not (parameter := _PARAMETER.fullmatch(word)):
            raise Rejected(replies.BAD_PARAMETER)
        keyword, value = parameter["keyword"].upper(), parameter["value"] or ""
        if keyword not in known:
            raise Rejected(replies.UNKNOWN_PARAMETER)
        if keyword in given or not known[keyword].fullmatch(value):
            raise Rejected(replies.BAD_PARAMETER)
        given[keyword] = value
    return given


def address(arguments: Arguments, form: Form, *, utf8: bool) -> str:
    """Return the address in a path, quoted only where it must be; empty for `<>`. Routes are gone.

    Raises `Rejected` if it is too long, or not ASCII without `utf8` (RFC 6531 section 3.5).
    """
    local, domain = arguments["local"], arguments["domain"]
    if local is None:
        return ""
    found = f"{_unquoted(local)}@{domain}"
    if not utf8 and not found.isascii():
        raise Rejected(replies.NEEDS_SMTPUTF8)
    if len(found.encode()) > ADDRESS_LIMIT or len(domain.encode()) > DOMAIN_LIMIT:
        raise Rejected(form.refusal)
    return found


def _unquoted(local: str) -> str:
    # RFC 5321 section 4.1.2: `"an"` and `a\n` in quotes are the local part `an`, and must reach its mailbox.
    if not local.startswith('"'):
        return local
    plain = re.sub(r"\\(.)", r"\1", local[1:-1])
    if re.fullmatch(_DOT_STRING, plain):
        return plain
    escaped = re.sub(r'(["\\])', r"\\\1", plain)
    return f'"{escaped}"'
