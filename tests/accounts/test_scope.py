"""The second wall: what raw SQL sees and changes under the web's role, whatever our code would have asked."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.db import DatabaseError, connection, transaction

from accounts import database_roles, limits, provisioning, scope
from accounts.models import Domain, Mailbox, Reseller, Tenant, User
from accounts.principals import Principal
from tests.fixtures import Customer, as_web

OPERATOR = Principal(role="operator", user_id=1)
TABLES = sorted(database_roles.policies())
OF_LOGINS = {
    "accounts_user_groups", "accounts_user_user_permissions", "django_admin_log",
    "accounts_authenticatorapp", "accounts_passkey", "accounts_recoverycode", "accounts_websession",
}  # fmt: skip
"""Tables whose rows are of the tenant whose the login is."""
BY_DOMAIN = {"mailstore_hourlystatistics", "mailstore_dailystatistics", "mailstore_purgeforecast"}
"""Tables with one row for each domain and time; without a domain it is the whole host's."""

_numbers = itertools.count(10**9)
_BY_TYPE: dict[str, Callable[[int], Any]] = {
    "int2": lambda n: 0,
    "int4": lambda n: n,
    "int8": lambda n: n,
    "bool": lambda n: False,
    "varchar": lambda n: f"x{n}",
    "text": lambda n: f"x{n}",
    "bytea": lambda n: str(n).encode(),
    "uuid": lambda n: f"00000000-0000-4000-8000-{n:012}",
    "timestamptz": lambda n: "2026-01-01T00:00:00Z",
    "date": lambda n: "2026-01-01",
    "jsonb": lambda n: "{}",
    "_varchar": lambda n: [],
}
_COLUMNS = """
SELECT attname, typname, CASE WHEN typname = 'varchar' THEN atttypmod - 4 END
FROM pg_attribute JOIN pg_type type ON type.oid = atttypid
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attnotnull AND NOT atthasdef AND attidentity = ''
"""


def values_of(table: str, tenant: Tenant) -> dict[str, Any]:
    """A row of that table which is that tenant's."""
    with connection.cursor() as cursor:
        cursor.execute(_COLUMNS, (table,))
        columns = cursor.fetchall()
    number = next(_numbers)
    values = {name: _BY_TYPE[kind](number) for name, kind, _ in columns}
    values |= {name: values[name][-most:] for name, _, most in columns if most}
    of_tenant: dict[str, dict[str, Any]] = {
        "accounts_reseller": {},
        "accounts_plan": {"reseller_id": tenant.reseller_id},
        "accounts_tenant": {"reseller_id": tenant.reseller_id},
        "accounts_apitoken_domains": {"domain_id": Domain.objects.filter(tenant=tenant).values_list("pk").first()},
        "accounts_allowance": {"tenant_id": tenant.pk, "domain_id": number},
        "accounts_user": {"tenant_id": tenant.pk, "role": "member"},
        "accounts_aliastarget": {"tenant_id": tenant.pk, "address": f"x{number}", "mailbox_id": None},
        "accounts_apitoken": {"tenant_id": tenant.pk, "role": "member"},
        "accounts_auditevent": {"tenant_id": tenant.pk, "through": "system"},
    }
    if table in BY_DOMAIN:
        of_tenant[table] = {"tenant_id": tenant.pk, "domain_id": number}
    if table in OF_LOGINS:
        of_tenant[table] = {"user_id": User.objects.filter(tenant=tenant).values_list("pk").first()}
    if table == "django_admin_log":
        of_tenant[table]["action_flag"] = 1
    values |= of_tenant.get(table, {"tenant_id": tenant.pk})
    return {name: value[0] if isinstance(value, tuple) else value for name, value in values.items()}


def insert(table: str, values: dict[str, Any]) -> Any:
    """The place of the new row."""
    with connection.cursor() as cursor:
        names, holes = ", ".join(f'"{name}"' for name in values), ", ".join(["%s"] * len(values))
        cursor.execute(f"INSERT INTO {table} ({names}) VALUES ({holes}) RETURNING ctid::text", list(values.values()))
        return cursor.fetchone()[0]


def places(table: str) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT ctid::text FROM {table}")
        return {place for (place,) in cursor.fetchall()}


def changed(statement: str, **parameters: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return int(cursor.rowcount)


@contextmanager
def refused() -> Iterator[None]:
    """What is within, the database does not let the web do."""
    with pytest.raises(DatabaseError) as raised, transaction.atomic():
        yield
    assert isinstance(raised.value.__cause__, psycopg.errors.InsufficientPrivilege)


@contextmanager
def within(principal: Principal) -> Iterator[None]:
    """The scope of `principal` in the web's process; what is done in it is undone."""
    with as_web():
        before = transaction.savepoint()
        with scope.entered(principal):
            yield
        transaction.savepoint_rollback(before)


def tenant_admin(tenant: Tenant) -> Principal:
    return Principal(role="tenant-admin", tenant_id=tenant.pk)


@pytest.fixture
def without_references(db: None) -> None:
    """Rows need not refer to others: their keys are not looked at."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")


@pytest.fixture
def resold(acme: Customer, globex: Customer) -> Reseller:
    """A reseller who owns acme, and not globex."""
    reseller: Reseller = Reseller.objects.create(slug="reseller", name="Reseller")
    Tenant.objects.filter(pk=acme.tenant.pk).update(reseller=reseller)
    acme.tenant.refresh_from_db()
    return reseller


@pytest.mark.usefixtures("without_references")
@pytest.mark.parametrize("table", TABLES)
def test_raw_sql_of_a_tenant_sees_and_changes_its_own_rows(acme: Customer, globex: Customer, table: str) -> None:
    before = places(table)
    own, foreign = insert(table, values_of(table, acme.tenant)), insert(table, values_of(table, globex.tenant))
    if table in ("accounts_tenant", "accounts_reseller", "accounts_plan"):
        own = foreign = ""  # neither is the tenant itself, or its own
    with within(tenant_admin(acme.tenant)):
        seen = places(table)
        assert (own in seen) == bool(own)
        assert foreign not in seen
        assert seen < before | {own, foreign}
        [column] = [name for name in values_of(table, acme.tenant) if name != "pk"][:1]
        if table != "accounts_auditevent":
            assert changed(f'UPDATE {table} SET "{column}" = "{column}"') == len(seen)
            assert changed(f"DELETE FROM {table}") == len(seen)
        with refused():
            insert(table, values_of(table, globex.tenant))


@pytest.mark.usefixtures("without_references")
@pytest.mark.parametrize(
    "table", sorted(set(TABLES) - {"accounts_reseller", "accounts_plan", "accounts_tenant", "accounts_auditevent"})
)
def test_no_row_can_be_given_to_another_tenant(acme: Customer, globex: Customer, table: str) -> None:
    insert(table, values_of(table, acme.tenant))
    foreign = values_of(table, globex.tenant)
    column = next(name for name in ("tenant_id", "domain_id", "user_id") if name in foreign)
    with within(tenant_admin(acme.tenant)), refused():
        changed(f"UPDATE {table} SET {column} = {foreign[column]}")


@pytest.mark.usefixtures("without_references")
@pytest.mark.parametrize("table", TABLES)
def test_outside_of_any_scope_there_is_nothing(acme: Customer, table: str) -> None:
    insert(table, values_of(table, acme.tenant))
    values = values_of(table, acme.tenant)
    with as_web():
        assert places(table) == set()
        with refused():
            insert(table, values)


@pytest.mark.usefixtures("without_references")
@pytest.mark.parametrize("table", TABLES)
def test_an_operator_sees_all(acme: Customer, globex: Customer, table: str) -> None:
    insert(table, values_of(table, acme.tenant))
    insert(table, values_of(table, globex.tenant))
    everything = places(table)
    with within(OPERATOR):
        assert places(table) == everything


@pytest.mark.usefixtures("without_references")
@pytest.mark.parametrize("table", sorted(set(TABLES) - {"accounts_reseller"}))
def test_a_reseller_sees_its_tenants(resold: Reseller, acme: Customer, globex: Customer, table: str) -> None:
    own, foreign = insert(table, values_of(table, acme.tenant)), insert(table, values_of(table, globex.tenant))
    with within(Principal(role="reseller", reseller_id=resold.pk)):
        seen = places(table)
        assert own in seen
        assert foreign not in seen
        assert set(Reseller.objects.values_list("slug", flat=True)) == {"reseller"}


def test_a_tenants_audit_can_only_be_added_to(acme: Customer) -> None:
    insert("accounts_auditevent", values_of("accounts_auditevent", acme.tenant))
    with within(tenant_admin(acme.tenant)):
        for statement in ("DELETE FROM accounts_auditevent", "UPDATE accounts_auditevent SET action = ''"):
            with refused():
                changed(statement)


@pytest.mark.parametrize(
    "call",
    [
        "mailhost_charge(%(tenant)s, NULL, 1, 0, 0)",
        "mailhost_used_octets(NULL, %(tenant)s, NULL)",
        "mailhost_used_octets(NULL, %(tenant)s, %(domain)s)",
        "mailhost_used_octets(%(reseller)s, NULL, NULL)",
        "mailhost_used_octets(NULL, NULL, %(domain)s)",
        "mailhost_hold_octets(NULL, %(tenant)s)",
        "mailhost_hold_octets(%(reseller)s, NULL)",
        "mailhost_emit(%(tenant)s, '{tenant.changed}', '{x}', ARRAY['{}'::jsonb])",
    ],
)
def test_what_has_more_rights_does_nothing_for_other_tenants(
    resold: Reseller, acme: Customer, globex: Customer, call: str
) -> None:
    for principal in (tenant_admin(globex.tenant), Principal(role="reseller", reseller_id=resold.pk + 1)):
        with within(principal), refused():
            changed(f"SELECT {call}", tenant=acme.tenant.pk, domain=acme.domain.pk, reseller=resold.pk)


def test_another_tenants_domain_is_counted_by_nobody_else(acme: Customer, globex: Customer) -> None:
    Mailbox.objects.filter(pk=globex.mailbox.pk).update(used_octets=7)
    with within(tenant_admin(acme.tenant)), connection.cursor() as cursor:
        cursor.execute(
            "SELECT mailhost_charge(%(own)s, %(domain)s, 0, 1, 0), mailhost_used_octets(NULL, %(own)s, %(domain)s)",
            {"own": acme.tenant.pk, "domain": globex.domain.pk},
        )
        assert cursor.fetchone() == (None, 0)
        with scope.whole_host():
            assert limits.of(globex.domain).mailboxes == 1


def test_every_table_with_a_tenant_is_secured() -> None:
    with_tenants = {
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if any(field.column in ("tenant_id", "reseller_id") for field in model._meta.local_fields)
    }
    assert with_tenants <= set(TABLES)


@pytest.mark.django_db
def test_the_database_holds_what_is_written_down() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relrowsecurity")
        assert {name for (name,) in cursor.fetchall()} == set(TABLES)


def test_scopes_nest_and_the_one_around_is_back(acme: Customer, globex: Customer) -> None:
    def seen() -> set[str]:
        return set(Tenant.objects.values_list("slug", flat=True))

    with as_web():
        with scope.entered(tenant_admin(acme.tenant)):
            assert seen() == {"acme"}
            with scope.whole_host():
                assert seen() == {"acme", "globex"}
            with scope.entered(tenant_admin(globex.tenant)):
                assert seen() == {"globex"}
            with pytest.raises(ZeroDivisionError), scope.whole_host():
                _ = 1 / 0
            assert seen() == {"acme"}
            with scope.entered(None):
                assert seen() == set()
        assert seen() == set()


def test_what_a_reseller_makes_exists_for_it_at_once(acme: Customer, globex: Customer) -> None:
    shop, _ = provisioning.add_reseller("shop")
    with as_web(), scope.entered(Principal(role="reseller", reseller_id=shop.pk)):
        for slug in ("one", "two"):
            tenant, _ = provisioning.add_tenant(slug, reseller=shop)
            provisioning.add_domain(f"{slug}.test", tenant=tenant)
            provisioning.add_mailbox(f"an@{slug}.test", password=None, quota_octets=None)
        assert set(Tenant.objects.values_list("slug", flat=True)) == {"one", "two"}
    with within(tenant_admin(acme.tenant)):
        scope.include(globex.tenant.pk)
        assert list(Tenant.objects.values_list("slug", flat=True)) == ["acme"]


def test_what_is_streamed_has_a_scope_while_it_is_read(acme: Customer, globex: Customer) -> None:
    with as_web():
        rows = scope.streamed(tenant_admin(acme.tenant), lambda: Tenant.objects.values_list("slug", flat=True))
        assert list(rows) == ["acme"]


def test_an_attempt_that_is_not_kept_changes_nothing(acme: Customer) -> None:
    def rename() -> str:
        Tenant.objects.update(name="Renamed")
        return "done"

    assert scope.attempt(tenant_admin(acme.tenant), rename, keeps=lambda answer: False) == "done"
    assert not Tenant.objects.filter(name="Renamed").exists()
    assert scope.attempt(tenant_admin(acme.tenant), rename, keeps=lambda answer: True) == "done"
    assert Tenant.objects.filter(name="Renamed").exists()
