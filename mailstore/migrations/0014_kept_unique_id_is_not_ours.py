from django.db import migrations


class Migration(migrations.Migration):
    """No unique-id that came along reads as one that the mailbox itself gives, now or ever.

    In SQL alone, since Django has no `to_hex`; `mailstore.importing.unique_ids.can_be_kept` asks the same. Validated
    apart, so that nobody waits while rows are looked at.
    """

    atomic = False
    dependencies = [("mailstore", "0013_same_tenant_more")]

    operations = [
        migrations.RunSQL(
            """
            ALTER TABLE mailstore_message DROP CONSTRAINT IF EXISTS message_kept_unique_id_is_not_ours,
            ADD CONSTRAINT message_kept_unique_id_is_not_ours CHECK (
                kept_unique_id IS NULL OR (
                    kept_unique_id ~ '^[!-~]{1,70}$'
                    AND kept_unique_id !~ ('^' || to_hex(mailbox_id) || '[.][0-9a-f]+[.][0-9a-f]+$')
                )
            ) NOT VALID
            """,
            "ALTER TABLE mailstore_message DROP CONSTRAINT IF EXISTS message_kept_unique_id_is_not_ours",
        ),
        migrations.RunSQL(
            "ALTER TABLE mailstore_message VALIDATE CONSTRAINT message_kept_unique_id_is_not_ours",
            migrations.RunSQL.noop,
        ),
    ]
