"""Mailboxes: opened, changed, suspended, renamed, closed and reopened."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypedDict, Unpack

from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from accounts import addresses, audit, hashes, limits, notices
from accounts.models import Alias, AliasTarget, Domain, Mailbox, Tenant, User
from accounts.provisioning import happened, values
from accounts.provisioning.aliases import release_address
from accounts.provisioning.logins import insert
from accounts.provisioning.lookups import domains_of, holders, lock_domain
from accounts.provisioning.refusals import (
    AddressTaken,
    BadValue,
    InQuarantine,
    OtherTenant,
    UnknownDomain,
    UnknownMailbox,
)

State = Mailbox.State
_BATCH: Final = 1000  # rows of one statement


class MailboxValues(TypedDict, total=False):
    """What of an open mailbox can be changed, besides its password, its state and its address."""

    name: str
    external_id: str | None
    quota_octets: int | None
    pop3_enabled: bool
    allowed_networks: Iterable[str]
    retention: timedelta | None
    keep_time: timedelta | None
    language: str | None


_OF_USER: Final = frozenset({"language"})
"""Those that are kept with its user."""


class New(NamedTuple):
    """A mailbox to be written: its values are checked, and its address is known to be free."""

    address: str
    domain: Domain
    stored_password: str
    values: Mapping[str, Any]


def add_mailbox(
    address: str,
    *,
    password: str | None,
    quota_octets: int | None,
    password_hash: str | None = None,
    release: bool = False,
    **more: Any,
) -> tuple[Mailbox, bool]:
    """A mailbox with its user; an existing one stays as it is, password and quota too.

    Without a password, or the hash of one from another server, nobody can sign in until one is set. `release` gives
    the address away although it is in quarantine. `more` are further `MailboxValues`. Raises `UnknownDomain`,
    `AddressTaken`, `InQuarantine`, `LimitReached`, `BadValue`, `BadAddress`, `BadPassword`, `BadHash`, `Taken`.
    """
    name = values.new_address(addresses.address(address))
    wanted = checked({"quota_octets": quota_octets, **more})
    stored = hashes.stored(password, password_hash)  # before the lock: it is slow on purpose
    with transaction.atomic():
        domain = lock_domain(name)
        refuse_alias_domain(domain)
        holder = holders([name]).get(name)
        if isinstance(holder, Mailbox):
            return holder, False
        if holder is not None:
            release_address(name, holder, wanted=release)
        [mailbox] = write_new([New(name, domain, stored, wanted)])
    return mailbox, True


def change_mailbox(mailbox: Mailbox, **given: Unpack[MailboxValues]) -> bool:
    """Give an open mailbox these values; whether any is new. Raises `UnknownMailbox`, `BadValue`, `Taken`.

    A quota below what is used takes no mail away; there is room again once enough was removed.
    """
    wanted = checked(dict(given))
    with transaction.atomic():
        row = _lock(mailbox)
        of_user = values.changed(row.user, {field: wanted.pop(field) for field in _OF_USER & wanted.keys()})
        changes = values.changed(row, wanted)
        if of_user:
            values.write(User.objects.filter(pk=row.user_id), of_user)
        if changes:
            warned = {"warned_percent": (row.warned_percent, 0)} if "quota_octets" in changes else {}
            values.write(Mailbox.objects.filter(pk=row.pk), {**changes, **warned})
        if changes := {**changes, **of_user}:
            happened.to_mailbox("changed", row, changes)
            if {"pop3_enabled", "allowed_networks"} & changes.keys():
                notices.mailboxes_changed([row.pk])
    mailbox.refresh_from_db()
    return bool(changes)


def set_state(mailbox: Mailbox, state: str, *, reason: str = "") -> bool:
    """Put an open mailbox into a state; it holds at once. The reason is shown to its owner. Returns whether it is new.

    Raises `UnknownMailbox`, `BadValue`.
    """
    reason = checked_reason(state, reason)
    with transaction.atomic():
        row = _lock(mailbox)
        if changes := values.changed(row, {"state": state, "state_reason": reason}):
            values.write(Mailbox.objects.filter(pk=row.pk), changes)
            row.state, row.state_reason = state, reason
            said = {State.SUSPENDED: "suspended", State.ACTIVE: "resumed"}.get(State(state), "changed")
            happened.to_mailbox(said if "state" in changes else "changed", row, changes)
            notices.mailboxes_changed([row.pk])
    mailbox.refresh_from_db()
    return bool(changes)


def suspend(mailbox: Mailbox, *, reason: str = "") -> bool:
    """Take no mail and let nobody fetch any, until it is resumed; nothing is lost. Answers as `set_state`."""
    return set_state(mailbox, State.SUSPENDED, reason=reason)


def resume(mailbox: Mailbox) -> bool:
    """Undo `suspend`, or any other state; whether there was any. Raises `UnknownMailbox`."""
    return set_state(mailbox, State.ACTIVE)


def set_legal_hold(mailbox: Mailbox, hold: bool) -> None:
    """Keep all its mail from any purge, whether it is open or closed; or no more."""
    with transaction.atomic():
        if Mailbox.objects.filter(pk=mailbox.pk).exclude(legal_hold=hold).update(legal_hold=hold):
            audit.record("mailbox.held" if hold else "mailbox.released", mailbox, {"legal_hold": (not hold, hold)})
    mailbox.refresh_from_db()


def rename_mailbox(mailbox: Mailbox, address: str, *, keep_alias: bool = True) -> None:
    """Give an open mailbox another address, in any domain of its tenant; the old one stays as its alias.

    Its owner signs in with the new one. Raises `UnknownMailbox`, `UnknownDomain`, `OtherTenant`, `AddressTaken`,
    `InQuarantine`, `LimitReached`, `BadAddress`.
    """
    name = values.new_address(addresses.address(address))
    with transaction.atomic():
        before = mailbox.address
        domains = domains_of([before, name], lock=True)
        new = domains.get(addresses.split(name)[1])
        if new is None:
            raise UnknownDomain(_("%(host)s is not hosted here") % {"host": addresses.split(name)[1]})
        if new.tenant_id != mailbox.tenant_id:
            raise OtherTenant(_("%(new)s is not a domain of the mailbox's tenant") % {"new": new})
        refuse_alias_domain(new)
        row = _lock(mailbox)
        if row.address == name:
            return
        before = row.address
        own = Alias.objects.filter(address=name, targets__mailbox=row).first()
        if own and own.targets.count() == 1:  # it takes its own alias for its name: renaming back
            own.delete()
            limits.charge(tenant_id=row.tenant_id, domain_id=new.pk, aliases=-1)
        holder = holders([name]).get(name)
        if isinstance(holder, Mailbox):
            raise AddressTaken(_("%(name)s is a mailbox") % {"name": name})
        if holder is not None:
            raise holder
        try:
            with transaction.atomic():
                User.objects.filter(pk=row.user_id).update(email=name)
                Mailbox.objects.filter(pk=row.pk).update(address=name, domain=new)
        except IntegrityError as error:  # a login's that does not exist for whoever asks
            values.taken(error)
            raise AddressTaken(_("%(name)s is taken") % {"name": name}) from None
        if row.domain_id != new.pk:
            limits.charge(tenant_id=row.tenant_id, domain_id=row.domain_id, mailboxes=-1)
            limits.charge(tenant_id=row.tenant_id, domain_id=new.pk, mailboxes=1)
            limits.move_octets(row, to=new)
        if keep_alias:
            limits.charge(tenant_id=row.tenant_id, domain_id=row.domain_id, aliases=1)
            alias = Alias.objects.create(tenant_id=row.tenant_id, domain_id=row.domain_id, address=before)
            AliasTarget.objects.create(tenant_id=row.tenant_id, alias=alias, mailbox=row)
        row.refresh_from_db()
        happened.to_mailbox("renamed", row, {"address": (before, name)}, from_address=before)
        notices.mailboxes_changed([row.pk])
    mailbox.refresh_from_db()


def close_mailbox(mailbox: Mailbox) -> bool:
    """End the use of a mailbox: from now on its address is in quarantine, until it is purged with its mail.

    Its login is free at once. Its aliases stay with it: they deliver nothing, and are in quarantine like itself.
    Closing what is closed changes nothing. Returns whether it was open.
    """
    with transaction.atomic():
        row = Mailbox.objects.open().select_for_update(no_key=True).filter(pk=mailbox.pk).first()
        if row is not None:
            Tenant.objects.filter(admin_mailbox=row.pk).update(admin_mailbox=None)
            Mailbox.objects.filter(pk=row.pk).update(closed_at=Now())
            User.objects.filter(pk=row.user_id).update(email=None, is_active=False)
            limits.charge(tenant_id=row.tenant_id, domain_id=row.domain_id, mailboxes=-1)
            row.refresh_from_db()
            happened.to_mailbox("closed", row, messages=row.message_count, octets=row.used_octets)
            notices.mailboxes_changed([row.pk])
    mailbox.refresh_from_db()
    return row is not None


def reopen_mailbox(mailbox: Mailbox) -> bool:
    """Undo `close_mailbox`, with all its mail and its password; whether it was closed.

    Raises `UnknownMailbox` where it was purged meanwhile or is about to be, `UnknownDomain`, `AddressTaken`,
    `LimitReached`.
    """
    with transaction.atomic():
        refuse_alias_domain(lock_domain(mailbox.address))
        row = Mailbox.objects.select_for_update(no_key=True).filter(pk=mailbox.pk).first()
        if row is None:
            raise UnknownMailbox(_("%(mailbox)s was purged") % {"mailbox": mailbox})
        was_closed = row.closed_at is not None
        if was_closed:
            if row.retention == timedelta(0):
                raise UnknownMailbox(_("%(row)s is being removed for good") % {"row": row})
            holder = holders([row.address]).get(row.address)
            is_alias = Alias.objects.filter(address=row.address).exists()  # also of somebody who is closed himself
            if is_alias or not isinstance(holder, InQuarantine):
                raise AddressTaken(_("%(row)s is somebody's already") % {"row": row})
            limits.charge(tenant_id=row.tenant_id, domain_id=row.domain_id, mailboxes=1)
            try:
                with transaction.atomic():
                    Mailbox.objects.filter(pk=row.pk).update(closed_at=None)
                    User.objects.filter(pk=row.user_id).update(email=row.address, is_active=True)
            except IntegrityError as error:
                raise values.taken(error) from None
            except DatabaseError as error:
                if limits.is_over_quota(error):
                    raise limits.LimitReached(
                        _("there is no room for the %(used_octets)s octets in %(row)s")
                        % {"used_octets": row.used_octets, "row": row}
                    ) from None
                raise
            row.refresh_from_db()
            happened.to_mailbox("reopened", row)
    mailbox.refresh_from_db()
    return was_closed


def reopenable(mailboxes: QuerySet[Mailbox]) -> QuerySet[Mailbox]:
    """The closed ones of these mailboxes that `reopen_mailbox` takes, if there is room for them within the limits."""
    address = OuterRef("address")
    return mailboxes.filter(
        ~Exists(Alias.objects.filter(address=address)),
        ~Exists(User.objects.filter(email=address)),
        closed_at__isnull=False,
        domain__closed_at=None,
        domain__alias_of=None,
    ).exclude(retention=timedelta(0))


def checked(wanted: dict[str, Any]) -> dict[str, Any]:
    """`MailboxValues` as they can be stored. Raises `BadValue`."""
    check: dict[str, Any] = {
        "name": lambda text: values.line(text, field="name", most=200),
        "external_id": values.external_id,
        "quota_octets": values.quota,
        "pop3_enabled": bool,
        "allowed_networks": values.networks,
        "retention": values.retention,
        "keep_time": values.keep_time,
        "language": values.language,
    }
    return {field: check[field](value) for field, value in wanted.items()}


def checked_reason(state: str, reason: str) -> str:
    """Why a mailbox is in that state, as it can be stored. Raises `BadValue`, also where there is no such state."""
    if state not in State.values:
        raise BadValue(_("a mailbox's state is one of %(states)s") % {"states": ", ".join(State.values)}, field="state")
    return values.line(reason, field="state_reason", most=500)


def refuse_alias_domain(domain: Domain) -> None:
    """Nobody has a mailbox where another domain's local parts are. Raises `UnknownDomain`."""
    if domain.alias_of_id:
        raise UnknownDomain(
            _("%(domain)s is an alias domain: make the mailbox in the domain that it stands for") % {"domain": domain}
        )


def write_new(new: Iterable[New]) -> list[Mailbox]:
    """Write mailboxes with their users, whose domains are locked. Raises `LimitReached`, `AddressTaken`, `Taken`."""
    new = list(new)
    counts: dict[tuple[int, int], int] = {}
    for one in new:
        key = (one.domain.tenant_id, one.domain.pk)
        counts[key] = counts.get(key, 0) + 1
    for (tenant_id, domain_id), count in sorted(counts.items()):
        limits.charge(tenant_id=tenant_id, domain_id=domain_id, mailboxes=count)
    users = [
        User(
            email=one.address,
            tenant_id=one.domain.tenant_id,
            password=one.stored_password,
            **{field: value for field, value in one.values.items() if field in _OF_USER},
        )
        for one in new
    ]
    insert(users)
    try:
        with transaction.atomic():
            mailboxes: list[Mailbox] = Mailbox.objects.bulk_create(
                [
                    Mailbox(
                        tenant_id=one.domain.tenant_id,
                        domain=one.domain,
                        user=user,
                        address=one.address,
                        **{field: value for field, value in one.values.items() if field not in _OF_USER},
                    )
                    for one, user in zip(new, users, strict=True)
                ],
                batch_size=_BATCH,
            )
    except IntegrityError as error:
        raise values.taken(error) from None
    happened.to_mailboxes("created", mailboxes)
    return mailboxes


def _lock(mailbox: Mailbox) -> Mailbox:
    row: Mailbox | None = Mailbox.objects.open().select_for_update(no_key=True).filter(pk=mailbox.pk).first()
    if row is None:
        raise UnknownMailbox(_("%(mailbox)s is closed") % {"mailbox": mailbox})
    return row
