"""What the settings say about deliveries and looks at addresses, as the values that these take. For edges."""

import hashlib
import hmac
from typing import TypedDict

from django.conf import settings

from accounts import addresses
from accounts.database_roles import LISTENER
from mailstore import why
from mailstore.delivery import FOR_NOW, Outcome, Unverified


class Delivery(TypedDict):
    """Keyword arguments of `Deliveries` and `deliver_now`."""

    subaddress: str
    default_domain: str
    unverified: Unverified
    for_now: frozenset[Outcome]
    forward_key: bytes | None
    role: str | None


def delivery() -> Delivery:
    """How mail is delivered here."""
    for_now = FOR_NOW
    if settings.MAILHOST_SUSPENDED_REPLY != "450":
        for_now -= {Outcome.SUSPENDED}
    if settings.MAILHOST_OVER_QUOTA_REPLY == "452":
        for_now |= {Outcome.OVER_QUOTA}
    return Delivery(
        subaddress="" if settings.MAILHOST_SUBADDRESS == "none" else settings.MAILHOST_SUBADDRESS,
        default_domain=settings.MAILHOST_DEFAULT_DOMAIN,
        unverified=settings.MAILHOST_UNVERIFIED_DOMAINS,
        for_now=for_now,
        forward_key=forward_key() if settings.MAILHOST_FORWARD_SMTP else None,
        role=LISTENER,  # also where the process itself works as one that sees less
    )


def looking() -> why.Config:
    """What `mailstore.why` takes."""
    given = delivery()
    return why.Config(
        subaddress=given["subaddress"],
        default_domain=given["default_domain"],
        unverified=given["unverified"],
        forwards=given["forward_key"] is not None,
        puts_off=Outcome.SUSPENDED in given["for_now"],
        redis_url=settings.REDIS_URL,
        listener_ttl=settings.MAILHOST_LISTENER_TTL,
    )


def forward_key() -> bytes:
    """The key that reverse-paths of mail that goes on outside are signed with."""
    return hmac.digest(settings.SECRET_KEY.encode(), b"mailhost.srs", hashlib.sha256)


def host_name() -> str:
    """What this host calls itself in mail: its name, if that can be one."""
    try:
        return addresses.domain(settings.MAILHOST_HOSTNAME)
    except addresses.BadAddress:
        return "localhost"
