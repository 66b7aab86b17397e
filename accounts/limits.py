"""How much a reseller, a tenant or a domain may have: counted and refused in the transaction that would break it.

Counts are changed by `charge`, in the database, since whoever asks may not see all that he counts against. Octets
follow the mailboxes' counters by a trigger, while there is a limit. Rows are locked last, and
the widest first: the reseller's, the tenant's, a domain's. So a transaction may count in several domains.
"""

from typing import Any, Final

from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts import audit, languages
from accounts.models import Allowance, Domain, Mailbox, Reseller, Tenant

FIELDS: Final = ("max_domains", "max_mailboxes", "max_aliases", "max_octets")
OVER_QUOTA: Final = "MH001"
"""SQLSTATE of the trigger's refusal: a domain, a tenant or a reseller has no room for so much mail."""

MOST: Final = 2**63 - 1
"""The highest limit."""


class LimitReached(Exception):
    """It would be more than is allowed; the text says of what, and whose limit it is."""


def of(target: Reseller | Tenant | Domain) -> Allowance:
    """What it may have, and has. Raises `Allowance.DoesNotExist` where that is not to be seen."""
    found: Allowance = Allowance.objects.get(**_key(target))
    return found


def told(has: str, most: str | None) -> str:
    """How much it has, of how much it may have."""
    if most is None:
        return _("%(has)s, no limit") % {"has": has}
    return _("%(has)s of %(most)s") % {"has": has, "most": most}


def so_many(what: str, number: int) -> str:
    """A number of `domains`, `mailboxes`, `aliases` or `octets`, as people read it."""
    named = {
        "domains": ngettext("%(number)s domain", "%(number)s domains", number),
        "mailboxes": ngettext("%(number)s mailbox", "%(number)s mailboxes", number),
        "aliases": ngettext("%(number)s alias", "%(number)s aliases", number),
        "octets": ngettext("%(number)s octet", "%(number)s octets", number),
    }
    return named[what] % {"number": languages.number(number)}


def open_for(target: Reseller | Tenant | Domain) -> None:
    """Begin to count for what was just made."""
    Allowance.objects.bulk_create([Allowance(**_key(target))])


def charge(
    *, tenant_id: int, domain_id: int | None = None, domains: int = 0, mailboxes: int = 0, aliases: int = 0
) -> None:
    """Count so many more, or with negative numbers fewer. Raises `LimitReached`, and counts nothing."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT mailhost_charge(%s, %s, %s, %s, %s)", (tenant_id, domain_id, domains, mailboxes, aliases)
        )
        [refusal] = cursor.fetchone()
    if refusal:
        whose, what, most = refusal.split(" ")
        raise LimitReached(_full(whose, what, int(most)))


def set_limits(target: Reseller | Tenant | Domain, **limits: int | None) -> dict[str, tuple[int | None, int | None]]:
    """Give it these limits, of `FIELDS`; None is none. Returns what changed, before and after.

    A limit below what there is takes nothing away. Raises `ValueError`.
    """
    for name, limit in limits.items():
        if name not in FIELDS:
            raise ValueError(_("there is no limit %(name)s") % {"name": name})
        if limit is not None and not 0 <= limit <= MOST:
            raise ValueError(_("%(name)s is from 0 to %(most)s") % {"name": name, "most": MOST})
    with transaction.atomic():
        if "max_octets" in limits:
            with connection.cursor() as cursor:
                # Until we are done no counter changes that this one counts: what it begins with is exact.
                cursor.execute("SELECT mailhost_hold_octets(%s, %s)", _ids(target)[:2])
        allowance = Allowance.objects.select_for_update(no_key=True).get(**_key(target))
        changed = {name: (getattr(allowance, name), limit) for name, limit in limits.items()}
        changed = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
        values: dict[str, Any] = {name: limit for name, (_before, limit) in changed.items()}
        if "max_octets" in values:
            values |= {"octets": 0 if values["max_octets"] is None else used_octets(target), "warned_percent": 0}
        if values:
            Allowance.objects.filter(pk=allowance.pk).update(**values)
            audit.record(f"{target._meta.model_name}.limited", target, changed)
    return changed


def hand_over(tenant: Tenant, *, before: Reseller | None, after: Reseller | None) -> None:
    """Count all that a tenant has against the reseller `after`, and no more against `before`. Raises `LimitReached`.

    Belongs into the transaction that changes whose tenant it is.
    """
    with connection.cursor() as cursor:
        # Until we are done nobody counts anything for it.
        cursor.execute("SELECT mailhost_hold_octets(NULL, %s)", (tenant.pk,))
    has = of(tenant)
    rows = Allowance.objects.filter(reseller__in=[one for one in (before, after) if one])
    for row in rows.order_by("reseller_id").select_for_update(no_key=True):
        gains = after is not None and row.reseller_id == after.pk
        more = {"domains": has.domains, "mailboxes": has.mailboxes, "aliases": has.aliases}
        if row.max_octets is not None:
            more["octets"] = used_octets(tenant)
        for what, count in more.items():
            counted, most = getattr(row, what) + (count if gains else -count), getattr(row, f"max_{what}")
            if gains and count and most is not None and counted > most:
                raise LimitReached(_too_many("reseller", what, most, counted))
            setattr(row, what, counted)
        row.save(update_fields=list(more))


def move_domains(before: Tenant, after: Tenant, *, domains: int, mailboxes: int, aliases: int, octets: int) -> None:
    """Count domains with so much in them against another tenant, and its reseller. Raises `LimitReached`.

    Belongs into the transaction that moves them, at its end: from here on it holds up who counts for these tenants. It
    holds the domains, their mailboxes and both tenants.
    """
    with connection.cursor() as cursor:
        # Until we are done nobody sets a limit, which begins with a sum; others count on, as `mailhost_charge` does.
        for tenant in sorted((before.pk, after.pk)):
            cursor.execute("SELECT pg_advisory_xact_lock_shared(1835100526, (%s & 2147483647)::int)", (tenant,))
    resellers = {before.reseller_id, after.reseller_id} - {None}
    rows = Allowance.objects.filter(Q(tenant__in=(before, after), domain=None) | Q(reseller__in=resellers))
    for row in rows.order_by("reseller_id", "tenant_id").select_for_update(no_key=True):
        gains, loses = (row.tenant_id == one.pk or row.reseller_id == (one.reseller_id or 0) for one in (after, before))
        more = {"domains": domains, "mailboxes": mailboxes, "aliases": aliases}
        if row.max_octets is not None:
            more["octets"] = octets
        for what, count in more.items():
            counted, most = getattr(row, what) + count * (gains - loses), getattr(row, f"max_{what}")
            if gains and not loses and count and most is not None and counted > most:
                whose = "tenant" if row.tenant_id else "reseller"
                raise LimitReached(_too_many(whose, what, most, counted))
            setattr(row, what, counted)
        row.save(update_fields=list(more))


def move_octets(mailbox: Mailbox, *, to: Domain) -> None:
    """Count a mailbox's mail against another domain of its tenant. Raises `LimitReached`.

    Belongs into the transaction that moves it there.
    """
    both = Allowance.objects.filter(domain_id__in=(mailbox.domain_id, to.pk), max_octets__isnull=False)
    for row in both.order_by("domain_id").select_for_update(no_key=True):
        row.octets += mailbox.used_octets if row.domain_id == to.pk else -mailbox.used_octets
        if row.domain_id == to.pk and mailbox.used_octets and row.octets > (row.max_octets or 0):
            text = _("the domain %(domain)s has no room for %(octets)s octets more")
            raise LimitReached(text % {"domain": to, "octets": mailbox.used_octets})
        row.save(update_fields=["octets"])


def used_octets(target: Reseller | Tenant | Domain) -> int:
    """What all its mail takes: of a large tenant without a limit, a matter of milliseconds, not microseconds."""
    reseller, tenant, domain = _ids(target)
    with connection.cursor() as cursor:
        cursor.execute("SELECT mailhost_used_octets(%s, %s, %s)", (reseller, tenant, domain))
        [octets] = cursor.fetchone()
    return int(octets)


def room(mailbox: Mailbox) -> int | None:
    """Octets that the limits of its domain and its tenant leave to a mailbox; None where they have none.

    The limit of a reseller is not for everybody to see: what it refuses is found out by trying.
    """
    of_domain, of_tenant = Q(domain=mailbox.domain_id), Q(tenant=mailbox.tenant_id, domain=None)
    limited = Allowance.objects.filter(of_domain | of_tenant, max_octets__isnull=False)
    rooms = limited.annotate(room=F("max_octets") - F("octets")).values_list("room", flat=True)
    return min((max(0, left) for left in rooms), default=None)


def nearly_reached() -> QuerySet[Tenant]:
    """Open tenants that have nine tenths, or more, of the mailboxes or of the octets that they may have."""
    full = Q()
    for has in ("mailboxes", "octets"):
        most = F(f"max_{has}")
        full |= Q(**{f"max_{has}__gt": 0, f"{has}__gte": most - most / 10})
    reached = Allowance.objects.filter(full, domain=None, tenant__isnull=False).order_by()
    found: QuerySet[Tenant] = Tenant.objects.filter(closed_at=None, pk__in=reached.values("tenant"))
    return found


def is_over_quota(error: DatabaseError) -> bool:
    """Whether the trigger refused."""
    return getattr(error.__cause__, "sqlstate", None) == OVER_QUOTA


def _full(whose: str, what: str, most: int) -> str:
    text = ngettext("%(whose)s may have %(what)s, and has it", "%(whose)s may have %(what)s, and has them", most)
    return text % {"whose": _whose(whose), "what": so_many(what, most)}


def _too_many(whose: str, what: str, most: int, counted: int) -> str:
    text = _("%(whose)s may have %(what)s, and would have %(counted)s")
    return text % {"whose": _whose(whose), "what": so_many(what, most), "counted": counted}


def _whose(name: str) -> str:
    return {"reseller": _("the reseller"), "tenant": _("the tenant"), "domain": _("the domain")}[name]


def _ids(target: Reseller | Tenant | Domain) -> tuple[int | None, int | None, int | None]:
    if isinstance(target, Reseller):
        return target.pk, None, None
    if isinstance(target, Tenant):
        return None, target.pk, None
    return None, target.tenant_id, target.pk


def _key(target: Reseller | Tenant | Domain) -> dict[str, int | None]:
    reseller, tenant, domain = _ids(target)
    return {"reseller_id": reseller} if reseller else {"tenant_id": tenant, "domain_id": domain}
