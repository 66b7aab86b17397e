"""Reading a message in the admin: who may, what is told to the browser, and what is written down."""

import re
from contextlib import ExitStack
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest
from django.core import signing
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import permissions, provisioning
from accounts.models import AuditEvent, Role, Tenant
from mailstore import reading
from mailstore.models import Message
from tests.fixtures import Customer, signed_in
from tests.mailstore import post
from tests.mailstore.mime.test_sanitising import PNG
from tests.mailstore.rows import add_message
from tests.mailstore.test_admin_pages import ROLES, somebody

pytestmark = pytest.mark.django_db(transaction=True)


def path(message: Message, query: str = "") -> str:
    return reverse("admin:mailstore_message_read", args=[message.pk]) + query


def shown(client: Client, message: Message, query: str = "") -> str:
    answer = client.get(path(message, query))
    assert answer.status_code == 200, answer.status_code
    assert answer["Cache-Control"] == "no-store"
    return answer.content.decode()


def looks() -> list[Any]:
    """What the audit says of looks, in their order."""
    found = AuditEvent.objects.filter(action="message.read").order_by("pk")
    return [changes["what"] for changes in found.values_list("changes", flat=True)]


@pytest.fixture
def letter(acme: Customer) -> Message:
    """A message with text, HTML, a picture and a file."""
    message = EmailMessage(policy=SMTP)
    message["From"] = "Bình <binh@elsewhere.test>"
    message["To"] = "an@acme.test"
    message["Subject"] = "Hoá đơn <b>tháng</b> 11"
    message["X-Odd"] = "<i>odd</i>"
    message.set_content("Chào bạn,\n<script>alert(1)</script>\n")
    message.add_alternative('<p>Chào <b>bạn</b><script>alert(1)</script><img src="cid:logo"></p>', subtype="html")
    message.get_payload()[1].add_related(PNG, "image", "png", cid="<logo>", filename="logo.png")  # type: ignore[index,union-attr]
    message.add_attachment(b"%PDF" * 50_000, maintype="text", subtype="html", filename='tháng "11".html')
    [stored] = post.fill(acme.mailbox, [message.as_bytes()])
    return stored


def test_a_message_is_read_as_text(boss: Client, acme: Customer, letter: Message) -> None:
    page = shown(boss, letter)
    assert "Hoá đơn &lt;b&gt;tháng&lt;/b&gt; 11" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;i&gt;odd&lt;/i&gt;" in page
    assert "<iframe" not in page
    assert "logo.png" in page
    assert "tháng _11_.html" in page
    assert 'href="?attachment=3"' in page
    event = AuditEvent.objects.get(action="message.read")
    assert (event.target_id, event.mailbox_id, event.domain_id, event.tenant_id, event.through, event.changes) == (
        letter.pk, acme.mailbox.pk, acme.domain.pk, acme.tenant.pk, "admin", {"what": "text"},
    )  # fmt: skip


def test_html_stands_in_a_frame_that_nothing_leaves(boss: Client, letter: Message) -> None:
    page = shown(boss, letter, "?show=html")
    [frame] = re.findall(r'<iframe [^>]*sandbox="" src="([^"]+)"', page)
    assert "&lt;script&gt;" not in page

    answer = boss.get(path(letter, frame))
    policy = answer["Content-Security-Policy"]
    assert policy.startswith("sandbox; default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "allow" not in policy
    assert policy.endswith("frame-ancestors 'self'")
    assert answer["X-Frame-Options"] == "SAMEORIGIN"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "no-referrer"
    assert answer["Cache-Control"] == "no-store"
    document = answer.content.decode()
    assert "Chào <b>bạn</b>" in document
    assert "script" not in document
    assert 'src="data:image/png;base64,' in document
    assert looks() == ["html"]  # page and frame are one look


def test_a_frame_by_itself_is_a_look(boss: Client, operator: Client, acme: Customer, letter: Message) -> None:
    provisioning.change_tenant(acme.tenant, content_roles=["operator", "tenant-admin"])
    [frame] = re.findall(r'src="([^"]+)" referrerpolicy', shown(boss, letter, "?show=html"))
    other = add_message(acme.mailbox)
    for client, message, query in (
        (boss, letter, "?frame="),
        (boss, letter, f"?frame={signing.TimestampSigner(salt='other').sign('1.1')}"),
        (boss, other, frame),
        (operator, letter, frame),
    ):
        before = len(looks())
        assert client.get(path(message, query)).status_code == 200
        assert len(looks()) == before + 1, query


def test_the_source_comes_octet_by_octet(boss: Client, letter: Message) -> None:
    answer: Any = boss.get(path(letter, "?source"))
    octets = b"".join(answer.streaming_content)
    assert len(octets) == int(answer["Content-Length"]) == letter.octets
    assert answer["Content-Type"] == "message/rfc822"
    assert answer["Content-Disposition"] == f'attachment; filename="{letter.pk}.eml"'
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert looks() == ["source"]


def test_an_attachment_is_a_file_and_nothing_else(boss: Client, letter: Message) -> None:
    answer: Any = boss.get(path(letter, "?attachment=3"))
    assert b"".join(answer.streaming_content) == b"%PDF" * 50_000
    assert answer["Content-Length"] == "200000"
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"] == "attachment; filename*=utf-8''th%C3%A1ng%20_11_.html"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Cache-Control"] == "no-store"
    assert looks() == ["attachment"]


@pytest.mark.parametrize("number", ["4", "9999", "99999", "-1", "x", "", "1.0", "٣"])
def test_there_is_no_other_attachment(boss: Client, letter: Message, number: str) -> None:
    assert boss.get(path(letter, f"?attachment={number}")).status_code == 404
    assert looks() == []


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("plain.pdf", 'attachment; filename="plain.pdf"'),
        ("a\r\nSet-Cookie: x=1", 'attachment; filename="a Set-Cookie_ x=1"'),
        ('a"; filename="b.exe', "attachment; filename=\"a_; filename=_b.exe\""),
        ("../../x", 'attachment; filename="_.._x"'),
        ("\u202efdp.exe", 'attachment; filename="fdp.exe"'),
        ("", 'attachment; filename="part-0.bin"'),
    ],
)  # fmt: skip
def test_names_of_files_put_nothing_into_headers(boss: Client, acme: Customer, name: str, header: str) -> None:
    encoded = "".join(f"%{octet:02X}" for octet in name.encode())
    octets = f"Content-Disposition: attachment; filename*=utf-8''{encoded}\r\n\r\nx"
    [message] = post.fill(acme.mailbox, [octets.encode()])
    answer = boss.get(path(message, "?attachment=0"))
    assert _content(answer) == b"x\r\n"
    assert answer["Content-Disposition"] == header
    assert "Set-Cookie" not in answer.headers


def test_what_cannot_be_shown_is_still_handed_out(boss: Client, acme: Customer, settings: Any) -> None:
    [message] = post.fill(acme.mailbox, [b"Subject: x\r\nContent-Type: text/html\r\n\r\n" + b"<div>" * 200_000])
    page = shown(boss, message)
    assert "This message cannot be shown" in page
    assert 'href="?source"' in page
    assert "cannot be shown" in shown(boss, message, "?frame=")
    assert looks() == []
    settings.MAILHOST_DATA = settings.MAILHOST_DATA / "gone"
    answer = boss.get(path(message, "?attachment=0"), follow=True)
    assert "Download its source" in answer.content.decode()
    source: Any = boss.get(path(message, "?source"))
    assert len(b"".join(source.streaming_content)) == message.octets
    assert looks() == ["source"]


def test_removed_messages_and_those_of_closed_mailboxes_are_read_until_they_are_purged(
    boss: Client, acme: Customer, letter: Message
) -> None:
    Message.objects.update(expunged_at=timezone.now())
    provisioning.close_mailbox(acme.mailbox)
    assert "Chào bạn" in shown(boss, letter)


def test_nothing_is_sent_to_the_page(boss: Client, letter: Message) -> None:
    assert boss.post(path(letter)).status_code == 405
    assert boss.put(path(letter)).status_code == 405


# --- Who may -------------------------------------------------------------------------------------------------------


def test_where_many_read_at_once_that_is_said(boss: Client, letter: Message, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that the message could not be shown: it can, in a moment."""
    monkeypatch.setattr(reading, "SECONDS", 0.1)
    with ExitStack() as looking:
        for _ in range(reading.AT_ONCE):
            looking.enter_context(reading._turn())
        page = shown(boss, letter)
        assert ("Many messages are being read right now" in page, "cannot be shown" in page) == (True, False)
        assert "Many messages are being read right now" in shown(boss, letter, "?frame=")
        refused = boss.get(path(letter, "?attachment=0"), follow=True)
        assert "Many messages are being read right now" in refused.content.decode()
        assert "cannot be taken out" not in refused.content.decode()
        assert looks() == []
    assert "Hoá đơn" in shown(boss, letter)


WAYS = ("", "?show=html", "?frame=", "?source", "?attachment=0")


@pytest.mark.parametrize("role", ROLES)
def test_each_role_reads_where_the_tenants_policy_names_it(role: str, acme: Customer, globex: Customer) -> None:
    client = somebody(role, acme)
    own, foreign = add_message(acme.mailbox), add_message(globex.mailbox)
    provisioning.change_tenant(globex.tenant, content_roles=[*permissions.CONTENT_ROLES])
    change = reverse("admin:mailstore_message_change", args=[own.pk])
    policies: list[Any] = [[role], [other for other in permissions.CONTENT_ROLES if other != role], None]
    for policy in policies:
        provisioning.change_tenant(acme.tenant, content_roles=policy)
        may = role in (["tenant-admin"] if policy is None else policy)
        assert (path(own) in client.get(change).content.decode()) == may
        before = len(looks())
        for way in WAYS:
            answer = client.get(path(own, way))
            assert answer.status_code == (200 if may else 403), (policy, way)
            content = _content(answer)
            assert may or b"Return-Path" not in content
        assert len(looks()) == before + (len(WAYS) if may else 0)
    if role != Role.OPERATOR:
        before = len(looks())
        for way in WAYS:
            answer = client.get(path(foreign, way))
            assert answer.status_code == 302, way  # as of what does not exist
            assert answer.headers["Location"] == client.get(path(Message(pk=10**9), way)).headers["Location"]
        assert len(looks()) == before


def test_support_of_the_host_needs_that_the_host_may(acme: Customer) -> None:
    message = add_message(acme.mailbox)
    ours = signed_in(provisioning.add_staff("s@acme.test", password=None, role="support", tenant=acme.tenant))
    hosts = signed_in(provisioning.add_staff("s@localhost", password=None, role="support", tenant=None))
    provisioning.change_tenant(acme.tenant, content_roles=["support"])
    assert (ours.get(path(message)).status_code, hosts.get(path(message)).status_code) == (200, 403)
    provisioning.change_tenant(acme.tenant, content_roles=["operator", "support"])
    assert (ours.get(path(message)).status_code, hosts.get(path(message)).status_code) == (200, 200)


def test_the_mailboxs_page_leads_there_whom_the_policy_names(boss: Client, operator: Client, acme: Customer) -> None:
    link = f'href="{path(add_message(acme.mailbox))}"'
    mailbox = reverse("admin:accounts_mailbox_messages", args=[acme.mailbox.pk])
    assert link in boss.get(mailbox).content.decode()
    assert link not in operator.get(mailbox).content.decode()


def test_owners_and_strangers_do_not_get_to_the_page(acme: Customer, letter: Message) -> None:
    for client in (Client(), signed_in(acme.mailbox.user)):
        for way in WAYS:
            answer = client.get(path(letter, way))
            assert answer.status_code in (302, 403)
            assert answer.status_code == 403 or "login" in answer.headers["Location"]
    assert looks() == []


def test_the_tenants_admin_sets_the_policy_in_its_form(boss: Client, operator: Client, acme: Customer) -> None:
    change = reverse("admin:accounts_tenant_change", args=[acme.tenant.pk])
    values = {"name": "Acme", "external_id": "", "retention": "", "admin_mailbox": ""}

    def policy() -> Any:
        return Tenant.objects.get(pk=acme.tenant.pk).content_roles

    form = boss.get(change).content.decode()
    assert 'name="content_roles"' in form
    assert "Now: Tenant admin." in form
    assert boss.post(change, values | {"content_roles": ["support", "tenant-admin"]}).status_code == 302
    assert policy() == ["tenant-admin", "support"]
    assert boss.post(change, values).status_code == 302
    assert policy() == []
    both = boss.post(change, values | {"content_by_host": "on", "content_roles": ["support"]})
    assert "not both" in both.content.decode()
    assert boss.post(change, values | {"content_roles": ["member"]}).status_code == 200
    assert policy() == []

    shown = operator.get(change).content.decode()
    assert 'name="content_roles"' not in shown
    assert "nobody but their owners" in shown
    assert operator.post(change, values | {"content_roles": ["operator"], "name": "New"}).status_code == 302
    assert policy() == []
    assert boss.post(change, values | {"content_by_host": "on"}).status_code == 302
    assert policy() is None
    assert "Tenant admin, as the host says" in operator.get(change).content.decode()


def _content(answer: Any) -> bytes:
    return b"".join(answer.streaming_content) if answer.streaming else answer.content
