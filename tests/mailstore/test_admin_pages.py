"""What the admin does with a mailbox, a domain, a session or an import as a whole."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import Model
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from accounts import permissions, provisioning, verification
from accounts.models import AuditEvent, Domain, Mailbox, Role
from mailstore import tasks
from mailstore.importing import jobs
from mailstore.models import ImportJob, MaildropSession, Message
from tests.accounts.nameserver import name_server
from tests.fixtures import Customer, WebClient, signed_in
from tests.mailstore.rows import add_listener, add_message, add_session

ADD = "/admin/mailstore/importjob/add/"
JOBS = "/admin/mailstore/importjob/"
MBOX = b"".join(b"From x Mon Nov 23 09:00:00 2026\nSubject: %b\n\nhello\n\n" % subject for subject in (b"one", b"two"))
SERVER = {"source": "pop3", "host": "8.8.8.8", "security": "tls", "login": "an", "password": "secret phrase"}
ROLES = [role for role in Role if role != Role.MEMBER]
PAGES = [
    (Mailbox, "why", "why", "read"),
    (Mailbox, "mail", "mailboxes", "export"),
    (Mailbox, "bring", "imports", "create"),
    (Mailbox, "erase", "mailboxes", "erase"),
    (Domain, "move", "domains", "move"),
    (Domain, "check", "domains", "check"),
    (ImportJob, "cancel", "imports", "change"),
    (ImportJob, "restart", "imports", "change"),
]


def url(model: type[Model], view: str, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{view}", args=arguments)


def page(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, (path, response.status_code)
    return response.content.decode()


def said(client: Client, path: str, values: dict[str, Any]) -> str:
    """What the page says after a form was sent; following a redirect that comes with success."""
    response = client.post(path, values, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def add_job(mailbox: Mailbox, **values: Any) -> ImportJob:
    values = {"source": "pop3", "host": "pop.example.net", "login": "an", **values}
    return ImportJob.objects.create(tenant_id=mailbox.tenant_id, mailbox=mailbox, **values)


def somebody(role: str, customer: Customer) -> Client:
    """A browser in which somebody with this role, who looks after this customer, has signed in."""
    whose: dict[str, Any] = {"tenant": customer.tenant}
    if role == Role.OPERATOR:
        whose = {}
    if role == Role.RESELLER:
        reseller, _ = provisioning.add_reseller("seller")
        provisioning.change_tenant(customer.tenant, reseller=reseller)
        whose = {"reseller": reseller}
    domains = [customer.domain] if role == Role.DOMAIN_ADMIN else []
    return signed_in(provisioning.add_staff("who@acme.example", password=None, role=role, domains=domains, **whose))


def rows_of(customer: Customer, name: str) -> dict[type[Model], Model]:
    state = {"restart": "failed"}.get(name, "waiting")
    return {Mailbox: customer.mailbox, Domain: customer.domain, ImportJob: add_job(customer.mailbox, state=state)}


@pytest.fixture(autouse=True)
def _data(settings: Any, tmp_path: Path) -> None:
    settings.MAILHOST_DATA = tmp_path


def uploads() -> list[Path]:
    directory = configured.MAILHOST_DATA / "uploads"
    return list(directory.iterdir()) if directory.exists() else []


# --- Who may -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("model", "name", "resource", "verb"), PAGES)
def test_each_page_is_for_whom_the_table_says(
    model: type[Model], name: str, resource: str, verb: str, role: str, acme: Customer, globex: Customer
) -> None:
    for customer in (acme, globex):
        provisioning.change_tenant(customer.tenant, content_roles=[*permissions.CONTENT_ROLES])
    client = somebody(role, acme)
    own, foreign = (rows_of(customer, name)[model] for customer in (acme, globex))
    may = role in permissions.TABLE[resource][verb]
    before = AuditEvent.objects.count()
    shown = client.get(url(model, name, own.pk))
    assert shown.status_code == ((302 if name in ("bring", "why") else 200) if may else 403)
    assert (url(model, name, own.pk) in page(client, url(model, "change", own.pk))) == may
    if not may:
        assert client.post(url(model, name, own.pk), {"format": "mbox", "password": "x"}).status_code == 403
    if role == Role.OPERATOR:
        assert client.get(url(model, name, foreign.pk)).status_code == shown.status_code
    else:
        for method in (client.get, client.post):
            theirs, nothing = (method(url(model, name, pk)) for pk in (foreign.pk, 999_999))
            assert theirs.status_code == nothing.status_code == (302 if may else 403)
            assert theirs.get("Location") == nothing.get("Location")
            assert "globex" not in page(client, reverse("admin:index"))
    assert AuditEvent.objects.count() == before
    assert not ImportJob.objects.filter(state="cancelled").exists()
    assert Mailbox.objects.open().count() == 2


@pytest.mark.parametrize(("model", "name", "resource", "verb"), PAGES)
def test_another_site_cannot_send_them(
    model: type[Model], name: str, resource: str, verb: str, acme: Customer, globex: Customer
) -> None:
    client = WebClient(enforce_csrf_checks=True)
    client.force_login(provisioning.add_staff("operator@localhost", password=None, tenant=None))
    values = {"format": "mbox", "password": "x", "tenant": globex.tenant.pk, "apply": "yes"}
    before = AuditEvent.objects.count()
    assert client.post(url(model, name, rows_of(acme, name)[model].pk), values).status_code == 403
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize("key", ["x", "%00", "9" * 40, "-1", "%ff"])
@pytest.mark.parametrize(("model", "name", "resource", "verb"), PAGES)
def test_nonsense_is_no_row(
    model: type[Model], name: str, resource: str, verb: str, key: str, operator: Client
) -> None:
    path = url(model, name, 1).replace("/1/", f"/{key}/")
    for method in (operator.get, operator.post):
        assert method(path).status_code in (302, 404)


# --- Mailboxes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "begins"), [("mbox", b"From "), ("maildir", b"PK"), ("eml", b"PK")])
def test_a_mailbox_is_exported_and_that_is_written_down(
    form: str, begins: bytes, boss: Client, acme: Customer, globex: Customer
) -> None:
    add_message(acme.mailbox)
    add_message(acme.mailbox, expunged_at=Now())
    path = url(Mailbox, "mail", acme.mailbox.pk)
    assert "<td>2</td>" in page(boss, path)
    assert not AuditEvent.objects.filter(action="mailbox.exported").exists()
    answer: Any = boss.post(path, {"format": form})
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    octets = b"".join(answer.streaming_content)
    assert octets.startswith(begins)
    assert octets.count(b"From ") == 1 or form != "mbox"
    event = AuditEvent.objects.get(action="mailbox.exported")
    assert (event.mailbox_id, event.through, event.changes) == (
        acme.mailbox.pk, "admin", {"format": form, "removed": False},
    )  # fmt: skip


def test_an_export_is_only_for_whom_the_tenants_policy_names(operator: Client, boss: Client, acme: Customer) -> None:
    add_message(acme.mailbox)
    path, mailbox = url(Mailbox, "mail", acme.mailbox.pk), url(Mailbox, "change", acme.mailbox.pk)
    for client, policy, may in ((operator, None, False), (operator, ["operator"], True), (boss, [], False)):
        provisioning.change_tenant(acme.tenant, content_roles=policy)
        assert (path in page(client, mailbox)) == may
        assert client.get(path).status_code == (200 if may else 403)
        answer: Any = client.post(path, {"format": "mbox"})
        assert answer.status_code == (200 if may else 403)
        assert not may or b"Subject" in b"".join(answer.streaming_content)
    assert AuditEvent.objects.filter(action="mailbox.exported").count() == 1


def test_an_export_takes_no_format_that_is_none(boss: Client, acme: Customer) -> None:
    assert "Select a valid choice" in said(boss, url(Mailbox, "mail", acme.mailbox.pk), {"format": "pst"})


def test_erasing_says_what_goes_and_then_it_goes(boss: Client, acme: Customer, globex: Customer) -> None:
    for _ in range(3):
        add_message(acme.mailbox)
    path = url(Mailbox, "erase", acme.mailbox.pk)
    asked = page(boss, path)
    assert "<td>3</td>" in asked
    assert "for good" in asked
    assert "is being erased" in said(boss, path, {})
    mailbox = Mailbox.objects.get(pk=acme.mailbox.pk)
    assert mailbox.closed_at is not None
    assert not mailbox.retention
    assert AuditEvent.objects.filter(action="mailbox.erased", through="admin").exists()
    assert Mailbox.objects.get(pk=globex.mailbox.pk).closed_at is None


def test_what_is_on_hold_is_not_erased(boss: Client, acme: Customer) -> None:
    provisioning.set_legal_hold(acme.mailbox, True)
    path = url(Mailbox, "erase", acme.mailbox.pk)
    for shown in (page(boss, path), said(boss, path, {})):
        assert "legal hold" in shown
        assert "Erase for good" not in shown
    assert Mailbox.objects.get(pk=acme.mailbox.pk).closed_at is None


@pytest.mark.django_db(transaction=True)
def test_what_is_erased_is_gone_when_the_task_has_run(boss: Client, acme: Customer) -> None:
    add_message(acme.mailbox)
    said(boss, url(Mailbox, "erase", acme.mailbox.pk), {})
    tasks.erase(acme.mailbox.pk)
    assert not Mailbox.objects.filter(pk=acme.mailbox.pk).exists()
    assert not Message.objects.exists()


def test_a_closed_mailbox_can_be_taken_along_but_takes_nothing(boss: Client, acme: Customer) -> None:
    provisioning.close_mailbox(acme.mailbox)
    shown = page(boss, url(Mailbox, "change", acme.mailbox.pk))
    assert url(Mailbox, "mail", acme.mailbox.pk) in shown
    assert url(Mailbox, "bring", acme.mailbox.pk) not in shown
    answer = boss.get(url(Mailbox, "bring", acme.mailbox.pk), follow=True)
    assert "cannot be done" in answer.content.decode()


# --- Sessions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_sessions_are_ended_by_whom_the_table_says(role: str, acme: Customer, globex: Customer) -> None:
    client = somebody(role, acme)
    listener = add_listener("pop3")
    own, foreign = (add_session(customer.mailbox, listener) for customer in (acme, globex))
    values = {"action": "end", "_selected_action": [str(own.pk), str(foreign.pk)]}
    ended = 2 if role == Role.OPERATOR else 1
    assert f"Ended: {ended}." in said(client, "/admin/mailstore/maildropsession/", values)
    assert MaildropSession.objects.get(pk=own.pk).end == "ended"
    assert (MaildropSession.objects.get(pk=foreign.pk).ended_at is None) == (role != Role.OPERATOR)
    assert AuditEvent.objects.filter(action="session.ended", through="admin").count() == ended


# --- Domains -------------------------------------------------------------------------------------------------------


def test_a_domain_moves_after_a_look_at_what_goes(operator: Client, acme: Customer, globex: Customer) -> None:
    add_message(acme.mailbox)
    path = url(Domain, "move", acme.domain.pk)
    assert "Look at it first" in page(operator, path)
    looked = said(operator, path, {"tenant": globex.tenant.pk})
    assert "acme.test" in looked
    assert re.search(r">Mailboxes</th><td>1</td>", looked)
    assert re.search(r">Messages</th><td>1</td>", looked)
    assert Domain.objects.get(pk=acme.domain.pk).tenant_id == acme.tenant.pk
    kept = dict(re.findall(r'type="hidden" name="(tenant|apply)" value="([^"]*)"', looked))
    assert "Moved to globex: acme.test." in said(operator, path, kept)
    assert Domain.objects.get(pk=acme.domain.pk).tenant_id == globex.tenant.pk
    assert Message.objects.get().tenant_id == globex.tenant.pk


def test_what_holds_on_to_a_domain_is_told(operator: Client, acme: Customer, globex: Customer) -> None:
    provisioning.set_legal_hold(acme.mailbox, True)
    path = url(Domain, "move", acme.domain.pk)
    for more in ({}, {"apply": "yes"}):
        assert "an@acme.test is on legal hold." in said(operator, path, {"tenant": globex.tenant.pk, **more})
    assert "It is a domain of acme already" in said(operator, path, {"tenant": acme.tenant.pk, "apply": "yes"})
    assert Domain.objects.get(pk=acme.domain.pk).tenant_id == acme.tenant.pk


def test_a_reseller_moves_between_its_own_tenants_only(acme: Customer, globex: Customer) -> None:
    client = somebody(Role.RESELLER, acme)
    path = url(Domain, "move", acme.domain.pk)
    for tenant in (globex.tenant.pk, 999_999, "x", "\0", "9" * 40):
        refused = said(client, path, {"tenant": tenant, "apply": "yes"})
        assert "Select a valid choice" in refused or "Null characters" in refused
        assert "globex" not in refused
    second, _ = provisioning.add_tenant("acme-two", reseller=acme.tenant.reseller)
    assert "Moved to acme-two" in said(client, path, {"tenant": second.pk, "apply": "yes"})


def test_dns_is_asked_on_demand(boss: Client, acme: Customer, settings: Any) -> None:
    path = url(Domain, "check", acme.domain.pk)
    Domain.objects.filter(pk=acme.domain.pk).update(state="pending")
    acme.domain.refresh_from_db()
    name, text = verification.record(acme.domain)
    assert text in page(boss, path)
    with name_server() as server:
        settings.MAILHOST_DNS_SERVERS = (("127.0.0.1", server.port),)
        assert "no such record" in said(boss, path, {})
        assert Domain.objects.get(pk=acme.domain.pk).state == "pending"
        server.records[name] = [f'{name} TXT "{text}"']
        assert "The record is there" in said(boss, path, {})
    assert Domain.objects.get(pk=acme.domain.pk).state == "verified"


# --- Imports -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["pop3", "imap"])
def test_an_import_is_started_and_shows_how_far_it_is(source: str, boss: Client, acme: Customer) -> None:
    bring = boss.get(url(Mailbox, "bring", acme.mailbox.pk), follow=True)
    assert "an@acme.test</option>" in bring.content.decode()
    assert "goes on in the background" in said(
        boss, ADD, SERVER | {"source": source, "mailbox": acme.mailbox.pk, "uidl_format": ""}
    )
    job = ImportJob.objects.get()
    assert (job.mailbox_id, job.source, job.host, job.state, job.port) == (
        acme.mailbox.pk, source, "8.8.8.8", "waiting", None,
    )  # fmt: skip
    ImportJob.objects.update(state="running", total=1200, imported=800, skipped=100, failed=3)
    answer = boss.get(url(ImportJob, "change", job.pk))
    shown = answer.content.decode()
    assert answer["Refresh"] == "5"
    assert '<progress max="1200" value="903"></progress> 800 of 1,200' in shown
    assert "secret phrase" not in shown
    assert "<script>" not in shown
    assert "800 of 1,200" in page(boss, JOBS)
    assert "800 of 1,200" not in page(boss, f"{JOBS}?state__exact=failed")


def test_an_import_that_has_ended_is_not_shown_again_and_again(boss: Client, acme: Customer) -> None:
    job = add_job(acme.mailbox, state="failed", report="message <b>3</b>: broken")
    answer = boss.get(url(ImportJob, "change", job.pk))
    assert "Refresh" not in answer
    assert "message &lt;b&gt;3&lt;/b&gt;: broken" in answer.content.decode()
    assert 'name="_save"' not in answer.content.decode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"host": ""}, "it has 1 to 253 characters"),
        ({"host": "127.0.0.1"}, "it is no host of the public internet"),
        ({"port": "70000"}, "less than or equal to 65535"),
        ({"security": "ssl"}, "Select a valid choice"),
        ({"password": ""}, "it has 1 to 1000 characters"),
        ({"uidl_format": "%d"}, "no format of unique-ids"),
        ({"source": "upload"}, "choose a file"),
        ({"source": "ftp"}, "Select a valid choice"),
        ({"host": "\0"}, "Null characters"),
    ],
)
def test_what_is_wrong_stands_in_the_form(change: dict[str, str], words: str, boss: Client, acme: Customer) -> None:
    shown = said(boss, ADD, SERVER | {"mailbox": acme.mailbox.pk} | change)
    assert words in shown
    assert "secret phrase" not in shown
    assert not ImportJob.objects.exists()


def test_nothing_is_brought_into_another_tenant_s_mailbox(boss: Client, acme: Customer, globex: Customer) -> None:
    refused, nothing = (
        said(boss, ADD, SERVER | {"mailbox": pk}) for pk in (globex.mailbox.pk, 999_999)
    )  # fmt: skip
    for shown in (refused, nothing):
        assert "Select a valid choice" in shown
    assert "globex" not in refused
    assert not ImportJob.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_file_is_brought_along(boss: Client, acme: Customer) -> None:
    values = {"source": "upload", "security": "tls", "mailbox": acme.mailbox.pk}
    said(boss, ADD, values | {"file": SimpleUploadedFile("mail.mbox", MBOX)})
    job = ImportJob.objects.get()
    [file] = uploads()
    assert file.read_bytes() == MBOX
    jobs.run(job.pk, tasks.import_config())
    assert "2 of 2" in page(boss, url(ImportJob, "change", job.pk))
    assert Message.objects.in_maildrop(acme.mailbox).count() == 2
    assert uploads() == []


def test_a_file_that_no_import_needs_is_not_kept(boss: Client, acme: Customer, settings: Any) -> None:
    values: dict[str, Any] = {"source": "upload", "security": "tls", "mailbox": acme.mailbox.pk}
    add_job(acme.mailbox)
    shown = said(boss, ADD, values | {"file": SimpleUploadedFile("mail.mbox", MBOX)})
    assert "an import that has not ended" in shown
    assert uploads() == []
    settings.MAILHOST_MAX_UPLOAD = 10
    assert "at most 10 octets" in said(boss, ADD, values | {"file": SimpleUploadedFile("mail.mbox", MBOX)})
    assert uploads() == []


def test_an_import_is_cancelled_and_gone_on_with(boss: Client, acme: Customer, globex: Customer) -> None:
    own, foreign = add_job(acme.mailbox), add_job(globex.mailbox)
    values = {"action": "cancel", "_selected_action": [own.pk, foreign.pk]}
    assert "Cancelled: 1." in said(boss, JOBS, values)
    assert ImportJob.objects.get(pk=foreign.pk).state == "waiting"
    assert ImportJob.objects.get(pk=own.pk).state == "cancelled"
    path = url(ImportJob, "restart", own.pk)
    answer = boss.post(JOBS, {"action": "restart", "_selected_action": [own.pk]})
    assert answer["Location"] == path
    assert "required" in said(boss, path, {"password": ""})
    assert "secret" not in said(boss, path, {"password": "secret"})
    own.refresh_from_db()
    assert own.state == "waiting"
    assert own.sealed_password
    assert "cannot be done" in said(boss, path, {"password": "secret"})
    assert "It is cancelled" in said(boss, url(ImportJob, "cancel", own.pk), {})


def test_an_import_does_not_go_on_beside_another(boss: Client, acme: Customer) -> None:
    ended = add_job(acme.mailbox, state="failed")
    add_job(acme.mailbox)
    shown = said(boss, url(ImportJob, "restart", ended.pk), {"password": "secret"})
    assert "an import that has not ended" in shown
    assert ImportJob.objects.get(pk=ended.pk).state == "failed"
