from django.db import migrations, models

from accounts.migrations import _concurrently


class Migration(migrations.Migration):
    """Without it, removing a user would read the whole table for messages that this user has expunged."""

    atomic = False
    dependencies = [("mailstore", "0005_drop_expunged")]

    operations = [
        _concurrently.AddIndex(
            model_name="message",
            index=models.Index(
                condition=models.Q(("expunged_by", None), _negated=True),
                fields=["expunged_by"],
                name="message_expunged_by",
            ),
        ),
    ]
