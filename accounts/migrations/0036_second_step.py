import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.conf import settings
from django.db import migrations, models


def _goes_with_its_login(table: str) -> migrations.RunSQL:
    """The database removes the rows: whoever removes a login may not even see them (`accounts.tenancy.OfLogin`)."""
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {table}_user_id_of_login"
        " FOREIGN KEY (user_id) REFERENCES accounts_user (id) ON DELETE CASCADE",
        f"ALTER TABLE {table} DROP CONSTRAINT {table}_user_id_of_login",
    )


class Migration(migrations.Migration):
    """What somebody has for the second step of signing in, and where he is signed in."""

    dependencies = [
        ("accounts", "0035_tenant_plan"),
    ]

    operations = [
        migrations.CreateModel(
            name="AuthenticatorApp",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("sealed_secret", models.BinaryField(help_text="What app and host share; encrypted.")),
                (
                    "last_step",
                    models.BigIntegerField(
                        help_text="Of the last code that was taken: none before it is, and no code twice."
                    ),
                ),
                ("last_used_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "user",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Passkey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100)),
                ("credential_id", models.BinaryField(unique=True)),
                (
                    "credential",
                    models.BinaryField(
                        help_text="Attested credential data (WebAuthn section 6.5.1): id and public key."
                    ),
                ),
                (
                    "sign_count",
                    models.BigIntegerField(help_text="Of its last signature. Only grows, unless it stays 0."),
                ),
                ("last_used_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="WebSession",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                (
                    "second_step",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("app", "password and code"),
                            ("passkey", "password and passkey"),
                            ("recovery", "password and recovery code"),
                        ],
                        default="",
                        max_length=8,
                    ),
                ),
                ("client_address", models.GenericIPAddressField(null=True)),
                (
                    "browser",
                    models.CharField(blank=True, default="", help_text="What it calls itself.", max_length=300),
                ),
                ("last_seen_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="RecoveryCode",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("digest", models.BinaryField(help_text="SHA-256 of the code.")),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("user", "digest"), name="recovery_code_digest")],
            },
        ),
        _goes_with_its_login("accounts_authenticatorapp"),
        _goes_with_its_login("accounts_passkey"),
        _goes_with_its_login("accounts_recoverycode"),
        _goes_with_its_login("accounts_websession"),
    ]
