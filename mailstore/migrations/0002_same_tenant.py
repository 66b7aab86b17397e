from django.db import migrations

from accounts.migrations import _same_tenant

# (table, columns, referenced table, referenced columns)
FOREIGN_KEYS = [
    ("mailstore_contentchunk", "tenant_id, content_id", "mailstore_content", "tenant_id, id"),
    ("mailstore_message", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
    ("mailstore_message", "tenant_id, content_id", "mailstore_content", "tenant_id, id"),
    ("mailstore_maildropsession", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
    ("mailstore_deliveryledger", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
]


class Migration(migrations.Migration):
    """References stay within one tenant: composite foreign keys, which Django's models cannot express."""

    dependencies = [("mailstore", "0001_initial"), ("accounts", "0002_same_tenant")]

    operations = _same_tenant.add(FOREIGN_KEYS)
