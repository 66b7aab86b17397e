import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    """Resellers own tenants; callers name tenants by ids of their own."""

    dependencies = [
        ("accounts", "0003_mailbox_fillfactor"),
    ]

    operations = [
        migrations.CreateModel(
            name="Reseller",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("slug", models.SlugField(max_length=63, unique=True)),
                ("name", models.CharField(max_length=200)),
                (
                    "external_id",
                    models.CharField(
                        blank=True,
                        help_text="What the caller's own system calls it.",
                        max_length=200,
                        null=True,
                        unique=True,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "ordering": ("slug",),
            },
        ),
        migrations.AddField(
            model_name="tenant",
            name="external_id",
            field=models.CharField(
                blank=True, help_text="What the caller's own system calls it.", max_length=200, null=True, unique=True
            ),
        ),
        migrations.AddField(
            model_name="tenant",
            name="reseller",
            field=models.ForeignKey(
                blank=True,
                help_text="Empty: the host's own.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="tenants",
                to="accounts.reseller",
            ),
        ),
        migrations.AddField(
            model_name="user",
            name="reseller",
            field=models.ForeignKey(
                blank=True,
                help_text="Whose staff it is.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="accounts.reseller",
            ),
        ),
    ]
