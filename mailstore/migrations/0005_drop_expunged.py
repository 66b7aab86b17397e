from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import migrations


class Migration(migrations.Migration):
    """Unused since the purge goes by mailbox; every expunge would write it."""

    atomic = False
    dependencies = [("mailstore", "0004_expunged_of_mailbox")]

    operations = [RemoveIndexConcurrently(model_name="message", name="message_expunged")]
