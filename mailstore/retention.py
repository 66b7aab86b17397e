"""Taking messages out of their maildrops, so that they can be brought back for as long as they are retained.

Locks are taken in this order, here and everywhere: session, mailbox, message, content; several of a kind in the order
of their ids.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.db import connection, transaction
from django.db.models import BooleanField, Count, F, Func, Q, QuerySet, Sum, Value
from django.db.models.functions import Now

from accounts import audit, limits
from accounts.models import Mailbox, Tenant, User
from mailstore import quota
from mailstore.models import MaildropSession, Message, MessageQuerySet, OwnCopy

log = logging.getLogger(__name__)


class Moved(NamedTuple):
    """What came out of maildrops, or into them."""

    messages: int = 0
    octets: int = 0
    mailboxes: int = 0

    def and_of(self, mailbox: Mailbox, *, messages: int, octets: int, action: str) -> "Moved":
        """With those of one more mailbox, of which the audit then tells."""
        if not messages:
            return self
        audit.record(action, mailbox, detail={"messages": messages, "octets": octets})
        return Moved(self.messages + messages, self.octets + octets, self.mailboxes + 1)


def kept_for(mailbox: Mailbox, *, default: timedelta) -> timedelta:
    """How long what is removed from a mailbox can be restored: as itself says, its tenant, or else the host."""
    return _kept_for(mailbox, mailbox.tenant, default)


def _kept_for(mailbox: Mailbox, tenant: Tenant, default: timedelta) -> timedelta:
    for own in (mailbox.retention, tenant.retention):
        if own is not None:
            return own
    return default


def removed_in(session: MaildropSession) -> MessageQuerySet:
    """The messages that a session removed: out of the maildrop, or out of its device's own copy, if that is in use.

    Restored with `undoing=session`, they undo it.
    """
    mailbox = Message.objects.filter(mailbox=session.mailbox_id)
    if not session.own_copy:
        return mailbox.filter(expunged_in=session.pk)
    own = OwnCopy.objects.filter(removed_in=session.pk, mailbox=session.mailbox_id).filter(_IN_USE)
    return mailbox.filter(Q(expunged_in=session.pk) | Q(pk__in=own.values("message")))


_IN_USE: Final = Q(app_password__own_copy=True, app_password__revoked_at=None)


def removed_since(mailbox: Mailbox, moment: datetime) -> MessageQuerySet:
    """The messages that a mailbox had at that moment, and that were removed since.

    Restored, they make its maildrop what it was then, with what came later. What was removed then, and restored only
    later, was not there.
    """
    since = Message.objects.filter(mailbox=mailbox, delivered_at__lte=moment, expunged_at__gt=moment)
    return since.exclude(_Away(F("earlier"), Value(moment)))


class _Away(Func):
    """Whether, by what became of a message before (`Message.earlier`), it was out of the maildrop at a moment."""

    output_field = BooleanField()
    arity = 2
    template = (
        "EXISTS (SELECT FROM jsonb_array_elements(%(expressions)s"
        " BETWEEN (life ->> 'removed_at')::timestamptz"
        " AND (life ->> 'restored_at')::timestamptz - interval '1 microsecond')"
    )
    arg_joiner = ") life WHERE "


def due_at(message: Message, *, kept: timedelta) -> datetime | None:
    """When a message goes for good; None for one that is in the maildrop, or must be kept.

    `kept` is how long, where neither its mailbox nor its tenant says.
    """
    mailbox = message.mailbox
    since: datetime | None = min(filter(None, (message.expunged_at, mailbox.closed_at)), default=None)
    if since is None or mailbox.legal_hold:
        return None
    return since + _kept_for(mailbox, message.tenant, kept)


class Forecast(NamedTuple):
    """What `restore` would bring back into a mailbox, and whether there is room for it."""

    messages: int
    """Also those that come back into the own copies of devices only, which takes no room."""
    octets: int
    """That they take."""
    used_octets: int
    """Of the mailbox now."""
    quota_octets: int | None
    room: int | None
    """Octets that its quota, its domain's and its tenant's limit leave; None: there is no limit to be seen."""

    @property
    def missing(self) -> int:
        """Octets for which there is no room."""
        return 0 if self.room is None else max(0, self.octets - self.room)


def forecast(messages: QuerySet[Message], mailbox: Mailbox, *, undoing: MaildropSession | None = None) -> Forecast:
    """What `restore` of those of these messages that are the mailbox's would do now. A closed one gets nothing back."""
    chosen = Message.objects.filter(pk__in=messages.order_by().values("pk"), mailbox=mailbox)
    found = {"count": 0, "sum": 0}
    if mailbox.closed_at is None:
        found = chosen.expunged().aggregate(count=Count("*"), sum=Sum("octets"))
        lacking = OwnCopy.objects.filter(message__in=chosen.in_maildrop().values("pk")).exclude(removed_at=None)
        lacking = lacking.filter(_IN_USE)
        if undoing is not None:
            lacking = lacking.filter(removed_in=undoing.pk)
        found["count"] += lacking.aggregate(count=Count("message", distinct=True))["count"]
    rooms = [room for room in (quota.room(mailbox), limits.room(mailbox)) if room is not None]
    return Forecast(
        messages=found["count"],
        octets=int(found["sum"] or 0),
        used_octets=mailbox.used_octets,
        quota_octets=mailbox.quota_octets,
        room=min(rooms, default=None),
    )


def expunge(messages: QuerySet[Message], *, by: User | None) -> Moved:
    """Take messages out of their maildrops and quotas; until they are purged, `restore` undoes it.

    Returns what was there to be taken. `by` is who did it (None: whoever runs a command). A session that has
    one of them in its listing can still fetch it, and finds it gone at QUIT.
    """
    expunged = Moved()
    with transaction.atomic():
        for mailbox, chosen in _locked(messages):
            ids, octets = _lock(Message.objects.among(chosen).in_maildrop())
            Message.objects.among(ids).update(expunged_at=Now(), expunged_in=None, expunged_by=by)
            quota.refund(mailbox, octets=octets, messages=len(ids))
            expunged = expunged.and_of(mailbox, messages=len(ids), octets=octets, action="mailbox.messages_expunged")
    log.info("%s messages expunged by %s", expunged.messages, _who(by))
    return expunged


def restore(messages: QuerySet[Message], *, by: User | None, undoing: MaildropSession | None = None) -> Moved:
    """Bring expunged messages back into their maildrops, as new ones.

    They get new unique-ids, in the order of the old ones, because a client that saw the old ones would skip them; and
    nobody has fetched them yet. What became of them before is kept (`Message.earlier`). Those that are there still, and
    were removed from the own copies of devices, come back into the views of these devices, each as a new one there and
    as it was for all others; with `undoing` only into the view from which that session removed them. They take no room.

    Returns what came back: those that were purged meanwhile or whose mailbox is closed do not. Raises `QuotaExceeded`,
    and restores none, if a mailbox has no room for its own.
    """
    restored = Moved()
    with transaction.atomic():
        for mailbox, chosen in _locked(messages):
            ids, octets = _lock(Message.objects.among(chosen).expunged())
            if ids:  # else no matter whether a mailbox has room for nothing
                quota.charge(mailbox, octets=octets, messages=len(ids))
                OwnCopy.objects.filter(message__in=Message.objects.among(ids).values("pk")).delete()
                with connection.cursor() as cursor:
                    who = by.pk if by else None
                    cursor.execute(_BRING_BACK, {"messages": ids, "next_uid": mailbox.next_uid, "by": who})
                Mailbox.objects.filter(pk=mailbox.pk).update(next_uid=mailbox.next_uid + len(ids))
            own, own_octets = _return(mailbox, chosen, undoing)
            restored = restored.and_of(
                mailbox, messages=len(ids) + own, octets=octets + own_octets, action="mailbox.messages_restored"
            )
    log.info("%s messages restored by %s", restored.messages, _who(by))
    return restored


_BRING_BACK = """
UPDATE mailstore_message message
SET uid = %(next_uid)s + numbered.nth - 1, epoch = coalesce((SELECT epoch FROM mailstore_store), 1),
    kept_unique_id = NULL, expunged_at = NULL, expunged_in_id = NULL, expunged_by_id = NULL, expired = false,
    kept_since = now(), first_fetched_at = NULL, first_fetched_in_id = NULL,
    earlier = CASE WHEN jsonb_array_length(earlier) >= 20 THEN earlier - 0 ELSE coalesce(earlier, '[]') END
        || jsonb_build_object(
            'fetched_at', first_fetched_at, 'fetched_in', first_fetched_in_id,
            'removed_at', expunged_at, 'removed_in', expunged_in_id, 'removed_by', expunged_by_id,
            'expired', expired,
            'restored_at', now(), 'restored_by', %(by)s::bigint
        )
FROM unnest(%(messages)s::bigint[]) WITH ORDINALITY numbered (id, nth)
WHERE message.id = numbered.id
"""


# Who holds the mailbox is the only one to write these.
_RETURN = """
UPDATE mailstore_owncopy copy SET removed_at = NULL, removed_in_id = NULL, returns = copy.returns + 1
FROM accounts_apppassword app, unnest(%(messages)s::bigint[]) chosen (id), mailstore_message message
WHERE app.mailbox_id = %(mailbox)s AND app.own_copy AND app.revoked_at IS NULL
    AND copy.app_password_id = app.id AND copy.message_id = chosen.id AND copy.removed_at IS NOT NULL
    AND (copy.removed_in_id = %(session)s OR %(session)s::uuid IS NULL)
    AND message.id = chosen.id AND message.expunged_at IS NULL
RETURNING message.id, message.octets
"""


def _return(mailbox: Mailbox, messages: list[int], undoing: MaildropSession | None) -> tuple[int, int]:
    """Bring messages of a held mailbox back into the views of devices that lack them: how many, and their octets."""
    session = undoing.pk if undoing else None
    with connection.cursor() as cursor:
        cursor.execute(_RETURN, {"mailbox": mailbox.pk, "messages": messages, "session": session})
        octets = dict(cursor.fetchall())
    return len(octets), sum(octets.values())


def _locked(messages: QuerySet[Message]) -> Iterator[tuple[Mailbox, list[int]]]:
    """The open mailboxes of these messages, all locked, and the messages of each. A closed one is purged as it is."""
    chosen: dict[int, list[int]] = {}  # looked up once: what is done to the first may change what a query finds
    for message_id, mailbox_id in messages.values_list("pk", "mailbox"):
        chosen.setdefault(mailbox_id, []).append(message_id)
    for mailbox in list(Mailbox.objects.open().filter(pk__in=chosen).order_by("pk").select_for_update(no_key=True)):
        yield mailbox, chosen[mailbox.pk]


def _lock(messages: MessageQuerySet) -> tuple[list[int], int]:
    """Lock messages of one mailbox: their ids in the order of their uids, and their octets."""
    rows = list(messages.order_by("uid").select_for_update().values_list("pk", "octets"))
    return [pk for pk, _ in rows], sum(octets for _, octets in rows)


def _who(by: User | None) -> str:
    return f"user {by.pk}" if by else "a command"
