"""Charging a mailbox for what lies in its maildrop."""

from django.db import DatabaseError
from django.db.models import F, Q
from django.utils.translation import gettext as _

from accounts import limits
from accounts.models import Mailbox


class QuotaExceeded(Exception):
    """The mailbox, its domain, its tenant or its reseller has no room for so many octets more."""

    def __init__(self, mailbox: Mailbox, octets: int) -> None:
        text = _("%(mailbox)s has no room for %(octets)s octets more")
        super().__init__(text % {"mailbox": mailbox, "octets": octets})
        self.mailbox = mailbox
        self.octets = octets


def room(mailbox: Mailbox) -> int | None:
    """Octets that its quota leaves in a mailbox; None if it has none."""
    return None if mailbox.quota_octets is None else max(0, mailbox.quota_octets - mailbox.used_octets)


def charge(mailbox: Mailbox, *, octets: int, messages: int) -> None:
    """Count messages of so many octets that came into the maildrop. Raises `QuotaExceeded`.

    Belongs into the transaction that puts them there.
    """
    room = Q(quota_octets=None) | Q(used_octets__lte=F("quota_octets") - octets)
    try:
        charged = Mailbox.objects.filter(room, pk=mailbox.pk).update(
            used_octets=F("used_octets") + octets, message_count=F("message_count") + messages
        )
    except DatabaseError as error:
        if limits.is_over_quota(error):
            raise QuotaExceeded(mailbox, octets) from None
        raise
    if not charged:
        raise QuotaExceeded(mailbox, octets)


def refund(mailbox: Mailbox, *, octets: int, messages: int) -> None:
    """Undo `charge`, in the transaction that takes the messages out of the maildrop."""
    Mailbox.objects.filter(pk=mailbox.pk).update(
        used_octets=F("used_octets") - octets, message_count=F("message_count") - messages
    )
