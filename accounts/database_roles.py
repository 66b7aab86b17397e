"""The database's own roles and row-level security: who of us may see and change what, whatever our code says.

`apply` brings a migrated database to what stands here; it runs after every `migrate`, changes only what differs, and
can be run beside traffic. The roles cannot sign in: processes sign in as the owner of the tables, or as somebody who
is granted them, and take one (`SET ROLE`).

    mailhost_web       web and API: rows of the tenants that the transaction names (accounts.scope)
    mailhost_listener  POP3 and LMTP: reads who has mail, writes the mail
    mailhost_worker    Celery: all rows, no passwords
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.db.utils import ProgrammingError

from accounts.scope import WEB
from accounts.tenancy import OfLogin, TenantOwned

LISTENER: Final = "mailhost_listener"
WORKER: Final = "mailhost_worker"
ROLES: Final = (WEB, LISTENER, WORKER)

_HOST = "(SELECT current_setting('mailhost.host', true) = 'on')"
_TENANTS = "(SELECT nullif(current_setting('mailhost.tenants', true), '')::bigint[])"
_RESELLER = "(SELECT nullif(current_setting('mailhost.reseller', true), '')::bigint)"
_OF_USERS = f"{_HOST} OR EXISTS (SELECT FROM accounts_user login WHERE login.id = user_id)"


def policies() -> dict[str, str]:
    """By table with rows of tenants, the condition under which the web's role sees and writes a row."""
    found = {
        "accounts_reseller": f"{_HOST} OR id = {_RESELLER}",
        "accounts_plan": f"{_HOST} OR reseller_id = {_RESELLER}",
        "accounts_tenant": f"{_HOST} OR id = ANY ({_TENANTS}::bigint[]) OR reseller_id = {_RESELLER}",
        "accounts_allowance": _owned(reseller=True),
        "accounts_auditevent": _owned(reseller=True),
        "accounts_apitoken_domains": (
            f"{_HOST} OR EXISTS (SELECT FROM accounts_domain domain WHERE domain.id = domain_id)"
        ),
        "accounts_user_groups": _OF_USERS,
        "accounts_user_user_permissions": _OF_USERS,
        "django_admin_log": _OF_USERS,
    }
    for model in apps.get_models():
        if issubclass(model, OfLogin):
            found[model._meta.db_table] = _OF_USERS
        if issubclass(model, TenantOwned) or model._meta.label == "accounts.User":
            columns = {field.column for field in model._meta.local_fields}
            found[model._meta.db_table] = _owned(reseller="reseller_id" in columns)
    return found


def _owned(*, reseller: bool) -> str:
    return f"{_HOST} OR tenant_id = ANY ({_TENANTS}::bigint[])" + (
        f" OR (tenant_id IS NULL AND reseller_id = {_RESELLER})" if reseller else ""
    )


READ_BY_LISTENERS: Final = (
    "accounts_tenant", "accounts_domain", "accounts_user", "accounts_mailbox", "accounts_alias", "accounts_aliastarget",
    "accounts_apppassword", "accounts_knownnetwork", "accounts_allowance", "accounts_failedlogin", "mailstore_store",
    "mailstore_listener",
    "mailstore_content", "mailstore_contentchunk", "mailstore_message", "mailstore_maildropsession",
    "mailstore_owncopy", "mailstore_deliveryledger", "mailstore_forwardledger", "mailstore_refusal",
    "django_migrations",
)  # fmt: skip
"""Tables. What else listeners may do stands in `_GRANTS`."""

_GRANTS: Final = f"""
GRANT USAGE ON SCHEMA public TO {", ".join(ROLES)};

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {WEB};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {WEB};
REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM {WEB};
REVOKE UPDATE, DELETE ON accounts_auditevent FROM {WEB};

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {WORKER};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {WORKER};
REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM {WORKER};
REVOKE UPDATE, DELETE ON accounts_auditevent FROM {WORKER};
REVOKE INSERT, UPDATE ON accounts_apitoken, accounts_apppassword FROM {WORKER};
-- A purge locks what it removes, and tokens outlive who made them.
GRANT UPDATE (last_used_at) ON accounts_apppassword TO {WORKER};
GRANT UPDATE (created_by_id) ON accounts_apitoken TO {WORKER};
REVOKE ALL ON accounts_authenticatorapp, accounts_passkey, accounts_recoverycode FROM {WORKER};
REVOKE INSERT, UPDATE ON accounts_websession FROM {WORKER};

GRANT SELECT ON {", ".join(READ_BY_LISTENERS)} TO {LISTENER};
GRANT INSERT, UPDATE, DELETE ON mailstore_content, mailstore_contentchunk, mailstore_message, mailstore_listener,
    mailstore_maildropsession, mailstore_deliveryledger, accounts_knownnetwork TO {LISTENER};
GRANT INSERT ON mailstore_forward, mailstore_forwardledger TO {LISTENER};
GRANT INSERT, UPDATE ON mailstore_refusal, mailstore_owncopy, accounts_failedlogin TO {LISTENER};
GRANT UPDATE (used_octets, message_count, next_uid, last_login_at, last_login_address, last_login_secure,
    last_login_app_password_id) ON accounts_mailbox TO {LISTENER};
GRANT UPDATE (last_used_at, last_used_address) ON accounts_apppassword TO {LISTENER};
GRANT UPDATE (password) ON accounts_user TO {LISTENER};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {LISTENER};
"""


def apply() -> None:
    """Make the roles, their grants and the policies what stands here. Raises `ImproperlyConfigured`."""
    try:
        with _alone() as cursor:
            for role in ROLES:
                cursor.execute(_MAKE.format(role=role))
        # Each table by itself: beside traffic, whoever locks several at once is waited for, and waits, in a circle.
        for table, condition in policies().items():
            with _alone() as cursor:
                _secure(cursor, table, condition)
        with _alone() as cursor:
            cursor.execute(_GRANTS)
    except ProgrammingError as error:
        if getattr(error.__cause__, "sqlstate", "") != "42501":
            raise
        raise ImproperlyConfigured(
            "The database's user may not make roles. Let an administrator run, once:\n\n"
            + "\n".join(f"    CREATE ROLE {role} NOLOGIN; GRANT {role} TO the-user-of-DATABASE_URL;" for role in ROLES)
        ) from None


@contextmanager
def _alone() -> Iterator[Any]:
    """A transaction, one at a time in this database; roles are the cluster's, and another database's may race us."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('mailhost.database_roles'))")
        yield cursor


_MAKE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
        BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
    END IF;
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
        AND NOT pg_has_role(
            current_user, '{role}',
            -- From 16 on who makes a role is its member, and may not yet take it.
            CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END
        ) THEN
        GRANT {role} TO CURRENT_USER;
    END IF;
END $$
"""

_POLICY = "of_tenants"
_FULL = "all_rows"


def _secure(cursor: Any, table: str, condition: str) -> None:
    """Row-level security of one table. Takes its lock only where something differs."""
    wanted = {_POLICY: ([WEB], condition), _FULL: ([LISTENER, WORKER], "true")}
    # A policy goes with a column that it names, as when a migration is taken back.
    cursor.execute(
        "SELECT relrowsecurity, obj_description(oid, 'pg_class'), ARRAY("
        "SELECT polname::text FROM pg_policy WHERE polrelid = pg_class.oid) FROM pg_class WHERE oid = %s::regclass",
        (table,),
    )
    enabled, said, there = cursor.fetchone()
    comment = f"row-level security: {condition}"
    if enabled and said == comment and wanted.keys() <= set(there):
        return
    for name, (roles, test) in wanted.items():
        cursor.execute(f"DROP POLICY IF EXISTS {name} ON {table}")
        cursor.execute(f"CREATE POLICY {name} ON {table} TO {', '.join(roles)} USING ({test}) WITH CHECK ({test})")
    cursor.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    cursor.execute(f"COMMENT ON TABLE {table} IS %s", (comment,))


def tables() -> Iterable[str]:
    """The tables that are secured."""
    return policies().keys()
