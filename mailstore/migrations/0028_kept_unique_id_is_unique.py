from django.db import migrations, models

from accounts.migrations import _concurrently


class Migration(migrations.Migration):
    """No two messages of a mailbox keep the same unique-id."""

    atomic = False
    dependencies = [("mailstore", "0027_background_run_first_at")]

    operations = [
        _concurrently.AddUnique(
            model_name="message",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kept_unique_id", None), _negated=True),
                fields=("mailbox", "kept_unique_id"),
                name="message_kept_unique_id",
            ),
        ),
    ]
