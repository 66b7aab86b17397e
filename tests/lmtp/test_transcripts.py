"""The dialogues in `transcripts/`, in the notation of the RFCs.

    # a comment; an empty line changes nothing
    C: a line of the client, sent with CRLF
    C< octets of the client, written as in a Python bytes literal, sent as they are
    S: a line of the server, with CRLF; all that it says must be there
    = recipient: octets        a copy that was stored, written as in a Python bytes literal
    ! connect [trouble]        a new connection; with `no-space`, say, its messages cannot be kept
    ! closed                   the server closes the connection

A dialogue begins connected, after the greeting. What it stored must all be there, in that order.
"""

import ast
from pathlib import Path

import pytest

from lmtp import replies
from tests.lmtp.exchange import Exchange

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
TROUBLE = {"no-space": replies.NO_SPACE, "broken": replies.TEMPORARY}


def octets(literal: str) -> bytes:
    value = ast.literal_eval(f"b'{literal}'")
    assert isinstance(value, bytes)
    return value


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_dialogue(path: Path) -> None:
    exchange = Exchange()
    said = b""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        where = f"{path.name}:{number}"
        kind, _, text = line.partition(" ")
        if kind in ("C:", "C<", "!"):
            assert not said, f"{where}: the server said more: {said!r}"
        match kind:
            case "" | "#":
                pass
            case "C:":
                said = exchange.feed(text.encode() + b"\r\n")
            case "C<":
                said = exchange.feed(octets(text))
            case "S:":
                reply, _, said = said.partition(b"\r\n")
                assert reply.decode() == text, where
            case "=":
                recipient, _, content = text.partition(":")
                assert exchange.copies, f"{where}: nothing was stored"
                copy = exchange.copies.pop(0)
                assert (copy.recipient, copy.octets) == (recipient, octets(content.removeprefix(" "))), where
            case "!" if text == "closed":
                assert exchange.session.over, where
            case "!" if text.startswith("connect"):
                assert not exchange.copies, f"{where}: more was stored"
                exchange = Exchange(trouble=TROUBLE.get(text.partition(" ")[2]))
                said = exchange.session.greet()
            case _:
                pytest.fail(f"{where}: not the notation: {line}")
    assert not said, f"{path.name}: the server said more: {said!r}"
    assert not exchange.copies, f"{path.name}: more was stored"


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) > 5
