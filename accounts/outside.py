"""Reaching hosts outside that somebody named, without being led to what only we can reach (SSRF)."""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple

from django.utils.translation import gettext_noop as noop

_UNICAST: Final = IPv6Network("2000::/3")  # RFC 4291 section 2.4: all of IPv6 that was ever given to anybody
_PROTOCOLS: Final = IPv4Network("192.0.0.0/24")  # RFC 6890: of protocols, also where Python calls it global
_6TO4: Final = IPv6Network("2002::/16")  # RFC 3056: an IPv4 address within, which nobody is reached by any more
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: how IPv4 looks from a network that has IPv6 only


class Refused(Exception):
    """We do not connect there; the text is a sentence without its full stop, in English, and tells no address."""


class Address(NamedTuple):
    """Where to connect to: a host's address that was looked at."""

    family: socket.AddressFamily
    host: str  # an IPv4 or IPv6 address
    port: int


def resolve(host: str, port: int, *, allow_private: bool) -> list[Address]:
    """The addresses of `host`, a name or an address, in the order to try them. Raises `Refused`.

    Unless private ones are allowed, a single address that is not the public internet's refuses them all. Whoever
    connects takes these addresses and does not ask DNS again: it may answer something else the next time.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # ValueError: a name that DNS cannot even be asked for
        raise Refused(noop("the host has no address")) from None
    targets: dict[Address, None] = {}
    for family, _type, _protocol, _name, where in found:
        address = ip_address(where[0])
        if address.is_unspecified or address.is_multicast or not (allow_private or is_public(address)):
            raise Refused(noop("the host has an address that is not on the public internet"))
        targets[Address(family, str(address), port)] = None
    return list(targets)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is a host's on the public internet, and not ours, a neighbour's, or nobody's."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _UNICAST or address in _6TO4:
            return False
    elif address in _PROTOCOLS:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)
