import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    """Mail comes along from other servers, each message once."""

    dependencies = [
        ("accounts", "0016_same_tenant_more"),
        ("mailstore", "0010_kept_unique_id"),
    ]

    operations = [
        migrations.CreateModel(
            name="ImportedItem",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "mailbox_id", "digest", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "digest",
                    models.BinaryField(help_text="SHA-256 of its unique-id there, or where it had none of its octets."),
                ),
                (
                    "mailbox",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
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
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="ImportJob",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "source",
                    models.CharField(
                        choices=[("pop3", "POP3"), ("imap", "IMAP"), ("upload", "uploaded mbox or zip")], max_length=6
                    ),
                ),
                ("host", models.CharField(blank=True, default="", max_length=253)),
                ("port", models.IntegerField(null=True)),
                ("security", models.CharField(default="tls", help_text="tls, starttls or none.", max_length=8)),
                ("login", models.CharField(blank=True, default="", max_length=320)),
                ("sealed_password", models.BinaryField(help_text="Encrypted; removed when the job ends.", null=True)),
                (
                    "folder",
                    models.CharField(blank=True, default="", help_text="Of IMAP; empty: INBOX.", max_length=255),
                ),
                (
                    "upload",
                    models.CharField(
                        blank=True, default="", help_text="File below the data directory.", max_length=255
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("running", "Running"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="waiting",
                        max_length=9,
                    ),
                ),
                ("total", models.IntegerField(help_text="Messages there.", null=True)),
                ("imported", models.IntegerField(default=0)),
                ("skipped", models.IntegerField(default=0, help_text="Had come along before.")),
                ("failed", models.IntegerField(default=0)),
                ("report", models.TextField(blank=True, default="", help_text="What went wrong, a line each.")),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("started_at", models.DateTimeField(null=True)),
                ("heartbeat_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "mailbox",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="import_jobs",
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
                "indexes": [
                    models.Index(
                        condition=models.Q(("state__in", ("waiting", "running"))),
                        fields=["created_at"],
                        name="import_job_to_do",
                    )
                ],
            },
        ),
    ]
