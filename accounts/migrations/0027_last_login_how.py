from django.db import migrations, models


class Migration(migrations.Migration):
    """How the last client signed in: over TLS or not, and with which app password. Also of sessions that leave no row."""

    dependencies = [("accounts", "0026_former_password")]

    operations = [
        migrations.AddField(
            model_name="mailbox",
            name="last_login_secure",
            field=models.BooleanField(editable=False, help_text="Over TLS.", null=True),
        ),
        migrations.AddField(
            model_name="mailbox",
            name="last_login_app_password_id",
            field=models.BigIntegerField(editable=False, help_text="The device.", null=True),
        ),
    ]
