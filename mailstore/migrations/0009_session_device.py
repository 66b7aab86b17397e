from django.db import migrations, models


class Migration(migrations.Migration):
    """A session says which device it was, and that it was ended from outside."""

    dependencies = [
        ("mailstore", "0008_drop_session_open_of_listener"),
    ]

    operations = [
        migrations.AddField(
            model_name="maildropsession",
            name="app_password_id",
            field=models.BigIntegerField(help_text="The device.", null=True),
        ),
        migrations.AlterField(
            model_name="maildropsession",
            name="end",
            field=models.CharField(
                blank=True,
                choices=[
                    ("quit", "Quit"),
                    ("dropped", "connection lost"),
                    ("ended", "ended from outside"),
                    ("lost", "listener lost"),
                ],
                default="",
                max_length=8,
            ),
        ),
    ]
