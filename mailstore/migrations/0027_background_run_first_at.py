from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    """What was never done can be late only if it was asked for long ago."""

    dependencies = [("mailstore", "0026_kept_unique_id_is_no_own_copys")]

    operations = [
        migrations.AddField(
            model_name="backgroundrun",
            name="first_at",
            field=models.DateTimeField(db_default=Now(), help_text="When that was noted first."),
        ),
    ]
