from django.db import migrations, models


class Migration(migrations.Migration):
    """Domains and tenants are closed, as mailboxes are, and go when their mail is purged."""

    dependencies = [
        ("accounts", "0019_webhook_held"),
    ]

    operations = [
        migrations.AddField(
            model_name="domain",
            name="closed_at",
            field=models.DateTimeField(
                editable=False, help_text="Since then it takes no mail; it goes when its mail is purged.", null=True
            ),
        ),
        migrations.AddField(
            model_name="tenant",
            name="closed_at",
            field=models.DateTimeField(
                editable=False,
                help_text="Since then nothing of it can be used; it goes when its mail is purged.",
                null=True,
            ),
        ),
    ]
