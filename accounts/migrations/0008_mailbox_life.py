from django.db import migrations, models


class Migration(migrations.Migration):
    """Mailboxes have more states, with their reason; callers name them by ids of their own."""

    dependencies = [
        ("accounts", "0007_domain_life"),
    ]

    operations = [
        migrations.AddField(
            model_name="mailbox",
            name="external_id",
            field=models.CharField(
                blank=True, help_text="What the caller's own system calls it.", max_length=200, null=True
            ),
        ),
        migrations.AddField(
            model_name="mailbox",
            name="legal_hold",
            field=models.BooleanField(default=False, help_text="No purge removes any of its mail."),
        ),
        migrations.AddField(
            model_name="mailbox",
            name="name",
            field=models.CharField(blank=True, default="", help_text="Whose it is, as people read it.", max_length=200),
        ),
        migrations.AddField(
            model_name="mailbox",
            name="state_reason",
            field=models.CharField(
                blank=True, default="", help_text="Why it is in that state; its owner reads it.", max_length=500
            ),
        ),
        migrations.AddField(
            model_name="mailbox",
            name="warned_percent",
            field=models.SmallIntegerField(default=0, editable=False),
        ),
        migrations.AlterField(
            model_name="mailbox",
            name="state",
            field=models.CharField(
                choices=[
                    ("active", "Active"),
                    ("no-login", "receives mail, login off"),
                    ("no-receive", "login works, mail is deferred"),
                    ("suspended", "Suspended"),
                ],
                default="active",
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="mailbox",
            constraint=models.UniqueConstraint(
                condition=models.Q(("closed_at", None)), fields=("tenant", "external_id"), name="mailbox_external_id"
            ),
        ),
    ]
