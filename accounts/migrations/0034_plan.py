import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    """What a tenant may have gets a name, that many share."""

    dependencies = [("accounts", "0033_content_roles")]

    operations = [
        migrations.CreateModel(
            name="Plan",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("slug", models.SlugField(max_length=63)),
                ("name", models.CharField(max_length=200)),
                ("max_domains", models.BigIntegerField(blank=True, null=True)),
                ("max_mailboxes", models.BigIntegerField(blank=True, null=True)),
                ("max_aliases", models.BigIntegerField(blank=True, null=True)),
                ("max_octets", models.BigIntegerField(blank=True, help_text="Of all its mail together.", null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "reseller",
                    models.ForeignKey(
                        blank=True,
                        help_text="Empty: the host's own.",
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="plans",
                        to="accounts.reseller",
                    ),
                ),
            ],
            options={
                "verbose_name": "plan",
                "verbose_name_plural": "plans",
                "ordering": ("slug",),
                "constraints": [
                    models.UniqueConstraint(fields=("reseller", "slug"), name="plan_slug", nulls_distinct=False)
                ],
            },
        ),
    ]
