from django.db import migrations

from accounts.migrations import _concurrently


class Migration(migrations.Migration):
    """Unused since the purge goes by mailbox; every expunge would write it."""

    atomic = False
    dependencies = [("mailstore", "0004_expunged_of_mailbox")]

    operations = [_concurrently.RemoveIndex(model_name="message", name="message_expunged")]
