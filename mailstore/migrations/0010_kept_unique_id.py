from django.db import migrations, models


class Migration(migrations.Migration):
    """Unique-ids come along from other servers."""

    dependencies = [("mailstore", "0009_session_device")]

    operations = [
        migrations.AddField(
            model_name="message",
            name="kept_unique_id",
            field=models.CharField(
                help_text="The unique-id that came along from another server.", max_length=70, null=True
            ),
        ),
    ]
