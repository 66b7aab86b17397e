from django.db import migrations


class Migration(migrations.Migration):
    """Room on each page for the counters' next versions: they change with every message and every login."""

    dependencies = [("accounts", "0002_same_tenant")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE accounts_mailbox SET (fillfactor = 50)",
            "ALTER TABLE accounts_mailbox RESET (fillfactor)",
        )
    ]
