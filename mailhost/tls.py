"""A self-signed TLS pair in the data directory, for those who have not got a certificate yet."""

import datetime
import ipaddress
import os
import shutil
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = datetime.timedelta(days=3650)


def ensure_pair(cert: Path, key: Path, *, hostname: str) -> None:
    """Make a pair for localhost and `hostname` if there is none; `cert` and `key` are files of one directory.

    The directory appears at once with both, so that nobody ever sees half a pair or two halves of different ones.
    """
    if cert.exists() and key.exists():
        return
    directory = cert.parent
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{directory.name}.", dir=directory.parent))
    try:
        certificate, private_key = _self_signed(hostname)
        (unfinished / cert.name).write_bytes(certificate)
        with open(os.open(unfinished / key.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(private_key)
        try:
            unfinished.rename(directory)
        except OSError:
            if not (cert.exists() and key.exists()):  # else another process was quicker
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _self_signed(hostname: str) -> tuple[bytes, bytes]:
    """Make a certificate and its key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = list(dict.fromkeys(["localhost", hostname.lower()]))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[-1][:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFE)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    *(x509.DNSName(name) for name in names),
                    *(x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
