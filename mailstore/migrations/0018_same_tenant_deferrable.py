from django.db import migrations

from accounts.migrations import _same_tenant

# (table, columns)
FOREIGN_KEYS = [
    ("mailstore_contentchunk", "content_id"),
    ("mailstore_message", "mailbox_id"),
    ("mailstore_message", "content_id"),
    ("mailstore_maildropsession", "mailbox_id"),
    ("mailstore_deliveryledger", "mailbox_id"),
    ("mailstore_importeditem", "mailbox_id"),
    ("mailstore_importjob", "mailbox_id"),
    ("mailstore_forward", "content_id"),
]


class Migration(migrations.Migration):
    """Whether references stay within one tenant can be asked when a transaction ends: a domain moves with all in it."""

    atomic = False
    dependencies = [("mailstore", "0017_import_uidl_format"), ("accounts", "0022_same_tenant_deferrable")]

    operations = _same_tenant.make_deferrable(FOREIGN_KEYS)
