from django.db import migrations, models


class Migration(migrations.Migration):
    """Unique-ids come along from other servers."""

    atomic = False
    dependencies = [("mailstore", "0009_session_device")]

    operations = [
        migrations.AddField(
            model_name="message",
            name="kept_unique_id",
            field=models.CharField(
                help_text="The unique-id that came along from another server.", max_length=70, null=True
            ),
        ),
        migrations.SeparateDatabaseAndState(
            [
                migrations.RunSQL(
                    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS message_kept_unique_id"
                    " ON mailstore_message (mailbox_id, kept_unique_id) WHERE kept_unique_id IS NOT NULL",
                    "DROP INDEX CONCURRENTLY IF EXISTS message_kept_unique_id",
                )
            ],
            [
                migrations.AddConstraint(
                    model_name="message",
                    constraint=models.UniqueConstraint(
                        condition=models.Q(("kept_unique_id", None), _negated=True),
                        fields=("mailbox", "kept_unique_id"),
                        name="message_kept_unique_id",
                    ),
                )
            ],
        ),
    ]
