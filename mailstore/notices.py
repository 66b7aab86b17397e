"""Telling people by mail that there is little room left: at 80 and 90 %, and when there is none, once each.

A mailbox's owner is told of its quota; of a domain's or a tenant's limit those who look after it, and where they have
no mailbox here, the log. What is told lies in the maildrop like any mail and is counted, but nothing refuses it: a full
mailbox has room for its own notice. It is stored in the transaction that notes that it was, so nobody is told twice.
"""

import logging
from collections.abc import Iterable
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import make_msgid
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from accounts import events, languages, quotas
from accounts.models import Allowance, DomainAdmin, Mailbox, Role
from mailstore import headers
from mailstore.models import Content, Message, Store
from mailstore.spool import Spool

log = logging.getLogger(__name__)

FULL: Final = 100
_BATCH: Final = 500

# How full something is, as it is told: there is no room when an ordinary message would find none. To be told again, it
# must have been emptier than the step by a twentieth.
_STEP = """
CASE WHEN {most} - {used} <= least({most} / 100, 65536) THEN 100
    WHEN {used} >= {most}::numeric * 90 / 100 THEN 90
    WHEN {used} >= {most}::numeric * 80 / 100 THEN 80
    ELSE 0 END
"""
_OF_MAILBOX: Final = {
    "step": _STEP.format(most="quota_octets", used="used_octets"),
    "calm": _STEP.format(most="quota_octets", used="(used_octets + quota_octets / 20)"),
}
_OF_ALLOWANCE: Final = {
    "step": _STEP.format(most="max_octets", used="octets"),
    "calm": _STEP.format(most="max_octets", used="(octets + max_octets / 20)"),
}

# A suspended mailbox takes no mail. What is emptier again is found too, also if it has no limit any more.
_MAILBOXES = """
SELECT id FROM accounts_mailbox
WHERE closed_at IS NULL AND state <> 'suspended' AND (
    (quota_octets > 0 AND ({step}) > warned_percent)
    OR (warned_percent > 0 AND (quota_octets IS NULL OR ({calm}) < warned_percent))
)
LIMIT %s
""".format(**_OF_MAILBOX)
_MAILBOX = """
SELECT CASE WHEN quota_octets > 0 THEN {step} ELSE 0 END, CASE WHEN quota_octets > 0 THEN {calm} ELSE 0 END
FROM accounts_mailbox WHERE id = %s AND closed_at IS NULL
FOR NO KEY UPDATE SKIP LOCKED
""".format(**_OF_MAILBOX)
_ALLOWANCES = """
SELECT id, max_octets > 0 AND ({step}) > warned_percent FROM accounts_allowance
WHERE max_octets > 0 AND (({step}) > warned_percent OR (warned_percent > 0 AND ({calm}) < warned_percent))
LIMIT %s
""".format(**_OF_ALLOWANCE)
_CALM_ALLOWANCE = """
UPDATE accounts_allowance SET warned_percent = {calm} WHERE id = %s AND max_octets > 0 AND ({calm}) < warned_percent
""".format(**_OF_ALLOWANCE)
# Last of all in its transaction, as limits are locked last. Who comes second changes nothing, and takes all back.
_CLAIM_ALLOWANCE = "UPDATE accounts_allowance SET warned_percent = %s WHERE id = %s AND warned_percent < %s RETURNING 1"


def tell(*, hostname: str) -> int:
    """Tell all who are to be told now; `hostname` is who tells them. Returns how many were."""
    told = 0
    while due := _rows(_MAILBOXES, _BATCH):
        done = [_tell_owner(mailbox, hostname) for (mailbox,) in due]
        told += sum(done)
        if len(due) < _BATCH or not any(done):
            break
    for allowance, is_due in _rows(_ALLOWANCES, _BATCH):
        if is_due:
            told += _tell_admins(allowance, hostname)
        else:
            with connection.cursor() as cursor:
                cursor.execute(_CALM_ALLOWANCE, [allowance])
    return told


def _rows(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())


def _tell_owner(mailbox_id: int, hostname: str) -> bool:
    """Tell a mailbox's owner, unless somebody else does or did."""
    with transaction.atomic():
        row = _rows(_MAILBOX, mailbox_id)
        if not row:
            return False
        [(step, calm)] = row
        mailbox = Mailbox.objects.select_related("user").get(pk=mailbox_id)
        if step <= mailbox.warned_percent:
            Mailbox.objects.filter(pk=mailbox_id, warned_percent__gt=calm).update(warned_percent=calm)
            return False
        Mailbox.objects.filter(pk=mailbox_id).update(warned_percent=step)
        with languages.writing_to(mailbox.user):
            notice = _to_owner(mailbox, step, hostname)
        _deliver(mailbox, notice)
        events.emit(
            "mailbox.over_quota" if step == FULL else "mailbox.quota_warning",
            tenant_id=mailbox.tenant_id,
            domain=mailbox.address.rpartition("@")[2],
            payload={
                "id": mailbox.pk,
                "address": mailbox.address,
                "external_id": mailbox.external_id,
                "used_octets": mailbox.used_octets,
                "quota_octets": mailbox.quota_octets,
                "percent": step,
            },
        )
    return True


def _tell_admins(allowance_id: int, hostname: str) -> int:
    """Tell those who look after a domain or a tenant. Returns how many were told."""
    allowance = Allowance.objects.select_related("reseller", "tenant", "domain").get(pk=allowance_id)
    with transaction.atomic():
        # The mailboxes are locked first, as whoever delivers to them does.
        mailboxes = list(
            _admins(allowance).select_related("user").select_for_update(no_key=True, of=("self",)).order_by("pk")
        )
        step = _step(allowance)
        for mailbox in mailboxes:
            with languages.writing_to(mailbox.user):
                notice = _to_admin(mailbox, allowance, step, hostname)
            _deliver(mailbox, notice)
        if not _rows(_CLAIM_ALLOWANCE, step, allowance_id, step):
            transaction.set_rollback(True)
            return 0
        if tenant := allowance.tenant:
            events.emit(
                "tenant.warned",
                tenant_id=tenant.pk,
                domain=allowance.domain.name if allowance.domain else "",
                payload={
                    "id": tenant.pk,
                    "slug": tenant.slug,
                    "external_id": tenant.external_id,
                    "domain": allowance.domain.name if allowance.domain else None,
                    "what": "octets",
                    "used": allowance.octets,
                    "limit": allowance.max_octets,
                    "percent": step,
                },
            )
    if not mailboxes:
        log.warning("%s is %s%% full, and nobody who looks after it has a mailbox here", _named(allowance), step)
    return len(mailboxes)


def _step(allowance: Allowance) -> int:
    [(step,)] = _rows(f"SELECT {_OF_ALLOWANCE['step']} FROM accounts_allowance WHERE id = %s", allowance.pk)
    return int(step)


def _admins(allowance: Allowance) -> QuerySet[Mailbox]:
    """The mailboxes of those who look after what it is the allowance of; of a reseller nobody has one."""
    there: QuerySet[Mailbox] = Mailbox.objects.open().exclude(state=Mailbox.State.SUSPENDED)
    if allowance.domain:
        admins = DomainAdmin.objects.filter(domain=allowance.domain).values("user_id")
        found = there.filter(user__in=admins)
        if found.exists():
            return found
    if allowance.tenant is None:
        return there.none()
    if admin := allowance.tenant.admin_mailbox_id:
        found = there.filter(pk=admin)
        if found.exists():
            return found
    return there.filter(tenant=allowance.tenant, user__role=Role.TENANT_ADMIN)


# --- What they read ------------------------------------------------------------------------------------------------


def _to_owner(mailbox: Mailbox, step: int, hostname: str) -> EmailMessage:
    named = {
        "address": mailbox.address,
        "share": f"{step} %",
        "used": quotas.rounded(mailbox.used_octets),
        "quota": quotas.rounded(mailbox.quota_octets),
    }
    if step == FULL:
        subject = _("Your mailbox %(address)s is full")
        then = _("New mail finds no room there, and those who sent it are told.")
    else:
        subject = _("Your mailbox %(address)s is %(share)s full")
        then = _("Once it is full, new mail finds no room there, and those who sent it are told.")
    how = _(
        "Please remove messages that you no longer need: if your mail program leaves copies on the server, let it"
        " remove them. Or ask whoever manages your mailbox for more."
    )
    return _written(
        hostname,
        to=mailbox.address,
        subject=subject % named,
        paragraphs=(_("The mailbox %(address)s takes %(used)s of the %(quota)s that it may.") % named, f"{then} {how}"),
    )


def _to_admin(mailbox: Mailbox, allowance: Allowance, step: int, hostname: str) -> EmailMessage:
    named = {
        "what": _named(allowance),
        "share": f"{step} %",
        "used": quotas.rounded(allowance.octets),
        "limit": quotas.rounded(allowance.max_octets),
    }
    if step == FULL:
        subject = _("The room for mail of %(what)s is full")
        then = _("New mail finds no room there, whatever each mailbox's own quota is, and those who sent it are told.")
    else:
        subject = _("The room for mail of %(what)s is %(share)s full")
        then = _(
            "Once that is full, new mail finds no room there, whatever each mailbox's own quota is, and those who sent"
            " it are told."
        )
    how = _("Please remove what is no longer needed, or ask whoever hosts your mail for more.")
    return _written(
        hostname,
        to=mailbox.address,
        subject=subject % named,
        paragraphs=(
            _("All mail of %(what)s together takes %(used)s of the %(limit)s that it may.") % named,
            f"{then} {how}",
        ),
    )


def _named(allowance: Allowance) -> str:
    if allowance.domain:
        return _("the domain %(name)s") % {"name": allowance.domain.name}
    if allowance.tenant:
        return _("the tenant %(name)s") % {"name": allowance.tenant}
    return _("the reseller %(name)s") % {"name": allowance.reseller}


def _written(hostname: str, *, to: str, subject: str, paragraphs: Iterable[str]) -> EmailMessage:
    """A message that no program answers (RFC 3834 section 5)."""
    message = EmailMessage(SMTP if to.isascii() else SMTPUTF8)
    local, _at, domain = to.rpartition("@")
    message["From"] = Address(_("Mail service"), "postmaster", hostname)
    message["To"] = Address("", local, domain)
    message["Subject"] = subject
    message["Date"] = timezone.localtime()
    message["Message-ID"] = make_msgid("notice", hostname)
    message["Auto-Submitted"] = "auto-generated"
    unread = _("This message was written by the mail service, which reads no answers.")
    message.set_content("\n\n".join((*paragraphs, unread)) + "\n")
    message["Content-Language"] = get_language()
    return message


# --- How it gets there ---------------------------------------------------------------------------------------------


def _deliver(mailbox: Mailbox, message: EmailMessage) -> None:
    """Store a message in a locked mailbox, whatever its quota and the limits are."""
    with Spool() as spool, connection.cursor() as cursor:
        spool.write(bytes(message))
        spool.finish()
        look = headers.look(spool.head)
        trace = f"Return-Path: <>\r\nDelivered-To: {mailbox.address}\r\n".encode()
        content = Content.objects.create(
            tenant_id=mailbox.tenant_id,
            octets=spool.octets,
            header_octets=spool.header_octets,
            has_dot_lines=spool.has_dot_lines,
            body=b"".join(spool.chunks(spool.octets)),
        )
        Message.objects.create(
            tenant_id=mailbox.tenant_id,
            mailbox=mailbox,
            content=content,
            uid=mailbox.next_uid,
            epoch=Store.objects.values_list("epoch", flat=True).first() or 1,
            trace=trace,
            octets=len(trace) + spool.octets,
            subject=look.subject,
            sender=look.sender,
            message_id=look.message_id,
            date=look.date,
        )
        cursor.execute("SELECT set_config('mailhost.beyond_limits', 'on', true)")
        Mailbox.objects.filter(pk=mailbox.pk).update(
            used_octets=F("used_octets") + len(trace) + spool.octets,
            message_count=F("message_count") + 1,
            next_uid=F("next_uid") + 1,
        )
        cursor.execute("SELECT set_config('mailhost.beyond_limits', '', true)")
