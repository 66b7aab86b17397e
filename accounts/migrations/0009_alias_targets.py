import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """An alias goes to many mailboxes and to addresses outside."""

    dependencies = [
        ("accounts", "0008_mailbox_life"),
    ]

    operations = [
        migrations.CreateModel(
            name="AliasTarget",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "address",
                    models.CharField(blank=True, default="", help_text="Outside, in normal form.", max_length=320),
                ),
                (
                    "alias",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="targets",
                        to="accounts.alias",
                    ),
                ),
                (
                    "mailbox",
                    models.ForeignKey(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="alias_targets",
                        to="accounts.mailbox",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("alias", "mailbox", "address"), name="alias_target", nulls_distinct=False
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("address__gt", ""), ("mailbox", None)),
                            models.Q(("address", ""), ("mailbox__isnull", False)),
                            _connector="OR",
                        ),
                        name="alias_target_is_one",
                    ),
                ],
            },
        ),
        migrations.AddField(
            model_name="alias",
            name="expires_at",
            field=models.DateTimeField(blank=True, help_text="From then on it takes no mail.", null=True),
        ),
        migrations.AddConstraint(
            model_name="alias",
            constraint=models.UniqueConstraint(fields=("tenant", "id"), name="alias_of_tenant"),
        ),
        # On the way back it is there before it is filled.
        migrations.AlterField(
            model_name="alias",
            name="mailbox",
            field=models.ForeignKey(
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="aliases",
                to="accounts.mailbox",
            ),
        ),
        migrations.RunSQL(
            sql="INSERT INTO accounts_aliastarget (tenant_id, alias_id, mailbox_id, address) SELECT tenant_id, id, mailbox_id, '' FROM accounts_alias",
            reverse_sql="UPDATE accounts_alias SET mailbox_id = target.mailbox_id FROM accounts_aliastarget target WHERE target.alias_id = accounts_alias.id AND target.mailbox_id IS NOT NULL",
        ),
        migrations.RunSQL(
            sql="ALTER TABLE accounts_alias DROP CONSTRAINT accounts_alias_mailbox_id_same_tenant",
            reverse_sql="ALTER TABLE accounts_alias ADD CONSTRAINT accounts_alias_mailbox_id_same_tenant FOREIGN KEY (tenant_id, mailbox_id) REFERENCES accounts_mailbox (tenant_id, id)",
        ),
        migrations.RemoveField(
            model_name="alias",
            name="mailbox",
        ),
    ]
