"""Postfix in front: what it queues arrives once, whatever happens on the way, and bounces only what nobody has."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from email import message_from_bytes
from itertools import count
from pathlib import Path

import pytest

from accounts import provisioning
from accounts.models import Mailbox
from mailstore.models import Message
from tests.fixtures import PASSWORD, Customer
from tests.mail_flow.postfix import Postfix
from tests.servers import eventually
from tests.system import LmtpListener, Pop3Listener, System

pytestmark = [
    pytest.mark.skipif(not Path("/usr/sbin/postfix").exists(), reason="Postfix is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Postfix must be started by root"),
]

DOMAIN = "postfix.test"
BY_PATH = "by-path.test"  # delivered over a Unix socket


@pytest.fixture(scope="module")
def lmtp_on_path(system: System) -> Iterator[LmtpListener]:
    """A listener on a Unix socket."""
    with system.lmtp(MAILHOST_LMTP=str(system.directory / "lmtp.sock")) as listener:
        shutil.chown(system.directory / "lmtp.sock", group="postfix")
        yield listener


@pytest.fixture(scope="module")
def postfix(system: System, lmtp: LmtpListener) -> Iterator[Postfix]:
    """One instance that delivers over TCP."""
    assert isinstance(lmtp.address, tuple)
    host, port = lmtp.address
    on_path = system.directory / "lmtp.sock"
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        with Postfix.running(
            Path(directory),
            system.port(),
            domains=[DOMAIN, BY_PATH, "unhosted.test"],
            virtual_transport=f"lmtp:inet:{host}:{port}",
            transport_maps=f"inline:{{{BY_PATH}=lmtp:unix:{on_path}}}",
            lmtp_destination_recipient_limit="2000",  # more than we take
        ) as postfix:
            yield postfix


@pytest.fixture
def customer(models: None) -> Customer:
    """The tenant whose domain Postfix hosts, with a mailbox that other tests have not used."""
    tenant, _ = provisioning.add_tenant("postfix")
    domain, _ = provisioning.add_domain(DOMAIN, tenant=tenant)
    name = f"an{Mailbox.objects.count()}@{domain}"
    return Customer(tenant, domain, provisioning.add_mailbox(name, password=PASSWORD, quota_octets=None)[0])


numbers = count(1)


def letter(subject: str, *, body: str = "hello\r\n") -> bytes:
    """A message to which Postfix has nothing to add but its trace."""
    return (
        "From: binh@elsewhere.test\r\nTo: an@elsewhere.test\r\nDate: Mon, 23 Nov 2026 09:00:00 +0000\r\n"
        f"Message-ID: <{next(numbers)}@elsewhere.test>\r\nSubject: {subject}\r\n\r\n{body}"
    ).encode()


def subjects(mailbox: Mailbox) -> list[str]:
    return [message.subject for message in Message.objects.in_maildrop(mailbox).order_by("uid")]


def test_what_is_queued_arrives_octet_by_octet(postfix: Postfix, pop3: Pop3Listener, customer: Customer) -> None:
    another = customer.add(f"another{customer.mailbox.pk}")
    body = "".join(
        [".\r\n", "..hidden\r\n", "\r\n", "Chào An, hẹn gặp lúc ba giờ.\r\n", "x" * 5000 + "\r\n", "line\r\n" * 100_000]
    )
    message = letter("all", body=body)
    with postfix.smtp() as client:
        assert client.sendmail("binh@elsewhere.test", [str(customer.mailbox), str(another)], message) == {}
    postfix.wait_until_empty()
    assert subjects(another) == ["all"]
    with pop3.session(customer.mailbox) as session:
        [octets] = session.sizes()
        copy = session.retrieve(1)
    assert len(copy) == octets
    assert copy.endswith(message)
    header = copy.partition(b"\r\n\r\n")[0].decode()
    assert header.startswith(f"Return-Path: <binh@elsewhere.test>\r\nDelivered-To: {customer.mailbox}\r\n")
    assert header.count("Received: ") == 2  # Postfix's and ours


def test_who_has_no_mailbox_is_refused_before_the_mail_is_taken(postfix: Postfix, customer: Customer) -> None:
    with postfix.smtp() as client:
        client.ehlo()
        client.mail("binh@elsewhere.test")
        code, text = client.rcpt(f"nobody@{customer.domain}")
        assert (code, text[:5]) == (550, b"5.1.1")
        code, _ = client.rcpt(str(customer.mailbox))
        assert code == 250
        code, text = client.rcpt("somebody@elsewhere.test")  # nobody is relayed for
        assert (code, text[:5]) == (554, b"5.7.1")
        client.rset()


def test_of_many_recipients_only_the_unknown_one_is_bounced(
    postfix: Postfix, pop3: Pop3Listener, customer: Customer
) -> None:
    sender = customer.mailbox
    known = [customer.add(f"{name}{sender.pk}") for name in ("b", "c")]
    postfix.send(
        letter("to many"), known[0], f"nobody@{customer.domain}", known[1], "x@unhosted.test", sender=str(sender)
    )
    postfix.wait_until_empty()
    assert [subjects(mailbox) for mailbox in known] == [["to many"]] * 2
    with pop3.session(sender) as session:
        reports = [message_from_bytes(session.retrieve(number)) for number in range(1, len(session.sizes()) + 1)]
    told = {
        line.partition(";")[2].strip(): next(lines).removeprefix("Status: ")
        for report in reports
        for lines in [iter(report.as_string().splitlines())]
        for line in lines
        if line.startswith("Final-Recipient:")
        for _ in [next(lines)]  # Original-Recipient
        for _ in [next(lines)]  # Action
    }
    assert told == {f"nobody@{customer.domain}": "5.1.1", "x@unhosted.test": "5.1.2"}
    assert {report["Return-Path"] for report in reports} == {"<>"}


def test_a_copy_that_is_deferred_comes_later_and_the_others_do_not_come_again(
    postfix: Postfix, customer: Customer
) -> None:
    suspended = customer.add(f"suspended{customer.mailbox.pk}")
    provisioning.suspend(suspended)
    postfix.send(letter("to both"), customer.mailbox, suspended, sender="binh@elsewhere.test")
    eventually(lambda: "deferred" in postfix.status_of(suspended))
    assert (subjects(customer.mailbox), subjects(suspended)) == (["to both"], [])
    provisioning.resume(suspended)
    postfix.flush()
    postfix.wait_until_empty()
    assert (subjects(customer.mailbox), subjects(suspended)) == (["to both"], ["to both"])


@pytest.mark.slow
def test_mail_waits_for_the_database_and_comes_once(system: System, postfix: Postfix, customer: Customer) -> None:
    mailboxes = [customer.mailbox, customer.add(f"b{customer.mailbox.pk}")]
    with system.without_postgres():
        for number in range(3):
            postfix.send(letter(f"waiting {number}"), *mailboxes, sender="binh@elsewhere.test")
        eventually(lambda: postfix.status_of(mailboxes[0]).count("deferred") >= 3)
    postfix.flush()
    postfix.wait_until_empty()
    for mailbox in mailboxes:
        assert sorted(subjects(mailbox)) == [f"waiting {number}" for number in range(3)]
        assert set(postfix.status_of(mailbox)) == {"deferred", "sent"}


def test_more_recipients_than_one_transaction_takes_get_one_copy_each(postfix: Postfix, customer: Customer) -> None:
    """Those beyond the limit are told to come again; the same mailbox under another subaddress is no new copy."""
    local, _, domain = str(customer.mailbox).partition("@")
    another = customer.add(f"last{customer.mailbox.pk}")
    addresses = [f"{local}+{number}@{domain}" for number in range(1200)]
    postfix.send(letter("newsletter"), *addresses, another, sender="binh@elsewhere.test")
    postfix.wait_until_empty()
    assert "said: 452 4.5.3 Too many recipients" in postfix.log
    assert subjects(customer.mailbox) == ["newsletter"]
    assert subjects(another) == ["newsletter"]
    for address in (addresses[0], addresses[-1]):
        assert postfix.status_of(address)[-1] == "sent"


def test_delivery_over_a_unix_socket(postfix: Postfix, lmtp_on_path: LmtpListener, customer: Customer) -> None:
    domain, _ = provisioning.add_domain(BY_PATH, tenant=customer.tenant)
    mailbox, _ = provisioning.add_mailbox(f"an@{domain}", password=None, quota_octets=None)
    postfix.send(letter("by path"), mailbox, sender="binh@elsewhere.test")
    postfix.wait_until_empty()
    assert subjects(mailbox) == ["by path"]
