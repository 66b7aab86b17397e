"""Passwords: what can be one, and what is stored of it."""

import re
import secrets
import unicodedata
from typing import Any, Final

from django.contrib.auth.hashers import Argon2PasswordHasher
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

LIMIT: Final = 248
"""Octets of a password: what a POP3 line of 255 can carry after `PASS ` and before CRLF (RFC 2449 section 4)."""

# Without 0, 1, i, l and o, which people read to each other on the telephone and get wrong.
_LETTERS: Final = "23456789abcdefghjkmnpqrstuvwxyz"
_LETTERS_SET: Final = frozenset(_LETTERS)
_GROUP: Final = 5  # letters
_GROUPS: Final = 4


class BadPassword(ValueError):
    """The text cannot be a password; its message says why, and never what the text was."""


def check(password: str) -> None:
    """Refuse what some way of signing in could not carry. Raises `BadPassword`."""
    if not password:
        raise BadPassword(_("a password must not be empty"))
    if any(character < " " or character == "\x7f" for character in password):
        raise BadPassword(_("a password must not contain control characters: no POP3 client could send it"))
    try:
        octets = len(normal_form(password).encode())
    except UnicodeEncodeError:
        raise BadPassword(_("a password must be valid Unicode text")) from None
    if octets > LIMIT:
        raise BadPassword(
            _(
                "a password must have at most %(limit)s octets, since a POP3 client could not send more;"
                " this has %(octets)s"
            )
            % {"limit": LIMIT, "octets": octets}
        )


def generated() -> str:
    """A new password of 99 bits, in groups that can be read out."""
    return "-".join("".join(secrets.choice(_LETTERS) for _letter in range(_GROUP)) for _group in range(_GROUPS))


def generated_letters(text: str) -> str:
    """The letters of a password that `generated` may have made, typed in any case and grouping; else nothing."""
    letters = re.sub(r"[\s-]", "", text).lower()
    return letters if len(letters) == _GROUP * _GROUPS and _LETTERS_SET.issuperset(letters) else ""


def normal_form(password: str) -> str:
    """The password as it is hashed (RFC 8265 section 4.2.2): one keyboard sends `é` as two characters."""
    return unicodedata.normalize("NFC", password)


class PasswordHasher(Argon2PasswordHasher):
    """Argon2id, t=2, m=19 MiB, p=1 (OWASP Password Storage): 20 ms where Django's default takes 131 ms."""

    time_cost = 2
    memory_cost = 19 * 1024  # KiB
    parallelism = 1

    def encode(self, password: str, salt: str) -> str:
        return super().encode(normal_form(password), salt)

    def verify(self, password: str, encoded: str) -> bool:
        try:
            return super().verify(normal_form(password), encoded)
        except UnicodeEncodeError:
            return False  # no Unicode text, so `check` never let it become a password


class Validator:
    """`check` for the forms and commands of `django.contrib.auth`."""

    def validate(self, password: str, user: Any = None) -> None:
        """Raise `ValidationError` for what `check` refuses."""
        try:
            check(password)
        except BadPassword as error:
            raise ValidationError(str(error)) from None

    def get_help_text(self) -> str:
        """What the forms say beside the field."""
        return _("At most %(limit)s octets, without control characters.") % {"limit": LIMIT}
