from django.db import migrations, models


class Migration(migrations.Migration):
    """Labels of choices only: nothing is done in the database."""

    dependencies = [
        ("accounts", "0024_tenant_external_id"),
    ]

    operations = [
        migrations.AlterField(
            model_name="apitoken",
            name="role",
            field=models.CharField(
                choices=[
                    ("operator", "Operator"),
                    ("reseller", "Reseller"),
                    ("tenant-admin", "Tenant admin"),
                    ("domain-admin", "Domain admin"),
                    ("support", "Support"),
                    ("member", "Member"),
                ],
                max_length=12,
            ),
        ),
        migrations.AlterField(
            model_name="auditevent",
            name="through",
            field=models.CharField(
                choices=[
                    ("api", "API"),
                    ("admin", "Admin"),
                    ("pages", "Owner's pages"),
                    ("command", "manage.py"),
                    ("system", "System"),
                ],
                max_length=8,
            ),
        ),
        migrations.AlterField(
            model_name="user",
            name="role",
            field=models.CharField(
                choices=[
                    ("operator", "Operator"),
                    ("reseller", "Reseller"),
                    ("tenant-admin", "Tenant admin"),
                    ("domain-admin", "Domain admin"),
                    ("support", "Support"),
                    ("member", "Member"),
                ],
                default="member",
                max_length=12,
            ),
        ),
    ]
