from django.db import migrations, models


class Migration(migrations.Migration):
    """What Celery did last is noted."""

    dependencies = [("mailstore", "0022_statistics")]

    operations = [
        migrations.CreateModel(
            name="BackgroundRun",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(choices=[("worker", "Worker"), ("beat", "Beat")], max_length=6)),
                ("process", models.CharField(help_text="Such as celery@host.", max_length=300)),
                ("task", models.CharField(max_length=100)),
                ("at", models.DateTimeField(help_text="When it last ended, or was asked for.")),
                ("seconds", models.FloatField(help_text="How long it took.", null=True)),
                ("error", models.CharField(blank=True, default="", help_text="Empty: it went well.", max_length=200)),
            ],
            options={
                "verbose_name": "background run",
                "indexes": [models.Index(fields=["at"], name="background_run_age")],
                "constraints": [models.UniqueConstraint(fields=("process", "task"), name="background_run_once")],
            },
        ),
    ]
