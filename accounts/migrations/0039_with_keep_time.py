from django.db import migrations, models

from accounts.migrations import _concurrently


class Migration(migrations.Migration):
    """The few mailboxes that have a keep-time of their own are found without a look at all."""

    atomic = False
    dependencies = [("accounts", "0038_own_copy_ends")]

    operations = [
        _concurrently.AddIndex(
            model_name="mailbox",
            index=models.Index(fields=["id"], condition=~models.Q(keep_time=None), name="mailbox_with_keep_time"),
        ),
    ]
