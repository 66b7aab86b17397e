import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """A tenant has a plan, or limits of its own."""

    dependencies = [("accounts", "0034_plan")]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="plan",
            field=models.ForeignKey(
                blank=True,
                help_text="Whose limits it has.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="tenants",
                to="accounts.plan",
            ),
        ),
    ]
