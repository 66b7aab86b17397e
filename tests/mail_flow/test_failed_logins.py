"""Why a login over POP3 failed is kept within two seconds, and the client learns no more than before."""

import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import app_passwords, provisioning
from accounts.models import AppPassword, FailedLogin, Mailbox, Role
from accounts.principals import Principal
from mailstore import configured, why
from tests.fixtures import PASSWORD, Customer
from tests.servers import eventually
from tests.system import Pop3Listener, System, failures

Reason = FailedLogin.Reason


def attempt(listener: Pop3Listener, name: object, password: str = PASSWORD, *, source: str = "") -> bytes:
    with listener.client(source=source) as client:
        client.ask(f"USER {name}".encode())
        return client.ask(f"PASS {password}".encode())


def kept(within: float = 10.0, **which: Any) -> list[FailedLogin]:
    """What is kept, once there is something."""
    deadline = time.monotonic() + within
    while not (rows := list(FailedLogin.objects.filter(**which).order_by("pk"))):
        assert time.monotonic() < deadline, "nothing is kept"
        time.sleep(0.05)
    return rows


def test_a_wrong_password_is_kept_with_where_it_came_from(pop3: Pop3Listener, acme: Customer) -> None:
    assert attempt(pop3, acme.mailbox, "wrong", source="127.4.1.9") == b"-ERR [AUTH] wrong name or password"
    [row] = kept(mailbox=acme.mailbox)
    assert (row.reason, row.network, row.client_address, row.count) == (
        Reason.PASSWORD, "127.4.1.0/24", "127.4.1.9", 1,
    )  # fmt: skip
    assert (row.tenant, row.domain, row.through, row.address) == (acme.tenant, acme.domain, "pop3", "")
    found = {
        one.code: one for one in why.findings(acme.mailbox.address, Principal(role=Role.OPERATOR), configured.looking())
    }
    assert "A wrong password. It came from 127.4.1.9 through POP3" in found["failed-password"].text


def test_a_right_password_that_does_not_help_is_kept_with_what_stands_against_it(
    pop3: Pop3Listener, acme: Customer
) -> None:
    cases: dict[str, tuple[dict[str, Any], Reason]] = {
        "suspended": ({"state": "suspended"}, Reason.STATE),
        "off": ({"state": "no-login"}, Reason.STATE),
        "no-pop3": ({"pop3_enabled": False}, Reason.NO_POP3),
        "elsewhere": ({"allowed_networks": ["192.0.2.0/24"]}, Reason.NETWORK),
    }
    for name, (values, reason) in cases.items():
        mailbox, _ = provisioning.add_mailbox(f"{name}@{acme.domain}", password=PASSWORD, quota_octets=None)
        Mailbox.objects.filter(pk=mailbox.pk).update(**values)
        assert attempt(pop3, mailbox).startswith(b"-ERR [SYS/PERM]")
        assert [row.reason for row in kept(mailbox=mailbox)] == [reason]


def test_an_app_password_that_is_not_good_is_kept_with_its_device(pop3: Pop3Listener, acme: Customer) -> None:
    device, text = app_passwords.create(acme.mailbox, name="Outlook office")
    AppPassword.objects.filter(pk=device.pk).update(expires_at=timezone.now() - timedelta(days=1))
    assert attempt(pop3, acme.mailbox, text).startswith(b"-ERR [AUTH]")
    [row] = kept(mailbox=acme.mailbox)
    assert (row.reason, row.app_password_id) == (Reason.EXPIRED, device.pk)


def test_a_maildrop_that_is_in_use_is_kept(pop3: Pop3Listener, acme: Customer) -> None:
    with pop3.session(acme.mailbox):
        assert attempt(pop3, acme.mailbox).startswith(b"-ERR [IN-USE]")
        assert [row.reason for row in kept(mailbox=acme.mailbox)] == [Reason.IN_USE]


def test_an_address_that_nobody_has_is_kept_for_its_domain(
    pop3: Pop3Listener, acme: Customer, globex: Customer
) -> None:
    attempt(pop3, f"Nobody@{acme.domain}")
    [row] = kept(domain=acme.domain)
    assert (row.address, row.reason, row.tenant, row.mailbox) == (
        f"nobody@{acme.domain}", Reason.UNKNOWN, acme.tenant, None,
    )  # fmt: skip
    assert not FailedLogin.objects.filter(tenant=globex.tenant).exists()


@pytest.fixture(scope="module")
def guarded(system: System) -> Iterator[Pop3Listener]:
    """A listener with its throttle on."""
    with system.pop3(MAILHOST_THROTTLE="on") as listener:
        yield listener


def test_what_is_refused_unseen_is_kept_as_that(system: System, guarded: Pop3Listener, acme: Customer) -> None:
    with guarded.client(source="127.4.2.1") as first:  # many connections: their refusals are put off
        first.ask(b"NOOP")
        connections = []
        for number in range(15):
            one = socket.create_connection(guarded.address, source_address=("127.4.2.1", 0))
            one.sendall(f"USER {acme.mailbox}\r\nPASS guess{number}\r\n".encode())
            connections.append(one)
        eventually(lambda: failures(system, "127.4.2.1") == 15)
        assert b"too many" in attempt(guarded, acme.mailbox, source="127.4.2.1")
    [row] = kept(mailbox=acme.mailbox, reason=Reason.UNSEEN)
    assert row.network == "127.4.2.0/24"
    for one in connections:
        one.close()


def test_a_login_that_works_leaves_nothing(pop3: Pop3Listener, acme: Customer) -> None:
    with pop3.session(acme.mailbox) as client:
        client.ask(b"QUIT")
    time.sleep(1.2)
    assert not FailedLogin.objects.filter(tenant=acme.tenant).exists()
