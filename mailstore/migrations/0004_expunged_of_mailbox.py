from django.db import migrations, models

from accounts.migrations import _concurrently


class Migration(migrations.Migration):
    """For the purge: each mailbox has a retention of its own, so what is due is looked up mailbox by mailbox."""

    atomic = False
    dependencies = [("mailstore", "0003_storage")]

    operations = [
        _concurrently.AddIndex(
            model_name="message",
            index=models.Index(
                condition=models.Q(("expunged_at", None), _negated=True),
                fields=["mailbox", "expunged_at"],
                name="message_expunged_of_mailbox",
            ),
        ),
    ]
