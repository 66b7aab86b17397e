from django.db import migrations, models


class Migration(migrations.Migration):
    """Webhooks are claimed as a whole, and one that does not answer is left alone for a while."""

    dependencies = [
        ("accounts", "0018_emit"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="webhookdelivery",
            name="delivery_due",
        ),
        migrations.AddField(
            model_name="webhook",
            name="held_until",
            field=models.DateTimeField(
                editable=False,
                help_text="Until then nothing is sent: somebody does, or nobody answers there.",
                null=True,
            ),
        ),
        migrations.AddIndex(
            model_name="webhookdelivery",
            index=models.Index(
                condition=models.Q(("state", "pending")),
                fields=["webhook", "next_attempt_at"],
                name="delivery_due_of_webhook",
            ),
        ),
    ]
