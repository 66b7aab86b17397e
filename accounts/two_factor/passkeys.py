"""Passkeys (WebAuthn level 3): what is asked of the browser, and whether its answer is right.

Both travel in the JSON of the specification (section 5.1.8 and after). What must be remembered between question and
answer goes into the session: a question is answered once.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fido2.cose import CoseKey
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticationResponse,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from accounts.models import Passkey, User

_LONGEST: Final = 16 * 1024  # characters of an answer
_LONGEST_CREDENTIAL: Final = 4 * 1024  # octets, with its id and a key of any kind that is signed with today


class BadAnswer(Exception):
    """It is no answer to this question, or not signed by a passkey of this login."""


@dataclass(frozen=True)
class Party:
    """Who asks for signatures (the relying party): passkeys are bound to the host, and answers to the origin."""

    host: str
    origin: str


class Question(NamedTuple):
    """What the browser is asked, and what is remembered of it."""

    options: str  # JSON
    state: dict[str, Any]


class Made(NamedTuple):
    """A new passkey."""

    credential_id: bytes
    credential: bytes
    sign_count: int


class Used(NamedTuple):
    """A passkey that has signed, and its count of signatures."""

    passkey: Passkey
    sign_count: int


def ask_to_make(party: Party, user: User, there: Iterable[Passkey]) -> Question:
    """Ask for a new passkey, on nothing that holds one of those that are `there`."""
    entity = PublicKeyCredentialUserEntity(id=str(user.pk).encode(), name=str(user), display_name=str(user))
    options, state = _server(party).register_begin(
        entity,
        [_credential(passkey) for passkey in there],
        resident_key_requirement=ResidentKeyRequirement.PREFERRED,
        user_verification=UserVerificationRequirement.PREFERRED,
    )
    return _question(options, state)


def made(party: Party, state: dict[str, Any], answer: str) -> Made:
    """The passkey that was made. Raises `BadAnswer`."""
    try:
        data = _server(party).register_complete(state, RegistrationResponse.from_dict(_parsed(answer)))
    except Exception as error:  # the library says in many ways that an answer makes no sense
        raise BadAnswer(type(error).__name__) from error
    credential = data.credential_data
    if credential is None or credential.public_key.ALGORITHM not in CoseKey.supported_algorithms():
        raise BadAnswer("it has no key that we can check")
    if len(credential) > _LONGEST_CREDENTIAL:
        raise BadAnswer("it is too long")
    return Made(bytes(credential.credential_id), bytes(credential), data.counter)


def ask_to_sign(party: Party, there: Iterable[Passkey]) -> Question:
    """Ask for a signature of one of those that are `there`."""
    options, state = _server(party).authenticate_begin(
        [_credential(passkey) for passkey in there], user_verification=UserVerificationRequirement.PREFERRED
    )
    return _question(options, state)


def used(party: Party, state: dict[str, Any], there: Iterable[Passkey], answer: str) -> Used:
    """Which passkey has signed. Raises `BadAnswer`. Whether its count is right is asked where it is written."""
    by_id = {bytes(passkey.credential_id): passkey for passkey in there}
    try:
        response = AuthenticationResponse.from_dict(_parsed(answer))
        credentials = [_credential(passkey) for passkey in by_id.values()]
        credential = _server(party).authenticate_complete(state, credentials, response)
    except Exception as error:  # as above
        raise BadAnswer(type(error).__name__) from error
    return Used(by_id[bytes(credential.credential_id)], response.response.authenticator_data.counter)


def _server(party: Party) -> Fido2Server:
    # The origin is asked for exactly: a page of a subdomain is not ours.
    entity = PublicKeyCredentialRpEntity(name="Mailhost", id=party.host)
    return Fido2Server(entity, verify_origin=lambda origin: origin == party.origin)


def _credential(passkey: Passkey) -> AttestedCredentialData:
    return AttestedCredentialData(bytes(passkey.credential))


def _question(options: Any, state: Any) -> Question:
    return Question(json.dumps(dict(options.public_key), default=dict), dict(state))


def _parsed(answer: str) -> Any:
    if len(answer) > _LONGEST:
        raise BadAnswer("it is too long")
    return json.loads(answer)
