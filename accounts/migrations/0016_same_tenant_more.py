from django.db import migrations

from accounts.migrations import _same_tenant

# (table, columns, referenced table, referenced columns)
FOREIGN_KEYS = [
    ("accounts_domain", "tenant_id, alias_of_id", "accounts_domain", "tenant_id, id"),
    ("accounts_domainadmin", "tenant_id, user_id", "accounts_user", "tenant_id, id"),
    ("accounts_domainadmin", "tenant_id, domain_id", "accounts_domain", "tenant_id, id"),
    ("accounts_aliastarget", "tenant_id, alias_id", "accounts_alias", "tenant_id, id"),
    ("accounts_aliastarget", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
    ("accounts_apppassword", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
    ("accounts_apitoken", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id"),
    ("accounts_allowance", "tenant_id", "accounts_tenant", "id"),
    ("accounts_allowance", "tenant_id, domain_id", "accounts_domain", "tenant_id, id"),
    ("accounts_event", "tenant_id", "accounts_tenant", "id"),
]


class Migration(migrations.Migration):
    """The new references stay within one tenant, too."""

    dependencies = [("accounts", "0015_webhooks")]

    operations = _same_tenant.add(FOREIGN_KEYS)
