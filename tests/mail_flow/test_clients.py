"""Real clients fetch and keep, or fetch and delete, in clear, after STLS and over TLS."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from accounts.models import Mailbox
from mailstore.models import Message
from tests.fixtures import Customer
from tests.mail_flow.clients import CLIENTS, EXACT, Door, Owner, doors, installed
from tests.mailstore import post
from tests.system import Pop3Listener, System

LETTERS = {
    "dots": "..\r\n.\r\n.hidden file\r\n\r\nafter\r\n",
    "vietnamese": "Chào An, hẹn gặp lúc ba giờ.\r\n",
    "large": "".join(f"line {number} of a message that lies in chunks\r\n" for number in range(8000)),
}


def subject_of(message: bytes) -> str:
    header = message.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    [line] = [line for line in header.split(b"\n") if line.startswith(b"Subject: ")]
    return line.removeprefix(b"Subject: ").decode()


def lines_of(message: bytes) -> list[bytes]:
    """The body's lines, whatever their ends are."""
    return message.replace(b"\r\n", b"\n").partition(b"\n\n")[2].rstrip(b"\n").split(b"\n")


def check(client: str, fetched: Iterable[bytes], letters: dict[str, str], mailbox: Mailbox) -> None:
    """These letters, once each and whole, are what a client fetched."""
    fetched = list(fetched)
    assert sorted(map(subject_of, fetched)) == sorted(letters)
    for message in fetched:
        subject = subject_of(message)
        assert lines_of(message) == lines_of(post.text(subject, body=letters[subject]))
        if client in EXACT:
            assert message.endswith(post.text(subject, body=letters[subject]))
            assert len(message) in Message.objects.filter(mailbox=mailbox).values_list("octets", flat=True)


def need(client: str) -> Callable[..., list[bytes]]:
    if not installed(client):
        pytest.skip(f"{client} is not installed")
    return CLIENTS[client]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_that_keeps_fetches_each_message_once(system: System, tmp_path: Path, client: str) -> None:
    """Unique-ids are the same after a restart."""
    run = need(client)
    acme = system.customer("keeps", mailboxes=len(doors(client)))
    with system.pop3() as listener:
        owners = []
        for number, door in enumerate(doors(client), 1):
            home = tmp_path / door
            home.mkdir()
            owners.append(Owner(f"u{number}@{acme.domain}", door, listener, system.ca_file, home))
        mailboxes = [Mailbox.objects.get(address=owner.address) for owner in owners]
        for owner, mailbox in zip(owners, mailboxes, strict=True):
            post.fill(mailbox, [post.text(subject, body=body) for subject, body in LETTERS.items()])
            check(client, run(owner, keep=True), LETTERS, mailbox)
            assert run(owner, keep=True) == []

        listener.restart()
        for owner, mailbox in zip(owners, mailboxes, strict=True):
            assert run(owner, keep=True) == []
            post.fill(mailbox, [post.text("new", body="news\r\n")])
            check(client, run(owner, keep=True), {"new": "news\r\n"}, mailbox)
            assert Message.objects.in_maildrop(mailbox).count() == len(LETTERS) + 1


@pytest.mark.parametrize(("client", "door"), [(client, door) for client in CLIENTS for door in doors(client)])
def test_a_client_that_deletes_leaves_nothing(
    system: System, pop3: Pop3Listener, acme: Customer, tmp_path: Path, client: str, door: Door
) -> None:
    run = need(client)
    owner = Owner(acme.mailbox.address, door, pop3, system.ca_file, tmp_path)
    post.fill(acme.mailbox, [post.text(subject, body=body) for subject, body in LETTERS.items()])
    check(client, run(owner, keep=False), LETTERS, acme.mailbox)
    assert Message.objects.in_maildrop(acme.mailbox).count() == 0
    assert run(owner, keep=False) == []
