"""Where a request comes from: the client's address, also behind proxies that are trusted."""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from django.http import HttpRequest

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def address_of(request: HttpRequest, *, proxies: Collection[Network]) -> Address | None:
    """The address of the client; None for one on a Unix socket.

    Each proxy adds whom it talks to at the end of `X-Forwarded-For`: the last address that is none of `proxies` is the
    client's. What stands before it, anybody may have written.
    """
    address = parsed(request.META.get("REMOTE_ADDR", ""))
    said = request.META.get("HTTP_X_FORWARDED_FOR", "")
    for text in reversed(said.split(",")) if said else ():
        if address is None or not _is_within(address, proxies):
            break
        before = parsed(text)
        if before is None:
            break
        address = before
    return address


def is_allowed(address: Address | None, networks: Collection[Network]) -> bool:
    """Whether a client may come from there; without networks it may come from anywhere."""
    return not networks or (address is not None and _is_within(address, networks))


def _is_within(address: Address, networks: Collection[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def parsed(text: str) -> Address | None:
    """An address as text; None if it is none. One of IPv4 within IPv6 is one of IPv4."""
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
