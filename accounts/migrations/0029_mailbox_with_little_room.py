from django.db import migrations, models

from accounts.migrations import _concurrently


class Migration(migrations.Migration):
    """The few mailboxes that are nearly full are found without a look at all."""

    atomic = False
    dependencies = [("accounts", "0028_languages")]

    operations = [
        _concurrently.AddIndex(
            model_name="mailbox",
            index=models.Index(
                fields=["tenant", "address"],
                condition=models.Q(closed_at=None, warned_percent__gt=0),
                name="mailbox_with_little_room",
            ),
        ),
    ]
