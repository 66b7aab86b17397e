import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    """What goes on outside is remembered, so that a retry sends nothing again."""

    dependencies = [
        ("accounts", "0016_same_tenant_more"),
        ("mailstore", "0014_kept_unique_id_is_not_ours"),
    ]

    operations = [
        migrations.CreateModel(
            name="ForwardLedger",
            fields=[
                (
                    "digest",
                    models.BinaryField(
                        help_text="SHA-256 of the delivery's digest, the alias and the address outside.",
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("delivered_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
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
                "verbose_name": "forward ledger",
                "indexes": [models.Index(fields=["delivered_at"], name="forward_ledger_age")],
            },
        ),
    ]
