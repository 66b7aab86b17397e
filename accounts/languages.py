"""How somebody is spoken to: in the language and the time zone of his choice, else his browser's, else the host's.

What programs read (the API, commands, logs) is English and UTC, whoever asks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import TZPATH, ZoneInfo, available_timezones

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils import formats, timezone, translation
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from django.utils.translation.trans_real import parse_accept_lang_header

NAMES: Final[tuple[tuple[str, str], ...]] = (("en", "English"), ("vi", "Tiếng Việt"))
"""By code, what each language calls itself."""

ZONE_COOKIE: Final = "time_zone"
"""What a browser says of its zone: a script on every page sets it (`static/zone.js`), since no header tells."""

_OF_PROGRAMS: Final = "/api/"
_REGIONS: Final = frozenset(
    {"Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"}
)
# What browsers still call by names that were given up.
_NOW_CALLED: Final = {
    "Africa/Asmera": "Africa/Asmara",
    "America/Buenos_Aires": "America/Argentina/Buenos_Aires",
    "America/Godthab": "America/Nuuk",
    "Asia/Calcutta": "Asia/Kolkata",
    "Asia/Katmandu": "Asia/Kathmandu",
    "Asia/Rangoon": "Asia/Yangon",
    "Asia/Saigon": "Asia/Ho_Chi_Minh",
    "Atlantic/Faeroe": "Atlantic/Faroe",
    "Europe/Kiev": "Europe/Kyiv",
    "Pacific/Truk": "Pacific/Chuuk",
}


@cache
def zones() -> dict[str, ZoneInfo]:
    """The time zones that there are, by name and in order."""
    places = {name for name in available_timezones() if name.partition("/")[0] in _REGIONS}
    return {name: ZoneInfo(name) for name in ("UTC", *sorted(places - _NOW_CALLED.keys()))}


@cache
def _listed() -> frozenset[str]:
    """The zones of the IANA's list of places; where that is not installed, all."""
    for directory in TZPATH:
        with suppress(OSError):
            lines = Path(directory, "zone.tab").read_text().splitlines()
            return frozenset(line.split("\t")[2] for line in lines if not line.startswith("#"))
    return frozenset(zones())


def zone(name: str) -> ZoneInfo:
    """The time zone of that name (IANA). Raises `ValueError` with a sentence where there is none."""
    found = zones().get(_NOW_CALLED.get(name, name))
    if found is None:
        raise ValueError(gettext("it must be the name of a time zone such as UTC or Asia/Ho_Chi_Minh"))
    return found


def named(zone: tzinfo, name: str = "") -> str:
    """A time zone as people read it, with what it is from UTC now: Asia/Ho_Chi_Minh (UTC+07:00)."""
    if zone.tzname(None) == "UTC":
        return "UTC"
    offset = datetime.now(zone).isoformat(timespec="seconds")[19:]
    return f"{name or zone} (UTC{offset})"


def zone_unless_chosen(request: HttpRequest) -> str:
    """In which zone somebody reads who has chosen none, as a choice says it."""
    said, zone = _said_by_browser(request), named(_zone_of(request))
    return (_("As the browser says: %(zone)s") if said else _("The usual one here: %(zone)s")) % {"zone": zone}


def regions(chosen: str | None = None) -> list[tuple[str, list[tuple[str, str]]]]:
    """The time zones to choose from: by region, the name of each and its place as people read it.

    Places are called as in the IANA's list in every language. Former names are left out, but for what is `chosen`.
    """
    called = {
        "UTC": "UTC",
        "Africa": _("Africa"),
        "America": _("America"),
        "Antarctica": _("Antarctica"),
        "Arctic": _("Arctic"),
        "Asia": _("Asia"),
        "Atlantic": _("Atlantic Ocean"),
        "Australia": _("Australia"),
        "Europe": _("Europe"),
        "Indian": _("Indian Ocean"),
        "Pacific": _("Pacific Ocean"),
    }
    found: dict[str, list[tuple[str, str]]] = {}
    for name, zone in zones().items():
        if name not in _listed() and name not in ("UTC", chosen):
            continue
        region, _slash, place = name.partition("/")
        found.setdefault(called[region], []).append((name, named(zone, place.replace("_", " "))))
    return list(found.items())


def number(amount: float, places: int | None = None) -> str:
    """With its digits in groups, and so many after the point, as the language writes it: 1,234.5 or 1.234,5."""
    # Django cuts off what is too much.
    return formats.number_format(amount if places is None else round(amount, places), places, force_grouping=True)


def moment(at: datetime) -> str:
    """A time where no page names the zone: 2 Mar 2026 09:05, Asia/Ho_Chi_Minh (UTC+07:00)."""
    return f"{formats.date_format(timezone.localtime(at), 'DATETIME_FORMAT')}, {named(timezone.get_current_timezone())}"


def gettext(text: str) -> str:
    """As Django's; in English while settings are still being read, since what is wrong in them is told like this."""
    return translation.gettext(text) if settings.configured else text


class SpokenTo:
    """Middleware that answers people as the browser asks, until it is known who they are (`speak_to`)."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(_OF_PROGRAMS):
            with translation.override("en"), timezone.override(timezone.get_default_timezone()):
                return self._get_response(request)
        with translation.override(_language_of(request)), timezone.override(_zone_of(request)):
            response = self._get_response(request)
            patch_vary_headers(response, ("Accept-Language", "Cookie"))
            response.headers.setdefault("Content-Language", translation.get_language() or "en")
            return response


def speak_to(user: Any, request: HttpRequest) -> None:
    """From here on in this request, speak as this user has chosen; where he has not, as the browser asks."""
    translation.activate(user.language or _language_of(request))
    timezone.activate(_own_zone(user) or _zone_of(request))


@contextmanager
def writing_to(user: Any = None) -> Iterator[None]:
    """Within, speak as this user has chosen, where no browser says anything: in mail. None is somebody unknown."""
    with (
        translation.override((user and user.language) or settings.MAILHOST_LANGUAGE),
        timezone.override(_own_zone(user) or zone(settings.MAILHOST_TIME_ZONE)),
    ):
        yield


def _own_zone(user: Any) -> ZoneInfo | None:
    """The zone that somebody has chosen, as long as there is one of that name: names are given up, too."""
    try:
        return zone(user.time_zone) if user and user.time_zone else None
    except ValueError:
        return None


def _language_of(request: HttpRequest) -> str:
    asked = [code for code, _weight in parse_accept_lang_header(request.headers.get("Accept-Language", ""))]
    for code in (request.COOKIES.get(settings.LANGUAGE_COOKIE_NAME, ""), *asked):
        try:
            return translation.get_supported_language_variant(code)
        except LookupError:
            continue
    return str(settings.MAILHOST_LANGUAGE)


def _zone_of(request: HttpRequest) -> ZoneInfo:
    return _said_by_browser(request) or zone(settings.MAILHOST_TIME_ZONE)


def _said_by_browser(request: HttpRequest) -> ZoneInfo | None:
    try:
        return zone(request.COOKIES.get(ZONE_COOKIE, "").replace("%2F", "/"))
    except ValueError:
        return None
