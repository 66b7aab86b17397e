"""The PROXY protocol: whom trusted proxies announce, and nobody else."""

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailhost.lineserver.proxy import NOBODY, SIGNATURE, ProxyError, client_of, missing, parse
from tests.mailhost.lineserver.running import Client, Server, trusting

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4321 110\r\n"
TLV = b"\x04\x00\x03abc"


def v2(command: int, family: int, addresses: bytes, tlvs: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses) + len(tlvs)) + addresses + tlvs


V2 = v2(0x21, 0x11, bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 4321, 110), TLV)
V2_IPV6 = v2(0x21, 0x21, bytes(15) + b"\x01" + bytes(16) + struct.pack("!HH", 4321, 110))

WELL_FORMED = [
    (V1, ("192.0.2.7", 4321)),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", ("2001:db8::1", 1)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.8 1 2\r\n", ("192.0.2.7", 1)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", None),
    (V2, ("192.0.2.7", 4321)),
    (V2_IPV6, ("::1", 4321)),
    (v2(0x20, 0x00, b""), None),
    (v2(0x20, 0x11, b"", TLV * 100), None),
    (v2(0x21, 0x31, bytes(216)), None),
    (v2(0x21, 0x00, b"", bytes(60_000)), None),
]

MALFORMED = [
    b"say hello to me\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4321\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4321 110 1\r\n",
    b"PROXY TCP4  192.0.2.7 198.51.100.1 4321 110\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 4321 110\r\n",
    b"PROXY TCP6 192.0.2.7 198.51.100.1 4321 110\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 110\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 110\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1_0 110\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 \xd9\xa3 110\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1 99999999999999\r\n",
    b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
    b"PROXY UNKNOWN" + b" " * 200 + b"\r\n",
    b"proxy tcp4 192.0.2.7 198.51.100.1 4321 110\r\n",
    v2(0x11, 0x11, bytes(12)),
    v2(0x22, 0x11, bytes(12)),
    v2(0x21, 0x11, bytes(11)),
    v2(0x21, 0x21, bytes(12)),
    SIGNATURE[:-1] + b"X\x21\x11\x00\x0c" + bytes(12),
]


def read(octets: bytes) -> tuple[bytes, bytes]:
    """The header, read as `Preface` does, and what is left behind it."""
    header = b""
    while wanted := missing(header):
        assert len(header) + wanted <= len(octets), "read beyond the header"
        header += octets[len(header) : len(header) + wanted]
    return header, octets[len(header) :]


@pytest.mark.parametrize(("header", "client"), WELL_FORMED)
def test_a_header_names_the_client(header: bytes, client: tuple[str, int] | None) -> None:
    parsed = parse(header)
    if client is None:
        assert parsed == NOBODY
    else:
        assert (str(parsed.address), parsed.port) == client


@pytest.mark.parametrize(("header", "client"), WELL_FORMED)
def test_no_octet_behind_the_header_is_read(header: bytes, client: object) -> None:
    assert read(header) == (header, b"")
    assert read(header + b"\r\nmore") == (header, b"\r\nmore")


@pytest.mark.parametrize("header", MALFORMED)
def test_a_malformed_header_is_refused(header: bytes) -> None:
    with pytest.raises(ProxyError):
        parse(read(header + b"\r\n" * 200)[0])


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00"])
)
def test_any_octets_are_a_client_or_refused(octets: bytes, beginning: bytes) -> None:
    with contextlib.suppress(ProxyError):
        header, _ = read(beginning + octets + b"\r\n" + bytes(70_000))
        parse(header)


def test_hosts_with_many_ipv6_addresses_are_one_place() -> None:
    def place(address: str) -> int | None:
        return parse(f"PROXY TCP6 {address} ::2 1 2\r\n".encode()).place

    assert place("2001:db8:0:1::1") == place("2001:db8:0:1:ffff::1") != place("2001:db8:0:2::1")
    assert place("::ffff:192.0.2.7") == parse(V1).place != place("::192.0.2.7")


def test_a_socket_of_ipv6_knows_its_ipv4_clients() -> None:
    class Transport:
        def get_extra_info(self, name: str) -> object:
            return ("::ffff:192.0.2.7", 4321, 0, 0)

    assert client_of(Transport()) == parse(V1)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def behind_proxy(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[str, str]) -> Iterator[Server]:
    """Trusts 127.0.0.0/30, so that 127.0.0.5 is somebody else."""
    with Server(
        tmp_path_factory.mktemp("behind-proxy"),
        ("", "/tls"),
        tls=certificate,
        proxy_networks=["127.0.0.0/30"],
    ) as running:
        yield running


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Trusts this machine to announce whom it connects, within 0.4 seconds."""
    with Server(tmp_path_factory.mktemp("strict"), proxy_networks=["127.0.0.0/8"], proxy_seconds=0.4) as running:
        yield running


@pytest.mark.parametrize(("header", "client"), WELL_FORMED)
@pytest.mark.parametrize("endpoint", [0, 1])
def test_a_trusted_proxys_client_is_the_peer(
    behind_proxy: Server, endpoint: int, header: bytes, client: tuple[str, int] | None
) -> None:
    with Client.to(behind_proxy.address(endpoint)) as proxied:
        proxied.send(header)
        if endpoint:
            proxied.secure()
        assert proxied.line() == b"+hello"
        address, port, secure, _ = proxied.ask(b"who")[1:].split()
        assert (address.decode(), int(port)) == (client or ("None", 0))
        assert secure == (b"True" if endpoint else b"False")


@pytest.mark.parametrize("header", [V1, V2])
def test_header_and_first_octets_in_one_segment(behind_proxy: Server, header: bytes) -> None:
    with Client.to(behind_proxy.address()) as client:
        client.send(header + b"who\r\nquit\r\n")
        replies = client.rest().splitlines()
        assert replies[0] == b"+hello"
        assert replies[1].startswith(b"+192.0.2.7 4321 ")
        assert replies[2] == b"+bye"


@pytest.mark.parametrize("header", [V1, V2])
def test_header_and_clienthello_in_one_segment(behind_proxy: Server, header: bytes) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting().wrap_bio(incoming, outgoing)
    with Client.to(behind_proxy.address(1)) as client:
        before = header
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.send(before + outgoing.read())
                before = b""
                incoming.write(client.socket.recv(65536))
        client.send(outgoing.read())
        while True:
            try:
                assert tls.read(8) == b"+hello\r\n"
                break
            except ssl.SSLWantReadError:
                incoming.write(client.socket.recv(65536))


@pytest.mark.parametrize("header", [V1, V2])
def test_a_header_may_come_octet_by_octet(behind_proxy: Server, header: bytes) -> None:
    with Client.to(behind_proxy.address()) as client:
        for octet in header:
            client.send(bytes([octet]))
            time.sleep(0.001)
        assert client.line() == b"+hello"


@pytest.mark.parametrize("sent", [b"", V1[:-1], V2[:-1], V2[:14], b"say x\r\n", V1.replace(b"TCP4", b"TCP9")])
def test_who_should_announce_and_does_not_is_cut_off_without_a_word(strict: Server, sent: bytes) -> None:
    with Client.to(strict.address()) as client:
        started = time.monotonic()
        client.send(sent)
        assert client.rest() == b""
        assert time.monotonic() - started < 3


def test_a_header_that_breaks_off_is_nothing(behind_proxy: Server) -> None:
    with Client.to(behind_proxy.address()) as client:
        client.send(V2[:-3])
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == b""


def test_a_second_header_is_a_line_like_any_other(behind_proxy: Server) -> None:
    with Client.to(behind_proxy.address()) as client:
        client.send(V1 + V1)
        assert client.line() == b"+hello"
        assert client.line() == b"-what is %d octets" % (len(V1) - 2)


def test_from_elsewhere_a_header_is_garbage(behind_proxy: Server) -> None:
    with Client.to(behind_proxy.address(), source="127.0.0.5") as client:
        assert client.line() == b"+hello"
        assert client.ask(V1[:-2]) == b"-what is %d octets" % (len(V1) - 2)
        assert client.ask(b"who").startswith(b"+127.0.0.5 ")


def test_the_announced_client_is_who_is_counted(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "proxy_networks": ["127.0.0.0/8"], "connections_per_address": 2, "established": False,
    }  # fmt: skip
    with Server(tmp_path / "server", **settings) as server, contextlib.ExitStack() as stack:

        def told(header: bytes) -> bytes:
            client = stack.enter_context(Client.to(server.address()))
            client.send(header)
            return client.line()

        announced = [b"PROXY TCP4 192.0.2.%d 198.51.100.1 4321 110\r\n" % last for last in (50, 50, 50, 51)]
        assert [told(each) for each in announced] == [b"+hello", b"+hello", b"-bye TOO_MANY", b"+hello"]
        for _ in range(5):
            assert told(b"PROXY UNKNOWN\r\n") == b"+hello"
