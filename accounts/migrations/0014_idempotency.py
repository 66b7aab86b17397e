import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    """Requests that are sent twice are carried out once."""

    dependencies = [
        ("accounts", "0013_audit"),
    ]

    operations = [
        migrations.CreateModel(
            name="IdempotencyKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("principal", models.CharField(help_text="Whose key: token 5, user 7.", max_length=40)),
                ("key", models.CharField(max_length=255)),
                ("digest", models.BinaryField(help_text="SHA-256 of method, path and body.")),
                ("status", models.SmallIntegerField()),
                ("headers", models.JSONField(default=dict)),
                ("body", models.BinaryField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.AddIndex(
            model_name="idempotencykey",
            index=models.Index(fields=["created_at"], name="idempotency_key_age"),
        ),
        migrations.AddConstraint(
            model_name="idempotencykey",
            constraint=models.UniqueConstraint(fields=("principal", "key"), name="idempotency_key_once"),
        ),
    ]
