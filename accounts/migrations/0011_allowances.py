import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """How much a reseller, a tenant or a domain may have, and has."""

    dependencies = [
        ("accounts", "0010_listed"),
    ]

    operations = [
        migrations.CreateModel(
            name="Allowance",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("max_domains", models.BigIntegerField(blank=True, help_text="Empty: no limit.", null=True)),
                ("max_mailboxes", models.BigIntegerField(blank=True, help_text="Empty: no limit.", null=True)),
                ("max_aliases", models.BigIntegerField(blank=True, help_text="Empty: no limit.", null=True)),
                (
                    "max_octets",
                    models.BigIntegerField(
                        blank=True, help_text="Of all its mail together. Empty: no limit.", null=True
                    ),
                ),
                ("domains", models.BigIntegerField(default=0, editable=False)),
                ("mailboxes", models.BigIntegerField(default=0, editable=False, help_text="Those that are open.")),
                ("aliases", models.BigIntegerField(default=0, editable=False)),
                ("octets", models.BigIntegerField(default=0, editable=False, help_text="While max_octets is set.")),
                ("warned_percent", models.SmallIntegerField(default=0, editable=False)),
                (
                    "domain",
                    models.OneToOneField(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="allowance",
                        to="accounts.domain",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="allowances",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "reseller",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="allowance",
                        to="accounts.reseller",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("domain", None), ("reseller__isnull", False), ("tenant", None)),
                            models.Q(("reseller", None), ("tenant__isnull", False)),
                            _connector="OR",
                        ),
                        name="allowance_of_one",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("domain", None)), fields=("tenant",), name="allowance_of_tenant"
                    ),
                ],
            },
        ),
        migrations.RunSQL(
            sql="\n            INSERT INTO accounts_allowance (tenant_id, domains, mailboxes, aliases, octets, warned_percent)\n            SELECT tenant.id,\n                (SELECT count(*) FROM accounts_domain WHERE tenant_id = tenant.id),\n                (SELECT count(*) FROM accounts_mailbox WHERE tenant_id = tenant.id AND closed_at IS NULL),\n                (SELECT count(*) FROM accounts_alias WHERE tenant_id = tenant.id),\n                0, 0\n            FROM accounts_tenant tenant\n            ",
            reverse_sql="",
        ),
        migrations.RunSQL(
            sql="\n            INSERT INTO accounts_allowance (tenant_id, domain_id, domains, mailboxes, aliases, octets, warned_percent)\n            SELECT domain.tenant_id, domain.id, 0,\n                (SELECT count(*) FROM accounts_mailbox WHERE domain_id = domain.id AND closed_at IS NULL),\n                (SELECT count(*) FROM accounts_alias WHERE domain_id = domain.id),\n                0, 0\n            FROM accounts_domain domain\n            ",
            reverse_sql="",
        ),
    ]
