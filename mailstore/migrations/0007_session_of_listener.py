from django.db import migrations, models

from accounts.migrations import _concurrently


class Migration(migrations.Migration):
    """For the purge, which asks of each dead listener whether any session still names it."""

    atomic = False
    dependencies = [("mailstore", "0006_expunged_by")]

    operations = [
        _concurrently.AddIndex(
            model_name="maildropsession",
            index=models.Index(fields=["listener"], name="session_of_listener"),
        ),
    ]
