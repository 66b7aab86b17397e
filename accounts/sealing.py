"""Encrypting what lies in the database and must be read again, with keys that stand in no database."""

import base64

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def box(secret: str, purpose: str) -> Fernet:
    """What seals and opens for one purpose, such as `mailhost.importing.password`, with a key made from `secret`."""
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(key))
