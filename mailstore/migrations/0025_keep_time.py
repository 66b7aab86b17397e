from django.db import migrations, models


class Migration(migrations.Migration):
    """From when a message's keep-time counts, if not from delivery, and whether it left the maildrop because of it."""

    dependencies = [("mailstore", "0024_own_copies")]

    operations = [
        migrations.AddField(
            model_name="message",
            name="kept_since",
            field=models.DateTimeField(
                null=True,
                help_text="From when its keep-time counts, if not from delivery: when it was restored, or came along "
                "from another server.",
            ),
        ),
        migrations.AddField(
            model_name="message",
            name="expired",
            field=models.BooleanField(
                db_default=False, default=False, help_text="It was expunged because its keep-time ended."
            ),
        ),
    ]
