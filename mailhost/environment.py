"""Reading settings from environment variables: each value is checked, and a bad one is refused by name."""

import os
import re
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured

from accounts import addresses
from mailhost.lineserver import Endpoint

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str)

_SIZE = re.compile(r"([0-9]{1,19})([KMGT]?)i?B?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)")
_SIZE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_DAYS = 36500  # PostgreSQL cannot subtract just any time from now


def read(name: str, default: str, parse: Callable[[str], T], *, secret: bool = False) -> T:
    """The value of the environment variable `name`, parsed; an empty one counts as unset.

    Raises `ImproperlyConfigured` with a sentence that names the variable if `parse` raises `ValueError`. It tells the
    value too, unless that may hold a password (`secret`).
    """
    text = os.environ.get(name, "").strip() or default
    try:
        return parse(text)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is {'set' if secret else repr(text)}, but {error}.") from None


def address(text: str, *, or_path: bool = False, implicit_tls: bool = False) -> Endpoint:
    """`host:port`, `[v6]:port` or, where allowed, the absolute path of a Unix socket."""
    if or_path and text.startswith("/"):
        if len(os.fsencode(text)) > 107:
            raise ValueError("the path of a Unix socket has at most 107 octets")
        return Endpoint(path=Path(text))
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets, as in [::1]:110")
    if not separator or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        path = " or the absolute path of a Unix socket" if or_path else ""
        raise ValueError(f"it must be host:port with a port from 1 to 65535{path}")
    return Endpoint(host, int(port), implicit_tls=implicit_tls)


def file(text: str) -> Path:
    """The path of a file that is there."""
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise ValueError("there is no such file")
    return path


def size(text: str) -> int:
    """Octets, as `1048576`, `512K`, `50M` or `1G` (powers of 1024)."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError("it must be a number of octets such as 1048576, 512K, 50M or 1G")
    return int(match[1]) * _SIZE_UNITS[match[2].upper()]


def duration(text: str) -> timedelta:
    """A time, as `500ms`, `90s`, `10m`, `8h` or `14d`."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError("it must be a time such as 90s, 10m, 8h or 14d")
    seconds = float(match[1]) * _DURATION_UNITS[match[2]]
    if seconds > _LONGEST_DAYS * _DURATION_UNITS["d"]:
        raise ValueError(f"it must be a time such as 14d, at most {_LONGEST_DAYS}d")
    return timedelta(seconds=seconds)


def interval(text: str) -> timedelta:
    """A time as `duration`, between two things that do not happen at once."""
    time = duration(text)
    if not time:
        raise ValueError("it must be longer than that, such as 90s or 10m")
    return time


def positive(text: str) -> int:
    """A whole number from 1 to 9999."""
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise ValueError("it must be a whole number from 1 to 9999")
    return int(text)


def port(text: str) -> int:
    """A port's number."""
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text) or int(text) > 65535:
        raise ValueError("it must be a port from 1 to 65535")
    return int(text)


def web_address(text: str) -> str:
    """`https://host` or `http://host:port`, and nothing after it."""
    if not re.fullmatch(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", text):
        raise ValueError("it must be such as https://mail.example.com, without anything after it")
    return text


def optional(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """A parser that takes what `parse` does, or nothing."""
    return lambda text: parse(text) if text else None


def one_of(*choices: Choice) -> Callable[[str], Choice]:
    """A parser that takes one of `choices`."""

    def parse(text: str) -> Choice:
        for choice in choices:
            if text == choice:
                return choice
        raise ValueError(f"it must be one of: {', '.join(choices)}")

    return parse


def some_of(*choices: Choice) -> Callable[[str], frozenset[Choice]]:
    """A parser that takes some of `choices`, separated by commas or blanks; or `none`."""
    parse = one_of(*choices)
    return lambda text: frozenset(parse(word) for word in words(text) if text != "none")


def switch(text: str) -> bool:
    """`on` or `off`."""
    return one_of("on", "off")(text) == "on"


def words(text: str) -> tuple[str, ...]:
    """Words separated by commas or blanks."""
    return tuple(text.replace(",", " ").split())


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks such as `10.0.0.0/8 2001:db8::/32`, separated by commas or blanks."""
    try:
        return tuple(ip_network(word) for word in words(text))
    except ValueError:
        raise ValueError("it must be networks such as 10.0.0.0/8 or 192.0.2.7") from None


def name_servers(text: str) -> tuple[tuple[str, int], ...]:
    """Addresses such as `192.0.2.53`, `2001:db8::53` or `[2001:db8::53]:5353`, each with its port."""
    return tuple(_name_server(word) for word in words(text))


def _name_server(text: str) -> tuple[str, int]:
    try:
        return str(ip_address(text)), 53
    except ValueError:
        pass
    try:
        endpoint = address(text)
        return str(ip_address(endpoint.host)), endpoint.port
    except ValueError:
        raise ValueError("it must be addresses such as 192.0.2.53 or [2001:db8::53]:5353") from None


def exchangers(text: str) -> tuple[tuple[int, str], ...]:
    """MTAs such as `mx1.example.com mx2.example.com`, in the order to be tried, or `10:mx1.example.com` each."""
    found = []
    for place, word in enumerate(words(text), start=1):
        preference, colon, name = word.rpartition(":")
        if colon and not (preference.isascii() and preference.isdigit() and int(preference) < 2**16):
            raise ValueError("it must be names such as mx.example.com or 10:mx.example.com")
        found.append((int(preference) if colon else 10 * place, host_name(name)))
    return tuple(found)


def host_name(text: str) -> str:
    """A name of DNS, such as `mail.example.com`, in normal form."""
    try:
        return addresses.domain(text)
    except addresses.BadAddress:
        raise ValueError("it must be a name such as mail.example.com") from None
