from django.db import migrations, models

_REMOVED = models.BigIntegerField(db_default=0, help_text="Messages that sessions, people or programs removed.")


class Migration(migrations.Migration):
    """What somebody removes outside of sessions is counted, too: how far the audit is counted."""

    dependencies = [("mailstore", "0029_import_problems")]

    operations = [
        migrations.AddField(
            model_name="rollup",
            name="audit_id",
            field=models.BigIntegerField(db_default=0, help_text="The last record of the audit that was counted."),
        ),
        migrations.AddField(
            model_name="rollup",
            name="sampled_audit_id",
            field=models.BigIntegerField(db_default=0, help_text="The last record of the audit then."),
        ),
        migrations.AlterField(model_name="dailystatistics", name="removed", field=_REMOVED),
        migrations.AlterField(model_name="hourlystatistics", name="removed", field=_REMOVED),
    ]
