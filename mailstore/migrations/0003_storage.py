from django.db import migrations


class Migration(migrations.Migration):
    """Contents uncompressed, so that they cost no time; and tables that change all day vacuumed often."""

    dependencies = [("mailstore", "0002_same_tenant")]

    operations = [
        migrations.RunSQL(
            """
            ALTER TABLE mailstore_content ALTER COLUMN body SET STORAGE EXTERNAL;
            ALTER TABLE mailstore_contentchunk ALTER COLUMN octets SET STORAGE EXTERNAL;
            ALTER TABLE mailstore_message SET (fillfactor = 90);
            ALTER TABLE mailstore_listener SET (fillfactor = 50);
            ALTER TABLE mailstore_maildropsession SET
                (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
            """,
            """
            ALTER TABLE mailstore_content ALTER COLUMN body SET STORAGE EXTENDED;
            ALTER TABLE mailstore_contentchunk ALTER COLUMN octets SET STORAGE EXTENDED;
            ALTER TABLE mailstore_message RESET (fillfactor);
            ALTER TABLE mailstore_listener RESET (fillfactor);
            ALTER TABLE mailstore_maildropsession RESET
                (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
            """,
        )
    ]
