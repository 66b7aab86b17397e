from django.db import migrations, models


class Migration(migrations.Migration):
    """A device can have its own copy of the maildrop: only one that fetches mail."""

    dependencies = [("accounts", "0030_failed_logins")]

    operations = [
        migrations.AddField(
            model_name="apppassword",
            name="own_copy",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="The device has its own view of the maildrop: what it removes is gone for that device only. "
                "A message leaves the mailbox when every device with an own copy has removed it.",
            ),
        ),
        migrations.AddConstraint(
            model_name="apppassword",
            constraint=models.CheckConstraint(
                condition=models.Q(own_copy=False) | models.Q(scopes__contains=["pop3"]),
                name="app_password_own_copy_fetches",
            ),
        ),
    ]
