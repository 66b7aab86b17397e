import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    """What somebody is stands in his row; domain admins look after some domains only."""

    dependencies = [
        ("accounts", "0004_resellers"),
    ]

    operations = [
        migrations.CreateModel(
            name="DomainAdmin",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "domain",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.domain",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("user", "domain"), name="domain_admin_once")],
            },
        ),
        migrations.AddField(
            model_name="user",
            name="role",
            field=models.CharField(
                choices=[
                    ("operator", "Operator"),
                    ("reseller", "Reseller"),
                    ("tenant-admin", "tenant admin"),
                    ("domain-admin", "domain admin"),
                    ("support", "Support"),
                    ("member", "Member"),
                ],
                default="member",
                max_length=12,
            ),
        ),
        migrations.AddField(
            model_name="user",
            name="domains",
            field=models.ManyToManyField(
                blank=True,
                help_text="What a domain admin looks after.",
                related_name="+",
                through="accounts.DomainAdmin",
                to="accounts.domain",
            ),
        ),
        migrations.RunSQL(
            sql="UPDATE accounts_user SET role = CASE WHEN is_superuser THEN 'operator' ELSE 'tenant-admin' END WHERE is_superuser OR (is_staff AND tenant_id IS NOT NULL)",
            reverse_sql="",
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("is_superuser", True), ("role", "operator")),
                    models.Q(("is_superuser", False), models.Q(("role", "operator"), _negated=True)),
                    _connector="OR",
                ),
                name="user_operator_is_superuser",
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.CheckConstraint(
                condition=models.Q(("tenant", None), ("reseller", None), _connector="OR"),
                name="user_of_tenant_or_reseller",
            ),
        ),
    ]
