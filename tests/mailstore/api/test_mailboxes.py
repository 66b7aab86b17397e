import mailbox as boxes
import zipfile
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest

from accounts import provisioning
from accounts.models import AuditEvent, Mailbox
from mailstore import tasks
from mailstore.models import Message
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer, WebClient
from tests.mailstore import post
from tests.mailstore.rows import add_message

MAILBOX = "/mailboxes/an@acme.test"


# --- Export --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_mailbox_is_taken_along_as_an_mbox(acme: Customer, admin: Program, tmp_path: Path) -> None:
    post.fill(acme.mailbox, [post.text("one"), post.text("two", body="large\r\n" * 100_000)])
    answer = admin.send("GET", f"{MAILBOX}/export/", Accept="application/mbox")
    assert answer["Content-Type"] == "application/mbox"
    (tmp_path / "all.mbox").write_bytes(answer.getvalue())
    with closing(boxes.mbox(tmp_path / "all.mbox")) as found:
        assert [message["Subject"] for message in found] == ["one", "two"]
    event = AuditEvent.objects.get(action="mailbox.exported")
    assert (event.mailbox_id, event.changes) == (acme.mailbox.pk, {"format": "mbox", "removed": False})


@pytest.mark.parametrize("form", ["maildir", "eml"])
def test_a_mailbox_is_taken_along_as_files(acme: Customer, form: str) -> None:
    add_message(acme.mailbox)
    add_message(acme.mailbox, expunged_at="2026-11-20T00:00:00Z")
    browser = WebClient()
    browser.force_login(acme.mailbox.user)  # its owner
    for removed, count in (("false", 1), ("true", 2)):
        answer = browser.get(f"/api/v1{MAILBOX}/export/?format={form}&removed={removed}")
        assert answer["Content-Type"] == "application/zip"
        names = zipfile.ZipFile(BytesIO(answer.getvalue())).namelist()
        assert len([name for name in names if name.endswith(".eml") or "/cur/" in name or "/new/" in name]) == count + (
            2 if form == "maildir" else 0
        )


@pytest.mark.parametrize("query", ["format=tar", "removed=yes", "colour=red"])
def test_a_wrong_form_is_refused(acme: Customer, admin: Program, query: str) -> None:
    assert refusal(admin.send("GET", f"{MAILBOX}/export/", query=query), 400)["code"] == "bad-parameter"


@pytest.mark.parametrize("role", ["support", "domain-admin"])
def test_who_may_not_take_mail_along_is_told_so(acme: Customer, globex: Customer, role: str) -> None:
    asker = Program(token_text(role, tenant=acme.tenant, domain=acme.domain if role == "domain-admin" else None))
    assert refusal(asker.send("GET", f"{MAILBOX}/export/"), 403)
    assert refusal(asker.send("GET", "/mailboxes/an@globex.test/export/"), 404)


# --- Erasure -------------------------------------------------------------------------------------------------------


def test_a_mailbox_is_erased(acme: Customer, admin: Program) -> None:
    message = add_message(acme.mailbox)
    answer = admin.send("POST", f"{MAILBOX}/erase/", {}, query="dry_run=true").json()
    assert answer["would"] == {
        "action": "erase",
        "summary": f"erases an@acme.test for good, {message.octets} B in 1 message",
        "counts": {"mailboxes": 1, "messages": 1, "octets": message.octets},
    }
    acme.mailbox.refresh_from_db()
    assert acme.mailbox.closed_at is None
    answer = admin.send("POST", f"{MAILBOX}/erase/", {})
    assert answer.status_code == 202
    assert answer.json() == {"mailboxes": 1, "messages": 1, "octets": message.octets}
    acme.mailbox.refresh_from_db()
    assert acme.mailbox.closed_at is not None


@pytest.mark.django_db(transaction=True)
def test_the_task_removes_what_is_erased(acme: Customer, admin: Program) -> None:
    add_message(acme.mailbox)
    assert admin.send("POST", f"{MAILBOX}/erase/", {}).status_code == 202
    tasks.erase(acme.mailbox.pk)
    assert not Mailbox.objects.filter(pk=acme.mailbox.pk).exists()
    assert not Message.objects.exists()
    assert refusal(admin.send("POST", f"{MAILBOX}/erase/", {}), 404)


def test_what_is_on_legal_hold_is_not_erased(acme: Customer, admin: Program) -> None:
    provisioning.set_legal_hold(acme.mailbox, True)
    assert refusal(admin.send("POST", f"{MAILBOX}/erase/", {}), 409)["code"] == "on-hold"
    acme.mailbox.refresh_from_db()
    assert acme.mailbox.closed_at is None


def test_who_may_not_erase_is_told_so(acme: Customer, globex: Customer) -> None:
    support = Program(token_text("support", tenant=acme.tenant))
    for asker in (support, Program(token_text("member", mailbox=acme.mailbox))):
        assert refusal(asker.send("POST", f"{MAILBOX}/erase/", {}), 403)
        assert refusal(asker.send("POST", "/mailboxes/an@globex.test/erase/", {}), 404)


# --- Moving a domain -----------------------------------------------------------------------------------------------


def test_a_domain_moves_with_its_mail(acme: Customer, globex: Customer, host: Program) -> None:
    message = add_message(acme.mailbox)
    path = "/domains/ACME.test/move/"
    counts = {"domains": 1, "mailboxes": 1, "closed": 0, "aliases": 0, "messages": 1, "octets": message.octets}
    would = host.send("POST", path, {"tenant": "globex"}, query="dry_run=true").json()["would"]
    assert would["counts"] == counts
    assert would["summary"] == f"moves 1 mailbox, {message.octets} B in 1 message, to globex"
    acme.domain.refresh_from_db()
    assert acme.domain.tenant_id == acme.tenant.pk
    answer = host.send("POST", path, {"tenant": "globex"})
    assert answer.json() == {"names": ["acme.test"], **counts}
    globexs = Program(token_text("tenant-admin", tenant=globex.tenant))
    assert [one["id"] for one in globexs.read(f"{MAILBOX}/messages/")["items"]] == [message.pk]


def test_what_is_tied_stays(acme: Customer, globex: Customer, host: Program) -> None:
    provisioning.set_legal_hold(acme.mailbox, True)
    problem = refusal(host.send("POST", "/domains/acme.test/move/", {"tenant": "globex"}), 409)
    assert problem["code"] == "tied"
    assert "legal hold" in problem["detail"]


def test_a_domain_moves_between_ones_own_tenants_only(acme: Customer, globex: Customer, program: object) -> None:
    assert callable(program)
    reseller = program("reseller")
    problem = refusal(reseller.send("POST", "/domains/acme.test/move/", {"tenant": "globex"}), 422)
    assert problem["code"] == "unknown-tenant"
    assert refusal(reseller.send("POST", "/domains/globex.test/move/", {"tenant": "acme"}), 404)
    assert refusal(program("tenant-admin").send("POST", "/domains/acme.test/move/", {"tenant": "acme"}), 403)
