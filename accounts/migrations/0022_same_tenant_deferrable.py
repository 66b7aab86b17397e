from django.db import migrations

from accounts.migrations import _same_tenant

# (table, columns)
FOREIGN_KEYS = [
    ("accounts_domain", "tenant_id"),
    ("accounts_domain", "alias_of_id"),
    ("accounts_mailbox", "domain_id"),
    ("accounts_mailbox", "user_id"),
    ("accounts_tenant", "admin_mailbox_id"),
    ("accounts_alias", "domain_id"),
    ("accounts_aliastarget", "alias_id"),
    ("accounts_aliastarget", "mailbox_id"),
    ("accounts_domainadmin", "user_id"),
    ("accounts_domainadmin", "domain_id"),
    ("accounts_apppassword", "mailbox_id"),
    ("accounts_apitoken", "mailbox_id"),
    ("accounts_knownnetwork", "mailbox_id"),
    ("accounts_allowance", "tenant_id"),
    ("accounts_allowance", "domain_id"),
    ("accounts_event", "tenant_id"),
]


class Migration(migrations.Migration):
    """Whether references stay within one tenant can be asked when a transaction ends: a domain moves with all in it."""

    atomic = False
    dependencies = [("accounts", "0021_beyond_limits")]

    operations = _same_tenant.make_deferrable(FOREIGN_KEYS)
