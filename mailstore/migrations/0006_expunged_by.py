from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """Without it, removing a user would read the whole table for messages that this user has expunged."""

    atomic = False
    dependencies = [("mailstore", "0005_drop_expunged")]

    operations = [
        AddIndexConcurrently(
            model_name="message",
            index=models.Index(
                condition=models.Q(("expunged_by", None), _negated=True),
                fields=["expunged_by"],
                name="message_expunged_by",
            ),
        ),
    ]
