from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import AuditEvent
from mailstore.models import MaildropSession
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer
from tests.mailstore.rows import add_listener, add_session


def ids(program: Program, query: str = "", path: str = "/sessions/") -> list[str]:
    return [session["id"] for session in program.read(path, query)["items"]]


def ended(customer: Customer, hours_ago: int, **values: Any) -> MaildropSession:
    """A session that ended then, after one hour."""
    moment = timezone.now() - timedelta(hours=hours_ago)
    values = {"end": "quit", "started_at": moment - timedelta(hours=1), "ended_at": moment, **values}
    return add_session(customer.mailbox, add_listener("pop3"), **values)


def test_open_sessions_come_first_and_then_the_latest(acme: Customer, globex: Customer, admin: Program) -> None:
    old, new = ended(acme, 5), ended(acme, 2)
    opened = add_session(acme.mailbox, add_listener("pop3"))
    device = add_session(acme.mailbox, add_listener("pop3"), view=7, app_password_id=7)
    add_session(globex.mailbox, add_listener("pop3"))
    expected = [*sorted([str(opened.pk), str(device.pk)], reverse=True), str(new.pk), str(old.pk)]
    for path in ("/sessions/", "/mailboxes/an@acme.test/sessions/"):
        seen: list[str] = []
        cursor = ""
        for _ in range(4):
            page = admin.read(path, f"limit=1{cursor}")
            seen += [session["id"] for session in page["items"]]
            cursor = f"&cursor={page['next']}"
        assert page["next"] is None
        assert seen == expected, path
        assert ids(admin, "ordering=ended_at", path) == expected[::-1]


def test_a_filter_finds(acme: Customer, admin: Program) -> None:
    one = str(ended(acme, 5, client_address="192.0.2.7", secure=False).pk)
    two = str(add_session(acme.mailbox, add_listener("pop3"), app_password_id=7, client_address="2001:db8::7").pk)
    middle = (timezone.now() - timedelta(hours=3)).isoformat().replace("+", "%2B")
    for query, found in [
        ("open=true", [two]),
        ("open=false", [one]),
        ("end=quit", [one]),
        ("secure=false", [one]),
        ("client_address=192.0.2.7", [one]),
        ("client_address=2001:DB8:0::7", [two]),
        ("app_password_id=7", [two]),
        (f"since={middle}", [two]),
        (f"until={middle}", [one]),
        ("mailbox=AN@acme.test", [two, one]),
        ("mailbox=an@globex.test", []),
        ("tenant=globex", []),
    ]:
        assert ids(admin, query) == found, query


@pytest.mark.parametrize(
    "query", ["open=1", "open=True", "secure=x", "client_address=x", "app_password_id=-1", "end=x"]
)
def test_a_wrong_parameter_is_refused(acme: Customer, admin: Program, query: str) -> None:
    assert refusal(admin.send("GET", "/sessions/", query=query), 400)["code"] == "bad-parameter"


def test_a_session_is_ended_once(acme: Customer, admin: Program) -> None:
    session = add_session(acme.mailbox, add_listener("pop3"))
    path = f"/sessions/{session.pk}/"
    dry = admin.send("DELETE", path, query="dry_run=true").json()
    assert dry["would"]["summary"] == "ends a session of an@acme.test"
    assert admin.read(path)["open"]
    assert admin.send("DELETE", path).status_code == 204
    shown = admin.read(path)
    assert (shown["open"], shown["end"]) == (False, "ended")
    assert admin.send("DELETE", path).status_code == 204
    assert AuditEvent.objects.filter(action="session.ended").count() == 1


@pytest.mark.parametrize("role", ["tenant-admin", "support", "member"])
def test_another_tenants_session_does_not_exist(acme: Customer, globex: Customer, role: str) -> None:
    within = {"mailbox": acme.mailbox} if role == "member" else {"tenant": acme.tenant}
    asker = Program(token_text(role, **within))
    foreign = add_session(globex.mailbox, add_listener("pop3"))
    for method in ("GET", "DELETE"):
        assert refusal(asker.send(method, f"/sessions/{foreign.pk}/"), 404)
    assert refusal(asker.send("GET", "/mailboxes/an@globex.test/sessions/"), 404)
    assert refusal(asker.send("GET", f"/mailboxes/an@acme.test/sessions/{foreign.pk}/"), 404)
    assert ids(asker) == []
    foreign.refresh_from_db()
    assert foreign.ended_at is None
