from django.db import migrations, models


class Migration(migrations.Migration):
    """An import says how the other server makes unique-ids from UIDs."""

    dependencies = [("mailstore", "0016_refusals")]

    operations = [
        migrations.AddField(
            model_name="importjob",
            name="uidl_format",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Of that server's unique-ids, where only its UIDs are shown; empty: Dovecot's; none: keeps none.",
                max_length=32,
            ),
        ),
    ]
