from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from accounts import provisioning
from mailstore import tasks
from mailstore.importing import jobs
from mailstore.models import ImportJob, Message
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer

HERE = "/mailboxes/an@acme.test/imports/"
SERVER = {"source": "pop3", "host": "8.8.8.8", "login": "an", "password": "secret phrase"}
MBOX = b"".join(b"From x Mon Nov 23 09:00:00 2026\nSubject: %b\n\nhello\n\n" % subject for subject in (b"one", b"two"))


def send(program: Program, content: bytes, *, kind: str = "application/mbox", query: str = "", **headers: str) -> Any:
    path = f"/api/v1{HERE}{'?' if query else ''}{query}"
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return program.generic("POST", path, content, content_type=kind, headers=headers)


def uploads() -> list[Path]:
    directory = configured.MAILHOST_DATA / "uploads"
    return list(directory.iterdir()) if directory.exists() else []


@pytest.fixture(autouse=True)
def _data(settings: Any, tmp_path: Path) -> None:
    settings.MAILHOST_DATA = tmp_path


def test_an_import_is_started_and_shows_no_password(acme: Customer, admin: Program) -> None:
    answer = admin.send("POST", HERE, SERVER)
    assert answer.status_code == 201, answer.content
    shown = answer.json()
    assert answer["Location"] == f"/api/v1/imports/{shown['id']}/"
    assert (shown["state"], shown["host"], shown["security"], shown["report"]) == ("waiting", "8.8.8.8", "tls", [])
    assert b"secret" not in answer.content
    assert admin.read(f"/imports/{shown['id']}/") == admin.read(f"{HERE}{shown['id']}/") == shown
    assert refusal(admin.send("POST", HERE, SERVER), 409)["code"] == "import-running"


def test_an_import_is_cancelled_and_started_again(acme: Customer, admin: Program) -> None:
    path = f"/imports/{admin.send('POST', HERE, SERVER).json()['id']}/"
    assert refusal(admin.send("POST", f"{path}restart/", {"password": "x"}), 409)["code"] == "import-running"
    assert admin.send("POST", f"{path}cancel/", {}).json()["state"] == "cancelled"
    assert ImportJob.objects.get().sealed_password is None
    problem = refusal(admin.send("POST", f"{path}restart/", {}), 422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("bad-import", "password")
    assert admin.send("POST", f"{path}restart/", {"password": "x"}).json()["state"] == "waiting"


def test_a_dry_run_starts_nothing(acme: Customer, admin: Program) -> None:
    would = admin.send("POST", HERE, SERVER, query="dry_run=true").json()["would"]
    assert would["summary"] == "brings mail along to an@acme.test"
    assert send(admin, MBOX, query="dry_run=true").status_code == 200
    assert not ImportJob.objects.exists()
    assert uploads() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "::1", "localhost", "169.254.169.254", "nothing.invalid"])
def test_private_hosts_are_refused_whatever_our_own_dns_knows(acme: Customer, admin: Program, host: str) -> None:
    problem = refusal(admin.send("POST", HERE, SERVER | {"host": host}), 422)
    assert problem["code"] == "bad-import"
    assert problem["detail"] == "it is no host of the public internet."
    assert problem["errors"][0]["field"] == "host"


def test_private_hosts_are_allowed_where_the_operator_says_so(acme: Customer, admin: Program, settings: Any) -> None:
    settings.MAILHOST_PRIVATE_TARGETS = True
    assert admin.send("POST", HERE, SERVER | {"host": "127.0.0.1"}).status_code == 201


@pytest.mark.parametrize(
    ("change", "field"),
    [({"source": "upload"}, "source"), ({"port": 0}, "port"), ({"security": "ssl"}, "security"),
     ({"login": ""}, "login"), ({"colour": "red"}, "colour"), ({"uidl_format": "%d"}, "uidl_format"),
     ({"host": "a b"}, "host"), ({"password": "a\nb"}, "password")],
)  # fmt: skip
def test_a_wrong_field_is_named(acme: Customer, admin: Program, change: dict[str, Any], field: str) -> None:
    assert refusal(admin.send("POST", HERE, SERVER | change), 422)["errors"][0]["field"] == field


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("as_form", [False, True])
def test_a_file_is_brought_along(acme: Customer, admin: Program, as_form: bool) -> None:
    content, kind = MBOX, "application/mbox"
    if as_form:
        content = encode_multipart(BOUNDARY, {"file": SimpleUploadedFile("all.mbox", MBOX, "application/mbox")})
        kind = MULTIPART_CONTENT
    first = send(admin, content, kind=kind, Idempotency_Key="k")
    assert first.status_code == 201
    assert send(admin, content, kind=kind, Idempotency_Key="k").json() == first.json()
    assert len(uploads()) == 1
    jobs.run(first.json()["id"], tasks.import_config())
    shown = admin.read(f"/imports/{first.json()['id']}/")
    assert (shown["state"], shown["source"], shown["imported"]) == ("done", "upload", 2)
    assert sorted(Message.objects.in_maildrop(acme.mailbox).values_list("subject", flat=True)) == ["one", "two"]
    assert uploads() == []


def test_a_file_that_is_not_taken_is_not_kept(acme: Customer, admin: Program, settings: Any) -> None:
    assert refusal(send(admin, MBOX, query="uidl_format=%25d"), 422)["code"] == "bad-import"
    settings.MAILHOST_MAX_UPLOAD = 10
    assert refusal(send(admin, MBOX), 413)["code"] == "too-large"
    assert refusal(send(admin, b"x" * 100_000), 413)["code"] == "too-large"
    assert refusal(send(admin, MBOX, kind="text/plain"), 415)
    assert uploads() == []


def test_a_closed_mailbox_gets_nothing(acme: Customer, admin: Program) -> None:
    provisioning.close_mailbox(acme.mailbox)
    assert refusal(admin.send("POST", HERE, SERVER), 409)["code"] == "takes-no-mail"


def test_imports_are_listed(acme: Customer, globex: Customer, admin: Program, host: Program) -> None:
    one = admin.send("POST", HERE, SERVER).json()["id"]
    two = host.send("POST", "/mailboxes/an@globex.test/imports/", SERVER).json()["id"]

    def ids(program: Program, query: str = "", path: str = "/imports/") -> list[int]:
        return [job["id"] for job in program.read(path, query)["items"]]

    assert ids(host) == [two, one]
    assert ids(admin) == ids(admin, path=HERE) == [one]
    assert ids(host, "mailbox=an@globex.test") == ids(host, "tenant=globex") == [two]
    assert ids(admin, "mailbox=an@globex.test") == []
    assert ids(host, "state=done") == []
    assert ids(host, "source=pop3") == [two, one]


@pytest.mark.parametrize("role", ["tenant-admin", "support", "member"])
def test_another_tenants_import_does_not_exist(acme: Customer, globex: Customer, host: Program, role: str) -> None:
    foreign = host.send("POST", "/mailboxes/an@globex.test/imports/", SERVER).json()["id"]
    within = {"mailbox": acme.mailbox} if role == "member" else {"tenant": acme.tenant}
    asker = Program(token_text(role, **within))
    assert refusal(asker.send("GET", f"/imports/{foreign}/"), 404)
    for verb in ("cancel", "restart"):
        assert refusal(asker.send("POST", f"/imports/{foreign}/{verb}/", {}), 404)
    assert refusal(asker.send("POST", "/mailboxes/an@globex.test/imports/", SERVER), 404)
    assert ImportJob.objects.get().state == "waiting"
    if role != "tenant-admin":
        assert refusal(asker.send("POST", HERE, SERVER), 403)
        assert refusal(send(asker, MBOX), 403)
        assert uploads() == []
