"""The TLS context of a server: what it accepts, and how its certificate is replaced while it runs."""

import ssl
from typing import Self

from mailhost.lineserver.config import TLSFiles


class TLSError(Exception):
    """A certificate or key that cannot be used, as a sentence for the operator."""


class TLS:
    """One server's context. Made before the fork, so that all workers share the keys of its session tickets."""

    def __init__(self, files: TLSFiles, *, alpn: tuple[str, ...] = ()) -> None:
        """Raises `TLSError`."""
        self._files = files
        self._alpn = alpn
        self.context = self._load()

    @classmethod
    def of(cls, files: TLSFiles | None, *, alpn: tuple[str, ...]) -> Self | None:
        """The context for these files, or none without files. Raises `TLSError`."""
        return cls(files, alpn=alpn) if files else None

    def reload(self) -> None:
        """Use what the files hold now for every handshake to come. Raises `TLSError`, and keeps the old pair."""
        fresh = self._load()
        try:
            # Into the old context, whose ticket keys the other workers know.
            self._load_into(self.context)
        except TLSError:
            self.context = fresh  # The files changed again since a moment ago; this pair was whole.

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # of TLS 1.2; those of 1.3 are all of this kind
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.num_tickets = 1  # A mail client opens its next connection after this one.
        if self._alpn:
            context.set_alpn_protocols(list(self._alpn))
        self._load_into(context)
        return context

    def _load_into(self, context: ssl.SSLContext) -> None:
        cert, key = self._files.cert, self._files.key
        for path in (cert, key):
            try:
                path.open("rb").close()
            except OSError as error:
                raise TLSError(f"Cannot read {path}: {error.strerror}.") from error
        try:
            # A key with a passphrase is an error here; without this OpenSSL asks the terminal.
            context.load_cert_chain(cert, key, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise TLSError(f"Cannot use {cert} with {key}: they are no matching pair in PEM.") from error
