"""Why an address does not work, over the API: for whoever supports others, in what exists for him."""

from collections.abc import Callable

from accounts import provisioning
from accounts.models import Mailbox
from tests.accounts.api.programs import Program, refusal
from tests.fixtures import Customer
from tests.mailstore.rows import add_failed_login


def codes(asker: Program, address: str) -> list[str]:
    return [one["code"] for one in asker.read("/why/", f"address={address}")["findings"]]


def test_reasons_are_told_with_what_helps(program: Callable[[str], Program], acme: Customer) -> None:
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(pop3_enabled=False)
    add_failed_login(acme.mailbox, count=3)
    shown = program("tenant-admin").read("/why/", "address=%20AN@Acme.test")
    assert shown["address"] == "an@acme.test"
    first, second = shown["findings"][:2]
    assert first == {
        "code": "pop3-off", "about": "login", "severity": "wrong", "text": "POP3 is off for an@acme.test.",
        "facts": {}, "actions": ["enable-pop3"],
    }  # fmt: skip
    assert second["facts"] | {"first_at": 0, "last_at": 0} == {
        "network": "192.0.2.0/24", "through": "pop3", "app_password_id": None, "first_at": 0, "last_at": 0,
        "client_address": "192.0.2.7", "count": 3,
    }  # fmt: skip
    assert program("support").read("/why/", "address=an@acme.test")["findings"][0]["actions"] == []


def test_what_is_anothers_is_answered_like_what_is_nowhere(
    program: Callable[[str], Program], acme: Customer, globex: Customer
) -> None:
    provisioning.suspend(globex.mailbox)
    for role in ("tenant-admin", "domain-admin", "support"):
        theirs, nowhere = (
            program(role).read("/why/", f"address=an@{domain}.test")["findings"] for domain in ("globex", "golbex")
        )
        assert str(theirs).replace("globex", "golbex") == str(nowhere)
    assert "login-off" in codes(program("operator"), "an@globex.test")


def test_what_is_no_address_is_refused(program: Callable[[str], Program], acme: Customer) -> None:
    for text in ("", "address=", "address=a+b", "address=%00@acme.test"):
        problem = refusal(program("tenant-admin").send("GET", "/why/", query=text), 400)
        assert problem["code"] == "bad-parameter"
    assert refusal(program("member").send("GET", "/why/", query="address=an@acme.test"), 403)
