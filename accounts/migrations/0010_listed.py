from django.db import migrations, models

from accounts.migrations import _concurrently


class Migration(migrations.Migration):
    """Lists are read tenant by tenant, in the order of addresses."""

    atomic = False
    dependencies = [
        ("accounts", "0009_alias_targets"),
    ]

    operations = [
        _concurrently.AddIndex(
            model_name="alias",
            index=models.Index(fields=["tenant", "address"], name="alias_listed"),
        ),
        _concurrently.AddIndex(
            model_name="mailbox",
            index=models.Index(fields=["tenant", "address"], name="mailbox_listed"),
        ),
    ]
