import django.db.models.deletion
from django.db import migrations, models

from accounts.migrations import _same_tenant

# (table, columns, referenced table, referenced columns)
FOREIGN_KEYS = [("mailstore_owncopy", "tenant_id, mailbox_id", "accounts_mailbox", "tenant_id, id")]


class Migration(migrations.Migration):
    """What devices with an own copy of the maildrop did with messages."""

    dependencies = [("mailstore", "0023_background_runs"), ("accounts", "0032_keep_time")]

    operations = [
        migrations.CreateModel(
            name="OwnCopy",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "app_password_id", "message_id", blank=True, editable=False, primary_key=True, serialize=False
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
                (
                    "mailbox",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.mailbox",
                    ),
                ),
                (
                    "app_password",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.apppassword",
                    ),
                ),
                (
                    "message",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="own_copies",
                        to="mailstore.message",
                    ),
                ),
                ("fetched_at", models.DateTimeField(help_text="First.", null=True)),
                (
                    "fetched_in",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="mailstore.maildropsession",
                    ),
                ),
                (
                    "removed_at",
                    models.DateTimeField(help_text="Since then it is not in the device's view.", null=True),
                ),
                (
                    "removed_in",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="mailstore.maildropsession",
                    ),
                ),
                (
                    "returns",
                    models.IntegerField(default=0, help_text="How often it came back into the device's view."),
                ),
            ],
            options={
                "verbose_name_plural": "own copies",
                "indexes": [
                    models.Index(
                        condition=models.Q(("removed_in", None), _negated=True),
                        fields=["removed_in"],
                        name="own_copy_removed_in",
                    )
                ],
            },
        ),
        *_same_tenant.add(FOREIGN_KEYS),
    ]
