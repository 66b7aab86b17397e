from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import app_passwords, provisioning
from accounts.models import AuditEvent, Mailbox
from mailstore import search
from mailstore.models import Message
from tests.accounts.api.programs import Program, refusal, token_text
from tests.fixtures import Customer, WebClient
from tests.mailstore import post
from tests.mailstore.rows import add_listener, add_message, add_session, put_away

LIST = "/mailboxes/an@acme.test/messages/"
FOREIGN = "/mailboxes/an@globex.test/messages/"


def ids(program: Program, path: str = LIST, query: str = "") -> list[int]:
    return [message["id"] for message in program.read(path, query)["items"]]


def subjects(program: Program, query: str, path: str = LIST) -> list[str]:
    return [message["subject"] for message in program.read(path, query)["items"]]


def counters(mailbox: Mailbox) -> tuple[int, int]:
    mailbox.refresh_from_db()
    return mailbox.message_count, mailbox.used_octets


# --- Lists ---------------------------------------------------------------------------------------------------------


def test_a_message_is_shown_with_its_life(acme: Customer, admin: Program) -> None:
    session = add_session(acme.mailbox, add_listener("pop3"))
    message = add_message(
        acme.mailbox,
        subject="hello",
        sender="Binh <binh@elsewhere.test>",
        first_fetched_in=session,
        expunged_in=session,
    )
    shown = admin.read(f"{LIST}{message.pk}/")
    assert shown["mailbox"] == "an@acme.test"
    assert shown["state"] == "removed"
    assert shown["unique_id"] == message.unique_id
    assert shown["subject"] == "hello"
    assert shown["first_fetched_in"] == shown["expunged_in"] == str(session.pk)
    assert shown["expunged_by"] == ""
    assert shown["purge_due_at"] > shown["expunged_at"]
    assert admin.read(f"/messages/{message.pk}/") == shown


def test_what_happened_to_a_message_is_told_in_order(acme: Customer, globex: Customer, admin: Program) -> None:
    device, _ = app_passwords.create(acme.mailbox, name="Outlook office")
    session = add_session(acme.mailbox, add_listener("pop3"), client_address="192.0.2.7", app_password_id=device.pk)
    message = add_message(acme.mailbox, first_fetched_in=session, expunged_in=session)
    Message.objects.filter(pk=message.pk).update(
        trace=b"Return-Path: <>\r\nReceived: from mx.example ([192.0.2.9])\r\n\tby here with LMTP id 77aa;\r\n"
    )
    events = admin.read(f"{LIST}{message.pk}/life/")
    assert [event["kind"] for event in events] == ["delivered", "fetched", "removed", "due"]
    delivered, fetched, _removed, due = events
    assert (delivered["from_host"], delivered["from_address"], delivered["queue_id"], delivered["session"]) == (
        "mx.example", "192.0.2.9", "77aa", None,
    )  # fmt: skip
    assert (fetched["device"], fetched["client_address"]) == ("Outlook office", "192.0.2.7")
    assert fetched["session"] == str(session.pk)
    assert due["at"] > fetched["at"]
    assert admin.read(f"/messages/{message.pk}/life/") == events
    theirs = add_message(globex.mailbox)
    for path in (f"/messages/{theirs.pk}/life/", f"{FOREIGN}{theirs.pk}/life/", f"{LIST}{theirs.pk}/life/"):
        assert refusal(admin.send("GET", path), 404)


def test_what_must_be_kept_is_not_due(acme: Customer, admin: Program) -> None:
    message = add_message(acme.mailbox, expunged_at=timezone.now())
    provisioning.set_legal_hold(acme.mailbox, True)
    assert admin.read(f"{LIST}{message.pk}/")["purge_due_at"] is None


def test_when_a_message_goes_for_good_follows_the_nearest_retention(acme: Customer, admin: Program) -> None:
    moment = timezone.now().replace(microsecond=0)
    message = add_message(acme.mailbox, expunged_at=moment)
    acme.tenant.retention = timedelta(days=3)
    acme.tenant.save()
    due = (moment + timedelta(days=3)).isoformat().replace("+00:00", "Z")
    assert admin.read(f"{LIST}{message.pk}/")["purge_due_at"] == due
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(retention=timedelta(0))
    assert admin.read(f"{LIST}{message.pk}/")["purge_due_at"].startswith(moment.isoformat()[:19])


def test_pages_go_through_all_messages_once(acme: Customer, globex: Customer, admin: Program) -> None:
    added = [add_message(acme.mailbox).pk for _ in range(7)]
    add_message(globex.mailbox)
    for path in (LIST, "/messages/"):
        seen: list[int] = []
        cursor = ""
        while True:
            page = admin.read(path, f"limit=3{cursor}")
            seen += [message["id"] for message in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert seen == added[::-1], path
    assert admin.read("/messages/", "count=estimate")["count"] == {"rows": 7, "exact": True}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=maildrop", ["three", "one"]),
        ("state=fetched", ["three"]),
        ("state=removed", ["two"]),
        ("subject=W", ["two"]),
        ("subject=nothing", []),
        ("sender=binh%40", ["one"]),
        ("message_id=abc@x", ["one"]),
        ("message_id=%3Cabc@x%3E", ["one"]),
        ("message_id=abc", []),
        ("reverse_path=binh%40elsewhere.test", ["one"]),
        ("delivered_since=2026-01-02T00:00:00Z", ["three", "two"]),
        ("delivered_until=2026-01-02T00:00:00Z", ["one"]),
        ("expunged_since=2026-01-01T00:00:00Z", ["two"]),
        ("expunged_until=2026-01-01T00:00:00Z", []),
        ("min_octets=1", ["three", "two", "one"]),
        ("max_octets=1", []),
        ("ordering=delivered_at", ["one", "two", "three"]),
        ("ordering=uid", ["one", "two", "three"]),
        ("ordering=expunged_at", ["two", "one", "three"]),
    ],
)
def test_a_filter_finds(acme: Customer, globex: Customer, admin: Program, query: str, found: list[str]) -> None:
    one = add_message(
        acme.mailbox, subject="one", sender="binh@x", message_id="<abc@x>", reverse_path="binh@elsewhere.test"
    )
    Message.objects.filter(pk=one.pk).update(delivered_at="2026-01-01T00:00:00Z")
    add_message(acme.mailbox, subject="two", expunged_at=timezone.now())
    add_message(acme.mailbox, subject="three", first_fetched_at=timezone.now())
    add_message(globex.mailbox, subject="two", sender="binh@x", message_id="abc@x", expunged_at=timezone.now())
    assert subjects(admin, query) == found
    if "ordering" not in query:
        assert subjects(admin, query, "/messages/") == found


def test_messages_are_found_by_session_unique_id_and_owner(
    acme: Customer, globex: Customer, admin: Program, host: Program
) -> None:
    session = add_session(acme.mailbox, add_listener("pop3"))
    one = add_message(acme.mailbox, expunged_in=session)
    two = add_message(acme.mailbox, first_fetched_in=session, kept_unique_id="UID7-9")
    add_message(acme.mailbox)
    foreign = add_message(globex.mailbox, kept_unique_id="UID7-9")
    assert ids(admin, query=f"session={session.pk}") == [two.pk, one.pk]
    assert ids(admin, query=f"unique_id={one.unique_id}") == [one.pk]
    assert ids(admin, query="unique_id=UID7-9") == ids(admin, "/messages/", "unique_id=UID7-9") == [two.pk]
    assert ids(admin, query=f"unique_id={acme.mailbox.pk:x}.1.{two.uid:x}") == []  # nobody ever saw it under that
    assert ids(admin, query="unique_id=" + "f" * 40 + ".1.1") == []
    assert ids(host, "/messages/", "unique_id=UID7-9") == [foreign.pk, two.pk]
    for query in ("mailbox=AN@Globex.test", "domain=globex.test", "tenant=globex"):
        assert ids(host, "/messages/", query) == [foreign.pk]
        assert ids(admin, "/messages/", query) == []
    assert len(ids(admin, "/messages/", "mailbox=AN@acme.test")) == 3
    for query in ("mailbox=nonsense", "domain=%2F"):
        assert ids(host, "/messages/", query) == []


def test_another_tenants_session_is_nobodys(acme: Customer, globex: Customer, admin: Program) -> None:
    add_message(acme.mailbox)
    session = add_session(globex.mailbox, add_listener("pop3"))
    add_message(globex.mailbox, expunged_in=session)
    assert ids(admin, "/messages/", f"session={session.pk}") == []
    problem = refusal(admin.send("POST", "/messages/restore/", {"session": str(session.pk)}), 422)
    assert problem["code"] == "unknown-session"


@pytest.mark.parametrize(
    "query",
    ["colour=red", "state=gone", "session=7", "min_octets=-1", "min_octets=1.5", "delivered_since=x", "limit=0",
     "ordering=subject", "unique_id=a&unique_id=b", "subject=%00"],
)  # fmt: skip
def test_a_wrong_parameter_is_refused(acme: Customer, admin: Program, query: str) -> None:
    for path in (LIST, "/messages/"):
        assert refusal(admin.send("GET", path, query=query), 400)["code"] == "bad-parameter", path


def test_a_search_that_takes_too_long_is_given_up(
    acme: Customer, admin: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LONGEST", "1ms")

    def slow(self: Any, rows: Any, name: str, text: str) -> Any:
        return rows.extra(where=["pg_sleep(1) IS NULL"])

    add_message(acme.mailbox)
    monkeypatch.setattr("mailstore.api.messages.MessageFilters.of_unique_id", slow)
    assert refusal(admin.send("GET", LIST, query="unique_id=x"), 400)["code"] == "too-broad"
    assert ids(admin)  # and nothing of it stays


# --- Contents ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_content_comes_octet_by_octet_and_is_written_in_the_audit(acme: Customer, admin: Program, lines: int) -> None:
    sent = post.text(body=".dot\r\n" * lines)
    [message] = post.fill(acme.mailbox, [sent])
    answer = admin.send("GET", f"{LIST}{message.pk}/content/", Accept="message/rfc822")
    assert answer.status_code == 200
    assert answer["Content-Type"] == "message/rfc822"
    found = answer.getvalue()
    assert found.endswith(sent)
    assert len(found) == int(answer["Content-Length"]) == message.octets
    event = AuditEvent.objects.get(action="message.read")
    assert (event.target_id, event.mailbox_id, event.role) == (message.pk, acme.mailbox.pk, "tenant-admin")
    assert event.changes == {"what": "source"}


def test_support_reads_no_content(acme: Customer, globex: Customer) -> None:
    support = Program(token_text("support", tenant=acme.tenant))
    mine, foreign = add_message(acme.mailbox), add_message(globex.mailbox)
    assert support.read(f"{LIST}{mine.pk}/")
    assert refusal(support.send("GET", f"{LIST}{mine.pk}/content/"), 403)["code"] == "not-allowed"
    assert refusal(support.send("GET", f"{LIST}{foreign.pk}/content/"), 404)
    assert refusal(support.send("GET", f"{FOREIGN}{foreign.pk}/content/"), 404)
    assert not AuditEvent.objects.filter(action="message.read").exists()


def test_owners_read_their_own(acme: Customer, globex: Customer) -> None:
    other = acme.add("binh")
    mine, foreign = add_message(acme.mailbox), add_message(other)
    browser = WebClient()
    browser.force_login(acme.mailbox.user)
    assert browser.get(f"/api/v1{LIST}{mine.pk}/content/").status_code == 200
    assert browser.get(f"/api/v1{LIST}{foreign.pk}/content/").status_code == 404
    assert browser.get(f"/api/v1/mailboxes/binh@acme.test/messages/{foreign.pk}/content/").status_code == 404
    assert [one["id"] for one in browser.get("/api/v1/messages/").json()["items"]] == [mine.pk]


# --- Removing, and bringing back -----------------------------------------------------------------------------------


def test_messages_are_removed_and_restored_by_id(acme: Customer, admin: Program) -> None:
    one, two = add_message(acme.mailbox), add_message(acme.mailbox)
    before = counters(acme.mailbox)
    answer = admin.send("POST", f"{LIST}expunge/", {"ids": [one.pk, two.pk]})
    assert answer.json() == {"messages": 2, "octets": before[1], "mailboxes": 1}
    assert counters(acme.mailbox) == (0, 0)
    assert admin.send("POST", f"{LIST}expunge/", {"ids": [one.pk]}).json()["messages"] == 0
    answer = admin.send("POST", "/messages/restore/", {"ids": [two.pk, one.pk]})
    assert answer.json() == {"messages": 2, "octets": before[1], "mailboxes": 1}
    assert counters(acme.mailbox) == before
    told = [(event.action, event.changes) for event in AuditEvent.objects.filter(action__contains="messages")]
    assert told == [
        ("mailbox.messages_expunged", {"messages": 2, "octets": before[1]}),
        ("mailbox.messages_restored", {"messages": 2, "octets": before[1]}),
    ]


def test_a_dry_run_tells_numbers_and_moves_nothing(acme: Customer, admin: Program) -> None:
    one = add_message(acme.mailbox, expunged_at=timezone.now())
    answer = admin.send("POST", f"{LIST}restore/", {"ids": [one.pk]}, query="dry_run=true").json()
    assert answer["would"] == {
        "action": "restore",
        "summary": f"restores 1 message, {one.octets} B, to 1 mailbox",
        "counts": {"messages": 1, "octets": one.octets, "mailboxes": 1},
    }
    assert counters(acme.mailbox) == (0, 0)
    assert not AuditEvent.objects.filter(action="mailbox.messages_restored").exists()


def test_who_removed_a_message_is_shown(acme: Customer) -> None:
    browser = WebClient()
    browser.force_login(acme.mailbox.user)
    one = add_message(acme.mailbox)
    answer = browser.post(f"/api/v1{LIST}expunge/", {"ids": [one.pk]}, content_type="application/json")
    assert answer.status_code == 200
    assert browser.get(f"/api/v1{LIST}{one.pk}/").json()["expunged_by"] == f"user {acme.mailbox.user_id}"


def test_a_session_is_undone(acme: Customer, admin: Program) -> None:
    session = add_session(acme.mailbox, add_listener("pop3"))
    taken = [add_message(acme.mailbox, expunged_in=session).pk for _ in range(3)]
    add_message(acme.mailbox, expunged_at=timezone.now())
    answer = admin.send("POST", f"{LIST}restore/", {"session": str(session.pk)})
    assert answer.json()["messages"] == 3
    assert sorted(ids(admin, query="state=maildrop")) == taken


def test_a_maildrop_is_again_what_it_was(acme: Customer, admin: Program) -> None:
    def at(hour: int) -> str:
        return f"2026-11-20T{hour:02}:00:00Z"

    before = add_message(acme.mailbox, subject="removed before", expunged_at=at(9))
    then = add_message(acme.mailbox, subject="removed since", expunged_at=at(15))
    later = add_message(acme.mailbox, subject="came later", expunged_at=at(15))
    Message.objects.filter(pk__in=[before.pk, then.pk]).update(delivered_at=at(8))
    Message.objects.filter(pk=later.pk).update(delivered_at=at(13))
    assert admin.send("POST", f"{LIST}restore/", {"as_of": at(12)}).json()["messages"] == 1
    assert subjects(admin, "state=maildrop") == ["removed since"]
    assert refusal(admin.send("POST", "/messages/restore/", {"as_of": at(12)}), 422)["code"] == "invalid"


def test_without_room_nothing_comes_back(acme: Customer, admin: Program) -> None:
    small = acme.add("small", quota_octets=1)
    one, two = add_message(acme.mailbox, expunged_at=timezone.now()), add_message(small, expunged_at=timezone.now())
    problem = refusal(admin.send("POST", "/messages/restore/", {"ids": [one.pk, two.pk]}), 409)
    assert problem["code"] == "no-room"
    assert problem["octets"] == two.octets
    assert "small@acme.test" in problem["detail"]
    assert counters(acme.mailbox) == (0, 0)


@pytest.mark.parametrize("verb", ["expunge", "restore"])
def test_another_tenants_messages_are_as_unknown_as_those_that_never_were(
    acme: Customer, globex: Customer, admin: Program, verb: str
) -> None:
    mine = add_message(acme.mailbox)
    foreign = add_message(globex.mailbox)
    told = []
    for one in (foreign.pk, 10**15):
        for path in (LIST, "/messages/"):
            problem = refusal(admin.send("POST", f"{path}{verb}/", {"ids": [mine.pk, one]}), 422)
            assert problem["code"] == "unknown-message"
            told.append(str(problem).replace(str(one), "-"))
    assert len(set(told)) == 1
    assert problem["errors"][0]["field"] == "ids.1"
    assert counters(acme.mailbox)[0] == counters(globex.mailbox)[0] == 1


def test_a_message_of_another_mailbox_is_not_this_ones(acme: Customer, admin: Program) -> None:
    other = acme.add("binh")
    message = add_message(other)
    session = add_session(other, add_listener("pop3"))
    assert refusal(admin.send("GET", f"{LIST}{message.pk}/"), 404)
    assert refusal(admin.send("POST", f"{LIST}expunge/", {"ids": [message.pk]}), 422)
    assert refusal(admin.send("POST", f"{LIST}restore/", {"session": str(session.pk)}), 422)


@pytest.mark.parametrize(
    "body",
    [{}, {"ids": []}, {"ids": [0]}, {"ids": [2**63]}, {"ids": ["x"]}, {"session": "x"}, {"colour": 1},
     {"ids": [1], "session": "5f0c9b1e-0000-4000-8000-000000000000"}, {"as_of": "x"}, {"as_of": None}],
)  # fmt: skip
def test_a_wrong_choice_is_refused(acme: Customer, admin: Program, body: dict[str, Any]) -> None:
    assert refusal(admin.send("POST", f"{LIST}restore/", body), 422)["code"] == "invalid"


def test_a_repeated_request_is_answered_again_and_done_once(acme: Customer, admin: Program) -> None:
    one = add_message(acme.mailbox)
    first = admin.send("POST", f"{LIST}expunge/", {"ids": [one.pk]}, Idempotency_Key="k1")
    again = admin.send("POST", f"{LIST}expunge/", {"ids": [one.pk]}, Idempotency_Key="k1")
    assert first.json() == again.json()
    assert again.json()["messages"] == 1
    assert again["Idempotent-Replayed"] == "true"


# --- Devices with own copies ---------------------------------------------------------------------------------------


def test_what_each_device_did_is_shown_and_a_session_of_one_is_undone(
    acme: Customer, globex: Customer, admin: Program
) -> None:
    phone, _ = app_passwords.create(acme.mailbox, name="Phone", own_copy=True)
    office, _ = app_passwords.create(acme.mailbox, name="Office", own_copy=True)
    listener = add_listener("pop3")
    message, other = add_message(acme.mailbox), add_message(acme.mailbox)
    sessions = {
        device: add_session(
            acme.mailbox, listener, app_password_id=device.pk, view=device.pk, ended_at=timezone.now(), expunged=1
        )
        for device in (phone, office)
    }
    for device, session in sessions.items():
        put_away(message, device, session)
    put_away(other, phone, sessions[phone])
    before = counters(acme.mailbox)

    copies = admin.read(f"{LIST}{message.pk}/")["own_copies"]
    assert {copy["device"]: copy["removed_in"] for copy in copies} == {
        device.name: str(session.pk) for device, session in sessions.items()
    }
    assert admin.read(f"/sessions/{sessions[phone].pk}/")["own_copy"] is True
    assert ids(admin, query=f"session={sessions[office].pk}") == [message.pk]
    assert ids(admin, query=f"unique_id={message.unique_id}.1") == [message.pk]

    answer = admin.send("POST", f"{LIST}restore/", {"session": str(sessions[phone].pk)})
    assert answer.json() == {"messages": 2, "octets": message.octets + other.octets, "mailboxes": 1}
    assert counters(acme.mailbox) == before
    copies = {copy["device"]: copy for copy in admin.read(f"{LIST}{message.pk}/")["own_copies"]}
    assert (copies["Phone"]["removed_at"], copies["Phone"]["returns"]) == (None, 1)
    assert (copies["Office"]["removed_in"], copies["Office"]["returns"]) == (str(sessions[office].pk), 0)

    foreign = Program(token_text("tenant-admin", tenant=globex.tenant))
    refusal(foreign.send("POST", "/messages/restore/", {"session": str(sessions[office].pk)}), 422)


def test_a_page_of_messages_asks_as_often_for_many_devices_as_for_one(acme: Customer, admin: Program) -> None:
    listener = add_listener("pop3")

    def asked() -> int:
        with CaptureQueriesContext(connection) as queries:
            admin.read(LIST)
        return len(queries)

    asked()
    counts = []
    for number in range(2):
        phone, _ = app_passwords.create(acme.mailbox, name=f"Phone {number}", own_copy=True)
        session = add_session(acme.mailbox, listener, view=phone.pk, ended_at=timezone.now())
        for _ in range(5):
            put_away(add_message(acme.mailbox), phone, session)
        counts.append(asked())
    assert counts[0] == counts[1]
