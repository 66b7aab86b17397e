import accounts.models
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Domains are shown to be their tenants', stand for others, and separate subaddresses."""

    dependencies = [
        ("accounts", "0006_password_length"),
    ]

    operations = [
        migrations.AddField(
            model_name="domain",
            name="alias_of",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                help_text="Mail to an address here is for the same local part there.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="alias_domains",
                to="accounts.domain",
            ),
        ),
        migrations.AddField(
            model_name="domain",
            name="checked_at",
            field=models.DateTimeField(editable=False, help_text="When DNS was last asked.", null=True),
        ),
        migrations.AddField(
            model_name="domain",
            name="external_id",
            field=models.CharField(
                blank=True, help_text="What the caller's own system calls it.", max_length=200, null=True
            ),
        ),
        migrations.AddField(
            model_name="domain",
            name="failing_since",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="domain",
            name="state",
            field=models.CharField(
                choices=[("pending", "Pending"), ("verified", "Verified"), ("failing", "Failing")],
                default="pending",
                editable=False,
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="domain",
            name="subaddress",
            field=models.CharField(
                blank=True,
                help_text="What separates a subaddress, such as +. Empty: nothing does.",
                max_length=1,
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="domain",
            name="verification_token",
            field=models.CharField(default=accounts.models._verification_token, editable=False, max_length=32),
        ),
        migrations.AddConstraint(
            model_name="domain",
            constraint=models.UniqueConstraint(fields=("tenant", "external_id"), name="domain_external_id"),
        ),
        migrations.AddConstraint(
            model_name="domain",
            constraint=models.CheckConstraint(
                condition=models.Q(("alias_of", models.F("id")), _negated=True), name="domain_alias_of_another"
            ),
        ),
        # Those that are there were added by an operator, who knows whose they are.
        migrations.RunSQL("UPDATE accounts_domain SET state = 'verified'", migrations.RunSQL.noop),
        migrations.RunSQL(
            "UPDATE accounts_domain SET verification_token = replace(gen_random_uuid()::text, '-', '')",
            migrations.RunSQL.noop,
        ),
    ]
