"""Mail that goes on to addresses outside, handed to a real SMTP server."""

import socket
from collections.abc import Iterator
from datetime import timedelta
from email import message_from_bytes
from email.policy import default
from itertools import count
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope
from django.utils import timezone

from accounts import limits, provisioning
from accounts.database_roles import LISTENER
from accounts.models import Alias, AliasTarget, AuditEvent, Mailbox
from mailstore import drift, forwarding, srs
from mailstore.delivery import CHUNK_OCTETS, Outcome
from mailstore.forwarding import Config, Done
from mailstore.models import Content, Forward, ForwardLedger, Message, Refusal
from mailstore.purging import Keep, purge
from tests.fixtures import Customer
from tests.mailstore import post
from tests.servers import free_port

pytestmark = pytest.mark.django_db(transaction=True)

KEY = b"key"
ABROAD = "binh@abroad.test"
SENDER = "binh@elsewhere.test"


class Mta:
    """An SMTP server that keeps what it gets, and refuses what it is told to."""

    def __init__(self, *, smtputf8: bool = True) -> None:
        self.envelopes: list[Envelope] = []
        self.answers: dict[str, str] = {}  # by recipient
        self.after_data: dict[str, str] = {}
        self.smtputf8 = smtputf8
        mta = self

        class Server(Controller):
            def factory(self) -> SMTP:
                return SMTP(mta, enable_SMTPUTF8=mta.smtputf8, hostname="mta.test", data_size_limit=100_000_000)

        self.port = free_port()
        self._controller = Server(self, hostname="127.0.0.1", port=self.port)

    def __enter__(self) -> "Mta":
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]) -> str:
        if answer := self.answers.get(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        if answer := self.after_data.get(envelope.rcpt_tos[0]):
            return answer
        self.envelopes.append(envelope)
        return "250 2.0.0 Ok"


@pytest.fixture
def mta() -> Iterator[Mta]:
    with Mta() as mta:
        yield mta


@pytest.fixture(autouse=True)
def nothing_drifts(transactional_db: None) -> Iterator[None]:
    yield
    assert list(drift.find()) == []


def alias(customer: Customer, local_part: str, *targets: Mailbox | str) -> Alias:
    address = f"{local_part}@{customer.domain}"
    made = Alias.objects.create(tenant=customer.tenant, domain=customer.domain, address=address)
    limits.charge(tenant_id=customer.tenant.pk, domain_id=customer.domain.pk, aliases=1)
    for target in targets:
        AliasTarget.objects.create(
            tenant=customer.tenant,
            alias=made,
            mailbox=target if isinstance(target, Mailbox) else None,
            address=target if isinstance(target, str) else "",
        )
    return made


def deliver(message: bytes, *to: str, reverse_path: str = SENDER, forward_key: bytes | None = KEY) -> list[object]:
    return post.deliver(message, *to, reverse_path=reverse_path, forward_key=forward_key, role=LISTENER)


def send(mta: Mta, **changed: Any) -> Done:
    return forwarding.forward(Config(host="127.0.0.1", port=mta.port, name="mail.acme.test", key=KEY, **changed))


def due() -> None:
    Forward.objects.update(next_attempt_at=timezone.now() - timedelta(seconds=1))


@pytest.mark.parametrize("octets", [1000, CHUNK_OCTETS + 1, 3 * CHUNK_OCTETS])
def test_it_arrives_as_it_came_under_a_reverse_path_that_finds_back(acme: Customer, mta: Mta, octets: int) -> None:
    alias(acme, "sales", acme.mailbox, ABROAD)
    line = b"." * 30 + b"\r\n"
    message = post.text(queue_id="1", body=(line * (octets // len(line) + 1)).decode())
    assert deliver(message, "sales@acme.test") == [Outcome.STORED]
    assert Content.objects.count() == 1
    assert send(mta) == Done(sent=1)
    [envelope] = mta.envelopes
    assert envelope.rcpt_tos == [ABROAD]
    assert envelope.original_content is not None
    trace, _, rest = envelope.original_content.partition(b"Received: from a by b")
    assert b"Received: from a by b" + rest == message
    assert trace == b"Delivered-To: sales@acme.test\r\n"
    assert envelope.mail_from is not None
    assert envelope.mail_from.endswith("@acme.test")
    assert srs.original(envelope.mail_from, key=KEY, today=srs.today()) == SENDER
    # What lies in the mailbox keeps the content; without it, it is gone with the forward.
    assert not Forward.objects.exists()
    assert Content.objects.count() == 1


def test_the_content_stays_until_it_is_sent_and_goes_then(acme: Customer, mta: Mta) -> None:
    alias(acme, "sales", acme.mailbox, ABROAD)
    deliver(post.text(), "sales@acme.test")
    Message.objects.update(expunged_at=timezone.now() - timedelta(days=30))
    Mailbox.objects.update(used_octets=0, message_count=0)
    keep = Keep(
        retention=timedelta(days=1),
        sessions=timedelta(days=1),
        ledger=timedelta(days=1),
        listener_ttl=timedelta(minutes=1),
    )
    assert purge(keep, thorough=True).messages == 1
    assert Content.objects.count() == 1
    assert send(mta) == Done(sent=1)
    assert not Content.objects.exists()


def test_a_retry_sends_nothing_again(acme: Customer, mta: Mta) -> None:
    alias(acme, "sales", acme.mailbox, ABROAD, "chau@abroad.test")
    message = post.text(queue_id="1")
    for _ in range(3):
        assert deliver(message, "sales@acme.test")[0] in (Outcome.STORED, Outcome.ALREADY)
        send(mta)
    assert sorted(envelope.rcpt_tos[0] for envelope in mta.envelopes) == [ABROAD, "chau@abroad.test"]
    assert Message.objects.count() == 1
    assert ForwardLedger.objects.count() == 2


@pytest.mark.parametrize("octets", [100, CHUNK_OCTETS + 1])
def test_a_large_retry_leaves_no_content_behind(acme: Customer, mta: Mta, octets: int) -> None:
    alias(acme, "sales", ABROAD)
    message = post.text(queue_id="1", body="x\r\n" * octets)
    assert deliver(message, "sales@acme.test") == [Outcome.STORED]
    assert deliver(message, "sales@acme.test") == [Outcome.ALREADY]
    assert Content.objects.count() == 1
    assert send(mta) == Done(sent=1)
    assert not Content.objects.exists()


def test_while_one_target_may_succeed_later_the_answer_is_temporary(acme: Customer) -> None:
    away = acme.add("away")
    Mailbox.objects.filter(pk=away.pk).update(state=Mailbox.State.NO_RECEIVE)
    alias(acme, "sales", acme.mailbox, away, ABROAD)
    message = post.text(queue_id="1")
    assert deliver(message, "sales@acme.test") == [Outcome.DEFERRED]
    assert (Message.objects.count(), Forward.objects.count()) == (1, 1)
    Mailbox.objects.filter(pk=away.pk).update(state=Mailbox.State.ACTIVE)
    assert deliver(message, "sales@acme.test") == [Outcome.STORED]
    assert (Message.objects.count(), Forward.objects.count()) == (2, 1)


def test_without_an_mta_it_is_deferred(acme: Customer) -> None:
    alias(acme, "sales", acme.mailbox, ABROAD)
    alias(acme, "abroad", ABROAD)
    assert deliver(post.text(), "sales@acme.test", forward_key=None) == [Outcome.DEFERRED]
    [refused] = deliver(post.text(), "abroad@acme.test", forward_key=None)
    assert type(refused).__name__ == "Deferred"
    assert not Forward.objects.exists()


def test_an_mta_that_is_away_costs_nothing(acme: Customer, mta: Mta) -> None:
    alias(acme, "sales", ABROAD)
    deliver(post.text(), "sales@acme.test")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        config = Config(host="127.0.0.1", port=nobody.getsockname()[1], name="x.test", key=KEY)
        assert forwarding.forward(config) == Done()
    assert Forward.objects.get().attempts == 0
    assert send(mta) == Done(sent=1)


def test_what_is_refused_for_now_is_tried_again_ever_later(acme: Customer, mta: Mta) -> None:
    alias(acme, "sales", ABROAD, "chau@abroad.test")
    deliver(post.text(), "sales@acme.test")
    mta.answers[ABROAD] = "451 4.7.1 greylisted"
    assert send(mta) == Done(sent=1, deferred=1)
    waiting = Forward.objects.get()
    assert (waiting.attempts, waiting.last_error) == (1, "451 4.7.1 greylisted")
    assert send(mta) == Done()
    due()
    assert send(mta) == Done(deferred=1)
    assert timedelta(seconds=90) < Forward.objects.get().next_attempt_at - timezone.now() < timedelta(seconds=130)
    due()
    mta.answers.clear()
    assert send(mta) == Done(sent=1)


@pytest.mark.parametrize("how", ["refused", "after data", "too old"])
def test_its_sender_is_told_what_nobody_takes_and_not_where_it_went(acme: Customer, mta: Mta, how: str) -> None:
    made = alias(acme, "sales", ABROAD)
    deliver(post.text("secret plans"), "sales@acme.test")
    if how == "refused":
        mta.answers[ABROAD] = "550 5.1.1 nobody"
    elif how == "after data":
        mta.after_data[ABROAD] = "554 5.7.1 spam"
    else:
        mta.answers[ABROAD] = "450 4.2.1 later"
        Forward.objects.update(created_at=timezone.now() - timedelta(days=6))
    assert send(mta) == Done(sent=1, given_up=1)
    [report] = mta.envelopes
    assert (report.mail_from, report.rcpt_tos) == ("<>", [SENDER])
    assert report.original_content is not None
    parsed = message_from_bytes(report.original_content)
    assert parsed.get_content_type() == "multipart/report"
    assert [part.get_content_type() for part in parsed.walk()][1:3] == ["text/plain", "message/delivery-status"]
    assert b"Final-Recipient: rfc822; sales@acme.test" in report.original_content
    assert b"Status: 5." in report.original_content
    assert b"Subject: secret plans" in report.original_content
    assert b"abroad" not in report.original_content
    assert AuditEvent.objects.filter(action="alias.forward_failed", target_id=made.pk).exists()
    assert not Forward.objects.exists()
    assert not Content.objects.exists()


def test_a_report_is_in_its_reader_s_language_and_for_programs_in_english(
    acme: Customer, globex: Customer, mta: Mta
) -> None:
    provisioning.set_language(globex.mailbox.user, language="vi", time_zone=None)
    alias(acme, "sales", ABROAD)
    deliver(post.text(), "sales@acme.test", reverse_path="an@globex.test")
    mta.answers[ABROAD] = "550 5.1.1 nobody"
    assert send(mta) == Done(sent=1, given_up=1)
    [report] = mta.envelopes
    assert report.original_content is not None
    parsed = message_from_bytes(report.original_content, policy=default)
    assert parsed["Subject"] == "Thư của bạn không chuyển tiếp được"
    text, status = list(parsed.walk())[1:3]
    assert text.get_content().startswith("Thư bạn gửi đến sales@acme.test được chuyển tiếp")
    assert "Your message" not in text.get_content()
    assert "Action: failed" in status.as_string()


def test_a_stranger_s_report_is_in_the_host_s_language_and_in_english(acme: Customer, mta: Mta, settings: Any) -> None:
    settings.MAILHOST_LANGUAGE = "vi"
    alias(acme, "sales", ABROAD)
    deliver(post.text(), "sales@acme.test")
    mta.answers[ABROAD] = "550 5.1.1 nobody"
    assert send(mta) == Done(sent=1, given_up=1)
    [report] = mta.envelopes
    assert report.original_content is not None
    text = list(message_from_bytes(report.original_content, policy=default).walk())[1].get_content()
    assert text.index("Thư bạn gửi đến") < text.index("Your message to sales@acme.test")


def test_a_report_that_nobody_takes_is_the_end_of_it(acme: Customer, mta: Mta) -> None:
    alias(acme, "sales", ABROAD)
    deliver(post.text(), "sales@acme.test", reverse_path="")
    mta.answers[ABROAD] = "550 5.1.1 nobody"
    assert send(mta) == Done(given_up=1)
    assert send(mta) == Done()
    assert not Content.objects.exists()


def test_a_bounce_finds_back_to_the_sender_and_nothing_else_does(acme: Customer, globex: Customer, mta: Mta) -> None:
    there = srs.rewritten(SENDER, domain="acme.test", key=KEY, today=srs.today())
    assert deliver(post.text(), there, reverse_path="") == [Outcome.STORED]
    assert send(mta) == Done(sent=1)
    [envelope] = mta.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("<>", [SENDER])
    forged = there.replace("elsewhere", "victim")
    foreign = there.replace("acme.test", "globex.test")
    old = srs.rewritten(SENDER, domain="acme.test", key=KEY, today=srs.today() - 30)
    for address in (forged, foreign, old):
        [refused] = deliver(post.text(), address, reverse_path="")
        assert type(refused).__name__ == "UnknownMailbox"
    [refused] = deliver(post.text(), there, reverse_path=SENDER)
    assert type(refused).__name__ == "UnknownMailbox"
    assert not Forward.objects.exists()


def test_a_loop_ends_where_it_closes(acme: Customer, globex: Customer, mta: Mta) -> None:
    alias(acme, "sales", "sales@globex.test")
    alias(globex, "sales", "sales@acme.test")
    message, to = post.text(queue_id="0"), "sales@acme.test"
    for hop in count():
        answer = deliver(message, to)
        if answer != [Outcome.STORED]:
            break
        assert send(mta) == Done(sent=1)
        arrived = mta.envelopes[-1]
        assert arrived.original_content is not None
        message, to = arrived.original_content, arrived.rcpt_tos[0]
        assert hop < 10
    assert (hop, answer) == (2, [Outcome.LOOP])
    assert Refusal.objects.get().reason == "loop"
    assert not Forward.objects.exists()


def test_what_has_come_too_far_goes_no_further(acme: Customer) -> None:
    alias(acme, "sales", ABROAD)
    hops = b"".join(b"Received: by %d\r\n" % hop for hop in range(50))
    assert deliver(hops + post.text(), "sales@acme.test") == [Outcome.LOOP]
    assert deliver(hops + post.text(), "an@acme.test") == [Outcome.STORED]


@pytest.mark.parametrize("smtputf8", [True, False])
def test_addresses_that_are_not_ascii_go_where_they_are_taken(acme: Customer, smtputf8: bool) -> None:
    alias(acme, "sales", "châu@abroad.test")
    deliver(post.text(), "sales@acme.test", reverse_path="bình@elsewhere.test")
    with Mta(smtputf8=smtputf8) as mta:
        done = send(mta)
        assert done == (Done(sent=1) if smtputf8 else Done(given_up=2))  # and the report
        if smtputf8:
            assert mta.envelopes[0].rcpt_tos == ["châu@abroad.test"]


def test_nothing_of_another_tenant_is_shared(acme: Customer, globex: Customer, mta: Mta) -> None:
    alias(acme, "sales", acme.mailbox, ABROAD)
    alias(globex, "sales", globex.mailbox, ABROAD)
    assert deliver(post.text(queue_id="1"), "sales@acme.test", "sales@globex.test") == [Outcome.STORED] * 2
    assert Content.objects.count() == 2
    assert {forward.tenant_id for forward in Forward.objects.all()} == {acme.tenant.pk, globex.tenant.pk}
    assert send(mta) == Done(sent=2)
    assert {envelope.mail_from.rpartition("@")[2] for envelope in mta.envelopes if envelope.mail_from} == {
        "acme.test",
        "globex.test",
    }
