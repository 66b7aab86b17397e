import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    """Who changed what."""

    dependencies = [
        ("accounts", "0012_tokens"),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("tenant_id", models.BigIntegerField(null=True)),
                ("reseller_id", models.BigIntegerField(null=True)),
                ("user_id", models.BigIntegerField(help_text="Who.", null=True)),
                ("token_id", models.BigIntegerField(help_text="Or which program.", null=True)),
                ("role", models.CharField(blank=True, max_length=12)),
                (
                    "through",
                    models.CharField(
                        choices=[
                            ("api", "API"),
                            ("admin", "Admin"),
                            ("pages", "owner's pages"),
                            ("command", "manage.py"),
                            ("system", "System"),
                        ],
                        max_length=8,
                    ),
                ),
                ("client_address", models.GenericIPAddressField(null=True)),
                ("action", models.CharField(help_text="Such as mailbox.suspended.", max_length=40)),
                ("target_kind", models.CharField(max_length=20)),
                ("target_id", models.BigIntegerField(null=True)),
                (
                    "target",
                    models.CharField(blank=True, help_text="Its name, unless that is personal.", max_length=253),
                ),
                ("domain_id", models.BigIntegerField(null=True)),
                ("mailbox_id", models.BigIntegerField(null=True)),
                (
                    "changes",
                    models.JSONField(default=dict, help_text="By field, before and after; null where it is not told."),
                ),
            ],
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(fields=["tenant_id", "id"], name="audit_of_tenant"),
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(fields=["target_kind", "target_id", "id"], name="audit_of_target"),
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(
                condition=models.Q(("mailbox_id", None), _negated=True),
                fields=["mailbox_id", "id"],
                name="audit_of_mailbox",
            ),
        ),
        # Whoever asks, the owner of the table included. Emptying a whole table is nothing that code of ours may do.
        migrations.RunSQL(
            """
            CREATE FUNCTION mailhost_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'the audit is only ever added to' USING ERRCODE = 'insufficient_privilege'; END $$;
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON accounts_auditevent
                FOR EACH STATEMENT EXECUTE FUNCTION mailhost_refuse_change();
            """,
            """
            DROP TRIGGER append_only ON accounts_auditevent;
            DROP FUNCTION mailhost_refuse_change();
            """,
        ),
    ]
