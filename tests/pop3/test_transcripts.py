"""Dialogues in the RFC's own notation, played against a real session.

    ## The title of a dialogue
    # A comment: which section of which RFC.
    Given: messages of 120, 200 octets      what is so beforehand, see GIVEN
    M: Subject: or the lines of a message,  "M:" alone is its blank line, "Given: a message" begins the next one
    C: <open connection>                    or <open encrypted connection>, <TLS negotiation>, <a line of 300 octets>
    S: +OK POP3 server ready                exactly this
    S: <close connection>                   or <the POP3 server sends message 1>
    C: DELE 1\\x00                           octets that cannot be seen, in hexadecimal

Several `C:` lines in a row are pipelined; the `S:` lines after them are all that is answered.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest

from pop3.session import COMMANDS, Config, Expunge, Fetch, LogIn, Refused, Session, StartTLS
from tests.pop3.listener import Listener, MemoryMaildrop, message_of

TRANSCRIPTS = Path(__file__).parent / "transcripts"


@dataclass
class World:
    """What is so while a dialogue is played."""

    maildrop: MemoryMaildrop = field(default_factory=MemoryMaildrop)
    contents: list[bytes] = field(default_factory=list)
    config: Config = field(default_factory=Config)
    plaintext_allowed: bool = True
    listener: Listener | None = None

    def configure(self, **changes: str | bool | int) -> None:
        self.config = replace(self.config, **changes)  # type: ignore[arg-type]

    def store(self, *contents: bytes) -> None:
        self.contents.extend(contents)
        self.maildrop.messages = MemoryMaildrop(self.contents).messages

    def open(self, *, secure: bool) -> bytes:
        session = Session(self.config, secure=secure, plaintext_allowed=self.plaintext_allowed)
        self.listener = Listener(session, self.maildrop)
        return session.greet()

    def log_in(self) -> None:
        self.open(secure=True)
        assert self.talk(b"USER an", b"PASS hutech123").count(b"+OK") == 2

    def talk(self, *lines: bytes) -> bytes:
        assert self.listener, "the transcript does not open a connection"
        return self.listener.say(*lines)

    def negotiate_tls(self) -> None:
        assert self.listener
        assert isinstance(self.listener.asked[-1], StartTLS)
        self.listener.session.secured()

    @property
    def is_over(self) -> bool:
        return self.listener is not None and self.listener.session.over

    def wire(self, number: int) -> bytes:
        """Return what goes over the wire for a message, found line by line (RFC 1939 section 3)."""
        lines = self.contents[number - 1].split(b"\r\n")[:-1]
        return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


GIVEN: dict[str, Callable[..., None]] = {
    r"messages of ([0-9, ]+) octets": lambda w, sizes: w.store(*(message_of(int(n)) for n in sizes.split(","))),
    r"(\d+) messages": lambda w, n: w.store(*[message_of(100)] * int(n)),
    r"a message": lambda w: w.store(b""),
    r"an is logged in": World.log_in,
    r"no password in clear": lambda w: setattr(w, "plaintext_allowed", False),
    r"STLS is offered": lambda w: w.configure(offers_stls=True),
    r"the greeting names (.*)": lambda w, text: w.configure(greeting=text),
    r"the implementation is called (.*)": lambda w, text: w.configure(implementation=text),
    r"messages expire after (.*)": lambda w, text: w.configure(expire=text),
    r"those of an expire after (.*)": lambda w, text: setattr(w.maildrop, "expire", text),
    r"the mailbox is called (.*), its password (.*)": lambda w, name, password: setattr(
        w.maildrop, "login", LogIn(name, password)
    ),
    r"another session has the maildrop": lambda w: w.maildrop.trouble.update(
        {LogIn: Refused("IN-USE", "another session has the maildrop")}
    ),
    r"the store is away": lambda w: w.maildrop.trouble.update(
        dict.fromkeys((LogIn, Fetch, Expunge), Refused("SYS/TEMP", "try again later"))
    ),
    r"the store goes away": lambda w: w.maildrop.trouble.update(
        dict.fromkeys((Fetch, Expunge), Refused("SYS/TEMP", "try again later"))
    ),
}


@dataclass
class Dialogue:
    lines: list[tuple[int, str, str]] = field(default_factory=list)  # line number, who, what


def dialogues() -> Iterator[object]:
    for path in sorted(TRANSCRIPTS.glob("*.txt")):
        dialogue: Dialogue | None = None
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if line.startswith("## "):
                dialogue = Dialogue()
                yield pytest.param(dialogue, id=f"{path.stem}: {line[3:]}")
            elif line and not line.startswith("#"):
                assert dialogue, f"{path.name}:{number}: no title before this line"
                shaped = re.fullmatch(r"(C|S|M|Given):(?: (.*))?", line)
                assert shaped, f"{path.name}:{number}: {line}"
                dialogue.lines.append((number, shaped[1], shaped[2] or ""))


def octets(text: str) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode())


def given(world: World, text: str) -> None:
    for pattern, give in GIVEN.items():
        if found := re.fullmatch(pattern, text):
            return give(world, *found.groups())
    raise AssertionError(f"nobody knows how to give: {text}")


def act(world: World, who: str, text: str) -> bytes:
    """Do what the client says, or what is given; return what the server answers."""
    if who == "M":
        world.contents[-1] += octets(text) + b"\r\n"
        world.store()
    elif who == "Given":
        given(world, octets(text).decode())
    elif found := re.fullmatch(r"<open (encrypted )?connection>", text):
        return world.open(secure=bool(found[1]))
    elif text == "<TLS negotiation>":
        world.negotiate_tls()
    elif found := re.fullmatch(r"<a line of (\d+) octets>", text):
        return world.talk(b"x" * (int(found[1]) - 2))
    else:
        return world.talk(octets(text))
    return b""


def expected(world: World, text: str) -> bytes:
    if found := re.fullmatch(r"<the POP3 server sends message (\d+)>", text):
        return world.wire(int(found[1]))
    return octets(text) + b"\r\n"


@pytest.mark.parametrize("dialogue", list(dialogues()))
def test_dialogue(dialogue: Dialogue) -> None:
    world = World()
    answered = b""
    for who, lines in groupby(dialogue.lines, key=itemgetter(1)):
        numbers, _, texts = zip(*lines, strict=True)
        at = f"line {numbers[0]}"
        if who == "S":
            wanted = b"".join(expected(world, text) for text in texts if text != "<close connection>")
            assert answered.decode("latin-1").split("\r\n") == wanted.decode("latin-1").split("\r\n"), at
            assert world.is_over == ("<close connection>" in texts), at
            answered = b""
        else:
            assert answered == b"", at
            answered = b"".join(act(world, who, text) for text in texts)
    assert answered == b""


def test_every_command_is_in_a_transcript() -> None:
    said = "\n".join(path.read_text("utf-8") for path in TRANSCRIPTS.glob("*.txt"))
    assert [keyword for keyword in COMMANDS if f"C: {keyword.decode()}" not in said] == []
