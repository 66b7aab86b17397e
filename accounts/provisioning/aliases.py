"""Aliases: further addresses, whose mail goes to mailboxes and to addresses outside."""

from collections.abc import Collection, Iterable
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import addresses, limits
from accounts.models import Alias, AliasTarget, Domain, Mailbox
from accounts.provisioning import happened, values
from accounts.provisioning.lookups import holders, lock_domain, lock_open
from accounts.provisioning.refusals import AddressTaken, BadValue, InQuarantine, Refused, UnknownDomain, UnknownMailbox

MOST_TARGETS = 200


def add_alias(address: str, *, mailbox: Mailbox, release: bool = False) -> tuple[Alias, bool]:
    """A further address of a mailbox, in any domain of its tenant; one that it has stays as it is.

    `release` gives the address away although it is in quarantine. Raises `UnknownDomain`, `UnknownMailbox`,
    `AddressTaken`, `InQuarantine`, `LimitReached`, `BadAddress`.
    """
    name = values.new_address(addresses.alias(address))
    with transaction.atomic():
        domain = _domain_for(name, mailbox.tenant_id)
        lock_open(mailbox)
        if alias := Alias.objects.filter(address=name, targets__mailbox=mailbox).first():
            return alias, False
        return _make(name, domain, [mailbox], [], expires_at=None, release=release), True


def set_alias(
    address: str,
    *,
    tenant_id: int,
    mailboxes: Collection[Mailbox],
    outside: Iterable[str] = (),
    expires_at: datetime | None = None,
    release: bool = False,
) -> tuple[Alias, bool]:
    """An alias with these targets, whether or not it is there. Returns it, and whether it is new.

    Raises as `add_alias`, and `BadValue`.
    """
    name = values.new_address(addresses.alias(address))
    abroad = _outside(outside)
    mailboxes = sorted({mailbox.pk: mailbox for mailbox in mailboxes}.values(), key=lambda one: one.pk)
    if not mailboxes and not abroad:
        raise BadValue(_("an alias has at least one target"), field="targets")
    if len(mailboxes) + len(abroad) > MOST_TARGETS:
        raise BadValue(
            _("an alias has at most %(most_targets)s targets") % {"most_targets": MOST_TARGETS}, field="targets"
        )
    with transaction.atomic():
        domain = _domain_for(name, tenant_id)
        for mailbox in mailboxes:
            if mailbox.tenant_id != tenant_id:
                raise UnknownMailbox(_("there is no mailbox %(mailbox)s") % {"mailbox": mailbox})
            lock_open(mailbox)
        alias = Alias.objects.filter(address=name).first()
        if alias is None or isinstance(holders([name]).get(name), InQuarantine):
            _check_expiry(expires_at)
            return _make(name, domain, mailboxes, abroad, expires_at=expires_at, release=release), True
        before = targets_of(alias)
        after = sorted([*(mailbox.address for mailbox in mailboxes), *abroad])
        changes = values.changed(alias, {"expires_at": expires_at})
        if changes:
            _check_expiry(expires_at)
            values.write(Alias.objects.filter(pk=alias.pk), changes)
        if before != after:
            alias.targets.all().delete()
            _set_targets(alias, mailboxes, abroad)
            changes["targets"] = (before, after)
        if changes:
            happened.to_alias("changed", alias, changes)
    alias.refresh_from_db()
    return alias, False


def remove_alias(alias: Alias) -> None:
    """Take no more mail at this address; that it takes none already changes nothing."""
    with transaction.atomic():
        if row := Alias.objects.select_for_update().filter(pk=alias.pk).first():
            happened.to_alias("removed", row)
            Alias.objects.filter(pk=row.pk).delete()
            limits.charge(tenant_id=row.tenant_id, domain_id=row.domain_id, aliases=-1)


def release_address(name: str, holder: Refused, *, wanted: bool) -> None:
    """Take an address out of quarantine; what was delivered to it stays where it is, and is purged in time.

    Raises `holder`, unless that is a quarantine and its end is wanted.
    """
    if not (wanted and isinstance(holder, InQuarantine)):
        raise holder
    for alias in Alias.objects.filter(address=name):
        remove_alias(alias)


def targets_of(alias: Alias) -> list[str]:
    """The addresses that an alias's mail goes to, in order."""
    return sorted(
        target.mailbox.address if target.mailbox else target.address
        for target in alias.targets.select_related("mailbox")
    )


def _domain_for(name: str, tenant_id: int) -> Domain:
    domain = lock_domain(name)
    if domain.tenant_id != tenant_id:
        raise UnknownDomain(_("%(domain)s is not a domain of that tenant") % {"domain": domain})
    if domain.alias_of_id:
        raise UnknownDomain(
            _("%(domain)s is an alias domain: make the alias in the domain that it stands for") % {"domain": domain}
        )
    return domain


def _make(
    name: str,
    domain: Domain,
    mailboxes: Collection[Mailbox],
    outside: Collection[str],
    *,
    expires_at: datetime | None,
    release: bool,
) -> Alias:
    holder = holders([name]).get(name)
    if isinstance(holder, Mailbox):
        raise AddressTaken(_("%(name)s is a mailbox") % {"name": name})
    if holder is not None:
        release_address(name, holder, wanted=release)
    limits.charge(tenant_id=domain.tenant_id, domain_id=domain.pk, aliases=1)
    alias: Alias = Alias.objects.create(tenant_id=domain.tenant_id, domain=domain, address=name, expires_at=expires_at)
    _set_targets(alias, mailboxes, outside)
    happened.to_alias("created", alias)
    return alias


def _set_targets(alias: Alias, mailboxes: Iterable[Mailbox], outside: Iterable[str]) -> None:
    AliasTarget.objects.bulk_create(
        [
            *(AliasTarget(tenant_id=alias.tenant_id, alias=alias, mailbox=mailbox) for mailbox in mailboxes),
            *(AliasTarget(tenant_id=alias.tenant_id, alias=alias, address=address) for address in outside),
        ]
    )


def _outside(texts: Iterable[str]) -> list[str]:
    """Addresses outside, in normal form. What is hosted here is named as a mailbox, so that no loop can begin."""
    names = sorted({addresses.address(text) for text in texts})
    if names and not settings.MAILHOST_FORWARD_SMTP:
        raise BadValue(
            _("mail cannot be forwarded outside: the host has no MTA for it (MAILHOST_FORWARD_SMTP)"), field="targets"
        )
    hosts = {addresses.split(name)[1] for name in names}
    if here := Domain.objects.filter(name__in=hosts).values_list("name", flat=True).first():
        raise BadValue(_("%(here)s is hosted here: name the mailbox instead") % {"here": here}, field="targets")
    return names


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= timezone.now():
        raise BadValue(_("an alias expires in the future"), field="expires_at")
