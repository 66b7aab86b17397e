"""Values that can be stored: each is checked here, whoever brings it."""

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Model, QuerySet
from django.utils.translation import gettext as _

from accounts import languages, permissions
from accounts.addresses import BadAddress
from accounts.provisioning.refusals import BadValue, Taken

_SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MOST_OCTETS: Final = 2**63 - 1
_LONGEST_RETENTION: Final = timedelta(days=36500)
SHORTEST_KEEP_TIME: Final = timedelta(days=1)
"""POP3 tells it in days, and before login the shortest that there can be (RFC 2449 section 6.7)."""
_MOST_NETWORKS: Final = 100


def new_address(name: str) -> str:
    """An address in normal form, if somebody may have it here. Raises `BadAddress`."""
    if not name.isascii() and not settings.MAILHOST_SMTPUTF8_MAILBOXES:
        raise BadAddress(
            _("%(name)r has letters beyond ASCII, and this host wants none (MAILHOST_SMTPUTF8_MAILBOXES)")
            % {"name": name}
        )
    return name


def slug(text: str) -> str:
    """The short name of a tenant or reseller. Raises `BadValue`."""
    if not _SLUG.fullmatch(text):
        raise BadValue(
            _("%(text)r cannot be a slug: use small letters, digits and hyphens, at most 63") % {"text": text},
            field="slug",
        )
    return text


def is_slug(text: str) -> bool:
    """Whether anything can have that slug."""
    return bool(_SLUG.fullmatch(text))


def name(text: str, *, of: str) -> str:
    """The name of `of`, as people read it. Raises `BadValue`."""
    text = text.strip()
    if not text or len(text) > 200 or not text.isprintable():
        raise BadValue(_("a %(of)s's name has 1 to 200 printable characters") % {"of": of}, field="name")
    return text


def line(text: str, *, field: str, most: int) -> str:
    """A line of text that may be empty. Raises `BadValue`."""
    text = text.strip()
    if len(text) > most or not text.isprintable():
        raise BadValue(
            _("%(field)s has at most %(most)s printable characters") % {"field": field, "most": most}, field=field
        )
    return text


def external_id(text: str | None) -> str | None:
    """What the caller's own system calls something; empty is none. Raises `BadValue`."""
    return line(text, field="external_id", most=200) or None if text else None


def quota(octets: int | None) -> int | None:
    """Octets, or no limit. Raises `BadValue`."""
    if octets is not None and not 0 <= octets <= _MOST_OCTETS:
        raise BadValue(
            _("a quota is from 0 to %(most_octets)s octets") % {"most_octets": _MOST_OCTETS}, field="quota_octets"
        )
    return octets


def retention(time: timedelta | None) -> timedelta | None:
    """A time that PostgreSQL can subtract from now: one that it cannot would stop the purge of everybody's mail."""
    if time is not None and not timedelta(0) <= time <= _LONGEST_RETENTION:
        raise BadValue(
            _("a retention is from 0 to %(days)s days") % {"days": _LONGEST_RETENTION.days}, field="retention"
        )
    return time


def keep_time(time: timedelta | None) -> timedelta | None:
    """How long mail stays in a maildrop, in whole days, or None: for ever. Raises `BadValue`."""
    if time is not None and (time % timedelta(days=1) or not SHORTEST_KEEP_TIME <= time <= _LONGEST_RETENTION):
        limits = {"least": SHORTEST_KEEP_TIME.days, "most": _LONGEST_RETENTION.days}
        raise BadValue(_("a keep-time is from %(least)s to %(most)s whole days") % limits, field="keep_time")
    return time


def language(code: str | None) -> str | None:
    """The code of a language that we speak; empty is none. Raises `BadValue`."""
    if code and code not in dict(languages.NAMES):
        raise BadValue(
            _("a language is one of %(languages)s") % {"languages": ", ".join(dict(languages.NAMES))}, field="language"
        )
    return code or None


def time_zone(name: str | None) -> str | None:
    """The name of a time zone; empty is none. Raises `BadValue`."""
    try:
        return languages.zone(name).key if name else None
    except ValueError as error:
        raise BadValue(str(error), field="time_zone") from None


def content_roles(roles: Iterable[str] | None) -> list[str] | None:
    """Roles that a tenant lets read its messages, each once and in one order; or the host's. Raises `BadValue`."""
    if roles is None:
        return None
    wanted = set(roles)
    if unknown := wanted - set(permissions.CONTENT_ROLES):
        raise BadValue(
            _("%(role)r is no role that could read messages") % {"role": min(unknown)}, field="content_roles"
        )
    return [str(role) for role in permissions.CONTENT_ROLES if role in wanted]


def networks(texts: Iterable[str]) -> list[str]:
    """Networks in the form that PostgreSQL takes for `inet`: one that it does not take would stop every login."""
    found = [_network(text) for text in texts]
    if len(found) > _MOST_NETWORKS:
        raise BadValue(
            _("at most %(most_networks)s networks can be named") % {"most_networks": _MOST_NETWORKS},
            field="allowed_networks",
        )
    return found


def _network(text: str) -> str:
    try:
        network = ip_network(text.strip())
    except ValueError:
        network = None
    if network is None or "%" in text:
        raise BadValue(
            _("%(text)r is not a network such as 192.0.2.0/24 or 2001:db8::/48") % {"text": text},
            field="allowed_networks",
        )
    return str(network)


def changed(row: Model, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What of `values` differs from the row, before and after, by field."""
    pairs = {field: (getattr(row, field), value) for field, value in values.items()}
    return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}


def write(rows: QuerySet[Any], changes: Mapping[str, tuple[Any, Any]]) -> bool:
    """Write what `changed` found; whether the row was there. Raises `Taken` where a value must be only one's."""
    try:
        with transaction.atomic():
            return bool(rows.update(**{field: after for field, (_, after) in changes.items()}))
    except IntegrityError as error:
        raise taken(error) from None


def taken(error: IntegrityError) -> Taken:
    """What the database says is taken already. Anything else is a fault, and raised as it is."""
    if is_of_external_id(error):
        return Taken(_("another one has that external_id"))
    if getattr(error.__cause__, "sqlstate", None) == "23505":
        return Taken(_("it is taken"))
    raise error


def is_of_external_id(error: IntegrityError) -> bool:
    """Whether the database says that the caller's own id is another one's already."""
    return "external_id" in (getattr(getattr(error.__cause__, "diag", None), "constraint_name", None) or "")
