from django.db import migrations, models


class Migration(migrations.Migration):
    """A reason more, by its label only: nothing is done in the database."""

    dependencies = [
        ("accounts", "0036_second_step"),
    ]

    operations = [
        migrations.AlterField(
            model_name="failedlogin",
            name="reason",
            field=models.CharField(
                choices=[
                    ("password", "wrong password"),
                    ("app-revoked", "app password that was revoked"),
                    ("app-expired", "app password that has expired"),
                    ("app-scope", "app password that is not for that"),
                    ("app-network", "app password not allowed from there"),
                    ("unknown", "no such address"),
                    ("state", "right password, login is off"),
                    ("no-pop3", "right password, POP3 is off"),
                    ("network", "right password, not allowed from there"),
                    ("second-step", "right password, second step failed"),
                    ("too-many", "refused unseen, after too many failures"),
                    ("in-use", "right password, another session had the maildrop"),
                ],
                max_length=12,
            ),
        ),
    ]
