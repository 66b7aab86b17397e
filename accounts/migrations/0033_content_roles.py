from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models


class Migration(migrations.Migration):
    """Which roles may read what is in a tenant's messages; null, as everywhere at first, means the host's setting."""

    dependencies = [("accounts", "0032_keep_time")]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="content_roles",
            field=ArrayField(
                models.CharField(max_length=12),
                null=True,
                blank=True,
                help_text="The roles that may read what is in its messages, beside their owners. Null: the host's.",
            ),
        ),
    ]
