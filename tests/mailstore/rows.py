"""Rows of the message store, written as they are: for tests that look at them and need no delivery."""

from typing import Any

from django.db.models import F
from django.utils import timezone

from accounts.models import AppPassword, FailedLogin, Mailbox
from mailstore.models import Content, Listener, MaildropSession, Message, OwnCopy


def add_listener(kind: str, *, host: str = "here") -> Listener:
    return Listener.objects.create(kind=kind, host=host, pid=1)


def add_failed_login(mailbox: Mailbox, **values: Any) -> FailedLogin:
    """A wrong password over POP3 from 192.0.2.7, just now, unless the values say otherwise."""
    now = timezone.now()
    values = {
        "tenant_id": mailbox.tenant_id, "domain_id": mailbox.domain_id, "mailbox": mailbox,
        "subject": f"mailbox {mailbox.pk}", "reason": "password", "through": "pop3", "network": "192.0.2.0/24",
        "client_address": "192.0.2.7", "count": 1, "first_at": now, "last_at": now,
        "hour": now.replace(minute=0, second=0, microsecond=0), **values,
    }  # fmt: skip
    return FailedLogin.objects.create(**values)


def add_session(mailbox: Mailbox, listener: Listener, **values: Any) -> MaildropSession:
    """An open session, unless the values say otherwise."""
    values = {"secure": True, **values}
    return MaildropSession.objects.create(tenant_id=mailbox.tenant_id, mailbox=mailbox, listener=listener, **values)


def put_away(message: Message, device: AppPassword, session: MaildropSession) -> OwnCopy:
    """A device with an own copy has fetched and removed the message, in that session."""
    then = timezone.now()
    return OwnCopy.objects.create(
        tenant_id=message.tenant_id, mailbox_id=message.mailbox_id, app_password=device, message=message,
        fetched_at=then, fetched_in=session, removed_at=then, removed_in=session,
    )  # fmt: skip


def add_message(mailbox: Mailbox, **values: Any) -> Message:
    """A small message, charged to the mailbox unless the values say that it is expunged."""
    body = b"Subject: x\r\n\r\nx\r\n"
    trace = b"Return-Path: <>\r\n"
    octets = len(trace + body)
    content = Content.objects.create(
        tenant_id=mailbox.tenant_id, octets=len(body), header_octets=14, has_dot_lines=False, body=body
    )
    mailbox.refresh_from_db()
    if values.get("expunged_in") and "expunged_at" not in values:
        values["expunged_at"] = timezone.now()
    if values.get("first_fetched_in") and "first_fetched_at" not in values:
        values["first_fetched_at"] = timezone.now()
    message = Message.objects.create(
        tenant_id=mailbox.tenant_id,
        mailbox=mailbox,
        content=content,
        uid=mailbox.next_uid,
        epoch=1,
        trace=trace,
        octets=octets,
        **values,
    )
    charged = {"used_octets": F("used_octets") + octets, "message_count": F("message_count") + 1}
    Mailbox.objects.filter(pk=mailbox.pk).update(
        next_uid=F("next_uid") + 1, **(charged if message.expunged_at is None else {})
    )
    return message
