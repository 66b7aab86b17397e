"""The life of messages, as a list of what happened to each: for the admin, the API and the owners' pages alike.

It is told from what is stored with the message and its sessions, some messages at a time and with as many statements
for a hundred as for one. What is gone meanwhile, a session's record or a device, is told as far as it still can be.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from django.db.models import BinaryField, Case, F, Func, OuterRef, Subquery, When
from django.db.models.functions import Coalesce
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop as noop

from accounts.models import AppPassword, AuditEvent, Role, User
from mailstore import headers, retention
from mailstore.headers import Hop
from mailstore.models import ContentChunk, MaildropSession, Message, OwnCopy


class Kind(StrEnum):
    """What can happen to a message."""

    DELIVERED = "delivered"
    IMPORTED = "imported"  # it came along from another server
    FETCHED = "fetched"  # as a whole, for the first time; or for the first time by a device with an own copy
    PUT_AWAY = "put-away"  # a device removed it from its own copy: for all others it stayed
    REMOVED = "removed"
    EXPIRED = "expired"  # removed because its keep-time ended
    RESTORED = "restored"
    DUE = "due"  # it will go for good then
    HELD = "held"  # it would go for good, and must be kept


@dataclass(frozen=True, slots=True)
class Seen:
    """A session, or another one that signed in, as far as it is known who that was."""

    session_id: UUID | None
    known: bool
    """Whether the session's record is there."""
    device: str = ""
    """The app password's name; empty if it is gone, or the mailbox's own password was used."""
    own_password: bool = False
    address: str = ""
    """The client's; empty: this machine."""
    secure: bool = False
    """Over TLS."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a message, or will."""

    kind: Kind
    at: datetime | None
    """None only for what is held."""
    hop: Hop | None = None
    """Of a delivery, from where the MTA took it, and its queue id; None if it was written here."""
    seen: Seen | None = None
    """In which session, if in one."""
    by: str = ""
    """Who, if not in a session: as he may be named to whoever looks; empty: a program or a command."""

    @property
    def is_to_come(self) -> bool:
        """Whether it has not happened yet."""
        return self.kind in (Kind.DUE, Kind.HELD)


_HEAD: Final = headers.HOP_LIMIT


def of(messages: Iterable[Message], *, kept: timedelta) -> dict[int, list[Event]]:
    """By message, what happened to it, oldest first, and what will.

    Their mailboxes and tenants are looked at, and should be there already (`select_related`). `kept` is how long what
    is removed can be restored, where neither mailbox nor tenant says. What is not to be seen in this scope, such as an
    operator's name, is not told.
    """
    told = list(messages)
    copies = _own_copies(told)
    gone = _removers(told)
    lives = {
        message.pk: [*_earlier(message), _Life.now(message, copies.get(message.pk, ()), gone.get(message.pk))]
        for message in told
    }
    hops = _hops(told)
    seen = _sessions(life for lives_of in lives.values() for life in lives_of)
    names = _names(
        {who for lives_of in lives.values() for life in lives_of for who in (life.removed_by, life.restored_by)},
        mailboxes={message.mailbox_id for message in told},
    )
    return {
        message.pk: [
            _delivered(message, hops),
            *(event for life in lives[message.pk] for event in life.events(seen, names)),
            *_to_come(message, kept),
        ]
        for message in told
    }


def seen_in(sessions: Iterable[MaildropSession]) -> dict[UUID, Seen]:
    """By session, what is known of who was there."""
    sessions = list(sessions)
    devices = dict(
        AppPassword.objects.filter(
            pk__in={session.app_password_id for session in sessions if session.app_password_id}
        ).values_list("pk", "name")
    )
    return {
        session.pk: Seen(
            session.pk,
            True,
            device=devices.get(session.app_password_id or 0, ""),
            own_password=session.app_password_id is None,
            address=session.client_address or "",
            secure=session.secure,
        )
        for session in sessions
    }


@dataclass(frozen=True, slots=True)
class _Life:
    """What became of a message from when it came into the maildrop until it left it, and came back."""

    fetched_at: datetime | None
    fetched_in: UUID | None
    removed_at: datetime | None
    removed_in: UUID | None
    removed_by: int | None
    expired: bool = False
    restored_at: datetime | None = None
    restored_by: int | None = None
    copies: Sequence[OwnCopy] = ()

    @classmethod
    def now(cls, message: Message, copies: Sequence[OwnCopy], gone: int | None) -> "_Life":
        return cls(
            message.first_fetched_at,
            message.first_fetched_in_id,
            message.expunged_at,
            message.expunged_in_id,
            message.expunged_by_id or gone,
            message.expired,
            copies=copies,
        )

    @classmethod
    def kept(cls, stored: Mapping[str, Any]) -> "_Life":
        return cls(
            _moment(stored["fetched_at"]),
            _id(stored["fetched_in"]),
            _moment(stored["removed_at"]),
            _id(stored["removed_in"]),
            stored["removed_by"],
            stored.get("expired", False),
            _moment(stored["restored_at"]),
            stored["restored_by"],
        )

    @property
    def sessions(self) -> set[UUID]:
        own = (session for copy in self.copies for session in (copy.fetched_in_id, copy.removed_in_id))
        return {session for session in (self.fetched_in, self.removed_in, *own) if session}

    def events(self, seen: Mapping[UUID, Seen], names: Mapping[int, str]) -> Iterable[Event]:
        yield from sorted(self._seen(seen), key=_at)
        if self.removed_at and self.expired:
            yield Event(Kind.EXPIRED, self.removed_at)
        elif self.removed_at:
            by = names.get(self.removed_by or 0, "") if self.removed_in is None else ""
            yield Event(Kind.REMOVED, self.removed_at, seen=_in(self.removed_in, seen), by=by)
        if self.restored_at:
            yield Event(Kind.RESTORED, self.restored_at, by=names.get(self.restored_by or 0, ""))

    def _seen(self, seen: Mapping[UUID, Seen]) -> Iterable[Event]:
        """Who fetched it, and from which own copies it was removed before it left the maildrop for all."""
        if self.fetched_at:
            yield Event(Kind.FETCHED, self.fetched_at, seen=_in(self.fetched_in, seen))
        for copy in self.copies:
            if copy.fetched_at and copy.fetched_in_id != self.fetched_in:
                yield Event(Kind.FETCHED, copy.fetched_at, seen=_in(copy.fetched_in_id, seen))
            if copy.removed_at and copy.removed_at != self.removed_at:
                yield Event(Kind.PUT_AWAY, copy.removed_at, seen=_in(copy.removed_in_id, seen))


def _at(event: Event) -> datetime:
    assert event.at
    return event.at


def _own_copies(messages: Sequence[Message]) -> dict[int, list[OwnCopy]]:
    found: dict[int, list[OwnCopy]] = {}
    for copy in OwnCopy.objects.filter(message__in=[message.pk for message in messages]):
        found.setdefault(copy.message_id, []).append(copy)
    return found


def _earlier(message: Message) -> list[_Life]:
    return [_Life.kept(stored) for stored in message.earlier or ()]


def _delivered(message: Message, hops: Mapping[int, tuple[bool, Hop | None]]) -> Event:
    imported, hop = hops.get(message.pk, (False, None))
    return Event(Kind.IMPORTED if imported else Kind.DELIVERED, message.delivered_at, hop=hop)


def _to_come(message: Message, kept: timedelta) -> Iterable[Event]:
    due = retention.due_at(message, kept=kept)
    if due is not None:
        yield Event(Kind.DUE, due)
    elif message.mailbox.legal_hold and (message.expunged_at or message.mailbox.closed_at):
        yield Event(Kind.HELD, None)


def _in(session: UUID | None, seen: Mapping[UUID, Seen]) -> Seen | None:
    return seen.get(session, Seen(session, False)) if session else None


def _hops(messages: Sequence[Message]) -> dict[int, tuple[bool, Hop | None]]:
    """By message, whether it came along from another server, and where it was taken from.

    What an MTA has queued begins with its trace field; of anything else ours says who brought it.
    """
    first_chunk = ContentChunk.objects.filter(content=OuterRef("content_id"), number=0)
    head = Coalesce(_beginning(F("content__body")), Subquery(first_chunk.values(start=_beginning(F("octets")))[:1]))
    rows = Message.objects.filter(pk__in=[message.pk for message in messages]).annotate(head=head)
    found = {}
    for pk, trace, head_octets in rows.values_list("pk", "trace", "head"):
        ours = bytes(trace)
        own = _ours(ours)
        found[pk] = (not ours, headers.hop(bytes(head_octets or b"")) or own)
    return found


def _beginning(octets: Any) -> Func:
    return Func(octets, 1, _HEAD, function="substr", output_field=BinaryField())


def _ours(trace: bytes) -> Hop | None:
    start = trace.find(b"\nReceived:")
    return headers.hop(trace[start + 1 :]) if start >= 0 else None


def _sessions(lives: Iterable[_Life]) -> dict[UUID, Seen]:
    wanted = {session for life in lives for session in life.sessions}
    return seen_in(MaildropSession.objects.filter(pk__in=wanted)) if wanted else {}


def _removers(messages: Sequence[Message]) -> dict[int, int]:
    """By message, who removed it, if its own row does not say it any more because his login is gone.

    The audit does: whoever removes something holds the mailbox until that is written there, too.
    """
    wanted = [message.pk for message in messages if _is_removed_by_nobody(message)]
    if not wanted:
        return {}
    told = AuditEvent.objects.filter(
        mailbox_id=OuterRef("mailbox_id"), action="mailbox.messages_expunged", at__gte=OuterRef("expunged_at")
    )
    asked_for = Case(When(changes__has_key="because", then=None), default=F("user_id"))
    first = Subquery(told.order_by("id").values(who=asked_for)[:1])
    found = Message.objects.filter(pk__in=wanted).annotate(who=first).exclude(who=None)
    return dict(found.values_list("pk", "who"))


def _is_removed_by_nobody(message: Message) -> bool:
    alone = message.expunged_in_id is None and message.expunged_by_id is None
    return message.expunged_at is not None and alone and not message.expired


def _names(users: set[int | None], *, mailboxes: set[int]) -> dict[int, str]:
    """As they may be named: who belongs to no tenant, whose row a tenant does not see, is called what he is.

    So is whose login is gone: what he was when he did something to one of these mailboxes, the audit knows.
    """
    wanted = {user for user in users if user is not None}
    if not wanted:
        return {}
    there = User.objects.in_bulk(wanted)
    names = {pk: str(user) if user.tenant_id else _called(user.role) for pk, user in there.items()}
    if others := wanted - there.keys():
        told = AuditEvent.objects.filter(mailbox_id__in=mailboxes, user_id__in=others).order_by("id")
        roles = dict.fromkeys(others, "") | dict(told.values_list("user_id", "role"))
        names |= {pk: _called(role) for pk, role in roles.items()}
    return names


_CALLED: Final[Mapping[str, str]] = {
    Role.OPERATOR: noop("an operator"),
    Role.RESELLER: noop("a reseller"),
    Role.SUPPORT: noop("somebody of support"),
    Role.TENANT_ADMIN: noop("a tenant admin whose login is gone"),
    Role.DOMAIN_ADMIN: noop("a domain admin whose login is gone"),
    Role.MEMBER: noop("an owner whose login is gone"),
}


def _called(role: str) -> str:
    """Somebody who cannot be named, by his role; empty: it is not known."""
    return _(_CALLED.get(role, noop("somebody whose login is gone")))


def _moment(text: str | None) -> datetime | None:
    return parse_datetime(text) if text else None


def _id(text: str | None) -> UUID | None:
    return UUID(text) if text else None
