from django.db import migrations

# (table, columns, referenced table, referenced columns)
FOREIGN_KEYS = [
    ("mailstore_contentchunk", "tenant_id, content_id", "mailstore_content", "tenant_id, id"),
    ("mailstore_message", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
    ("mailstore_message", "tenant_id, content_id", "mailstore_content", "tenant_id, id"),
    ("mailstore_maildropsession", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
    ("mailstore_deliveryledger", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
]


def name(table: str, columns: str) -> str:
    return f"{table}_{columns.split(', ')[-1]}_same_tenant"


class Migration(migrations.Migration):
    """References stay within one tenant: composite foreign keys, which Django's models cannot express."""

    dependencies = [("mailstore", "0001_initial"), ("accounts", "0002_same_tenant")]

    operations = [
        migrations.RunSQL(
            f"ALTER TABLE {table} ADD CONSTRAINT {name(table, columns)}"
            f" FOREIGN KEY ({columns}) REFERENCES {target} ({keys})",
            f"ALTER TABLE {table} DROP CONSTRAINT {name(table, columns)}",
        )
        for table, columns, target, keys in FOREIGN_KEYS
    ]
