"""`manage.py import` says what came along, and what did not and why."""

import importlib
import io
import os
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from accounts.models import AuditEvent, Mailbox
from mailstore.importing.source import Refused
from mailstore.models import unique_id
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.importing import peers
from tests.mailstore.importing.peers import peer
from tests.mailstore.importing.sources import maildrop

pytestmark = pytest.mark.django_db(transaction=True)

A, B = post.text("a"), post.text("b")


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"secret\nwhat follows\n")))


def run(*arguments: str | Path, code: int = 0) -> tuple[str, str]:
    """What the command says, and what it complains about."""
    output, errors = io.StringIO(), io.StringIO()
    if not code:
        call_command("import", *map(str, arguments), stdout=output, stderr=errors)
    else:
        with pytest.raises(CommandError) as failed:
            call_command("import", *map(str, arguments), stdout=output, stderr=errors)
        assert failed.value.returncode == code
    return output.getvalue(), errors.getvalue()


def refusal(*arguments: str | Path) -> str:
    with pytest.raises(CommandError) as refused:
        call_command("import", *map(str, arguments))
    return str(refused.value)


@pytest.fixture
def eml(tmp_path: Path) -> Path:
    """A folder with two messages."""
    (tmp_path / "eml").mkdir()
    (tmp_path / "eml/1.eml").write_bytes(A)
    (tmp_path / "eml/2.eml").write_bytes(b"X-UIDL: kept\r\n" + B)
    return tmp_path / "eml"


def test_mail_comes_into_the_mailbox_that_was_named(acme: Customer, globex: Customer, eml: Path) -> None:
    assert run("AN@acme.test", "--eml", eml) == ("AN@acme.test: 2 messages came along, 0 had before, 0 cannot.\n", "")
    assert [octets for _, octets in maildrop(acme.mailbox)] == [A, b"X-UIDL: kept\r\n" + B]
    assert maildrop(globex.mailbox) == []
    event = AuditEvent.objects.get(action="import.started")
    assert (event.through, event.mailbox_id, event.changes) == ("command", acme.mailbox.pk, {"source": "eml"})


def test_the_field_x_uidl_is_looked_at_if_asked_for(acme: Customer, eml: Path) -> None:
    run("an@acme.test", "--eml", eml, "--x-uidl")
    assert [name for name, _ in maildrop(acme.mailbox)] == [unique_id(acme.mailbox.pk, 1, 1), "kept"]


def test_the_password_is_the_first_line_of_standard_input(acme: Customer) -> None:
    seen: list[bytes] = []
    with peer(peers.pop3([("x", A)], seen=seen)) as port:
        run("an@acme.test", "--pop3", f"127.0.0.1:{port}", "--security", "none", "--password-stdin", "--login", "old")
    assert seen[1:3] == [b"USER old", b"PASS secret"]


def test_unique_ids_are_left_there_if_asked_to(acme: Customer) -> None:
    with peer(peers.pop3([("x", A)])) as port:
        where = ("--pop3", f"127.0.0.1:{port}", "--security", "none", "--password-stdin")
        run("an@acme.test", *where, "--no-unique-ids")
    assert maildrop(acme.mailbox) == [(unique_id(acme.mailbox.pk, 1, 1), A)]


def test_what_cannot_come_is_told(acme: Customer) -> None:
    with peer(peers.pop3([("x", A), ("y", B)], instead={b"RETR 2": b"-ERR\r\n"})) as port:
        where = ("--pop3", f"127.0.0.1:{port}", "--security", "none", "--password-stdin")
        output, errors = run("an@acme.test", *where, code=1)
    assert "1 messages came along, 0 had before, 1 cannot." in output
    assert errors == "an@acme.test: message 2: the server does not hand it out\n"


def test_a_full_mailbox_is_told(acme: Customer, eml: Path) -> None:
    Mailbox.objects.update(quota_octets=len(A) + 1)
    output, errors = run("an@acme.test", "--eml", eml, code=1)
    assert "1 messages came along" in output
    assert "no room for more: raise its quota" in errors


def test_a_server_that_is_away_is_worth_another_try(acme: Customer) -> None:
    _, errors = run("an@acme.test", "--imap", "127.0.0.1:1", "--password-stdin", code=os.EX_TEMPFAIL)
    assert errors == "an@acme.test: the server takes no connections there; run it again to go on\n"


def test_a_mailbox_that_is_not_here_is_told(acme: Customer, eml: Path) -> None:
    output, errors = run("nobody@acme.test", "--eml", eml, code=1)
    assert "no mailbox nobody@acme.test" in errors
    assert output == ""


def test_a_file_that_is_not_there_is_told_as_it_was_named(acme: Customer, tmp_path: Path) -> None:
    path = tmp_path / "missing"
    _, errors = run("an@acme.test", "--mbox", path, code=1)
    assert errors == f"an@acme.test: {path} cannot be read: No such file or directory\n"


def test_what_makes_no_sense_is_refused(acme: Customer, eml: Path, tmp_path: Path) -> None:
    assert "Give an address" in refusal("--eml", eml)
    assert "Give an address" in refusal("an@acme.test", "--list", "x", "--eml", eml)
    assert "no format of unique-ids" in refusal("an@acme.test", "--maildir", eml, "--uidl-format", "nonsense")
    assert "use --password-stdin" in refusal("an@acme.test", "--pop3", "x")
    assert "holds no certificates" in refusal("an@acme.test", "--pop3", "x", "--ca-file", eml / "1.eml")
    assert "cannot be read" in refusal("--list", tmp_path / "missing", "--pop3", "x")


@pytest.mark.parametrize(
    ("lines", "way", "told"),
    [
        ("an@acme.test\n", "--pop3", "line 1: it must be address,login,password"),
        ("address,login,password\nan@acme.test,a,b\nan@acme.test,a\n", "--imap", "line 3: it must be"),
        ("an@acme.test,a,b\n", "--maildir", "line 1: it must be an address"),
        ('an@acme.test,a,"b\n', "--pop3", "line 1: it is not CSV"),
    ],
)
def test_a_list_is_looked_at_before_anything_begins(
    acme: Customer, tmp_path: Path, lines: str, way: str, told: str
) -> None:
    (tmp_path / "list").write_text(lines)
    assert told in refusal("--list", tmp_path / "list", way, "127.0.0.1:1")


def test_a_list_may_name_a_server_for_each(acme: Customer, globex: Customer, tmp_path: Path) -> None:
    with peer(peers.pop3([("x", A)])) as one, peer(peers.pop3([("x", B)])) as two:
        (tmp_path / "list").write_text(
            f"an@acme.test,a, b\nan@globex.test,,b,127.0.0.1:{two}\n\nnobody@acme.test,a,b\n"
        )
        source = ("--pop3", f"127.0.0.1:{one}", "--security", "none", "--jobs", "2")
        output, _ = run("--list", tmp_path / "list", *source, code=1)
    assert output.endswith("2 of 3 mailboxes are whole; 2 messages came along.\n")
    assert (maildrop(acme.mailbox), maildrop(globex.mailbox)) == ([("x", A)], [("x", B)])


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("pop.example.test", ("pop.example.test", 995)),
        ("pop.example.test:1995", ("pop.example.test", 1995)),
        ("2001:db8::1", ("2001:db8::1", 995)),
        ("[2001:db8::1]:110", ("2001:db8::1", 110)),
        ("[2001:db8::1]", ("2001:db8::1", 995)),
    ],
)
def test_a_host_may_have_a_port(text: str, host: tuple[str, int]) -> None:
    command = importlib.import_module("mailstore.management.commands.import")
    assert command._host(text, 995) == host
    for bad in ("x:", "x:0", "x:65536", "x:y"):
        with pytest.raises(Refused):
            command._host(bad, 995)
