from django.db import migrations, models


class Migration(migrations.Migration):
    """What became of a message before it was restored: until now a restore forgot it."""

    dependencies = [("mailstore", "0020_message_listed")]

    operations = [
        migrations.AddField(
            model_name="message",
            name="earlier",
            field=models.JSONField(
                help_text="What became of it before it was restored, each time, oldest first (mailstore.life).",
                null=True,
            ),
        ),
    ]
