from django.db import migrations, models


class Migration(migrations.Migration):
    """With what password open sessions may have begun, for whoever changes it and lets them go on."""

    dependencies = [("accounts", "0025_labels")]

    operations = [
        migrations.AddField(
            model_name="user",
            name="former_password",
            field=models.BinaryField(
                help_text="SHA-256 of the stored password before: open sessions that began with it go on.", null=True
            ),
        ),
    ]
