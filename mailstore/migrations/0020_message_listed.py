from django.db import migrations, models

from accounts.migrations import _concurrently


class Migration(migrations.Migration):
    """For lists over the mailboxes of a tenant, newest first; and for messages by their Message-ID, wherever they are."""

    atomic = False
    dependencies = [("mailstore", "0019_forward_of_domain")]

    operations = [
        _concurrently.AddIndex(
            model_name="message", index=models.Index(fields=["tenant", "id"], name="message_listed")
        ),
        _concurrently.AddIndex(
            model_name="message",
            index=models.Index(fields=["message_id"], name="message_message_id"),
        ),
    ]
