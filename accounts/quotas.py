"""Quotas as people write them: `1G`, `512M`, `none`."""

from django.utils.translation import gettext as _

from accounts import languages
from mailhost import environment

_UNITS = ("", "K", "M", "G", "T")


def parse(text: str) -> int | None:
    """Octets; `None`, which is no limit, for `none`. Raises `ValueError` with a sentence."""
    if text.strip().lower() == "none":
        return None
    try:
        return environment.size(text.strip())
    except ValueError:
        raise ValueError(_("a quota is a number of octets such as 1048576, 512K, 50M or 1G, or none")) from None


def exact(octets: int | None) -> str:
    """What `parse` takes for the same: the largest unit without a fraction."""
    if octets is None:
        return "none"
    power = 0
    while octets and octets % 1024 == 0 and power < len(_UNITS) - 1:
        octets, power = octets // 1024, power + 1
    return f"{octets}{_UNITS[power]}"


def rounded(octets: int | None) -> str:
    """For columns: at most four digits."""
    if octets is None:
        return _("none")
    amount, power = float(octets), 0
    while amount >= 1000 and power < len(_UNITS) - 1:
        amount, power = amount / 1024, power + 1
    return languages.number(amount, 0 if amount >= 10 or amount == int(amount) else 1) + _UNITS[power]
