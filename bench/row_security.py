"""What row-level security costs the API: the same requests with the policies and without.

    python -m bench.row_security

Servers of its own; requests within this process, in the web's role, one after the other. Prints milliseconds of a
processor, ours and the database's together (Linux): what else the machine does hardly matters then. Without the
policies everything else is the same: the transaction, the role, and what names the tenant; what those cost comes last.
"""

import os
import statistics
import sys
from pathlib import Path

from tests import servers

MAILBOXES = 100_000  # of 100 tenants
BLOCKS, BLOCK = 20, 20  # of requests; the median block of each kind counts


def main() -> None:
    """Fill a database, and measure."""
    with servers.throw_away() as pair:
        os.environ.update(pair.environment, DJANGO_SETTINGS_MODULE="mailhost.settings")
        measure()


def measure() -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection, transaction

    from accounts import database_roles, permissions, principals, provisioning, scope, tokens
    from accounts.principals import SYSTEM
    from tests.accounts.api.programs import Program

    call_command("migrate", verbosity=0)
    for number in range(100):
        tenant, _ = provisioning.add_tenant(f"t{number}")
        provisioning.add_domain(f"t{number}.test", tenant=tenant)
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(
            "INSERT INTO accounts_mailbox (tenant_id, domain_id, user_id, address, name, state, state_reason,"
            " legal_hold, used_octets, message_count, next_uid, pop3_enabled, allowed_networks, warned_percent)"
            " SELECT domain.tenant_id, domain.id, n, 'n' || n || '@' || domain.name, '', 'active', '', false,"
            " 0, 0, 1, true, '{}', 0 FROM generate_series(1, %s) n JOIN accounts_domain domain"
            " ON domain.name = 't' || n %% 100 || '.test'",
            (MAILBOXES,),
        )
        cursor.execute("RESET session_replication_role")
        cursor.execute("ANALYZE")
    made = tokens.make(
        by=SYSTEM, name="bench", role="tenant-admin", tenant=tenant, scopes=permissions.scopes_of("tenant-admin"),
        requests_per_minute=1_000_000,
    )  # fmt: skip
    program = Program(made.text, HTTP_HOST="localhost")
    paths = {
        "one mailbox": ("/mailboxes/n99@t99.test/", ""),
        "a page of 50": ("/mailboxes/", ""),
        "search": ("/mailboxes/", "search=n99"),
    }
    tables = list(database_roles.policies())
    spent: dict[tuple[str, str], list[float]] = {}
    backend = connection.connection.info.backend_pid
    for how in ("ENABLE", "DISABLE") * (BLOCKS // 2):
        with connection.cursor() as cursor:
            for table in tables:
                cursor.execute(f"ALTER TABLE {table} {how} ROW LEVEL SECURITY")
        for name, (path, query) in paths.items():
            program.read(path, query)
            before = processor(backend)
            for _ in range(BLOCK):
                program.read(path, query)
            spent.setdefault((name, how), []).append((processor(backend) - before) / BLOCK)
    for name in paths:
        enabled, disabled = (statistics.median(spent[name, how]) for how in ("ENABLE", "DISABLE"))
        sys.stdout.write(f"{name:14} with {enabled:6.2f} ms, without {disabled:6.2f} ms: x {enabled / disabled:.2f}\n")
    entering = {
        "a scope": lambda: scope.entered(principals.of_token(made.token)),
        "BEGIN and COMMIT": transaction.atomic,
    }
    for what, enter in entering.items():
        before = processor(backend)
        for _ in range(500):
            with enter(), connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        sys.stdout.write(f"{what:16} around SELECT 1: {(processor(backend) - before) / 500:.3f} ms\n")


def processor(backend: int) -> float:
    """Milliseconds of a processor that we and the database's process have used."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in (os.getpid(), backend)) / 1e6


if __name__ == "__main__":
    main()
