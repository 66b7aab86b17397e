from django.db import migrations

from accounts.migrations import _same_tenant

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


class Migration(migrations.Migration):
    """References stay within one tenant: composite foreign keys, which Django's models cannot express."""

    dependencies = [("accounts", "0001_initial")]

    operations = _same_tenant.add(FOREIGN_KEYS)
