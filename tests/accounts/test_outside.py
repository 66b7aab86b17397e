"""A host that somebody names is reached only if it is outside, unless the operator allows others."""

import ipaddress
import socket

import pytest

from accounts import outside
from accounts.outside import Address, Refused

INSIDE = (
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::1",
    "2002:a00:1::1",
    "2001:0:53aa:64c:0:0:f5ff:fffe",
)


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_not_on_the_public_internet_is_refused(address: str) -> None:
    assert not outside.is_public(ipaddress.ip_address(address))
    with pytest.raises(Refused):
        outside.resolve(address, 443, allow_private=False)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_what_is_on_the_public_internet_is_not(address: str) -> None:
    assert outside.is_public(ipaddress.ip_address(address))
    assert [found.port for found in outside.resolve(address, 443, allow_private=False)] == [443]


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "0", "017700000001"])
def test_a_name_or_number_that_leads_to_this_host_is_refused(host: str) -> None:
    with pytest.raises(Refused, match=r"not on the public internet$"):
        outside.resolve(host, 80, allow_private=False)


@pytest.mark.parametrize("host", ["", "nowhere.invalid", "a" * 64 + ".test", "a..b", "a\0b", "ü" * 300])
def test_what_is_no_host_has_no_address(host: str) -> None:
    with pytest.raises(Refused, match=r"has no address|public internet"):
        outside.resolve(host, 80, allow_private=False)


def test_private_addresses_can_be_allowed_but_none_that_is_no_hosts() -> None:
    assert outside.resolve("127.0.0.1", 25, allow_private=True) == [Address(socket.AF_INET, "127.0.0.1", 25)]
    for address in ("0.0.0.0", "::", "224.0.0.1", "ff02::1"):
        with pytest.raises(Refused):
            outside.resolve(address, 25, allow_private=True)
