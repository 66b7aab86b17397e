from django.db import migrations, models


class Migration(migrations.Migration):
    """What callers call tenants is each reseller's own: two of them may count their customers from 1."""

    dependencies = [("accounts", "0023_widest_first")]

    operations = [
        migrations.AddConstraint(
            model_name="tenant",
            constraint=models.UniqueConstraint(
                condition=models.Q(("external_id", None), _negated=True),
                fields=("reseller", "external_id"),
                name="tenant_external_id",
                nulls_distinct=False,
            ),
        ),
        migrations.AlterField(
            model_name="tenant",
            name="external_id",
            field=models.CharField(
                blank=True, help_text="What the caller's own system calls it.", max_length=200, null=True
            ),
        ),
    ]
