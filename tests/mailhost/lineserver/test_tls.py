"""TLS, after STLS and from the first octet."""

import contextlib
import signal
import ssl
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from mailhost.lineserver import TLSError, TLSFiles
from mailhost.lineserver.tls import TLS
from tests.mailhost.lineserver.conftest import write_certificate
from tests.mailhost.lineserver.running import Client, Server, eventually, trusting


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[str, str]) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("hasty")
    with Server(directory, ("", "/tls"), tls=certificate, handshake_seconds=0.3) as running:
        yield running


def test_stls_makes_the_connection_secure(client: Client) -> None:
    assert client.ask(b"who").split()[2] == b"False"
    assert client.ask(b"stls") == b"+begin"
    client.secure()
    assert client.ask(b"who").split()[2] == b"True"


def test_nothing_that_came_in_clear_behind_stls_is_executed(client: Client) -> None:
    # CVE-2011-0411 and its many sisters.
    client.send(b"say before\r\nstls\r\nsay injected\r\nsay inj")
    assert [client.line(), client.line()] == [b"+before", b"+begin"]
    client.secure()
    assert client.ask(b"ected") == b"-what is 5 octets"
    client.send(b"say one\r\nquit\r\n")
    assert client.rest() == b"+one\r\n+bye\r\n"


def test_stls_behind_an_unfinished_step_drops_what_follows_it_too(client: Client) -> None:
    client.send(b"slowly 0.05 x\r\nstls\r\nsay injected\r\n")
    time.sleep(0.01)
    client.send(b"say injected\r\n")
    assert [client.line(), client.line()] == [b"+x", b"+begin"]
    client.secure()
    assert client.ask(b"say one") == b"+one"


def test_what_was_said_in_clear_is_forgotten(client: Client) -> None:
    client.ask(b"say something")
    client.ask(b"stls")
    client.secure()
    assert client.ask(b"said") == b"+"


@pytest.mark.parametrize("delay", range(100))
def test_a_line_in_clear_in_place_of_the_handshake_is_never_answered(hasty: Server, delay: int) -> None:
    with hasty.client() as client:
        client.send(b"stls\r\n")
        time.sleep(delay / 10_000)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(b"say x\r\n" * 3)
        replies = client.rest()
    assert replies.startswith(b"+begin\r\n")
    assert b"+x" not in replies
    assert b"-" not in replies


def test_a_handshake_that_breaks_off_leaves_nothing_behind(server: Server) -> None:
    server.settled()
    descriptors = Path(f"/proc/{server.pids()[0]}/fd")
    before = len(list(descriptors.iterdir()))
    for number in range(100):
        with server.client() as client:
            client.ask(b"stls")
            client.send(b"\x16\x03\x01\x02\x00"[: number % 6])
        with Client.to(server.address(1)) as secure:
            secure.send(b"\x16\x03\x01\x02\x00"[: number % 6])
    server.settled()
    eventually(lambda: len(list(descriptors.iterdir())) <= before)


def test_a_hello_that_comes_with_the_connection_is_not_lost(server: Server) -> None:
    for _ in range(100):
        with server.client(1) as client:
            assert client.ask(b"who").split()[2] == b"True"


def test_pipelining_and_data_in_tls(server: Server) -> None:
    with server.client(1) as client:
        client.send(b"".join(b"say %d\r\nslowly 0 x\r\n" % number for number in range(500)))
        for number in range(500):
            assert [client.line(), client.line()] == [b"+%d" % number, b"+x"]
        client.send(b"data 3000000\r\n" + bytes(3_000_000) + b"stream 50\r\nquit\r\n")
        assert client.line() == b"+go on"
        assert client.line().startswith(b"+took ")
        assert client.rest() == b"x" * 65536 * 50 + b".\r\n+bye\r\n"


def test_a_slow_handshake_is_cut_off(hasty: Server) -> None:
    started = time.monotonic()
    with Client.to(hasty.address(1)) as silent, hasty.client() as client:
        client.ask(b"stls")
        assert silent.rest() == b""
        assert client.rest() == b""
        assert 0.3 <= time.monotonic() - started < 5


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_refused(server: Server, version: ssl.TLSVersion) -> None:
    context = trusting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with Client.to(server.address(1)) as client, pytest.raises(ssl.SSLError):
        client.secure(context)


@pytest.mark.parametrize(
    ("ciphers", "fits"),
    [
        ("ECDHE+AESGCM", True),
        ("ECDHE+CHACHA20", True),
        ("AES128-GCM-SHA256", False),
        ("ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256", False),
        ("DHE+AESGCM", False),
    ],
)
def test_tls_1_2_has_forward_secrecy_and_authenticated_encryption(server: Server, ciphers: str, fits: bool) -> None:
    context = trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    with Client.to(server.address(1)) as client:
        if fits:
            client.secure(context)
            assert client.line() == b"+hello"
        else:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                client.secure(context)


@pytest.mark.parametrize("reloaded", [False, True])
def test_workers_know_each_others_tickets(tmp_path: Path, certificate: tuple[str, str], reloaded: bool) -> None:
    context = trusting()
    with Server(tmp_path / "server", ("/tls",), tls=certificate, workers=2) as server:
        if reloaded:
            server.parent.send_signal(signal.SIGHUP)
            eventually(lambda: "loaded again" in server.log())
            time.sleep(0.1)
        session = None
        resumed: dict[bytes, bool | None] = {}
        while len(resumed) < 2:
            with Client.to(server.address()) as client:
                secured = client.secure(context, session=session)
                assert client.line() == b"+hello"
                worker = client.ask(b"who").split()[3]
                if session is None:
                    session = secured.session
                else:
                    resumed[worker] = secured.session_reused
        assert set(resumed.values()) == {True}


def test_the_protocols_name_is_agreed_on(tmp_path: Path, certificate: tuple[str, str]) -> None:
    with Server(tmp_path / "server", ("/tls",), tls=certificate, alpn=["pop3"]) as server:
        for offered, agreed in ((["h2", "pop3"], "pop3"), (["http/1.1"], None)):
            context = trusting()
            context.set_alpn_protocols(offered)
            with Client.to(server.address()) as client:
                assert client.secure(context).selected_alpn_protocol() == agreed
                assert client.line() == b"+hello"


def test_a_pair_that_does_not_match_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_certificate(tmp_path)
    write_certificate(tmp_path / "other")
    with pytest.raises(TLSError, match=r"Cannot use .*cert\.pem with .*other/key\.pem"):
        TLS(TLSFiles(tmp_path / "cert.pem", tmp_path / "other" / "key.pem"))
    with pytest.raises(TLSError, match=r"Cannot read .*none\.pem: No such file"):
        TLS(TLSFiles(tmp_path / "none.pem", tmp_path / "key.pem"))


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(tmp_path: Path) -> None:

    write_certificate(tmp_path)
    key = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(TLSError, match="Cannot use"):
        TLS(TLSFiles(tmp_path / "cert.pem", tmp_path / "key.pem"))
