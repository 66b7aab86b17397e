from django.db import migrations


class Migration(migrations.Migration):
    """No unique-id that came along reads as one of a message that came back into a device's own view, either.

    One that does, against all odds, gives way: its clients take the message for a new one, and no other for it.
    Validated apart, so that nobody waits while rows are looked at.
    """

    atomic = False
    dependencies = [("mailstore", "0025_keep_time")]

    operations = [
        migrations.RunSQL(
            """
            ALTER TABLE mailstore_message DROP CONSTRAINT IF EXISTS message_kept_unique_id_is_no_own_copys,
            ADD CONSTRAINT message_kept_unique_id_is_no_own_copys CHECK (
                kept_unique_id IS NULL
                OR kept_unique_id !~ ('^' || to_hex(mailbox_id) || '([.][0-9a-f]+){3}$')
            ) NOT VALID
            """,
            "ALTER TABLE mailstore_message DROP CONSTRAINT IF EXISTS message_kept_unique_id_is_no_own_copys",
        ),
        migrations.RunSQL(
            """
            UPDATE mailstore_message SET kept_unique_id = NULL
            WHERE kept_unique_id ~ ('^' || to_hex(mailbox_id) || '([.][0-9a-f]+){3}$')
            """,
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(
            "ALTER TABLE mailstore_message VALIDATE CONSTRAINT message_kept_unique_id_is_no_own_copys",
            migrations.RunSQL.noop,
        ),
    ]
