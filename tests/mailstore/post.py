"""Mail for tests: delivered as any mail is."""

import io
from collections.abc import Iterable
from typing import Any

from accounts.models import Mailbox
from mailstore.delivery import Outcome, deliver_now
from mailstore.models import Message


def text(subject: str = "hello", *, body: str = "hello\r\n", queue_id: str = "") -> bytes:
    """A message; with a queue id, one that an MTA has queued."""
    received = f"Received: from a by b with SMTP id {queue_id}; Mon, 23 Nov 2026 09:00:00 +0000\r\n" if queue_id else ""
    return f"{received}From: Binh <binh@elsewhere.test>\r\nSubject: {subject}\r\n\r\n{body}".encode()


def deliver(
    message: bytes, *to: Mailbox | str, reverse_path: str = "binh@elsewhere.test", **options: Any
) -> list[object]:
    """Deliver, and return the outcome for each. `options` are `deliver_now`'s."""
    return list(
        deliver_now(
            io.BytesIO(message),
            to=[str(one) for one in to],
            reverse_path=reverse_path,
            limit=100_000_000,
            **{"subaddress": "+", "default_domain": "example.test"} | options,
        )
    )


def fill(mailbox: Mailbox, messages: Iterable[bytes]) -> list[Message]:
    """Deliver messages to one mailbox, and return its maildrop."""
    for message in messages:
        assert deliver(message, mailbox) == [Outcome.STORED]
    return list(Message.objects.in_maildrop(mailbox).order_by("uid"))
