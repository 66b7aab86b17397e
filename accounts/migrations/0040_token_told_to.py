import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    """A token keeps the roles of whoever was told its text: it reads messages where they may, too."""

    dependencies = [("accounts", "0039_with_keep_time")]

    operations = [
        migrations.AddField(
            model_name="apitoken",
            name="told_to",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=12),
                db_default=[],
                default=list,
                editable=False,
                help_text=(
                    "The roles of whoever was told its text. It reads messages where they may, too."
                    " Empty: of a command."
                ),
                size=None,
            ),
        ),
    ]
