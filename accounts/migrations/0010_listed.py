from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """Lists are read tenant by tenant, in the order of addresses."""

    atomic = False
    dependencies = [
        ("accounts", "0009_alias_targets"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="alias",
            index=models.Index(fields=["tenant", "address"], name="alias_listed"),
        ),
        AddIndexConcurrently(
            model_name="mailbox",
            index=models.Index(fields=["tenant", "address"], name="mailbox_listed"),
        ),
    ]
