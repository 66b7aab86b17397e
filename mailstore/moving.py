"""Moving a domain to another tenant with everything in it, in one transaction.

Whoever writes anything of a mailbox holds the mailbox's row, or has it held by a foreign key: so a delivery comes
before the move or after it, and what it writes is its tenant's. References across tenants are refused by the database
as ever, at the end of the move instead of at each statement. What it counts against is held last, when all is written
and looked at: other domains of both tenants go on getting mail.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from django.apps import apps
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import Q
from django.utils.translation import gettext as _
from psycopg import errors

from accounts import audit, limits, notices, tokens
from accounts.models import AliasTarget, ApiToken, Domain, Mailbox, Role, Tenant, User
from accounts.provisioning import BadValue, Refused, UnknownDomain, UnknownTenant, happened, values
from accounts.tenancy import TenantOwned

MOST_TIES: Final = 100
"""Reasons that are told at most."""
_PATIENCE: Final = 10  # seconds for a row that somebody else holds


class Tied(Refused):
    """The domain cannot go while other things hold on to it. `reasons` says which, a sentence each."""

    def __init__(self, domain: Domain, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(
            _("%(domain)s cannot move: %(reasons)s") % {"domain": domain, "reasons": "; ".join(self.reasons)}
        )


class Busy(Refused):
    """Somebody else works on it for longer than we wait. Nothing has moved; later it may."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What moves, or has moved."""

    domains: int = 0  # with its alias domains
    mailboxes: int = 0
    closed: int = 0  # of the mailboxes, those in quarantine
    aliases: int = 0
    messages: int = 0  # also those that can still be restored
    octets: int = 0  # of the messages
    names: tuple[str, ...] = field(default=(), repr=False)  # of the domains


def move_domain(domain: Domain, *, to: Tenant) -> Moved:
    """Give a domain to another tenant: its alias domains, mailboxes, logins, aliases, all mail and all records.

    What is closed, expunged or due to be purged moves, too. Open sessions end. Owners of mailboxes keep their
    passwords, and lose what they could do besides; the old tenant's staff and tokens let go of the domain. Tokens of
    mailboxes are revoked if its staff, or a reseller who is not the new tenant's, was told their texts. Its audit so
    far, and events that were told, stay with the old tenant. Moving it where it is changes nothing.

    Raises `Tied` with what holds on to it, `LimitReached`, `UnknownDomain`, `UnknownTenant`, `BadValue`, `Taken`, and
    `Busy`; then nothing has moved.
    """
    with _patiently(domain):
        moved = _Move(domain, to).carried_out()
    domain.refresh_from_db()
    return moved


def forecast(domain: Domain, *, to: Tenant) -> Moved:
    """What `move_domain` would move now. Raises what that would."""
    with _patiently(domain), transaction.atomic():
        moved = _Move(domain, to).forecast()
        transaction.set_rollback(True)
    return moved


_BOXES = "SELECT id FROM accounts_mailbox WHERE domain_id = ANY (%(domains)s)"
_ALIASES = "SELECT id FROM accounts_alias WHERE domain_id = ANY (%(domains)s)"
_OWNERS = "SELECT user_id FROM accounts_mailbox WHERE domain_id = ANY (%(domains)s)"
_CONTENTS = f"""
    SELECT content_id FROM mailstore_message WHERE mailbox_id IN ({_BOXES})
    UNION
    SELECT content_id FROM mailstore_forward WHERE domain_id = ANY (%(domains)s)
"""
_WHOSE: Final = {
    "domain_id": "domain_id = ANY (%(domains)s)",
    "alias_id": f"alias_id IN ({_ALIASES})",
    "mailbox_id": f"mailbox_id IN ({_BOXES})",
}
"""By column that tells whose a row is, the most telling first, which rows go."""

_LOCK_BOXES = f"{_BOXES} ORDER BY id FOR UPDATE"

_END_SESSIONS = f"""
WITH free AS MATERIALIZED (
    SELECT id FROM mailstore_maildropsession
    WHERE mailbox_id IN ({_BOXES}) AND ended_at IS NULL
    ORDER BY id
    FOR UPDATE {{wait}}
)
UPDATE mailstore_maildropsession session SET ended_at = now(), "end" = 'ended' FROM free WHERE session.id = free.id
"""
# Who ends a session holds it and waits for the mailbox: the first time we come before the mailbox, too.
_END_ALL_SESSIONS = _END_SESSIONS.format(wait="")
_END_FREE_SESSIONS = _END_SESSIONS.format(wait="SKIP LOCKED")
_OPEN_SESSIONS = (
    f"SELECT EXISTS (SELECT FROM mailstore_maildropsession WHERE mailbox_id IN ({_BOXES}) AND ended_at IS NULL)"
)

_MEASURE = f"""
SELECT mailboxes, closed, used, messages, octets, (SELECT count(*) FROM accounts_alias WHERE id IN ({_ALIASES}))
FROM (
    SELECT count(*) AS mailboxes, count(closed_at) AS closed,
        coalesce(sum(used_octets) FILTER (WHERE closed_at IS NULL), 0) AS used
    FROM accounts_mailbox WHERE domain_id = ANY (%(domains)s)
) mailbox, (
    SELECT count(*) AS messages, coalesce(sum(octets), 0) AS octets
    FROM mailstore_message WHERE mailbox_id IN ({_BOXES})
) message
"""

# Deliveries of large messages hold one while they wait for their mailboxes, but mailboxes before it.
_LOCK_CONTENTS = f"""
SELECT count(*) FROM (SELECT id FROM mailstore_content WHERE id IN ({_CONTENTS}) ORDER BY id FOR UPDATE) locked
"""

# What several recipients got in one transaction lies there once for the tenant: where another of them stays, twice now.
_COPY_SHARED = f"""
WITH shared AS MATERIALIZED (
    SELECT id, nextval(pg_get_serial_sequence('mailstore_content', 'id')) AS copy_id
    FROM mailstore_content content
    WHERE id IN ({_CONTENTS}) AND (
        EXISTS (SELECT FROM mailstore_message WHERE content_id = content.id AND tenant_id = %(before)s)
        OR EXISTS (SELECT FROM mailstore_forward WHERE content_id = content.id AND tenant_id = %(before)s)
    )
), content AS (
    INSERT INTO mailstore_content (id, tenant_id, octets, header_octets, has_dot_lines, body, created_at)
    SELECT copy_id, %(after)s, octets, header_octets, has_dot_lines, body, created_at
    FROM shared JOIN mailstore_content USING (id)
), chunk AS (
    INSERT INTO mailstore_contentchunk (tenant_id, content_id, number, octets)
    SELECT %(after)s, copy_id, number, octets
    FROM shared JOIN mailstore_contentchunk chunk ON chunk.content_id = shared.id
), forward AS (
    UPDATE mailstore_forward forward SET content_id = copy_id
    FROM shared WHERE forward.content_id = shared.id AND forward.tenant_id = %(after)s
)
UPDATE mailstore_message message SET content_id = copy_id
FROM shared WHERE message.content_id = shared.id AND message.tenant_id = %(after)s
"""

_MOVE_CONTENTS = (
    f"UPDATE mailstore_content SET tenant_id = %(after)s WHERE id IN ({_CONTENTS}) AND tenant_id = %(before)s",
    "UPDATE mailstore_contentchunk chunk SET tenant_id = %(after)s FROM mailstore_content content"
    f" WHERE content.id = chunk.content_id AND chunk.tenant_id <> %(after)s AND content.id IN ({_CONTENTS})",
)

# Whoever is of another tenant does not exist: neither for those who go nor for those who stay.
_FORGET_OTHERS = (
    """
    UPDATE mailstore_message message SET expunged_by_id = NULL
    FROM accounts_user login
    WHERE login.id = message.expunged_by_id AND message.tenant_id IN (%(before)s, %(after)s)
        AND login.tenant_id IN (%(before)s, %(after)s) AND login.tenant_id <> message.tenant_id
    """,
    """
    UPDATE accounts_apitoken token SET created_by_id = NULL
    FROM accounts_user login
    WHERE login.id = token.created_by_id AND token.tenant_id IN (%(before)s, %(after)s)
        AND login.tenant_id IN (%(before)s, %(after)s) AND login.tenant_id <> token.tenant_id
    """,
)

_LET_GO = (
    f"DELETE FROM accounts_domainadmin WHERE domain_id = ANY (%(domains)s) OR user_id IN ({_OWNERS})",
    "DELETE FROM accounts_apitoken_domains WHERE domain_id = ANY (%(domains)s)",
    f"DELETE FROM accounts_user_groups WHERE user_id IN ({_OWNERS})",
    f"DELETE FROM accounts_user_user_permissions WHERE user_id IN ({_OWNERS})",
    f"UPDATE accounts_tenant SET admin_mailbox_id = NULL WHERE id = %(before)s AND admin_mailbox_id IN ({_BOXES})",
)


_MOVE_ALLOWANCES = "UPDATE accounts_allowance SET tenant_id = %(after)s WHERE domain_id = ANY (%(domains)s)"

# To look at all that was moved takes longer than to move it.
_REFERENCES_BUT_OF_ALLOWANCES = """
SELECT string_agg(quote_ident(conname), ', ') FROM pg_constraint
WHERE contype = 'f' AND condeferrable AND connamespace = current_schema()::regnamespace
    AND conrelid <> 'accounts_allowance'::regclass
"""


@contextmanager
def _patiently(domain: Domain) -> Iterator[None]:
    """A transaction that waits for others, but not for ever."""
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{_PATIENCE}s",))
            yield
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout TO DEFAULT")
    except OperationalError as error:
        if isinstance(error.__cause__, errors.LockNotAvailable | errors.DeadlockDetected):
            raise Busy(
                _("somebody is at work in %(domain)s, and nothing was moved: try again") % {"domain": domain}
            ) from None
        raise
    except IntegrityError as error:
        raise values.taken(error) from None


class _Move:
    """One domain on its way."""

    def __init__(self, domain: Domain, to: Tenant) -> None:
        self._domain = domain
        self._to = to
        self._before = to
        self._domains: list[Domain] = []
        self._used = 0  # octets that count against limits

    def forecast(self) -> Moved:
        """What moves, if it may."""
        self._domains = self._found(Domain.objects.all())
        self._before, self._to = self._tenants(Tenant.objects.all())
        with connection.cursor() as cursor:
            return self._measured(cursor)

    def carried_out(self) -> Moved:
        """Hold all that goes, in the order in which everybody does; then write."""
        # Now nobody adds to it. Deliveries go on, whose foreign keys hold it for a moment when they hold a mailbox.
        Domain.objects.select_for_update(no_key=True).filter(pk=self._domain.pk).first()
        self._domains = self._found(Domain.objects.select_for_update(no_key=True))
        if self._domains[0].tenant_id == self._to.pk:
            return Moved()
        with connection.cursor() as cursor:
            self._run(cursor, _END_ALL_SESSIONS)
            self._run(cursor, _LOCK_BOXES)
            self._end_sessions(cursor)
            self._before, self._to = self._tenants(Tenant.objects.select_for_update(no_key=True))
            moved = self._measured(cursor)
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
            self._write(cursor)
            [references] = self._run(cursor, _REFERENCES_BUT_OF_ALLOWANCES).fetchone()
            cursor.execute(f"SET CONSTRAINTS {references} IMMEDIATE")
            # Last, since from here on whoever counts in either tenant waits: mail for its other domains does.
            self._count(moved)
            self._run(cursor, _MOVE_ALLOWANCES)
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            boxes = self._run(cursor, _BOXES).fetchall()
        self._tell(moved)
        notices.mailboxes_changed(pk for (pk,) in boxes)
        return moved

    def _found(self, rows: Any) -> list[Domain]:
        found = list(rows.filter(Q(pk=self._domain.pk) | Q(alias_of=self._domain.pk)).order_by("pk"))
        if not any(row.pk == self._domain.pk and row.closed_at is None for row in found):
            raise UnknownDomain(_("%(domain)s is closed") % {"domain": self._domain})
        return found

    def _tenants(self, rows: Any) -> tuple[Tenant, Tenant]:
        both = {row.pk: row for row in rows.filter(pk__in=(self._domains[0].tenant_id, self._to.pk)).order_by("pk")}
        if self._to.pk not in both:
            raise UnknownTenant(_("%(to)s was removed") % {"to": self._to})
        if both[self._to.pk].closed_at:
            raise BadValue(_("%(to)s is closed") % {"to": self._to}, field="tenant")
        return both[self._domains[0].tenant_id], both[self._to.pk]

    def _end_sessions(self, cursor: CursorWrapper) -> None:
        """Those that began before the mailboxes were held; now none can."""
        deadline = time.monotonic() + _PATIENCE
        while self._run(cursor, _OPEN_SESSIONS).fetchone() == (True,):
            if not self._run(cursor, _END_FREE_SESSIONS).rowcount:
                if time.monotonic() > deadline:
                    raise Busy(
                        _("sessions in %(domain)s do not end, and nothing was moved: try again")
                        % {"domain": self._domain}
                    )
                time.sleep(0.05)

    def _measured(self, cursor: CursorWrapper) -> Moved:
        """What moves, if its new tenant has room. Raises `Tied`, `LimitReached`."""
        if reasons := list(islice(self._ties(), MOST_TIES)):
            raise Tied(self._domain, reasons)
        mailboxes, closed, used, messages, octets, aliases = self._run(cursor, _MEASURE).fetchone()
        self._used = int(used)
        moved = Moved(
            domains=len(self._domains),
            mailboxes=mailboxes,
            closed=closed,
            aliases=aliases,
            messages=messages,
            octets=int(octets),
            names=tuple(sorted(row.name for row in self._domains)),
        )
        with transaction.atomic():  # refused before anything is written; undone, so that nobody waits meanwhile
            self._count(moved)
            transaction.set_rollback(True)
        return moved

    def _count(self, moved: Moved) -> None:
        """Count it against its new tenant. Raises `LimitReached`."""
        if self._before.pk != self._to.pk:
            limits.move_domains(
                self._before,
                self._to,
                domains=sum(row.closed_at is None for row in self._domains),
                mailboxes=moved.mailboxes - moved.closed,
                aliases=moved.aliases,
                octets=self._used,
            )

    def _ties(self) -> Iterator[str]:
        ids = self._ids()
        within = Mailbox.objects.filter(domain__in=ids)
        for row in self._domains:
            if row.alias_of_id not in (None, *ids):
                yield _("it is an alias domain of %(domain)s: move that one, and this comes along") % {
                    "domain": row.alias_of
                }
        for address in within.filter(legal_hold=True).values_list("address", flat=True):
            yield _("%(address)s is on legal hold") % {"address": address}
        across = AliasTarget.objects.exclude(mailbox=None).order_by("alias__address", "mailbox__address")
        for alias, mailbox in _addresses(across.filter(alias__domain__in=ids).exclude(mailbox__domain__in=ids)):
            yield _("the alias %(alias)s goes to %(mailbox)s, which stays") % {"alias": alias, "mailbox": mailbox}
        for alias, mailbox in _addresses(across.filter(mailbox__domain__in=ids).exclude(alias__domain__in=ids)):
            yield _("the alias %(alias)s, which stays, goes to %(mailbox)s") % {"alias": alias, "mailbox": mailbox}
        there = {"tenant": self._to, "external_id__isnull": False}
        for name in Domain.objects.filter(
            pk__in=ids, external_id__in=Domain.objects.filter(**there).values("external_id")
        ).values_list("name", flat=True):
            yield _("the external_id of %(name)s is another domain's there") % {"name": name}
        taken = Mailbox.objects.open().filter(**there).values("external_id")
        for address in within.filter(closed_at=None, external_id__in=taken).values_list("address", flat=True):
            yield _("the external_id of %(address)s is another mailbox's there") % {"address": address}

    def _write(self, cursor: CursorWrapper) -> None:
        owners = User.objects.filter(mailbox__domain__in=self._ids())
        for user in owners.exclude(role=Role.MEMBER):  # of the old tenant, for them to see
            audit.record("login.changed", user, {"role": (user.role, Role.MEMBER)})
        self._revoke()
        for statement in _LET_GO:
            self._run(cursor, statement)
        owners.update(tenant=self._to, role=Role.MEMBER, is_staff=False)
        for table, condition in _tables():
            self._run(cursor, f"UPDATE {table} SET tenant_id = %(after)s WHERE {condition}")
        self._run(cursor, _LOCK_CONTENTS)
        for statement in (_COPY_SHARED, *_MOVE_CONTENTS, *_FORGET_OTHERS):
            self._run(cursor, statement)

    def _revoke(self) -> None:
        """End the mailboxes' tokens whose texts people know who have nothing to do with them any more."""
        strangers: set[str] = {Role.TENANT_ADMIN}
        if self._before.reseller_id != self._to.reseller_id:
            strangers.add(Role.RESELLER)
        there = ApiToken.objects.filter(mailbox__domain__in=self._ids(), revoked_at=None)
        for token in there.order_by("pk").select_for_update(no_key=True):  # nobody rotates one meanwhile
            if strangers.intersection(token.told_to):
                tokens.revoke(token)

    def _tell(self, moved: Moved) -> None:
        counts: dict[str, Any] = {"mailboxes": moved.mailboxes, "messages": moved.messages, "octets": moved.octets}
        for row in self._domains:
            told: dict[str, Any] = {"from_tenant": self._before.pk, "to_tenant": self._to.pk}
            for tenant in (self._before, self._to):
                row.tenant = tenant
                happened.to_domain("moved", row, **told, **(counts if row.pk == self._domain.pk else {}))

    def _ids(self) -> list[int]:
        return [row.pk for row in self._domains]

    def _run(self, cursor: CursorWrapper, statement: str) -> CursorWrapper:
        cursor.execute(statement, {"domains": self._ids(), "before": self._before.pk, "after": self._to.pk})
        return cursor


def _addresses(targets: Any) -> Iterator[tuple[str, str]]:
    found: Iterator[tuple[str, str]] = targets.values_list("alias__address", "mailbox__address").iterator()
    return found


def _tables() -> Iterator[tuple[str, str]]:
    """The tables with rows of domains, of their aliases and their mailboxes, and which of them go; but allowances."""
    yield "accounts_domain", "id = ANY (%(domains)s)"
    for model in apps.get_models():
        if issubclass(model, TenantOwned):
            columns = {field.column for field in model._meta.local_fields}
            for column, condition in _WHOSE.items():
                if column in columns:
                    yield model._meta.db_table, condition
                    break
