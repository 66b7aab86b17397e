from django.db import migrations, models


class Migration(migrations.Migration):
    """Hashes that come along from other servers are longer."""

    dependencies = [
        ("accounts", "0005_roles"),
    ]

    operations = [
        migrations.AlterField(
            model_name="user",
            name="password",
            field=models.CharField(max_length=255, verbose_name="password"),
        ),
    ]
