"""The demo: one mailbox with some mail in it, to try a new installation with."""

import csv
import io
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from django.conf import settings
from django.utils import timezone

from accounts import passwords, provisioning
from accounts.models import Mailbox, Tenant, User
from mailstore.delivery import Outcome, deliver_now

ADDRESS: Final = "an@example.test"
PASSWORD: Final = "hutech123"  # noqa: S105 - known to everybody, on purpose
OPERATOR: Final = "operator@localhost"
_TENANT: Final = "demo"


@dataclass(frozen=True)
class Demo:
    """What a person needs to know to try it."""

    address: str
    password: str
    operator: str | None
    """The login for the admin; `None` if there was an operator already."""
    operator_password: str | None


def create_demo() -> Demo | None:
    """Make the demo if nobody has made a tenant yet; returns what is to be printed, once.

    The passwords are known to everybody who reads this: only call it where nobody but this machine can connect.
    A demo that was interrupted is completed the next time.
    """
    if Tenant.objects.exclude(slug=_TENANT).exists() or (Tenant.objects.exists() and _has_operator()):
        return None
    tenant, _ = provisioning.add_tenant(_TENANT, name="Demo")
    provisioning.add_domain("example.test", tenant=tenant)
    mailbox, _ = provisioning.add_mailbox(ADDRESS, password=PASSWORD, quota_octets=settings.MAILHOST_DEFAULT_QUOTA)
    provisioning.change_tenant(tenant, name=tenant.name, retention=tenant.retention, admin_mailbox=mailbox)
    _fill(mailbox)
    operator_password = None
    if not _has_operator():  # the last step: it says that the demo is complete
        operator_password = passwords.generated()
        provisioning.add_staff(OPERATOR, password=operator_password, tenant=None)
    return Demo(ADDRESS, PASSWORD, OPERATOR if operator_password else None, operator_password)


def _has_operator() -> bool:
    return User.objects.filter(is_superuser=True).exists()


def _fill(mailbox: Mailbox) -> None:
    """Deliver the messages that it did not get yet, as an MTA would."""
    for message in _messages()[mailbox.next_uid - 1 :]:
        [outcome] = deliver_now(
            io.BytesIO(message.as_bytes(policy=SMTP)),
            to=[mailbox.address],
            reverse_path=message["From"].addresses[0].addr_spec,
            limit=settings.MAILHOST_MAX_MESSAGE,
            subaddress="" if settings.MAILHOST_SUBADDRESS == "none" else settings.MAILHOST_SUBADDRESS,
            default_domain=settings.MAILHOST_DEFAULT_DOMAIN,
        )
        if outcome is not Outcome.STORED:
            raise RuntimeError(f"a demo message was not delivered: {outcome!r}")


def _messages() -> list[EmailMessage]:
    plain = _message("Grace Tran <grace@example.com>", "Welcome")
    plain.set_content(
        "Hello An,\n"
        "\n"
        "this mailbox lies in PostgreSQL. Fetch it with any POP3 client;\n"
        "what you delete there can be restored in the admin until its\n"
        "retention is over.\n"
        "\n"
        ".A line that begins with a dot arrives as it was sent.\n"
        "\n"
        "Grace\n"
    )
    attached = _message("Warehouse <stock@example.com>", "Stock at the end of the month")
    attached.set_content("Hello,\n\nthe list is attached.\n\nWarehouse\n")
    table = io.StringIO()
    csv.writer(table).writerows(
        [("item", "pieces", "shelf"), *((f"item {number}", number * 7 % 50, f"A{number}") for number in range(1, 41))]
    )
    attached.add_attachment(table.getvalue().encode(), maintype="text", subtype="csv", filename="stock.csv")
    attached.set_boundary("=-stock-at-the-end-of-the-month")
    vietnamese = _message("Nguyễn Văn Bình <binh@example.com>", "Họp nhóm chiều thứ Năm")
    vietnamese.set_content(
        "Chào An,\n"
        "\n"
        "Chiều thứ Năm nhóm mình họp lúc 14 giờ ở phòng E1-05.02.\n"
        "Bạn nhớ mang theo báo cáo giữa kỳ nhé.\n"
        "\n"
        "Bình\n",
        cte="quoted-printable",
    )
    return [plain, attached, vietnamese]


def _message(sender: str, subject: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = ADDRESS
    message["Subject"] = subject
    message["Date"] = format_datetime(timezone.now())
    # Of one length everywhere, so that the octets of the README are those of each installation.
    message["Message-ID"] = f"<{subject.encode().hex()[:24]}@example.com>"
    return message
