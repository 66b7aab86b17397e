import django.db.models.deletion
from django.db import migrations, models

from accounts.migrations import _same_tenant

# (table, columns, referenced table, referenced columns)
FOREIGN_KEYS = [("mailstore_forward", "tenant_id, domain_id", "accounts_domain", "tenant_id, id")]


class Migration(migrations.Migration):
    """What goes on outside names the domain here that sends it, and is of the same tenant."""

    dependencies = [("mailstore", "0018_same_tenant_deferrable")]

    operations = [
        migrations.AddField(
            model_name="forward",
            name="domain",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="accounts.domain",
            ),
        ),
        migrations.RunSQL(
            "UPDATE mailstore_forward forward SET domain_id = alias.domain_id FROM accounts_alias alias"
            " WHERE alias.id = forward.alias_id AND alias.tenant_id = forward.tenant_id",
            migrations.RunSQL.noop,
        ),
        *_same_tenant.add(FOREIGN_KEYS),
    ]
