"""The life of a message in words, for templates."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from django import template
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop as noop
from django.utils.translation import pgettext

from mailstore.life import Event, Kind, Seen

register = template.Library()


@register.inclusion_tag("mailstore/life.html")
def life(events: Iterable[Event], session_view: str = "") -> dict[str, Any]:
    """What happened to a message, a line each."""
    return lines(events, session_view)


def lines(events: Iterable[Event], session_view: str) -> dict[str, Any]:
    """For the template; sessions lead to the page with that URL's name, if there is one."""
    lines: list[dict[str, Any]] = []
    before: Event | None = None
    for event in events:
        session = event.seen.session_id if event.seen and event.seen.known else None
        lines.append({"event": event, "text": said(event, before), "session": session})
        before = event
    return {"lines": lines, "session_view": session_view}


@register.filter
def moment(at: datetime | None) -> str:
    """When something was or will be, as short as it can be told today: 09:02, 24 Nov 09:02, 24 Nov 2025 09:02."""
    if at is None:
        return ""
    there, here = localtime(at), localtime()
    if there.date() == here.date():
        return date_format(there, "H:i")
    if there.year != here.year:
        return date_format(there, "DATETIME_FORMAT")
    return pgettext("moment", "%(day)s %(time)s") % {
        "day": date_format(there, "MONTH_DAY_FORMAT"),
        "time": date_format(there, "H:i"),
    }


@register.filter
def day(at: datetime) -> str:
    """A day: 7 Dec, 7 Jan 2027."""
    there = localtime(at)
    return date_format(there, "MONTH_DAY_FORMAT" if there.year == localtime().year else "DATE_FORMAT")


@register.filter
def client(seen: Seen) -> str:
    """Who was in a session: the device, or what it signed in with, and where from."""
    if not seen.known:
        return _("a session of which no record is left")
    return _(_CLIENTS[_way(seen)]) % _names(seen)


def said(event: Event, before: Event | None = None) -> str:
    """What happened, in words that follow its time; `before` is what happened just before."""
    if event.kind in _IN_SESSION and event.seen:
        if before and before.seen and before.seen.session_id == event.seen.session_id:
            return _(_SAME[event.kind])
        text = _(_IN_SESSION[event.kind][_way(event.seen)]) % _names(event.seen)
        if event.seen.secure or not event.seen.known:
            return text
        return _("%(text)s, not encrypted") % {"text": text}
    match event.kind:
        case Kind.DELIVERED:
            return _delivered(event)
        case Kind.IMPORTED:
            return _("brought along from another server")
        case Kind.EXPIRED:
            return _("removed: its keep-time ended")
        case Kind.REMOVED:
            return _("removed by %(who)s") % {"who": event.by} if event.by else _("removed by a program or a command")
        case Kind.RESTORED:
            return _("restored by %(who)s") % {"who": event.by} if event.by else _("restored by a program or a command")
        case Kind.DUE:
            assert event.at
            return _("gone for good on %(day)s") % {"day": day(event.at)}
        case Kind.HELD:
            return _("kept: the mailbox is on legal hold")
    return str(event.kind)


def _delivered(event: Event) -> str:
    hop = event.hop
    if hop is None or not (hop.host or hop.address):
        text = _("delivered by this server")
    else:
        whence = hop.host or hop.address
        if hop.address and hop.address != whence:
            whence = f"{whence} ({hop.address})"
        text = _("delivered from %(whence)s") % {"whence": whence}
    if not hop or not hop.queue_id:
        return text
    queue_id = _("queue id %(id)s") % {"id": hop.queue_id}
    return f"{text} ({queue_id})"


def _way(seen: Seen) -> str:
    if not seen.known:
        return "unknown"
    return "device" if seen.device else "own" if seen.own_password else "gone"


def _names(seen: Seen) -> dict[str, str]:
    return {"device": seen.device, "address": seen.address or _("this machine")}


_IN_SESSION: Final = {
    Kind.FETCHED: {
        "device": noop("fetched by “%(device)s” from %(address)s"),
        "own": noop("fetched with the mailbox's password from %(address)s"),
        "gone": noop("fetched by a device that is gone, from %(address)s"),
        "unknown": noop("fetched in a session of which no record is left"),
    },
    Kind.PUT_AWAY: {
        "device": noop("removed by “%(device)s” from its own copy, from %(address)s"),
        "own": noop("removed from an own copy, from %(address)s"),
        "gone": noop("removed by a device that is gone from its own copy, from %(address)s"),
        "unknown": noop("removed from an own copy in a session of which no record is left"),
    },
    Kind.REMOVED: {
        "device": noop("removed by “%(device)s” from %(address)s"),
        "own": noop("removed with the mailbox's password from %(address)s"),
        "gone": noop("removed by a device that is gone, from %(address)s"),
        "unknown": noop("removed in a session of which no record is left"),
    },
}
_SAME: Final = {
    Kind.FETCHED: noop("fetched in that session"),
    Kind.PUT_AWAY: noop("removed in that session, from its own copy"),
    Kind.REMOVED: noop("removed in that session"),
}
_CLIENTS: Final = {
    "device": noop("“%(device)s” from %(address)s"),
    "own": noop("with the mailbox's password, from %(address)s"),
    "gone": noop("a device that is gone, from %(address)s"),
}
