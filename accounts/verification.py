"""Whether a domain is its tenant's: a TXT record with the domain's token says so.

A pending domain is asked for often at first, and less and less. A verified one is asked for daily; if its record is
missing for longer than a time of grace, it is failing. Only an answer counts: DNS that is away changes nothing. What
an operator has taken on trust (`checked_at` is null) is not asked for.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts import audit, events, provisioning
from accounts.models import Domain
from accounts.zone import asking
from accounts.zone.asking import Question

LABEL: Final = "_mailhost"
PREFIX: Final = "mailhost-verification="

CLAIM: Final = timedelta(days=30)
"""How long a domain may be pending before its tenant's claim to it lapses."""

SOON: Final = timedelta(days=7)
"""How long before that it is told."""

_LOOKUP: Final = 5.0
"""Seconds in which a look must be done, whatever goes wrong."""
_THREADS: Final = 8
_BATCH: Final = 100

# Claimed by the time that it is asked at: of two workers one asks.
_CLAIM = """
UPDATE accounts_domain SET checked_at = now() WHERE id IN (
    SELECT id FROM accounts_domain
    WHERE closed_at IS NULL AND CASE
        WHEN state = 'pending' THEN
            coalesce(checked_at, '-infinity')
                <= now() - greatest(interval '2 minutes', least((now() - created_at) / 12, interval '12 hours'))
        WHEN state = 'verified' AND failing_since IS NULL THEN checked_at <= now() - interval '1 day'
        ELSE checked_at <= now() - interval '1 hour'
    END
    ORDER BY checked_at NULLS FIRST LIMIT %s
    FOR NO KEY UPDATE SKIP LOCKED
)
RETURNING id
"""


class Finding(StrEnum):
    """What DNS says."""

    FOUND = "found"
    MISSING = "missing"
    UNKNOWN = "unknown"  # DNS does not answer, or not with yes or no


@dataclass(frozen=True, kw_only=True)
class Config:
    """Whom to ask, and for how long a record may be missing.

    Without servers the system's are asked. Where it has none either, every finding is `UNKNOWN`.
    """

    servers: Sequence[tuple[str, int]]
    grace: timedelta


def record(domain: Domain) -> tuple[str, str]:
    """The name and the text of the TXT record that shows whose the domain is. It may have the domain's name, too."""
    return f"{LABEL}.{domain.name}", f"{PREFIX}{domain.verification_token}"


def check(domain: Domain, config: Config) -> Finding:
    """Ask DNS now, and let the domain be what follows from the answer."""
    return conclude(domain, look(domain, config), config)


def conclude(domain: Domain, finding: Finding, config: Config) -> Finding:
    """Let the domain be what follows from what DNS has just said of it, for who waits for DNS in no transaction."""
    Domain.objects.filter(pk=domain.pk).exclude(state=Domain.State.VERIFIED, checked_at=None).update(checked_at=Now())
    _conclude(domain.pk, domain.verification_token, finding, config.grace)
    domain.refresh_from_db()
    return finding


def check_due(config: Config) -> int:
    """Check a batch of those that are due. Returns how many these were."""
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [_BATCH])
        ids = [domain for (domain,) in cursor.fetchall()]
    domains = list(Domain.objects.filter(pk__in=ids))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="dns") as threads:
        findings = threads.map(lambda domain: look(domain, config), domains)
        for domain, finding in zip(domains, findings, strict=True):
            _conclude(domain.pk, domain.verification_token, finding, config.grace)
    return len(domains)


def lapse() -> int:
    """Close the domains that nobody has shown to be his for `CLAIM`: else a name could be kept from its owner for ever.

    Returns how many. Not for a host that takes their mail all the same.
    """
    lapsed = list(Domain.objects.filter(lapsing()).order_by("pk"))
    for domain in lapsed:
        provisioning.close_domain(domain)
    return len(lapsed)


def lapsing(within: timedelta = timedelta(0)) -> Q:
    """The domains to which the claim lapses within that time, or has."""
    return Q(state=Domain.State.PENDING, closed_at=None, created_at__lt=Now() - (CLAIM - within))


def trust(domain: Domain) -> None:
    """Let a domain be verified because an operator says so; DNS is not asked for it."""
    with transaction.atomic():
        row = Domain.objects.select_for_update(no_key=True).get(pk=domain.pk)
        Domain.objects.filter(pk=domain.pk).update(state=Domain.State.VERIFIED, checked_at=None, failing_since=None)
        _tell(row, Domain.State.VERIFIED)
    domain.refresh_from_db()


def is_trusted(domain: Domain) -> bool:
    """Whether it is verified because an operator said so."""
    return domain.state == Domain.State.VERIFIED and domain.checked_at is None


def look(domain: Domain, config: Config) -> Finding:
    """What DNS says of a domain, within seconds. Never raises for what DNS says, and needs no database."""
    name, text = record(domain)
    asked = [Question(name, "TXT"), Question(domain.name, "TXT")]
    answers = asking.ask(asked, config.servers, lifetime=_LOOKUP).values()
    if any(text == found.strip() for answer in answers for found in answer.texts()):
        return Finding.FOUND
    return Finding.MISSING if all(answer.is_certain for answer in answers) else Finding.UNKNOWN


def _conclude(domain_id: int, token: str, finding: Finding, grace: timedelta) -> None:
    """Let a domain be what follows from an answer, if it still is the one that was asked for."""
    if finding is Finding.UNKNOWN:
        return
    with transaction.atomic():
        found = Domain.objects.select_for_update(no_key=True).filter(
            pk=domain_id, verification_token=token, closed_at=None
        )
        domain = found.annotate(now=Now()).first()
        if domain is None:
            return
        values: dict[str, Any] = {}
        if finding is Finding.FOUND:
            values = {"state": Domain.State.VERIFIED, "failing_since": None, "checked_at": Now()}
        elif domain.state == Domain.State.VERIFIED and domain.checked_at:
            since = domain.failing_since or domain.now
            values = {"failing_since": since}
            if domain.now - since >= grace:
                values["state"] = Domain.State.FAILING
        if values:
            Domain.objects.filter(pk=domain_id).update(**values)
            domain.failing_since = values["failing_since"]
            _tell(domain, values.get("state", domain.state))


def _tell(domain: Domain, state: str) -> None:
    if state == domain.state:
        return
    audit.record(f"domain.{state}", domain, {"state": (domain.state, state)})
    payload: dict[str, Any] = {"id": domain.pk, "name": domain.name, "external_id": domain.external_id}
    if state == Domain.State.FAILING and domain.failing_since:
        payload["failing_since"] = domain.failing_since.isoformat()
    events.emit(f"domain.{state}", tenant_id=domain.tenant_id, domain=domain.name, payload=payload)
