from django.db import migrations

# (table, columns, referenced table, referenced columns)
FOREIGN_KEYS = [
    ("accounts_domain", "tenant_id", "accounts_tenant", "id"),
    ("accounts_mailbox", "tenant_id, domain_id", "accounts_domain", "tenant_id, id"),
    ("accounts_mailbox", "tenant_id, user_id", "accounts_user", "tenant_id, id"),
    ("accounts_tenant", "id, admin_mailbox_id", "accounts_mailbox", "tenant_id, id"),
    ("accounts_alias", "tenant_id, domain_id", "accounts_domain", "tenant_id, id"),
    ("accounts_alias", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
    ("accounts_knownnetwork", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
]


def name(table: str, columns: str) -> str:
    return f"{table}_{columns.split(', ')[-1]}_same_tenant"


class Migration(migrations.Migration):
    """References stay within one tenant: composite foreign keys, which Django's models cannot express."""

    dependencies = [("accounts", "0001_initial")]

    operations = [
        migrations.RunSQL(
            f"ALTER TABLE {table} ADD CONSTRAINT {name(table, columns)}"
            f" FOREIGN KEY ({columns}) REFERENCES {target} ({keys})",
            f"ALTER TABLE {table} DROP CONSTRAINT {name(table, columns)}",
        )
        for table, columns, target, keys in FOREIGN_KEYS
    ]
