"""App passwords: one for each device or program of a mailbox's owner, which can be taken back by itself."""

import hashlib

from accounts import passwords


def why_not(*, scope: str, client: str) -> str:
    """SQL: why the app password `app` is not good for this scope, from the address that `client` is; null if it is."""
    return f"""CASE
        WHEN app.revoked_at IS NOT NULL THEN 'revoked'
        WHEN app.expires_at <= now() THEN 'expired'
        WHEN NOT '{scope}' = ANY (app.scopes) THEN 'not meant for {scope}'
        WHEN app.allowed_networks <> '{{}}' AND ({client} <<= ANY (app.allowed_networks::inet[])) IS NOT TRUE
            THEN 'not allowed from there'
    END"""


def digest(text: str) -> bytes | None:
    """What is stored of an app password, given as somebody typed it; None for what cannot be one.

    Letters count in either case, and hyphens and blanks not at all: people copy them from a screen, one group at a
    time. SHA-256, for who finds 99 random bits by trying is not slowed down by a slow hash either.
    """
    letters = passwords.generated_letters(text)
    return hashlib.sha256(letters.encode()).digest() if letters else None
