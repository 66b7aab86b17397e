"""`manage.py deliver` delivers what it reads, and tells an MTA's pipe what became of it."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings

from accounts import provisioning
from mailstore import database, drift
from mailstore.delivery import Outcome, Suspended, UnknownDomain, UnknownMailbox, deliver_now
from mailstore.models import Message
from mailstore.spool import TooLarge
from tests.fixtures import Customer
from tests.mailstore import post

pytestmark = pytest.mark.django_db(transaction=True)

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_drifts(transactional_db: None) -> Iterator[None]:
    yield
    assert list(drift.find()) == []


def octets_of(message: Message) -> bytes:
    return bytes(message.trace) + bytes(message.content.body)


# The function behind it


def now(message: bytes, *to: str, limit: int = 10**6) -> Sequence[object]:
    return deliver_now(
        io.BytesIO(message), to=to, reverse_path="", limit=limit, subaddress="+", default_domain="acme.test"
    )


def test_there_is_an_outcome_for_each(acme: Customer, globex: Customer) -> None:
    provisioning.suspend(globex.mailbox)
    to = "an@acme.test nobody@acme.test an@globex.test a@nowhere.test an+x@acme.test"
    outcomes = now(b"Subject: x\n\n.\nunix\n", *to.split())
    assert outcomes[0] == outcomes[4] == Outcome.STORED
    assert [type(outcome) for outcome in outcomes[1:4]] == [UnknownMailbox, Suspended, UnknownDomain]
    [stored] = Message.objects.in_maildrop(acme.mailbox)
    assert octets_of(stored) == (b"Return-Path: <>\r\nDelivered-To: an@acme.test\r\nSubject: x\r\n\r\n.\r\nunix\r\n")


def test_what_is_too_large_is_delivered_to_nobody(acme: Customer) -> None:
    with pytest.raises(TooLarge):
        now(b"x" * 1000, "an@acme.test", limit=999)
    assert not Message.objects.exists()


def test_nobody_to_deliver_to_is_no_fault(acme: Customer) -> None:
    assert now(b"x") == []
    assert [type(outcome) for outcome in now(b"x", "nobody@acme.test")] == [UnknownMailbox]


# The command


@pytest.fixture
def deliver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[str]]]:
    """Run it, and return its exit code and what it says."""

    def run(
        *arguments: str, message: bytes = b"Subject: x\n\nx\n", stdin: io.RawIOBase | None = None
    ) -> tuple[int, list[str]]:
        octets = io.BufferedReader(stdin) if stdin else io.BytesIO(message)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(octets))
        code: Any = 0
        try:
            call_command("deliver", *arguments)
        except SystemExit as ending:
            code = ending.code
        said = capsys.readouterr()
        assert said.out == ""
        return code, said.err.splitlines()

    return run


Deliver = Callable[..., tuple[int, list[str]]]


def test_it_is_silent_when_all_goes_well(deliver: Deliver, acme: Customer, globex: Customer) -> None:
    assert deliver("an@acme.test", "An+x@Globex.test", "--reverse-path", "<binh@elsewhere.test>") == (0, [])
    [here], [there] = (Message.objects.in_maildrop(customer.mailbox) for customer in (acme, globex))
    assert octets_of(here) == (
        b"Return-Path: <binh@elsewhere.test>\r\nDelivered-To: an@acme.test\r\nSubject: x\r\n\r\nx\r\n"
    )
    assert b"Delivered-To: an+x@globex.test\r\n" in octets_of(there)


def test_a_retry_is_no_failure(deliver: Deliver, acme: Customer) -> None:
    for _ in range(3):
        assert deliver("an@acme.test", message=post.text(queue_id="A1")) == (0, [])
    assert Message.objects.count() == 1


def test_each_refusal_has_its_line_and_exit_code(deliver: Deliver, acme: Customer, settings: Settings) -> None:
    full = acme.add("full", quota_octets=1)
    suspended = acme.add("suspended")
    provisioning.suspend(suspended)
    settings.MAILHOST_MAX_MESSAGE = 1000
    assert deliver("nobody@acme.test") == (67, ["5.1.1 nobody@acme.test: no such mailbox"])
    assert deliver("a@nowhere.test") == (68, ["5.1.2 a@nowhere.test: no such domain here"])
    assert deliver("not an address\n") == (68, [r"5.1.2 not an address\n: no such domain here"])
    assert deliver(str(full)) == (69, ["5.2.2 full@acme.test: the mailbox is full"])
    assert deliver(str(suspended)) == (75, ["4.2.1 suspended@acme.test: the mailbox is suspended, try again later"])
    assert deliver("an@acme.test", message=b"x" * 999) == (
        65,
        ["5.3.4 an@acme.test: the message is larger than MAILHOST_MAX_MESSAGE"],
    )
    settings.MAILHOST_SUSPENDED_REPLY = "550"
    settings.MAILHOST_OVER_QUOTA_REPLY = "452"
    assert deliver(str(full)) == (75, ["4.2.2 full@acme.test: the mailbox is full, try again later"])
    assert deliver(str(suspended)) == (77, ["5.2.1 suspended@acme.test: the mailbox is disabled"])


def test_what_may_succeed_later_decides_and_comes_first(deliver: Deliver, acme: Customer) -> None:
    provisioning.suspend(acme.add("suspended"))
    assert deliver("a@nowhere.test", "nobody@acme.test", "suspended@acme.test", "an@acme.test") == (
        75,
        [
            "4.2.1 suspended@acme.test: the mailbox is suspended, try again later",
            "5.1.2 a@nowhere.test: no such domain here",
            "5.1.1 nobody@acme.test: no such mailbox",
        ],
    )
    assert deliver("a@nowhere.test", "an@acme.test")[0] == 68
    assert Message.objects.in_maildrop(acme.mailbox).count() == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--reverse-path", "x@y"],
        ["an@acme.test", "--reverse-path", "a@b>\r\nX: y <"],
        ["an@acme.test", "--reverse-path", "a\udcff@b"],
        ["an@acme.test", "--reverse-path", "a" * 511 + "@b"],
        ["an@acme.test", "--to", "x"],
    ],
)
def test_if_called_wrongly_it_says_so(deliver: Deliver, acme: Customer, arguments: list[str]) -> None:
    code, [line] = deliver(*arguments)
    assert code == 64
    assert line.startswith("5.3.5 ")
    assert not Message.objects.exists()


@pytest.mark.parametrize(("raising", "status"), [("E'a\\r\\nb'", "4.3.0"), ("SQLSTATE '53100'", "4.3.1")])
def test_a_fault_of_the_store_is_temporary(deliver: Deliver, acme: Customer, raising: str, status: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"""
            CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION {raising}; END $$;
            CREATE TRIGGER fault BEFORE INSERT ON mailstore_message FOR EACH ROW EXECUTE FUNCTION fault();
        """)
        try:
            code, lines = deliver("an@acme.test")
        finally:
            cursor.execute("DROP FUNCTION fault CASCADE")
    assert code == 75
    assert lines[-1].startswith(f"{status} an@acme.test: ")


def test_without_the_database_it_is_to_be_tried_again(
    deliver: Deliver, acme: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 0.3)
    with monkeypatch.context() as away:
        away.setitem(connection.settings_dict, "HOST", "/nowhere")
        code, lines = deliver("an@acme.test", "an@nowhere.test")
    assert code == 75
    assert lines[-2:] == [
        f"4.3.0 {address}: temporary failure here, try again later" for address in ("an@acme.test", "an@nowhere.test")
    ]


def test_an_error_that_nobody_thought_of_is_temporary_too(deliver: Deliver, acme: Customer) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError("an error of the disk")

    code, lines = deliver("an@acme.test", stdin=Broken())
    assert (code, lines[-1]) == (75, "4.3.0 an@acme.test: temporary failure here, try again later")


def test_it_stands_behind_a_pipe(acme: Customer) -> None:
    parameters = connection.get_connection_params()
    url = "postgresql:///{dbname}?host={host}&user={user}&password={password}".format(**parameters)
    message = b"Subject: piped\n\n" + b"line\n" * 200_000
    for address, code in (("an@acme.test", 0), ("nobody@acme.test", 67)):
        done = subprocess.run(
            [sys.executable, "manage.py", "deliver", address],
            cwd=PROJECT,
            env=os.environ | {"DATABASE_URL": url, "REDIS_URL": settings.REDIS_URL},
            input=message,
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert done.stdout == b""
    assert done.stderr == b"5.1.1 nobody@acme.test: no such mailbox\n"
    [stored] = Message.objects.in_maildrop(acme.mailbox)
    assert stored.content.octets == len(message.replace(b"\n", b"\r\n"))
