"""Answers of authenticators: the right one, and what must not pass for it."""

import json
from typing import Any

import pytest
from fido2.utils import websafe_encode
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import Passkey, User
from accounts.two_factor import passkeys
from accounts.two_factor.passkeys import BadAnswer, Party
from tests.accounts.two_factor.authenticator import Authenticator

HERE = Party("localhost", "http://localhost")
USER = User(pk=7, email="boss@acme.test")


def made(key: Authenticator) -> Passkey:
    question = passkeys.ask_to_make(HERE, USER, [])
    return Passkey(pk=1, **passkeys.made(HERE, question.state, key.make(question.options))._asdict())


def test_a_passkey_is_made_and_signs() -> None:
    key = Authenticator()
    passkey = made(key)
    question = passkeys.ask_to_sign(HERE, [passkey])
    assert json.loads(question.options)["allowCredentials"] == [
        {"type": "public-key", "id": websafe_encode(key.credential_id)}
    ]
    assert passkeys.used(HERE, question.state, [passkey], key.sign(question.options)) == (passkey, 1)


def test_a_second_one_is_not_made_where_one_is() -> None:
    passkey = made(Authenticator())
    options = json.loads(passkeys.ask_to_make(HERE, USER, [passkey]).options)
    assert [key["id"] for key in options["excludeCredentials"]] == [websafe_encode(bytes(passkey.credential_id))]
    assert options["authenticatorSelection"]["userVerification"] == "preferred"


@pytest.mark.parametrize(
    "lie",
    [
        {"origin": "http://localhost:8001"},
        {"origin": "https://localhost"},
        {"origin": "http://evil.localhost"},
        {"challenge": b"x" * 32},
        {"type": "webauthn.create"},
    ],
)
def test_an_answer_to_another_question_is_none(lie: dict[str, Any]) -> None:
    key = Authenticator()
    passkey = made(key)
    question = passkeys.ask_to_sign(HERE, [passkey])
    with pytest.raises(BadAnswer):
        passkeys.used(HERE, question.state, [passkey], key.sign(question.options, **lie))
    if "type" not in lie:
        question = passkeys.ask_to_make(HERE, USER, [])
        with pytest.raises(BadAnswer):
            passkeys.made(HERE, question.state, key.make(question.options, **lie))


def test_only_ones_own_passkeys_sign() -> None:
    own, other = made(Authenticator()), Authenticator()
    question = passkeys.ask_to_sign(HERE, [own])
    with pytest.raises(BadAnswer):
        passkeys.used(HERE, question.state, [own], other.sign(question.options))
    other.credential_id = bytes(own.credential_id)
    with pytest.raises(BadAnswer):
        passkeys.used(HERE, question.state, [own], other.sign(question.options))


def test_a_key_that_we_cannot_check_is_not_taken() -> None:
    question = passkeys.ask_to_make(HERE, USER, [])
    with pytest.raises(BadAnswer):
        passkeys.made(HERE, question.state, Authenticator().make(question.options, algorithm=-65535))


@given(
    st.one_of(
        st.text(max_size=200),
        st.recursive(st.none() | st.integers() | st.text(max_size=9), lambda more: st.lists(more)).map(json.dumps),
        st.fixed_dictionaries(
            {
                "rawId": st.text(max_size=9),
                "type": st.sampled_from(["public-key", "x"]),
                "response": st.dictionaries(
                    st.sampled_from(["clientDataJSON", "attestationObject", "authenticatorData", "signature"]),
                    st.text("ABCw_-o", max_size=99),
                ),
            }
        ).map(json.dumps),
    )
)
def test_nonsense_is_no_answer(text: str) -> None:
    for question, read in (
        (passkeys.ask_to_make(HERE, USER, []), lambda state: passkeys.made(HERE, state, text)),
        (passkeys.ask_to_sign(HERE, []), lambda state: passkeys.used(HERE, state, [], text)),
    ):
        with pytest.raises(BadAnswer):
            read(question.state)


@pytest.mark.parametrize("text", ["[" * 16_000, '{"rawId":' * 1500, "x" * 20_000])
def test_what_is_deep_or_long_is_no_answer(text: str) -> None:
    with pytest.raises(BadAnswer):
        passkeys.made(HERE, passkeys.ask_to_make(HERE, USER, []).state, text)
