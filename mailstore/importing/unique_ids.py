"""The unique-ids of other servers: how they are made, and which of them a message can keep here."""

import hashlib
import re
from typing import Final

from django.utils.translation import gettext as _

DOVECOT: Final = "%08Xu%08Xv"

FORMATS: Final = {
    "dovecot": DOVECOT,
    "dovecot-0.99": "%v.%u",
    "cyrus": "%v.%u",
    "cyrus-2.1.3": "%u",
    "courier": "%v-%u",
    "courier-1": "%u",
    "courier-0": "%f",
    "uw": "%08Xv%08Xu",
    "tpop3d": "%Mf",
}
"""By server, the format of its unique-ids as Dovecot's `pop3_uidl_format` writes it: %u is the UID, %v the UIDVALIDITY,
%f the file's name and %g its GUID; 0 and a width pad, X is hexadecimal and M an MD5 digest."""

_FIELD: Final = re.compile(r"%(0?)([0-9]{0,2})([XM]?)([uvfg%])")
_KEEPABLE: Final = re.compile(r"[\x21-\x7e]{1,70}")  # RFC 1939 section 7


class BadFormat(ValueError):
    """No format of unique-ids that we know."""


def check(text: str) -> str:
    """The format that `text` is or names. Raises `BadFormat`."""
    format_ = FORMATS.get(text, text)
    named = {field[3] for field in _FIELD.findall(format_)}
    if "%" in _FIELD.sub("", format_) or not named & set("ufg"):
        raise BadFormat(_("%(text)a is no format of unique-ids") % {"text": text[:70]})
    return format_


def needs_file(format_: str) -> bool:
    """Whether the format is made from a file, which IMAP does not show."""
    return any(field[3] in "fg" for field in _FIELD.findall(format_))


def formatted(format_: str, *, uid: int, validity: int, file: str = "", guid: str = "") -> str:
    """What a server with this format shows for a message."""

    def value(field: re.Match[str]) -> str:
        zero, width, modifier, name = field.groups()
        if name == "%":
            return "%"
        text = {"u": str(uid), "v": str(validity), "f": file, "g": guid}[name]
        if modifier == "X" and name in "uv":
            text = f"{int(text):x}"
        elif modifier == "M":
            text = hashlib.md5(text.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()
        return text.rjust(int(width or 0), "0" if zero else " ")

    return _FIELD.sub(value, format_)


def can_be_kept(unique_id: str, *, mailbox_id: int) -> bool:
    """Whether a message in that mailbox may keep it.

    It must be one (RFC 1939 section 7: 1 to 70 characters from 0x21 to 0x7E), and not read as one that the mailbox
    itself gives, now or ever (`mailstore.models.unique_id`). The constraints `message_kept_unique_id_is_not_ours` and
    `…_is_no_own_copys` say the same.
    """
    ours = rf"{mailbox_id:x}(\.[0-9a-f]+){{2,3}}"
    return _KEEPABLE.fullmatch(unique_id) is not None and re.fullmatch(ours, unique_id) is None
