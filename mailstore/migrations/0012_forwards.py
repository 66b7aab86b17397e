import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    """Mail goes on to addresses outside."""

    dependencies = [
        ("mailstore", "0011_imports"),
    ]

    operations = [
        migrations.CreateModel(
            name="Forward",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("alias_id", models.BigIntegerField(null=True)),
                ("trace", models.BinaryField(help_text="What stands before the content.")),
                ("reverse_path", models.TextField(blank=True, help_text="Rewritten, so that bounces find back (SRS).")),
                ("recipient", models.CharField(max_length=320)),
                ("attempts", models.IntegerField(default=0)),
                ("next_attempt_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("last_error", models.CharField(blank=True, default="", max_length=200)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "content",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="forwards",
                        to="mailstore.content",
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
                    models.Index(fields=["next_attempt_at"], name="forward_due"),
                    models.Index(fields=["content"], name="forward_content"),
                ],
            },
        ),
    ]
