from django.db import migrations, models


class Migration(migrations.Migration):
    """What went wrong with an import, to be said in the language of whoever reads it: until now it was in English."""

    dependencies = [("mailstore", "0028_kept_unique_id_is_unique")]

    operations = [
        migrations.AddField(
            model_name="importjob",
            name="problems",
            field=models.JSONField(
                help_text="What went wrong, as mailstore.importing.sentences keeps it.",
                null=True,
            ),
        ),
    ]
