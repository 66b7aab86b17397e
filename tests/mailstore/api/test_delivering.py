import io
import re
import threading
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from accounts import limits, provisioning
from accounts.models import Domain, IdempotencyKey, Mailbox
from accounts.principals import SYSTEM
from mailstore.api import delivering
from mailstore.models import Content, Message
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer, WebClient
from tests.mailstore import post

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/api/v1/mailboxes/an@acme.test/messages/"


@pytest.fixture
def acme(acme: Customer) -> Customer:
    """Whose domain it is has been shown."""
    Domain.objects.filter(pk=acme.domain.pk).update(state=Domain.State.VERIFIED)
    return acme


def send(
    program: Any, content: bytes, *, path: str = PATH, query: str = "", kind: str = "message/rfc822", **headers: str
) -> Any:
    return program.generic(
        "POST",
        f"{path}?{query}" if query else path,
        content,
        content_type=kind,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def form(content: bytes, name: str = "file") -> bytes:
    return encode_multipart(BOUNDARY, {name: SimpleUploadedFile("x.eml", content, "message/rfc822")})


def octets_of(message: Message) -> bytes:
    content = message.content
    if content.body is not None:
        return bytes(message.trace) + bytes(content.body)
    chunks = content.chunks.order_by("number").values_list("octets", flat=True)
    return bytes(message.trace) + b"".join(bytes(chunk) for chunk in chunks)


def test_a_message_is_delivered_as_from_an_mta(acme: Customer, admin: Program) -> None:
    answer = send(admin, post.text("hello"), query="reverse_path=binh@elsewhere.test")
    assert answer.status_code == 201, answer.content
    assert answer.json()["outcome"] == "stored"
    shown = answer.json()["message"]
    assert shown["subject"] == "hello"
    assert answer["Location"] == f"{PATH}{shown['id']}/"
    message = Message.objects.get()
    lines = octets_of(message).decode().split("\r\n")
    assert lines[:2] == ["Return-Path: <binh@elsewhere.test>", "Delivered-To: an@acme.test"]
    assert lines[2] == f"Received: from [IPv6:{admin.defaults['REMOTE_ADDR']}]"
    assert re.fullmatch(r"\tby \S+ with HTTP id [0-9a-f]{16};", lines[3])
    acme.mailbox.refresh_from_db()
    assert (acme.mailbox.message_count, acme.mailbox.used_octets) == (1, message.octets)


@pytest.mark.parametrize("lines", [1, 200_000])
def test_a_form_may_have_the_message(acme: Customer, admin: Program, lines: int) -> None:
    content = post.text(body="a line\n" * lines)
    assert send(admin, form(content), kind=MULTIPART_CONTENT).status_code == 201
    assert octets_of(Message.objects.get()).endswith(b"a line\r\n" * lines)


def test_a_large_message_lies_in_chunks(acme: Customer, admin: Program) -> None:
    content = post.text(body="a line\r\n" * 100_000)
    assert send(admin, content).status_code == 201
    assert Content.objects.get().body is None
    assert octets_of(Message.objects.get()).endswith(content)


def test_a_retry_delivers_nothing_again(acme: Customer, admin: Program) -> None:
    first = send(admin, post.text(), Idempotency_Key="k")
    again = send(admin, post.text(), Idempotency_Key="k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert again["Idempotent-Replayed"] == "true"
    assert Message.objects.count() == 1
    assert send(admin, post.text(), Idempotency_Key="k2").status_code == 201
    assert send(admin, post.text()).status_code == 201
    assert Message.objects.count() == 3
    assert refusal(send(admin, post.text("other"), Idempotency_Key="k"), 422)["code"] == "idempotency-key-reused"


def test_a_retry_after_a_lost_answer_delivers_nothing_again(acme: Customer, admin: Program) -> None:
    first = send(admin, post.text(), Idempotency_Key="k")
    IdempotencyKey.objects.all().delete()  # as if the process was killed after the delivery
    again = send(admin, post.text(), Idempotency_Key="k")
    assert again.status_code == 200
    assert again.json() == {"outcome": "already", "message": first.json()["message"]}
    assert Message.objects.count() == 1


def test_attempts_at_the_same_time_deliver_once(acme: Customer) -> None:
    text = token_text("tenant-admin", tenant=acme.tenant)
    statuses: list[int] = []

    def attempt() -> None:
        statuses.append(send(Program(text), post.text(), Idempotency_Key="k").status_code)
        connections.close_all()

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [201] * 4
    assert Message.objects.count() == 1


def test_a_dry_run_delivers_nothing(acme: Customer, admin: Program) -> None:
    content = post.text()
    would = send(admin, content, query="dry_run=true").json()["would"]
    assert would["summary"] == f"delivers a message, {len(content)} B, to an@acme.test"
    assert would["counts"] == {"messages": 1, "octets": len(content)}
    assert not Message.objects.exists()
    provisioning.set_state(acme.mailbox, Mailbox.State.SUSPENDED, reason="unpaid")
    assert refusal(send(admin, content, query="dry_run=true"), 409)["code"] == "takes-no-mail"


@pytest.mark.parametrize("state", [Mailbox.State.SUSPENDED, Mailbox.State.NO_RECEIVE])
def test_a_mailbox_that_takes_no_mail_takes_none(acme: Customer, admin: Program, state: str) -> None:
    provisioning.set_state(acme.mailbox, state, reason="unpaid")
    problem = refusal(send(admin, post.text()), 409)
    assert problem["code"] == "takes-no-mail"
    assert "unpaid" not in str(problem)


def test_a_closed_mailbox_takes_no_mail(acme: Customer, admin: Program) -> None:
    provisioning.close_mailbox(acme.mailbox)
    assert refusal(send(admin, post.text()), 409)["code"] == "takes-no-mail"


def test_mail_for_a_domain_that_is_nobodys_yet_is_refused(acme: Customer, admin: Program, settings: Any) -> None:
    Domain.objects.update(state=Domain.State.PENDING)
    for policy in ("refuse", "defer"):
        settings.MAILHOST_UNVERIFIED_DOMAINS = policy
        assert refusal(send(admin, post.text()), 409)["code"] == "takes-no-mail"


def test_quotas_and_limits_hold(acme: Customer, admin: Program) -> None:
    acme.add("small", quota_octets=10)
    path = "/api/v1/mailboxes/small@acme.test/messages/"
    assert refusal(send(admin, post.text(), path=path), 409)["code"] == "no-room"
    limits.set_limits(acme.tenant, max_octets=10)
    assert refusal(send(admin, post.text()), 409)["code"] == "no-room"
    assert not Message.objects.exists()


def test_the_largest_message_is_taken_and_no_larger(acme: Customer, admin: Program, settings: Any) -> None:
    content = post.text(body="x" * 1000 + "\r\n")
    settings.MAILHOST_MAX_MESSAGE = len(content)
    assert send(admin, content).status_code == 201
    assert send(admin, form(content), kind=MULTIPART_CONTENT).status_code == 201
    settings.MAILHOST_MAX_MESSAGE -= 1
    assert refusal(send(admin, content), 413)["code"] == "too-large"
    assert refusal(send(admin, form(content), kind=MULTIPART_CONTENT), 413)["code"] == "too-large"
    settings.MAILHOST_MAX_MESSAGE = 10
    assert refusal(send(admin, b"x" * 100_000), 413)["code"] == "too-large"
    assert Message.objects.count() == 2


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{}", "application/json", 415, "unsupported-media-type"),
        (b"x", "text/plain", 415, "unsupported-media-type"),
        (form(b"x", name="other"), MULTIPART_CONTENT, 400, "malformed"),
        (b"nonsense", "multipart/form-data; boundary=x", 400, None),
        (b"nonsense", "multipart/form-data", 400, None),
    ],
)
def test_what_is_no_message_is_refused(
    acme: Customer, admin: Program, content: bytes, kind: str, status: int, code: str | None
) -> None:
    problem = refusal(send(admin, content, kind=kind), status)
    assert code in (None, problem["code"])
    assert not Message.objects.exists()


@pytest.mark.parametrize("kind", ["message/rfc822", MULTIPART_CONTENT])
def test_a_body_that_breaks_off_is_no_message(acme: Customer, admin: Program, kind: str) -> None:
    whole = form(post.text()) if kind == MULTIPART_CONTENT else post.text()
    broken: Any = {"wsgi.input": io.BytesIO(whole[:-40])}
    answer = admin.generic("POST", PATH, whole, content_type=kind, **broken)
    assert refusal(answer, 400)["code"] == "malformed"
    assert not Message.objects.exists()


def test_nothing_is_no_message(acme: Customer, admin: Program) -> None:
    answer = admin.generic("POST", PATH, CONTENT_TYPE="message/rfc822", CONTENT_LENGTH="0")
    assert refusal(answer, 400)["code"] == "malformed"


@pytest.mark.parametrize("text", ["a%3Eb", "a b", "%0D%0ABcc: x", "x" * 600])
def test_a_reverse_path_that_is_none_is_refused(acme: Customer, admin: Program, text: str) -> None:
    problem = refusal(send(admin, post.text(), query=f"reverse_path={text}"), 400)
    assert problem["errors"][0]["field"] == "reverse_path"


def test_another_tenants_mailbox_does_not_exist(acme: Customer, globex: Customer, admin: Program) -> None:
    for address in ("an@globex.test", "nobody@acme.test"):
        answer = send(admin, post.text(), path=f"/api/v1/mailboxes/{address}/messages/")
        assert refusal(answer, 404)["code"] == "not-found"
    assert not Message.objects.exists()


def test_who_may_not_deliver_is_told_so_where_there_is_something(acme: Customer, globex: Customer) -> None:
    support = Program(token_text("support", tenant=acme.tenant))
    assert refusal(send(support, post.text()), 403)
    assert refusal(send(support, post.text(), path="/api/v1/mailboxes/an@globex.test/messages/"), 404)


def test_who_has_signed_in_may_send_a_form(acme: Customer) -> None:
    browser = WebClient()
    browser.force_login(provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant))
    assert send(browser, form(post.text()), kind=MULTIPART_CONTENT).status_code == 201


def test_the_delivery_sees_its_tenant_only(acme: Customer, globex: Customer) -> None:
    from mailstore import configured
    from mailstore.delivery import Deliveries, UnknownDomain, deliver_spooled
    from mailstore.spool import Spool

    terms = configured.delivery() | {"role": "mailhost_web"}
    deliveries = Deliveries(connections=1, tenant_id=acme.tenant.pk, **terms)
    with Spool() as spool:
        spool.write(post.text())
        spool.finish()
        found = deliver_spooled(
            spool, to=["an@globex.test", "an@acme.test"], reverse_path="", deliveries=deliveries, pretend=True
        )
    assert isinstance(found[0], UnknownDomain)
    assert found[1] == "stored"


def test_the_trace_names_an_ipv6_client() -> None:
    from ipaddress import ip_address

    for address, shown in [(ip_address("2001:db8::1"), "[IPv6:2001:db8::1]"), (None, "localhost")]:
        line = delivering.received(SYSTEM.via("api", address), host="mail.test", mark="m")
        assert line.startswith(f"Received: from {shown}\r\n\tby mail.test with HTTP id m;\r\n\t".encode())


def test_of_who_may_not_deliver_nothing_is_read(acme: Customer) -> None:
    support = Program(token_text("support", tenant=acme.tenant))
    large = b"Subject: large\r\n\r\n" + b"x" * 5 * 2**20
    for headers in ({}, {"Idempotency_Key": "k"}):
        assert refusal(send(support, large, **headers), 403)["code"] == "not-allowed"


def test_a_form_without_a_boundary_cannot_be_read(acme: Customer, admin: Program) -> None:
    answer = send(admin, b"--x\r\n", kind="multipart/form-data")
    assert refusal(answer, 400)["code"] == "malformed"
