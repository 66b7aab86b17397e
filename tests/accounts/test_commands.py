import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from accounts import provisioning
from accounts.models import Mailbox, Tenant, User
from tests.fixtures import PASSWORD, Customer

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> str:
    """What a command writes to standard output."""
    output = io.StringIO()
    call_command(*arguments, stdout=output)
    return output.getvalue()


def refusal(*arguments: str) -> str:
    with pytest.raises(CommandError) as refused:
        run(*arguments)
    return str(refused.value)


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes standard input hold these octets."""
    return lambda octets: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(octets)))


def _environment() -> dict[str, str]:
    """The environment of a command that is to work on the test's database."""
    url = os.environ["DATABASE_URL"]
    name = connection.settings_dict["NAME"]
    return os.environ | {"DATABASE_URL": f"{url}{'&' if '?' in url else '?'}dbname={name}"}


def _manage(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        env=_environment(),
        timeout=60,
        check=False,
    )


# --- Tenants and domains -------------------------------------------------------------------------------------------


def test_addtenant_can_be_repeated(db: None) -> None:
    assert run("addtenant", "acme", "--name", "Acme Ltd.") == "Tenant acme: added.\n"
    assert run("addtenant", "acme", "--name", "Acme Ltd.") == "Tenant acme: exists.\n"
    assert run("addtenant", "acme") == "Tenant acme: exists.\n"
    assert Tenant.objects.get().name == "Acme Ltd."


def test_addtenant_gives_an_existing_tenant_its_name_and_admin_mailbox(acme: Customer, globex: Customer) -> None:
    assert run("addtenant", "acme", "--admin-mailbox", "an@acme.test") == "Tenant acme: changed.\n"
    assert run("addtenant", "acme", "--name", "New", "--admin-mailbox", "an@acme.test") == "Tenant acme: changed.\n"
    tenant = Tenant.objects.get(slug="acme")
    assert (tenant.name, tenant.admin_mailbox) == ("New", acme.mailbox)
    assert "not a mailbox of acme" in refusal("addtenant", "acme", "--admin-mailbox", "an@globex.test")
    assert "no mailbox" in refusal("addtenant", "third", "--admin-mailbox", "nobody@acme.test")
    assert not Tenant.objects.filter(slug="third").exists()
    assert "slug" in refusal("addtenant", "Not A Slug")


def test_adddomain_can_be_repeated_and_takes_nobody_s_domain(acme: Customer, globex: Customer) -> None:
    assert run("adddomain", "münchen.test", "--tenant", "acme") == "Domain xn--mnchen-3ya.test: added.\n"
    assert run("adddomain", "MÜNCHEN.test.", "--tenant", "acme") == "Domain xn--mnchen-3ya.test: exists.\n"
    assert refusal("adddomain", "acme.test", "--tenant", "globex") == "acme.test belongs to another tenant."
    assert refusal("adddomain", "new.test", "--tenant", "nobody") == "there is no tenant 'nobody'."
    assert "not a domain name" in refusal("adddomain", "no domain", "--tenant", "acme")


# --- One mailbox ---------------------------------------------------------------------------------------------------


def test_addmailbox_reads_the_password_from_standard_input(acme: Customer, type_in: Any) -> None:
    type_in("mật khẩu \r\n".encode())
    written = run("addmailbox", "Binh@acme.test", "--password-stdin", "--quota", "10M")
    assert written == "Mailbox binh@acme.test: added.\n"
    assert provisioning.find_mailbox("binh@acme.test").quota_octets == 10 * 2**20
    assert authenticate(username="binh@acme.test", password="mật khẩu ")


def test_addmailbox_prints_a_password_it_made(acme: Customer) -> None:
    written = run("addmailbox", "binh@acme.test", "--generate")
    [_, password] = written.split("Password: ")
    assert authenticate(username="binh@acme.test", password=password.strip())
    assert provisioning.find_mailbox("binh@acme.test").quota_octets == 2**30


def test_addmailbox_repeated_changes_nothing(acme: Customer, type_in: Any) -> None:
    type_in(b"another\n")
    written = run("addmailbox", "AN@acme.test", "--password-stdin", "--quota", "1M")
    assert written == "Mailbox an@acme.test: exists; its password and quota stay as they are.\n"
    assert run("addmailbox", "an@acme.test", "--generate") == written
    assert authenticate(username="an@acme.test", password=PASSWORD)
    assert provisioning.find_mailbox("an@acme.test").quota_octets is None


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (b"", "must not be empty"),
        (b"\n", "must not be empty"),
        (b"x" * 249 + b"\n", "at most 248 octets"),
        (b"two\nlines\n", "control characters"),
        (b"\xff\n", "not UTF-8"),
    ],
)
def test_a_password_that_no_client_could_send_is_refused(
    acme: Customer, type_in: Any, octets: bytes, says: str
) -> None:
    type_in(octets)
    assert says in refusal("addmailbox", "binh@acme.test", "--password-stdin")
    assert not Mailbox.objects.filter(address="binh@acme.test").exists()


def test_without_a_terminal_somebody_must_say_where_the_password_is(acme: Customer, type_in: Any) -> None:
    type_in(b"secret\n")
    assert "--password-stdin" in refusal("addmailbox", "binh@acme.test")


def test_addmailbox_gives_an_address_in_quarantine_away_only_if_told_so(acme: Customer) -> None:
    provisioning.close_mailbox(acme.mailbox)
    assert "With --release" in refusal("addmailbox", "an@acme.test", "--generate")
    assert "added" in run("addmailbox", "an@acme.test", "--generate", "--release")


def test_addmailbox_needs_a_hosted_domain_and_a_quota_it_understands(acme: Customer) -> None:
    assert refusal("addmailbox", "an@elsewhere.test", "--generate") == "elsewhere.test is not hosted here."
    assert "has no @" in refusal("addmailbox", "an", "--generate")
    assert "such as" in refusal("addmailbox", "binh@acme.test", "--generate", "--quota", "much")
    assert "a quota is from 0" in refusal("addmailbox", "binh@acme.test", "--generate", "--quota", "99999999T")
    run("addmailbox", "binh@acme.test", "--generate", "--quota", "none")
    assert provisioning.find_mailbox("binh@acme.test").quota_octets is None


def test_setpassword_holds_from_the_next_login_on(acme: Customer, type_in: Any) -> None:
    type_in(b"another")
    assert run("setpassword", "AN@acme.test", "--password-stdin") == "Mailbox an@acme.test: password changed.\n"
    assert authenticate(username="an@acme.test", password="another")
    assert not authenticate(username="an@acme.test", password=PASSWORD)
    [_, password] = run("setpassword", "an@acme.test", "--generate").split("Password: ")
    assert authenticate(username="an@acme.test", password=password.strip())
    assert refusal("setpassword", "nobody@acme.test", "--generate") == "there is no mailbox nobody@acme.test."


def test_an_alias_is_a_further_address(acme: Customer, globex: Customer) -> None:
    assert run("addalias", "Sales@acme.test", "an@acme.test") == "Alias sales@acme.test of an@acme.test: added.\n"
    assert run("addalias", "sales@acme.test", "an@acme.test") == "Alias sales@acme.test of an@acme.test: exists.\n"
    assert acme.mailbox.alias_targets.get().alias.address == "sales@acme.test"
    assert "is not a domain of" in refusal("addalias", "sales@globex.test", "an@acme.test")
    assert refusal("addalias", "an@acme.test", "an@acme.test")
    assert refusal("addalias", "help@acme.test", "nobody@acme.test")


def test_suspend_resume_and_close_can_be_repeated(acme: Customer) -> None:
    def state() -> str:
        acme.mailbox.refresh_from_db()
        return acme.mailbox.state

    for _ in range(2):
        assert run("suspend", "an@acme.test") == "Mailbox an@acme.test: suspended.\n"
        assert state() == "suspended"
    for _ in range(2):
        assert run("resume", "an@acme.test") == "Mailbox an@acme.test: active.\n"
        assert state() == "active"
    for _ in range(2):
        assert run("closemailbox", "an@acme.test").startswith("Mailbox an@acme.test: closed.")
    assert acme.mailbox.closed_at is None  # as it was read; the database knows better
    assert not Mailbox.objects.open().exists()
    for command in ("suspend", "resume", "closemailbox"):
        assert "no mailbox" in refusal(command, "nobody@acme.test")


# --- Many ----------------------------------------------------------------------------------------------------------


def test_addmailboxes_adds_what_is_new(acme: Customer, tmp_path: Path) -> None:
    file = tmp_path / "mailboxes.csv"
    file.write_text(
        "\ufeffAddress,password,quota\n"
        'binh@acme.test,"with, comma",10M\r\n'
        "\n"
        "chi@acme.test,secret\n"
        "dung@acme.test,secret,none\n"
        "an@acme.test,another,1M\n",
        newline="",
    )
    assert run("addmailboxes", str(file)) == "3 mailboxes added, 0 changed, 1 left as they are.\n"
    assert run("addmailboxes", str(file)) == "0 mailboxes added, 0 changed, 4 left as they are.\n"
    assert authenticate(username="binh@acme.test", password="with, comma")
    quotas = dict(Mailbox.objects.values_list("address", "quota_octets"))
    assert quotas == {
        "an@acme.test": None,
        "binh@acme.test": 10 * 2**20,
        "chi@acme.test": 2**30,
        "dung@acme.test": None,
    }


def test_addmailboxes_names_every_bad_line_and_adds_nothing(acme: Customer, type_in: Any) -> None:
    type_in(
        "binh@acme.test,secret\n"
        "binh@acme.test;secret\n"
        "chi@acme.test,secret,much\n"
        "\n"
        "dung@elsewhere.test,secret\n"
        "một@acme.test,secret\n".encode()
    )
    errors = io.StringIO()
    with pytest.raises(CommandError, match="nothing was done: 4 of the lines"):
        call_command("addmailboxes", "-", stderr=errors)
    assert list(dict.fromkeys(line.partition(":")[0] for line in errors.getvalue().splitlines())) == [
        "line 2",
        "line 3",
        "line 5",
        "line 6",
    ]
    assert Mailbox.objects.count() == 1


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (b"binh@acme.test,secret\nchi@acme.test,\xff\n", "not UTF-8 in line 2"),
        (b'binh@acme.test,"secret\n', "not CSV"),
        (b'binh@acme.test,"a"b\n', "line 1 is not CSV"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_whole(acme: Customer, type_in: Any, octets: bytes, says: str) -> None:
    type_in(octets)
    assert says in refusal("addmailboxes", "-")
    assert Mailbox.objects.count() == 1


def test_a_file_that_is_not_there_is_told(db: None, tmp_path: Path) -> None:
    assert "cannot be read" in refusal("addmailboxes", str(tmp_path / "nothing.csv"))
    assert "cannot be read" in refusal("addmailboxes", str(tmp_path))


def test_listmailboxes_shows_what_a_helpdesk_asks_first(acme: Customer, globex: Customer) -> None:
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(
        quota_octets=2**30, used_octets=1536 * 2**10, message_count=7, last_login_at=timezone.now()
    )
    provisioning.close_mailbox(globex.mailbox)
    header, first, second = run("listmailboxes").splitlines()
    assert header.split() == ["ADDRESS", "TENANT", "STATE", "QUOTA", "USED", "MESSAGES", "LAST", "LOGIN"]
    assert first.split()[:6] == ["an@acme.test", "acme", "active", "1G", "1.5M", "7"]
    assert second.split() == ["an@globex.test", "globex", "closed", "none", "0", "0", "never"]


def test_listmailboxes_for_programs(acme: Customer, globex: Customer) -> None:
    both = json.loads(run("listmailboxes", "--json"))
    assert [one["address"] for one in both] == ["an@acme.test", "an@globex.test"]
    assert both[0]["quota_octets"] is None
    [one] = json.loads(run("listmailboxes", "--json", "--tenant", "globex"))
    assert (one["tenant"], one["domain"]) == ("globex", "globex.test")
    assert json.loads(run("listmailboxes", "--json", "--domain", "ACME.test"))[0]["tenant"] == "acme"
    assert json.loads(run("listmailboxes", "--json", "--tenant", "acme", "--domain", "globex.test")) == []
    assert "no tenant" in refusal("listmailboxes", "--tenant", "nobody")
    assert "not hosted" in refusal("listmailboxes", "--domain", "nobody.test")


# --- As they are run -----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_refusal_is_one_line_and_exit_code_1(acme: Customer, globex: Customer) -> None:
    done = _manage("adddomain", "acme.test", "--tenant", "globex")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"CommandError: acme.test belongs to another tenant.\n"
    done = _manage("addmailbox", "binh@acme.test", "--password-stdin", stdin=b"secret\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Mailbox binh@acme.test: added.\n", b"")


@pytest.mark.django_db(transaction=True)
def test_on_a_terminal_the_password_is_asked_for_twice(acme: Customer) -> None:
    def talk(*answers: bytes) -> tuple[int, bytes]:
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(ROOT)
            os.execve(sys.executable, [sys.executable, "manage.py", "addmailbox", "binh@acme.test"], _environment())
        seen = b""
        try:
            waiting = list(answers)
            while True:
                seen += os.read(terminal, 1024)
                if waiting and seen.endswith(b": "):
                    os.write(terminal, waiting.pop(0) + b"\n")
        except OSError:  # the other side is gone
            os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen

    code, seen = talk(b"secret", b"Secret")
    assert code == 1
    assert b"differ" in seen
    code, seen = talk(b"secret", b"secret")
    assert code == 0
    assert b"secret" not in seen
    assert b"Password for binh@acme.test: " in seen
    assert authenticate(username="binh@acme.test", password="secret")


@pytest.mark.django_db(transaction=True)
def test_a_reader_that_has_seen_enough_is_no_error(acme: Customer) -> None:
    quiet = '"$0" manage.py listmailboxes | true; exit ${PIPESTATUS[0]}'
    done = subprocess.run(
        ["bash", "-c", quiet, sys.executable],
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == b""


def test_a_database_without_tables_is_told(private_servers: Any) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "addtenant", "acme"],
        cwd=ROOT,
        env=private_servers.environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert b"migrate" in done.stderr
    assert b"Traceback" not in done.stderr


# --- Operators -----------------------------------------------------------------------------------------------------


def test_createsuperuser_makes_an_operator(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "secret")
    run("createsuperuser", "--noinput", "--email", "Me@Localhost")
    operator = User.objects.get()
    assert (operator.email, operator.tenant, operator.is_superuser) == ("me@localhost", None, True)
    assert authenticate(username="me@localhost", password="secret") == operator
    assert "already taken" in refusal("createsuperuser", "--noinput", "--email", "ME@localhost")
    assert "has no @" in refusal("createsuperuser", "--noinput", "--email", "me")
