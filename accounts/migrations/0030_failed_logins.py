import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    """Failed logins are kept."""

    dependencies = [
        ("accounts", "0029_mailbox_with_little_room"),
    ]

    operations = [
        migrations.CreateModel(
            name="FailedLogin",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "subject",
                    models.CharField(help_text="Whose: mailbox 5, login 7, domain 3, or nobody's.", max_length=30),
                ),
                (
                    "address",
                    models.CharField(blank=True, help_text="That nobody has, in a domain hosted here.", max_length=320),
                ),
                (
                    "reason",
                    models.CharField(
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
                            ("too-many", "refused unseen, after too many failures"),
                            ("in-use", "right password, another session had the maildrop"),
                        ],
                        max_length=12,
                    ),
                ),
                (
                    "through",
                    models.CharField(
                        choices=[("pop3", "POP3"), ("pages", "owner's pages"), ("admin", "admin")], max_length=5
                    ),
                ),
                ("network", models.CharField(blank=True, help_text="Empty: others, added up.", max_length=43)),
                ("app_password_id", models.BigIntegerField(help_text="The device.", null=True)),
                ("client_address", models.GenericIPAddressField(help_text="The last one.", null=True)),
                ("hour", models.DateTimeField()),
                ("count", models.BigIntegerField()),
                ("first_at", models.DateTimeField()),
                ("last_at", models.DateTimeField()),
                (
                    "domain",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.domain",
                    ),
                ),
                (
                    "mailbox",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.mailbox",
                    ),
                ),
                (
                    "reseller",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.reseller",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="login",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["hour"], name="failed_login_age"),
                    models.Index(fields=["tenant", "hour"], name="failed_login_of_tenant"),
                    models.Index(fields=["mailbox", "hour"], name="failed_login_of_mailbox"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("subject", "hour", "reason", "through", "network", "address", "app_password_id"),
                        name="failed_login_of_hour",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
    ]
