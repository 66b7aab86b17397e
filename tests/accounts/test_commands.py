import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from accounts import provisioning, tokens
from accounts.models import Alias, ApiToken, AuditEvent, Domain, Mailbox, Tenant, User
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
    assert "no mailbox an@acme.test" in refusal("addalias", "sales@globex.test", "an@acme.test")
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


# --- What is there, and what becomes of it ---------------------------------------------------------------------------


def test_every_command_says_in_the_audit_that_it_was_a_command(acme: Customer) -> None:
    run("suspend", "an@acme.test", "--reason", "not paid")
    event = AuditEvent.objects.latest("pk")
    assert (event.action, event.through, event.mailbox_id) == ("mailbox.suspended", "command", acme.mailbox.pk)
    acme.mailbox.refresh_from_db()
    assert acme.mailbox.state_reason == "not paid"


def test_a_reseller_its_tenant_and_its_staff(db: None) -> None:
    assert run("addreseller", "host", "--name", "Host Ltd.") == "Reseller host: added.\n"
    assert run("addreseller", "host") == "Reseller host: exists.\n"
    assert run("addreseller", "host", "--external-id", "r-1") == "Reseller host: changed.\n"
    assert run("addtenant", "acme", "--reseller", "host", "--external-id", "t-1") == "Tenant acme: added.\n"
    assert run("addtenant", "acme", "--reseller", "host") == "Tenant acme: exists.\n"
    tenant = Tenant.objects.get()
    assert (str(tenant.reseller), tenant.external_id, tenant.name) == ("host", "t-1", "acme")
    assert "no reseller" in refusal("addtenant", "globex", "--reseller", "nobody")
    said = run("addstaff", "boss@acme.test", "--tenant", "acme", "--generate")
    assert said.startswith("Login boss@acme.test: added as tenant admin.\nPassword: ")
    assert authenticate(username="boss@acme.test", password=said.split()[-1])
    assert "added as reseller" in run("addstaff", "sales@host.test", "--reseller", "host", "--generate")
    assert "added as support" in run("addstaff", "help@host.test", "--role", "support", "--generate")
    assert "cannot be reseller" in refusal("addstaff", "x@x.test", "--role", "reseller", "--generate")


def test_adddomain_takes_all_that_a_domain_has(acme: Customer, globex: Customer) -> None:
    run("adddomain", "acme.example", "--tenant", "acme", "--alias-of", "acme.test", "--unverified")
    alias = Domain.objects.get(name="acme.example")
    assert (alias.alias_of, alias.state) == (acme.domain, "pending")
    run("adddomain", "acme.org", "--tenant", "acme", "--subaddress", "none", "--external-id", "d-1")
    domain = Domain.objects.get(name="acme.org")
    assert (domain.subaddress, domain.state, domain.external_id) == ("", "verified", "d-1")
    assert "not a domain of acme" in refusal("adddomain", "x.test", "--tenant", "acme", "--alias-of", "globex.test")
    run(
        "addstaff", "head@acme.test", "--tenant", "acme", "--role", "domain-admin", "--domain", "acme.org", "--generate"
    )
    assert list(User.objects.get(email="head@acme.test").domains.all()) == [domain]


def test_setlimits_sets_and_shows(acme: Customer) -> None:
    assert run("setlimits", "domain", "acme.test", "--mailboxes", "1", "--octets", "5G").splitlines() == [
        "Domain acme.test:",
        "  domains: 0, no limit",
        "  mailboxes: 1 of 1",
        "  aliases: 0, no limit",
        "  octets: 0 of 5G",
    ]
    assert AuditEvent.objects.latest("pk").changes == {"max_mailboxes": [None, 1], "max_octets": [None, 5 * 2**30]}
    assert "may have 1 mailbox, and has it" in refusal("addmailbox", "binh@acme.test", "--generate")
    run("setlimits", "domain", "acme.test", "--mailboxes", "none")
    assert "added" in run("addmailbox", "binh@acme.test", "--generate")
    with pytest.raises(CommandError, match="a whole number, or none"):
        run("setlimits", "tenant", "acme", "--mailboxes", "1x")
    assert "Tenant acme:" in run("setlimits", "tenant", "acme")


def test_a_mailbox_is_renamed_closed_and_reopened(acme: Customer) -> None:
    assert run("renamemailbox", "an@acme.test", "ann@acme.test") == "Mailbox an@acme.test: now ann@acme.test.\n"
    assert Alias.objects.get().address == "an@acme.test"
    run("closemailbox", "ann@acme.test")
    assert run("reopenmailbox", "ann@acme.test") == "Mailbox ann@acme.test: open.\n"
    assert authenticate(username="ann@acme.test", password=PASSWORD)
    assert "no mailbox" in refusal("reopenmailbox", "nobody@acme.test")
    assert (
        run("setstate", "ann@acme.test", "no-receive", "--reason", "moving") == "Mailbox ann@acme.test: no-receive.\n"
    )


def test_a_domain_and_a_tenant_are_closed_only_if_somebody_means_it(acme: Customer, type_in: Any) -> None:
    type_in(b"")
    assert "use --yes" in refusal("closedomain", "acme.test")
    assert "use --yes" in refusal("closetenant", "acme")
    assert Mailbox.objects.open().exists()
    assert "closed" in run("closedomain", "acme.test", "--yes")
    assert not Mailbox.objects.open().exists()
    assert run("reopendomain", "acme.test") == "Domain acme.test: open.\n"
    run("reopenmailbox", "an@acme.test")
    assert "closed" in run("closetenant", "acme", "--yes")
    assert Tenant.objects.get().closed_at


def test_an_alias_has_many_targets_and_an_end(acme: Customer, globex: Customer, settings: Any) -> None:
    settings.MAILHOST_FORWARD_SMTP = "127.0.0.1:25"
    acme.add("binh")
    run("addalias", "sales@acme.test", "an@acme.test", "someone@elsewhere.example", "--expires", "2999-01-31")
    said = run("addalias", "sales@acme.test", "BINH@acme.test")
    assert said == "Alias sales@acme.test of an@acme.test, binh@acme.test, someone@elsewhere.example: changed.\n"
    assert Alias.objects.get().expires_at
    assert run("removealias", "sales@acme.test") == run("removealias", "sales@acme.test")
    assert not Alias.objects.exists()
    with pytest.raises(CommandError, match="a time such as"):
        run("addalias", "sales@acme.test", "an@acme.test", "--expires", "soon")


def test_a_token_is_shown_once_and_revoked(acme: Customer) -> None:
    said = run("addtoken", "billing", "--tenant", "acme", "--scope", "mailboxes:read", "--expires", "2999-01-31")
    text = said.split()[-1]
    token = ApiToken.objects.get()
    assert tokens.is_text_of(token, text)
    assert (token.role, token.tenant, token.scopes) == ("tenant-admin", acme.tenant, ["mailboxes:read"])
    assert "revoked" in run("revoketoken", f"mh_{token.prefix}")
    token.refresh_from_db()
    assert token.revoked_at
    assert "no such token" in refusal("revoketoken", "nothing")
    assert "no scope" in refusal("addtoken", "x", "--tenant", "acme", "--scope", "resellers:write")
    assert "added" in run("addtoken", "everything")


@pytest.mark.django_db(transaction=True)
def test_a_mailbox_is_erased_at_once_unless_it_is_on_hold(acme: Customer, type_in: Any) -> None:
    assert run("hold", "an@acme.test") == "Mailbox an@acme.test: on legal hold.\n"
    assert "on legal hold" in refusal("erasemailbox", "an@acme.test", "--yes")
    run("unhold", "an@acme.test")
    type_in(b"")
    assert "use --yes" in refusal("erasemailbox", "an@acme.test")
    assert Mailbox.objects.exists()
    assert run("erasemailbox", "an@acme.test", "--yes") == "Mailbox an@acme.test: gone.\n"
    assert not Mailbox.objects.exists()


def test_the_audit_is_shown_filtered_and_taken_along(acme: Customer, globex: Customer) -> None:
    run("suspend", "an@acme.test")
    [line] = run("audit", "--tenant", "acme", "--action", "mailbox.suspended").splitlines()
    assert f"mailbox.suspended mailbox {acme.mailbox.pk} by somebody through command" in line
    assert "an@acme.test" not in line
    assert run("audit", "--tenant", "globex", "--action", "mailbox.suspended") == ""
    assert run("audit", "--mailbox", "an@acme.test", "--until", "1999-01-31") == ""
    [shown] = map(json.loads, run("audit", "--json", "--last", "1").splitlines())
    assert (shown["action"], shown["through"]) == ("mailbox.suspended", "command")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", shown["at"])
    head, row = csv.reader(io.StringIO(run("audit", "--csv", "--last", "1")))
    assert dict(zip(head, row, strict=True))["changes"] == '{"state": ["active", "suspended"]}'


# --- Spreadsheets ----------------------------------------------------------------------------------------------------


def test_what_one_host_exports_another_imports(acme: Customer, tmp_path: Path) -> None:
    run("addalias", "sales@acme.test", "an@acme.test")
    (tmp_path / "mailboxes.csv").write_text(run("exportmailboxes", "--tenant", "acme", "--with-hashes"), newline="")
    (tmp_path / "aliases.csv").write_text(run("exportaliases", "--domain", "acme.test"), newline="")
    assert "password_hash" not in run("exportmailboxes")
    mailboxes = ["importmailboxes", str(tmp_path / "mailboxes.csv"), "--update"]
    said = "0 mailboxes added, 1 changed, 0 left as they are.\n"
    assert run(*mailboxes, "--dry-run") == f"Would be: {said}"
    assert run(*mailboxes) == said  # a hash is not compared
    assert authenticate(username="an@acme.test", password=PASSWORD)
    said = "0 aliases added, 0 changed, 1 left as they are.\n"
    assert run("importaliases", str(tmp_path / "aliases.csv")) == said
    (tmp_path / "bad.csv").write_text("address,targets\nx@acme.test,nobody@acme.test\n")
    for dry in ([], ["--dry-run"]):
        assert "1 of the lines cannot be" in refusal("importaliases", str(tmp_path / "bad.csv"), *dry)
