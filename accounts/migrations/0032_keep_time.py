from django.db import migrations, models


class Migration(migrations.Migration):
    """Mail can be given a time after which it leaves the maildrop: a mailbox's own, or its tenant's."""

    dependencies = [("accounts", "0031_own_copy")]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="keep_time",
            field=models.DurationField(
                blank=True,
                null=True,
                help_text="How long mail stays in the maildrop, from delivery; then it is expunged. Empty: for ever.",
            ),
        ),
        migrations.AddField(
            model_name="mailbox",
            name="keep_time",
            field=models.DurationField(
                blank=True,
                null=True,
                help_text="How long mail stays in the maildrop, from delivery; then it is expunged. Empty: the "
                "tenant's.",
            ),
        ),
    ]
