"""Ending POP3 sessions from outside, wherever their listener runs."""

import logging

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from accounts import audit, notices
from accounts.models import AuditEvent
from mailstore.models import MaildropSession

log = logging.getLogger(__name__)


def end(sessions: QuerySet[MaildropSession]) -> int:
    """End those of these sessions that are open: nothing they marked is removed, and their maildrops are free.

    Their connections are closed at once. A listener that does not hear of it, or is dead, changes nothing any more.
    Returns how many were open.
    """
    with transaction.atomic():
        ended = list(sessions.filter(ended_at=None).order_by("pk").select_for_update(of=("self",)))
        MaildropSession.objects.filter(pk__in=[session.pk for session in ended]).update(
            ended_at=Now(), end=MaildropSession.End.ENDED
        )
        AuditEvent.objects.bulk_create([audit.event("session.ended", session) for session in ended])
        notices.mailboxes_changed(session.mailbox_id for session in ended)
    log.info("%s sessions ended", len(ended))
    return len(ended)
