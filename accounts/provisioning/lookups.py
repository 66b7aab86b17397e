"""Finding what callers name: tenants by slug, domains by name, mailboxes by address, in any spelling."""

from collections.abc import Collection, Iterable

from django.db.models import QuerySet
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from accounts import addresses
from accounts.models import Alias, Domain, Mailbox, Reseller, Tenant, User
from accounts.provisioning import values
from accounts.provisioning.refusals import (
    AddressTaken,
    InQuarantine,
    Refused,
    UnknownDomain,
    UnknownMailbox,
    UnknownReseller,
    UnknownTenant,
)


def find_reseller(slug: str) -> Reseller:
    """The reseller of that slug. Raises `UnknownReseller`."""
    reseller = Reseller.objects.filter(slug=slug).first() if values.is_slug(slug) else None
    if reseller is None:
        raise UnknownReseller(_("there is no reseller %(slug)r") % {"slug": slug})
    return reseller


def find_tenant(slug: str) -> Tenant:
    """The tenant of that slug. Raises `UnknownTenant`."""
    tenant = Tenant.objects.filter(slug=slug).first() if values.is_slug(slug) else None
    if tenant is None:
        raise UnknownTenant(_("there is no tenant %(slug)r") % {"slug": slug})
    return tenant


def find_domain(name: str) -> Domain:
    """The hosted domain of that name. Raises `UnknownDomain`, `BadAddress`."""
    host = addresses.domain(name)
    domain = Domain.objects.filter(name=host).first()
    if domain is None:
        raise UnknownDomain(_("%(host)s is not hosted here") % {"host": host})
    return domain


def find_mailbox(address: str) -> Mailbox:
    """The open mailbox that has this very address, with its user and tenant. Raises `UnknownMailbox`, `BadAddress`."""
    name = addresses.address(address)
    mailbox = Mailbox.objects.open().select_related("user", "tenant").filter(address=name).first()
    if mailbox is None:
        raise UnknownMailbox(_("there is no mailbox %(name)s") % {"name": name})
    return mailbox


def find_last_mailbox(address: str) -> Mailbox:
    """As `find_mailbox`; where none is open, the one that was closed last and is not purged yet."""
    try:
        return find_mailbox(address)
    except UnknownMailbox:
        closed = Mailbox.objects.exclude(closed_at=None).select_related("user", "tenant")
        found: Mailbox | None = closed.filter(address=addresses.address(address)).order_by("-closed_at").first()
        if found is None:
            raise
        return found


def domains_of(names: Iterable[str], *, lock: bool = False) -> dict[str, Domain]:
    """The open domains of these addresses, by name. Whoever holds them alone gives their addresses away."""
    hosts = {addresses.split(name)[1] for name in names}
    found = Domain.objects.filter(name__in=hosts, closed_at=None).order_by("pk")
    return {domain.name: domain for domain in (found.select_for_update(no_key=True) if lock else found)}


def lock_domain(address: str) -> Domain:
    """The domain of an address, held until the transaction ends. Raises `UnknownDomain`."""
    host = addresses.split(address)[1]
    domain = domains_of([address], lock=True).get(host)
    if domain is None:
        raise UnknownDomain(_("%(host)s is not hosted here") % {"host": host})
    return domain


def lock_open(mailbox: Mailbox) -> None:
    """Keep a mailbox from being closed until the transaction ends. Raises `UnknownMailbox`."""
    if not Mailbox.objects.open().select_for_update(no_key=True).filter(pk=mailbox.pk).first():
        raise UnknownMailbox(_("%(mailbox)s is closed") % {"mailbox": mailbox})


def hold(mailboxes: QuerySet[Mailbox]) -> list[Mailbox]:
    """The open ones of these mailboxes, all locked before any of them is counted against a limit: who delivers to one
    holds it, and waits for the limit.
    """
    return list(mailboxes.filter(closed_at=None).order_by("pk").select_for_update(no_key=True))


def holders(names: Collection[str]) -> dict[str, Mailbox | Refused]:
    """Who has these addresses: the open mailbox itself, or why nobody else can have it. Free ones are left out."""
    found: dict[str, Mailbox | Refused] = {}
    for mailbox in Mailbox.objects.filter(address__in=names).exclude(closed_at=None):
        found[mailbox.address] = _quarantine(mailbox.address, mailbox)
    for alias in Alias.objects.prefetch_related("targets__mailbox").filter(address__in=names):
        targets = list(alias.targets.all())
        closed = [target.mailbox for target in targets if target.mailbox and target.mailbox.closed_at]
        found[alias.address] = (
            _quarantine(alias.address, closed[0])
            if closed and len(closed) == len(targets)
            else AddressTaken(_("%(alias)s is an alias") % {"alias": alias})
        )
    for user in User.objects.filter(email__in=names):
        found[str(user)] = AddressTaken(_("%(user)s is taken") % {"user": user})
    for mailbox in Mailbox.objects.open().filter(address__in=names):
        found[mailbox.address] = mailbox
    return found


def _quarantine(address: str, mailbox: Mailbox) -> InQuarantine:
    assert mailbox.closed_at
    text = _("%(address)s is in quarantine since %(day)s, when %(mailbox)s was closed")
    day = date_format(localtime(mailbox.closed_at), "DATE_FORMAT")
    return InQuarantine(text % {"address": address, "day": day, "mailbox": mailbox})
