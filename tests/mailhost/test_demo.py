import email
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
from django.contrib.auth import authenticate

from accounts import provisioning
from accounts.models import Mailbox, Tenant, User
from mailhost import demo
from mailhost.demo import create_demo
from mailstore.models import Message

pytestmark = pytest.mark.django_db(transaction=True)


def _delivered() -> list[EmailMessage]:
    messages = Message.objects.select_related("content").order_by("uid")
    return [
        email.message_from_bytes(bytes(message.trace) + bytes(message.content.body), policy=default)
        for message in messages
    ]


def test_the_demo_has_a_mailbox_with_mail_and_an_operator() -> None:
    made = create_demo()
    assert made
    assert (made.address, made.password, made.operator) == ("an@example.test", "hutech123", "operator@localhost")
    mailbox = Mailbox.objects.get(address="an@example.test")
    assert mailbox.tenant.admin_mailbox == mailbox
    assert mailbox.message_count == 3
    assert authenticate(username=made.address, password=made.password) == mailbox.user
    operator = authenticate(username=made.operator, password=made.operator_password)
    assert operator
    assert operator.is_staff
    assert operator.is_superuser


def test_the_messages_are_plain_attached_and_vietnamese() -> None:
    create_demo()
    plain, attached, vietnamese = _delivered()
    assert plain.get_content_type() == "text/plain"
    assert plain["Return-Path"] == "<grace@example.com>"
    [attachment] = attached.iter_attachments()
    assert attachment.get_filename() == "stock.csv"
    assert "item 40" in attachment.get_content()
    assert vietnamese["Subject"] == "Họp nhóm chiều thứ Năm"
    assert "báo cáo giữa kỳ" in vietnamese.get_content()
    raw = bytes(Message.objects.order_by("uid")[2].content.body)
    assert raw.isascii()


def test_the_second_time_nothing_is_made_and_no_password_is_told() -> None:
    create_demo()
    assert create_demo() is None
    assert Message.objects.count() == 3


def test_where_somebody_has_a_tenant_there_is_no_demo() -> None:
    provisioning.add_tenant("acme")
    assert create_demo() is None
    assert not Mailbox.objects.exists()


def test_an_operator_who_was_there_first_stays_the_only_one() -> None:
    User.objects.create_superuser("me@localhost", "secret")
    made = create_demo()
    assert made
    assert (made.operator, made.operator_password) == (None, None)
    assert User.objects.filter(is_superuser=True).count() == 1


def test_a_demo_that_was_interrupted_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(mailbox: Mailbox) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(demo, "_fill", killed)
        with pytest.raises(KeyboardInterrupt):
            create_demo()
    made = create_demo()
    assert made
    assert made.operator_password
    assert Tenant.objects.count() == 1
    assert Message.objects.count() == 3


def test_the_dialogue_of_the_readme_shows_the_demos_octets() -> None:
    create_demo()
    octets = list(Message.objects.order_by("uid").values_list("octets", flat=True))
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    listing = "".join(f"    {number} {size}\n" for number, size in enumerate(octets, 1))
    assert f"    +OK 3 messages ({sum(octets)} octets)\n{listing}    .\n" in readme
    assert f"    retr 1\n    +OK {octets[0]} octets\n" in readme
