import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Refused mail is noted."""

    dependencies = [
        ("accounts", "0016_same_tenant_more"),
        ("mailstore", "0015_forward_ledger"),
    ]

    operations = [
        migrations.CreateModel(
            name="Refusal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "reason",
                    models.CharField(help_text="As mailstore.delivery.Outcome has it, or unverified.", max_length=12),
                ),
                ("hour", models.DateTimeField()),
                ("count", models.BigIntegerField()),
                ("first_at", models.DateTimeField()),
                ("last_at", models.DateTimeField()),
                ("sender_domain", models.CharField(help_text="Of the last one's reverse-path.", max_length=255)),
                ("told_at", models.DateTimeField(help_text="When webhooks were told.", null=True)),
                (
                    "domain",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.domain",
                    ),
                ),
                (
                    "mailbox",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
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
                "indexes": [
                    models.Index(fields=["last_at"], name="refusal_age"),
                    models.Index(
                        condition=models.Q(("mailbox__isnull", False), ("told_at", None)),
                        fields=["id"],
                        name="refusal_to_tell",
                    ),
                    models.Index(fields=["mailbox", "hour"], name="refusal_of_mailbox"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("domain", "mailbox", "reason", "hour"), name="refusal_of_hour", nulls_distinct=False
                    )
                ],
            },
        ),
    ]
