"""Writing who has mail: every change to tenants, domains, logins, mailboxes and aliases is a function here.

Each owns its transaction, its check and its record, and can be repeated: what adds something returns it together
with whether it is new. Addresses come in any spelling. What cannot be done is raised as one of `REFUSALS`, with a
sentence for whoever asked.

An address is one mailbox's, one alias's or one login's. No constraint spans three tables, so whoever gives an
address away holds its domain's row meanwhile. Locks are taken in this order: domain, mailbox, tenant.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import ip_network
from typing import Final, NamedTuple

from django.contrib.auth.hashers import make_password
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts import addresses, passwords
from accounts.addresses import BadAddress
from accounts.models import Alias, AliasTarget, Domain, Mailbox, Role, Tenant, User
from accounts.passwords import BadPassword


class Refused(Exception):
    """It cannot be done; the text says why."""


class UnknownTenant(Refused):
    """There is no such tenant."""


class UnknownDomain(Refused):
    """The domain is not hosted here, or not the tenant's."""


class UnknownMailbox(Refused):
    """No open mailbox has that address."""


class DomainTaken(Refused):
    """The domain is another tenant's."""


class AddressTaken(Refused):
    """The address is somebody's already."""


class InQuarantine(Refused):
    """The address was a closed mailbox's that is not purged yet: its mail is not to reach somebody else."""


class OtherTenant(Refused):
    """The two belong to different tenants."""


class OwnsMailbox(Refused):
    """What this login may do follows from its mailbox."""


class BadValue(Refused):
    """A value that cannot be stored, or would do harm."""


REFUSALS: Final = (Refused, BadAddress, BadPassword)
"""All that is raised here for what was asked; the text of each is a sentence without its full stop."""

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MOST_OCTETS: Final = 2**63 - 1
_LONGEST_RETENTION: Final = timedelta(days=36500)
_BATCH: Final = 1000  # rows of one statement


# --- Looking up ----------------------------------------------------------------------------------------------------


def find_tenant(slug: str) -> Tenant:
    """The tenant of that slug. Raises `UnknownTenant`."""
    tenant = Tenant.objects.filter(slug=slug).first() if _SLUG.fullmatch(slug) else None
    if tenant is None:
        raise UnknownTenant(f"there is no tenant {slug!r}")
    return tenant


def find_domain(name: str) -> Domain:
    """The hosted domain of that name. Raises `UnknownDomain`, `BadAddress`."""
    host = addresses.domain(name)
    domain = Domain.objects.filter(name=host).first()
    if domain is None:
        raise UnknownDomain(f"{host} is not hosted here")
    return domain


def find_mailbox(address: str) -> Mailbox:
    """The open mailbox that has this very address, with its user and tenant. Raises `UnknownMailbox`, `BadAddress`."""
    name = addresses.address(address)
    mailbox = Mailbox.objects.open().select_related("user", "tenant").filter(address=name).first()
    if mailbox is None:
        raise UnknownMailbox(f"there is no mailbox {name}")
    return mailbox


# --- Tenants and their domains -------------------------------------------------------------------------------------


def add_tenant(slug: str, *, name: str = "") -> tuple[Tenant, bool]:
    """A tenant, called `name` or after its slug; an existing one stays as it is. Raises `BadValue`."""
    if not _SLUG.fullmatch(slug):
        raise BadValue(f"{slug!r} cannot be a slug: use small letters, digits and hyphens, at most 63")
    return Tenant.objects.get_or_create(slug=slug, defaults={"name": _checked_name(name or slug)})


def change_tenant(tenant: Tenant, *, name: str, retention: timedelta | None, admin_mailbox: Mailbox | None) -> None:
    """Give a tenant these values. Raises `BadValue`, `OtherTenant`, `UnknownMailbox`."""
    name = _checked_name(name)
    _check_retention(retention)
    with transaction.atomic():
        if admin_mailbox is not None:
            if admin_mailbox.tenant_id != tenant.pk:
                raise OtherTenant(f"{admin_mailbox} is not a mailbox of {tenant}")
            _lock_open(admin_mailbox)
        Tenant.objects.filter(pk=tenant.pk).update(name=name, retention=retention, admin_mailbox=admin_mailbox)
    tenant.refresh_from_db()


def add_domain(name: str, *, tenant: Tenant) -> tuple[Domain, bool]:
    """A domain of a tenant. Raises `DomainTaken`, `BadAddress`."""
    domain, added = Domain.objects.get_or_create(name=addresses.domain(name), defaults={"tenant": tenant})
    if domain.tenant_id != tenant.pk:
        raise DomainTaken(f"{domain} belongs to another tenant")
    return domain, added


# --- Logins --------------------------------------------------------------------------------------------------------


def add_staff(login: str, *, password: str | None, tenant: Tenant | None) -> User:
    """Somebody without a mailbox who may sign in to the admin: a tenant's staff, or without a tenant an operator.

    Raises `AddressTaken`, `BadAddress`, `BadPassword`.
    """
    email = addresses.address(login)
    user = User(
        email=email,
        tenant=tenant,
        role=Role.OPERATOR if tenant is None else Role.TENANT_ADMIN,
        is_staff=True,
        is_superuser=tenant is None,
        password=_hashed(password),
    )
    with transaction.atomic():
        _domains([email], lock=True)
        if _holders([email]):
            raise AddressTaken(f"{email} is taken")
        _insert([user])
    return user


def change_login(user: User, *, is_active: bool, is_staff: bool) -> None:
    """Let somebody sign in, and use the admin, or not. Raises `OwnsMailbox`."""
    free_to_change = Q(mailbox=None) | Q(is_active=is_active)
    if not User.objects.filter(free_to_change, pk=user.pk).update(is_active=is_active, is_staff=is_staff):
        raise OwnsMailbox(f"{user} owns a mailbox, and can sign in for as long as that is open")
    user.refresh_from_db()


def set_password(user: User, password: str | None) -> None:
    """Change a password; with `None` nobody can sign in. It holds from the next login on. Raises `BadPassword`."""
    user.password = _hashed(password)
    user.save(update_fields=["password"])


# --- Mailboxes -----------------------------------------------------------------------------------------------------


def add_mailbox(
    address: str, *, password: str | None, quota_octets: int | None, release: bool = False
) -> tuple[Mailbox, bool]:
    """A mailbox with its user; an existing one stays as it is, password and quota too.

    Without a password nobody can sign in until one is set. `release` gives the address away although it is in
    quarantine. Raises `UnknownDomain`, `AddressTaken`, `InQuarantine`, `BadValue`, `BadAddress`, `BadPassword`.
    """
    name = addresses.address(address)
    _check_quota(quota_octets)
    stored = _hashed(password)  # before the lock: it is slow on purpose
    with transaction.atomic():
        domain = _lock_domain(name)
        holder = _holders([name]).get(name)
        if isinstance(holder, Mailbox):
            return holder, False
        if holder is not None:
            _release(name, holder, release=release)
        [mailbox] = _open([_New(name, domain, stored, quota_octets)])
    return mailbox, True


class Row(NamedTuple):
    """A mailbox to be added with others."""

    line: int  # where it stands, to be named in a report
    address: str
    password: str
    quota_octets: int | None


class BadRow(NamedTuple):
    """A line of which no mailbox can be made, and why."""

    line: int
    reason: str


class BadRows(Refused):
    """Some lines cannot be carried out, and none was."""

    def __init__(self, rows: Iterable[BadRow]) -> None:
        self.rows = sorted(rows)
        super().__init__("nothing was added, because of these lines")


def add_mailboxes(
    rows: Iterable[Row | BadRow], *, progress: Callable[[int, int], object] = lambda done, of: None
) -> tuple[int, int]:
    """Add many mailboxes, all or none. Returns how many are new, and how many were there and stay as they are.

    Each new one takes a processor some 20 ms, to hash its password; `progress` is told how many are done, of how many.
    Rows that their reader has found bad become part of the report. Raises `BadRows`.
    """
    wanted, bad = _checked(rows)
    _, existing, refused = _survey(wanted)
    if bad or refused:
        raise BadRows(bad + refused)
    new = {name: row for name, row in wanted.items() if name not in existing}
    stored: dict[str, str] = {}
    for name, password in zip(new, _hashed_all([row.password for row in new.values()]), strict=True):
        stored[name] = password
        progress(len(stored), len(new))
    with transaction.atomic():
        # Hashing took a while, in which others may have added some of these.
        domains, existing, refused = _survey(new, lock=True)
        if refused:
            raise BadRows(refused)
        added = _open(
            _New(name, domains[addresses.split(name)[1]], stored[name], row.quota_octets)
            for name, row in new.items()
            if name not in existing
        )
    return len(added), len(wanted) - len(added)


def change_mailbox(
    mailbox: Mailbox,
    *,
    quota_octets: int | None,
    pop3_enabled: bool,
    allowed_networks: Iterable[str],
    retention: timedelta | None,
) -> None:
    """Give an open mailbox these values. Raises `UnknownMailbox`, `BadValue`.

    A quota below what is used takes no mail away; there is room again once enough was removed.
    """
    _check_quota(quota_octets)
    _check_retention(retention)
    _update_open(
        mailbox,
        quota_octets=quota_octets,
        pop3_enabled=pop3_enabled,
        allowed_networks=[_network(text) for text in allowed_networks],
        retention=retention,
    )


def suspend(mailbox: Mailbox) -> None:
    """Take no mail and let nobody fetch any, until it is resumed; nothing is lost. Raises `UnknownMailbox`."""
    _update_open(mailbox, state=Mailbox.State.SUSPENDED)


def resume(mailbox: Mailbox) -> None:
    """Undo `suspend`. Raises `UnknownMailbox`."""
    _update_open(mailbox, state=Mailbox.State.ACTIVE)


def close_mailbox(mailbox: Mailbox) -> None:
    """End the use of a mailbox: from now on its address is in quarantine, until it is purged with its mail.

    Its login is free at once. Its aliases stay with it: they deliver nothing, and are in quarantine like itself.
    Closing what is closed changes nothing.
    """
    with transaction.atomic():
        if Mailbox.objects.open().filter(pk=mailbox.pk).update(closed_at=Now()):
            User.objects.filter(pk=mailbox.user_id).update(email=None, is_active=False)
            Tenant.objects.filter(admin_mailbox=mailbox.pk).update(admin_mailbox=None)
    mailbox.refresh_from_db()


# --- Aliases -------------------------------------------------------------------------------------------------------


def add_alias(address: str, *, mailbox: Mailbox, release: bool = False) -> tuple[Alias, bool]:
    """A further address of a mailbox, in any domain of its tenant.

    `release` as for `add_mailbox`. Raises `UnknownDomain`, `UnknownMailbox`, `AddressTaken`, `InQuarantine`,
    `BadAddress`.
    """
    name = addresses.address(address)
    with transaction.atomic():
        domain = _lock_domain(name)
        if domain.tenant_id != mailbox.tenant_id:
            raise UnknownDomain(f"{domain} is not a domain of the mailbox's tenant")
        _lock_open(mailbox)
        if alias := Alias.objects.filter(address=name, targets__mailbox=mailbox).first():
            return alias, False
        holder = _holders([name]).get(name)
        if isinstance(holder, Mailbox):
            raise AddressTaken(f"{name} is a mailbox")
        if holder is not None:
            _release(name, holder, release=release)
        alias = Alias.objects.create(tenant_id=domain.tenant_id, domain=domain, address=name)
        AliasTarget.objects.create(tenant_id=domain.tenant_id, alias=alias, mailbox=mailbox)
        return alias, True


def remove_alias(alias: Alias) -> None:
    """Take no more mail at this address; that it takes none already changes nothing."""
    Alias.objects.filter(pk=alias.pk).delete()


# --- What the functions above are made of --------------------------------------------------------------------------


def _domains(names: Iterable[str], *, lock: bool = False) -> dict[str, Domain]:
    """The domains of these addresses, by name. Whoever holds them alone gives their addresses away."""
    hosts = {addresses.split(name)[1] for name in names}
    found = Domain.objects.filter(name__in=hosts).order_by("pk")
    return {domain.name: domain for domain in (found.select_for_update(no_key=True) if lock else found)}


def _lock_domain(address: str) -> Domain:
    host = addresses.split(address)[1]
    domain = _domains([address], lock=True).get(host)
    if domain is None:
        raise UnknownDomain(f"{host} is not hosted here")
    return domain


def _holders(names: Collection[str]) -> dict[str, Mailbox | Refused]:
    """Who has these addresses: the open mailbox itself, or why nobody else can have it. Free ones are left out."""
    holders: dict[str, Mailbox | Refused] = {}
    for mailbox in Mailbox.objects.filter(address__in=names).exclude(closed_at=None):
        holders[mailbox.address] = _quarantine(mailbox.address, mailbox)
    for alias in Alias.objects.prefetch_related("targets__mailbox").filter(address__in=names):
        closed = [target.mailbox for target in alias.targets.all() if target.mailbox and target.mailbox.closed_at]
        holders[alias.address] = (
            _quarantine(alias.address, closed[0])
            if closed and len(closed) == len(alias.targets.all())
            else AddressTaken(f"{alias} is an alias")
        )
    for user in User.objects.filter(email__in=names):
        holders[str(user)] = AddressTaken(f"{user} is taken")
    for mailbox in Mailbox.objects.open().filter(address__in=names):
        holders[mailbox.address] = mailbox
    return holders


def _quarantine(address: str, mailbox: Mailbox) -> InQuarantine:
    return InQuarantine(f"{address} is in quarantine since {mailbox.closed_at:%Y-%m-%d}, when {mailbox} was closed")


def _release(name: str, holder: Refused, *, release: bool) -> None:
    """Take an address out of quarantine; what was delivered to it stays where it is, and is purged in time."""
    if not (release and isinstance(holder, InQuarantine)):
        raise holder
    Alias.objects.filter(address=name).delete()


def _checked(rows: Iterable[Row | BadRow]) -> tuple[dict[str, Row], list[BadRow]]:
    """The rows that are well formed, by address in normal form; and the others."""
    wanted: dict[str, Row] = {}
    bad: list[BadRow] = []
    for row in rows:
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        try:
            name = addresses.address(row.address)
            passwords.check(row.password)
            _check_quota(row.quota_octets)
            if name in wanted:
                raise AddressTaken(f"{name} stands in line {wanted[name].line} already")
            wanted[name] = row
        except REFUSALS as refusal:
            bad.append(BadRow(row.line, str(refusal)))
    return wanted, bad


def _survey(wanted: dict[str, Row], *, lock: bool = False) -> tuple[dict[str, Domain], set[str], list[BadRow]]:
    """The domains of these rows, the addresses that are mailboxes already, and the rows that cannot be."""
    domains = _domains(wanted, lock=lock)
    holders = _holders(wanted.keys())
    existing: set[str] = set()
    bad: list[BadRow] = []
    for name, row in wanted.items():
        host = addresses.split(name)[1]
        holder = holders.get(name)
        if host not in domains:
            bad.append(BadRow(row.line, f"{host} is not hosted here"))
        elif isinstance(holder, Mailbox):
            existing.add(name)
        elif holder is not None:
            bad.append(BadRow(row.line, str(holder)))
    return domains, existing, bad


class _New(NamedTuple):
    address: str
    domain: Domain
    stored_password: str
    quota_octets: int | None


def _open(new: Iterable[_New]) -> list[Mailbox]:
    """Write mailboxes whose addresses are known to be free, with their users."""
    new = list(new)
    users = [User(email=one.address, tenant_id=one.domain.tenant_id, password=one.stored_password) for one in new]
    _insert(users)
    return Mailbox.objects.bulk_create(
        [
            Mailbox(
                tenant_id=one.domain.tenant_id,
                domain=one.domain,
                user=user,
                address=one.address,
                quota_octets=one.quota_octets,
            )
            for one, user in zip(new, users, strict=True)
        ],
        batch_size=_BATCH,
    )


def _insert(users: list[User]) -> None:
    try:
        with transaction.atomic():
            User.objects.bulk_create(users, batch_size=_BATCH)
    except IntegrityError:  # `createsuperuser` holds no lock
        raise AddressTaken("one of the addresses was taken meanwhile") from None


def _lock_open(mailbox: Mailbox) -> None:
    """Keep a mailbox from being closed until the transaction ends."""
    if not Mailbox.objects.open().select_for_update(no_key=True).filter(pk=mailbox.pk).first():
        raise UnknownMailbox(f"{mailbox} is closed")


def _update_open(mailbox: Mailbox, **values: object) -> None:
    if not Mailbox.objects.open().filter(pk=mailbox.pk).update(**values):
        raise UnknownMailbox(f"{mailbox} is closed")
    mailbox.refresh_from_db()


def _hashed(password: str | None) -> str:
    if password is not None:
        passwords.check(password)
    return make_password(password)


def _hashed_all(texts: list[str]) -> Iterator[str]:
    """Hash checked passwords on all processors: Argon2 lets go of the interpreter."""
    threads = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        yield from threads.map(make_password, texts)
    finally:
        threads.shutdown(cancel_futures=True)


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > 200 or not name.isprintable():
        raise BadValue("a tenant's name has 1 to 200 printable characters")
    return name


def _check_quota(octets: int | None) -> None:
    if octets is not None and not 0 <= octets <= _MOST_OCTETS:
        raise BadValue(f"a quota is from 0 to {_MOST_OCTETS} octets")


def _check_retention(retention: timedelta | None) -> None:
    """A time that PostgreSQL can subtract from now: one that it cannot would stop the purge of everybody's mail."""
    if retention is not None and not timedelta(0) <= retention <= _LONGEST_RETENTION:
        raise BadValue(f"a retention is from 0 to {_LONGEST_RETENTION.days} days")


def _network(text: str) -> str:
    """A network in the form that PostgreSQL takes for `inet`: one that it does not take would stop every login."""
    try:
        network = ip_network(text.strip())
    except ValueError:
        network = None
    if network is None or "%" in text:
        raise BadValue(f"{text!r} is not a network such as 192.0.2.0/24 or 2001:db8::/48")
    return str(network)
