"""Servers and certificates for the tests of the line server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.x509 import load_pem_x509_certificate

from tests.mailhost.lineserver.running import Client, Server


@pytest.fixture(scope="package")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Paths of a certificate for localhost and of its key."""
    directory = tmp_path_factory.mktemp("certificate")
    write_certificate(directory)
    return str(directory / "cert.pem"), str(directory / "key.pem")


def write_certificate(directory: Path) -> int:
    """Write a new pair there; returns its serial number."""

    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    issued.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    return load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).serial_number


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[str, str]) -> Iterator[Server]:
    """A server in clear (endpoint 0) and with implicit TLS (endpoint 1) that is patient with everybody."""
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, ("", "/tls"), tls=certificate, connections_per_address=10_000) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A connection in clear that was greeted."""
    with server.client() as connected:
        yield connected
