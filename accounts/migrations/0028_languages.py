from django.db import migrations, models


class Migration(migrations.Migration):
    """People choose the language and the time zone in which they read us."""

    dependencies = [("accounts", "0027_last_login_how")]

    operations = [
        migrations.AddField(
            model_name="user",
            name="language",
            field=models.CharField(
                blank=True,
                choices=[("en", "English"), ("vi", "Tiếng Việt")],
                help_text="Empty: as the browser asks.",
                max_length=10,
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="user",
            name="time_zone",
            field=models.CharField(
                blank=True, help_text="Empty: the host's, or the browser's.", max_length=64, null=True
            ),
        ),
    ]
