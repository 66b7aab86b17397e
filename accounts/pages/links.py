"""Links that hold once, and a quarter of an hour: to hand something to the telephone beside the screen."""

import hashlib
import json
import secrets
from functools import cache
from typing import Final

from django.conf import settings
from django.utils.crypto import constant_time_compare
from redis import Redis
from redis.exceptions import RedisError

from accounts import scope
from accounts.models import Mailbox
from accounts.pages.visits import Owner

LASTS: Final = 15 * 60
"""Seconds."""

_PREFIX: Final = "mailhost:link:"


class Away(Exception):
    """Links cannot be made or followed right now."""


def make(owner: Owner) -> str:
    """A token for the mailbox of `owner`. Raises `Away`."""
    token = secrets.token_urlsafe(24)
    kept = json.dumps({"mailbox": owner.mailbox.pk, "hash": owner.user.get_session_auth_hash()})
    try:
        _redis().set(_key(token), kept, ex=LASTS)
    except (RedisError, OSError):
        raise Away from None
    return token


def mailbox_of(token: str, *, take: bool) -> Mailbox | None:
    """The mailbox that a token is for, if it still holds; with `take` it holds no more. Raises `Away`.

    It ends when the password is changed, and does nothing for a mailbox that nobody may use.
    """
    try:
        kept = _redis().getdel(_key(token)) if take else _redis().get(_key(token))
    except (RedisError, OSError):
        raise Away from None
    if kept is None:
        return None
    values = json.loads(str(kept))
    usable = (Mailbox.State.ACTIVE, Mailbox.State.NO_RECEIVE)
    with scope.whole_host():
        found = Mailbox.objects.open().filter(pk=values["mailbox"], state__in=usable, user__is_active=True)
        mailbox: Mailbox | None = found.select_related("user", "tenant").first()
    if mailbox is None or not constant_time_compare(values["hash"], mailbox.user.get_session_auth_hash()):
        return None
    return mailbox


def _key(token: str) -> str:
    """Not the token: who can read Redis cannot follow the links."""
    return _PREFIX + hashlib.sha256(token.encode()).hexdigest()


@cache
def _redis() -> "Redis":
    return Redis.from_url(settings.REDIS_URL, decode_responses=True, socket_timeout=1, socket_connect_timeout=1)
