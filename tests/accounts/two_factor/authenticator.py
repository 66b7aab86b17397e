"""An authenticator of software, and the browser in front of it: what a security key would say (WebAuthn level 3)."""

import json
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_bytes
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from fido2.cose import ES256
from fido2.utils import websafe_decode, websafe_encode
from fido2.webauthn import Aaguid, AttestationObject, AttestedCredentialData, AuthenticatorData, CollectedClientData

FLAG = AuthenticatorData.FLAG


@dataclass
class Authenticator:
    """Holds one passkey."""

    origin: str = "http://localhost"
    count: int = 0
    credential_id: bytes = field(default_factory=lambda: token_bytes(32))
    _key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def make(self, question: str, **lies: Any) -> str:
        """The answer of `navigator.credentials.create`, as the page sends it."""
        asked = json.loads(question)
        public: Any = self._key.public_key()
        key: Any = dict(ES256.from_cryptography_key(public))  # type: ignore[no-untyped-call] # it has no types
        key |= {3: lies.pop("algorithm", key[3])}
        credential = AttestedCredentialData.create(Aaguid.NONE, self.credential_id, key)
        data = self._data(asked["rp"]["id"], FLAG.AT, credential)
        said = self._said("webauthn.create", asked["challenge"], lies)
        attested = AttestationObject.create("none", data, {})
        response = {"clientDataJSON": said.b64, "attestationObject": websafe_encode(attested)}
        return json.dumps({"rawId": websafe_encode(self.credential_id), "type": "public-key", "response": response})

    def sign(self, question: str, **lies: Any) -> str:
        """The answer of `navigator.credentials.get`."""
        asked = json.loads(question)
        self.count += lies.pop("signatures", 1)
        data = self._data(asked["rpId"], FLAG(0))
        said = self._said("webauthn.get", asked["challenge"], lies)
        signature = self._key.sign(data + said.hash, ec.ECDSA(SHA256()))
        response = {
            "clientDataJSON": said.b64,
            "authenticatorData": websafe_encode(data),
            "signature": websafe_encode(signature),
        }
        return json.dumps({"rawId": websafe_encode(self.credential_id), "type": "public-key", "response": response})

    def _data(self, host: str, flags: Any, credential: bytes = b"") -> Any:
        return AuthenticatorData.create(
            sha256(host.encode()).digest(), FLAG.UP | FLAG.UV | flags, self.count, credential
        )

    def _said(self, kind: str, challenge: str, lies: dict[str, Any]) -> CollectedClientData:
        told = {"type": kind, "challenge": websafe_decode(challenge), "origin": self.origin} | lies
        return CollectedClientData.create(**told)
