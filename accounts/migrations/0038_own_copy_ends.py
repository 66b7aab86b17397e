from django.db import migrations, models

from accounts.migrations import _concurrently


class Migration(migrations.Migration):
    """Devices with an own copy whose app password has expired are found without a look at the others."""

    atomic = False
    dependencies = [("accounts", "0037_failed_second_steps")]

    operations = [
        _concurrently.AddIndex(
            model_name="apppassword",
            index=models.Index(
                fields=["expires_at"],
                condition=models.Q(own_copy=True, revoked_at=None, expires_at__isnull=False),
                name="app_password_own_copy_ends",
            ),
        ),
    ]
