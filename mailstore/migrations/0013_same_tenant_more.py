from django.db import migrations

from accounts.migrations import _same_tenant

# (table, columns, referenced table, referenced columns)
FOREIGN_KEYS = [
    ("mailstore_importeditem", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
    ("mailstore_importjob", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
    ("mailstore_forward", "tenant_id, content_id", "mailstore_content", "tenant_id, id"),
]


class Migration(migrations.Migration):
    """The new references stay within one tenant, too."""

    dependencies = [("mailstore", "0012_forwards"), ("accounts", "0016_same_tenant_more")]

    operations = _same_tenant.add(FOREIGN_KEYS)
