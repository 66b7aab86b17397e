"""A database of the release before comes along, with what is in it; and goes back, and comes again."""

import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from django.conf import settings
from psycopg.rows import TupleRow

from tests.servers import Servers

BEFORE = {"accounts": "0003_mailbox_fillfactor", "mailstore": "0008_drop_session_open_of_listener"}
TO_BEFORE = f"""
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
MigrationExecutor(connection).migrate({list(BEFORE.items())})
"""

# As that release wrote it: two tenants, people of every kind, aliases, mail.
ROWS = """
INSERT INTO accounts_tenant (id, slug, name) VALUES (1, 'acme', 'Acme'), (2, 'globex', 'Globex'), (3, 'empty', 'Empty');
INSERT INTO accounts_domain (id, tenant_id, name)
VALUES (1, 1, 'acme.test'), (2, 1, 'acme.example'), (3, 2, 'globex.test');
INSERT INTO accounts_user (id, tenant_id, email, password, is_superuser, is_staff, is_active) VALUES
    (1, NULL, 'operator@localhost', 'a', true, true, true), (2, 1, 'boss@acme.test', 'b', false, true, true),
    (3, 1, 'an@acme.test', 'c', false, false, true), (4, 1, NULL, 'd', false, false, false),
    (5, 2, 'an@globex.test', 'e', false, false, true);
INSERT INTO accounts_mailbox (
    id, tenant_id, domain_id, user_id, address, state, closed_at, used_octets, message_count, next_uid, pop3_enabled,
    allowed_networks
) VALUES
    (1, 1, 1, 3, 'an@acme.test', 'active', NULL, 13, 1, 3, true, '{}'),
    (2, 1, 1, 4, 'gone@acme.test', 'active', now(), 0, 0, 1, true, '{}'),
    (3, 2, 3, 5, 'an@globex.test', 'suspended', NULL, 13, 1, 2, true, '{192.0.2.0/24}');
UPDATE accounts_tenant SET admin_mailbox_id = 1 WHERE id = 1;
INSERT INTO accounts_alias (id, tenant_id, domain_id, mailbox_id, address) VALUES
    (1, 1, 1, 1, 'sales@acme.test'), (2, 1, 2, 1, 'an@acme.example'), (3, 1, 1, 2, 'old@acme.test'),
    (4, 2, 3, 3, 'sales@globex.test');
INSERT INTO mailstore_store (id, epoch) VALUES (1, 1);
INSERT INTO mailstore_content (id, tenant_id, octets, header_octets, has_dot_lines, body)
VALUES (1, 1, 3, 2, false, '\\x0d0a78'), (2, 2, 3, 2, false, '\\x0d0a78');
INSERT INTO mailstore_message (
    tenant_id, mailbox_id, content_id, uid, epoch, trace, octets, reverse_path, subject, sender, message_id,
    expunged_at, expunged_by_id
) VALUES
    (1, 1, 1, 1, 1, '0123456789', 13, '', 'present', '', '', NULL, NULL),
    (1, 1, 1, 2, 1, '0123456789', 13, '', 'expunged', '', '', now(), 2),
    (2, 3, 2, 1, 1, '0123456789', 13, '', 'present', '', '', NULL, NULL);
INSERT INTO mailstore_deliveryledger (tenant_id, mailbox_id, digest, reverse_path)
VALUES (1, 1, sha256('x'), '');
"""

IDENTITIES = """
SELECT format(
    'SELECT setval(pg_get_serial_sequence(%L, %L), coalesce(max(id), 1)) FROM %I', table_name, 'id', table_name
)
FROM information_schema.columns WHERE column_name = 'id' AND is_identity = 'YES' AND table_schema = 'public'
"""


def manage(servers: Servers, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env=servers.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def database(private_servers: Servers) -> Iterator["psycopg.Connection[TupleRow]"]:
    """As the release before left it."""
    manage(private_servers, "shell", "-v0", "-c", TO_BEFORE)
    with psycopg.connect(private_servers.urls.postgres, autocommit=True) as connection:
        connection.execute(ROWS.encode())
        for (statement,) in connection.execute(IDENTITIES).fetchall():
            connection.execute(statement.encode())
        yield connection


def assert_is_right(database: "psycopg.Connection[TupleRow]") -> None:
    """All that the release before had is what it is now."""

    def rows(statement: str) -> list[TupleRow]:
        return database.execute(statement.encode()).fetchall()

    assert rows("SELECT email, role, password FROM accounts_user ORDER BY id") == [
        ("operator@localhost", "operator", "a"),
        ("boss@acme.test", "tenant-admin", "b"),
        ("an@acme.test", "member", "c"),
        (None, "member", "d"),
        ("an@globex.test", "member", "e"),
    ]
    assert rows(
        "SELECT count(*), count(DISTINCT verification_token) FROM accounts_domain WHERE state = 'verified'"
    ) == [(3, 3)]
    assert rows(
        "SELECT alias.address, target.tenant_id, target.mailbox_id, target.address FROM accounts_alias alias"
        " LEFT JOIN accounts_aliastarget target ON target.alias_id = alias.id ORDER BY alias.id"
    ) == [
        ("sales@acme.test", 1, 1, ""),
        ("an@acme.example", 1, 1, ""),
        ("old@acme.test", 1, 2, ""),
        ("sales@globex.test", 2, 3, ""),
    ]
    assert rows(
        "SELECT tenant_id, domain_id, domains, mailboxes, aliases, octets, max_mailboxes FROM accounts_allowance"
        " ORDER BY tenant_id, domain_id NULLS FIRST"
    ) == [
        (1, None, 2, 1, 3, 0, None),
        (1, 1, 0, 1, 2, 0, None),
        (1, 2, 0, 0, 1, 0, None),
        (2, None, 1, 1, 1, 0, None),
        (2, 3, 0, 1, 1, 0, None),
        (3, None, 0, 0, 0, 0, None),
    ]
    assert rows("SELECT subject, mailbox_id, kept_unique_id, expunged_by_id FROM mailstore_message ORDER BY id") == [
        ("present", 1, None, None),
        ("expunged", 1, None, 2),
        ("present", 3, None, None),
    ]
    assert rows("SELECT conname FROM pg_constraint WHERE contype IN ('c', 'f') AND NOT convalidated") == []
    assert rows("SELECT conname FROM pg_constraint WHERE conname LIKE '%same_tenant' AND NOT condeferrable") == []
    assert rows("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []
    with database.transaction():
        database.execute("SET LOCAL ROLE mailhost_web")
        assert rows("SELECT FROM mailstore_message") == rows("SELECT FROM accounts_mailbox") == []
        database.execute("SELECT set_config('mailhost.tenants', '{2}', true)")
        assert rows("SELECT slug FROM accounts_tenant") == [("globex",)]
        assert rows("SELECT tenant_id, mailbox_id FROM mailstore_message") == [(2, 3)]
        assert rows("SELECT address FROM accounts_alias") == [("sales@globex.test",)]
        assert rows("SELECT tenant_id FROM accounts_allowance") == [(2,), (2,)]


def test_what_the_release_before_has_comes_along(
    private_servers: Servers, database: "psycopg.Connection[TupleRow]"
) -> None:
    manage(private_servers, "migrate", "--verbosity=0")
    assert_is_right(database)
    assert manage(private_servers, "checkstore") == "no drift\n"
    assert "sales@acme.test" in manage(private_servers, "addalias", "sales@acme.test", "an@acme.test")
    manage(private_servers, "movedomain", "globex.test", "empty", "--yes")
    assert manage(private_servers, "checkstore") == "no drift\n"


def test_it_goes_back_and_comes_again(private_servers: Servers, database: "psycopg.Connection[TupleRow]") -> None:
    manage(private_servers, "migrate", "--verbosity=0")
    for app, migration in reversed(BEFORE.items()):
        manage(private_servers, "migrate", "--verbosity=0", app, migration)
    assert database.execute("SELECT address, mailbox_id FROM accounts_alias ORDER BY id").fetchall() == [
        ("sales@acme.test", 1),
        ("an@acme.example", 1),
        ("old@acme.test", 2),
        ("sales@globex.test", 3),
    ]
    manage(private_servers, "migrate", "--verbosity=0")
    assert_is_right(database)
