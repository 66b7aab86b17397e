"""The self-signed pair: made once, whole, and good for TLS with localhost."""

import socket
import ssl
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mailhost import tls


def pair(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "data" / "tls" / "cert.pem", tmp_path / "data" / "tls" / "key.pem"


def test_a_client_that_trusts_it_can_talk_to_localhost(tmp_path: Path) -> None:
    cert, key = pair(tmp_path)
    tls.ensure_pair(cert, key, hostname="Mail.Example.Test")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    client = ssl.create_default_context(cafile=str(cert))
    for name in ("localhost", "mail.example.test", "127.0.0.1"):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            answer = threading.Thread(
                target=lambda end: server.wrap_socket(end, server_side=True).close(), args=[theirs]
            )
            answer.start()
            with client.wrap_socket(ours, server_hostname=name) as secure:
                assert secure.version() == "TLSv1.3"
            answer.join()


def test_only_the_owner_reads_the_key(tmp_path: Path) -> None:
    cert, key = pair(tmp_path)
    tls.ensure_pair(cert, key, hostname="localhost")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_it_is_made_once_even_if_several_start_at_once(tmp_path: Path) -> None:
    cert, key = pair(tmp_path)

    def make(_: int) -> bytes:
        tls.ensure_pair(cert, key, hostname="localhost")
        return cert.read_bytes() + key.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(16)))) == 1
    assert [path.name for path in cert.parent.parent.iterdir()] == ["tls"]
