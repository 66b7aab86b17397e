import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """What happens is counted, by domain and hour."""

    dependencies = [
        ("accounts", "0029_mailbox_with_little_room"),
        ("mailstore", "0021_message_earlier"),
    ]

    operations = [
        migrations.CreateModel(
            name="Rollup",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("message_id", models.BigIntegerField(db_default=0, help_text="The last message that was counted.")),
                (
                    "session_ended_at",
                    models.DateTimeField(help_text="The end of the last session that was counted.", null=True),
                ),
                ("refused_at", models.DateTimeField(help_text="Refusals before are counted.", null=True)),
                ("counted_at", models.DateTimeField(help_text="All that happened before is counted.", null=True)),
                (
                    "stored_at",
                    models.DateTimeField(
                        help_text="When it was last looked what lies there, and what will go.", null=True
                    ),
                ),
                ("sampled_at", models.DateTimeField(null=True)),
                (
                    "sampled_message_id",
                    models.BigIntegerField(help_text="The last message that there was then.", null=True),
                ),
                ("sampled_xid", models.BigIntegerField(help_text="The next transaction then.", null=True)),
            ],
            options={
                "constraints": [models.CheckConstraint(condition=models.Q(("id", 1)), name="rollup_is_one")],
            },
        ),
        migrations.CreateModel(
            name="DailyStatistics",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("start", models.DateTimeField()),
                ("delivered", models.BigIntegerField(db_default=0, help_text="Messages, one for each mailbox.")),
                ("delivered_octets", models.BigIntegerField(db_default=0)),
                (
                    "sessions",
                    models.BigIntegerField(
                        db_default=0, help_text="POP3 sessions that ended and fetched or removed mail."
                    ),
                ),
                ("fetched", models.BigIntegerField(db_default=0, help_text="Messages retrieved in them.")),
                ("removed", models.BigIntegerField(db_default=0, help_text="Messages removed in them.")),
                ("refused", models.BigIntegerField(db_default=0, help_text="Recipients that were refused mail.")),
                ("stored_messages", models.BigIntegerField(help_text="In maildrops.", null=True)),
                ("stored_octets", models.BigIntegerField(null=True)),
                (
                    "domain",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.domain",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name": "statistics by day",
                "verbose_name_plural": "statistics by day",
                "indexes": [
                    models.Index(fields=["start"], name="daily_statistics_age"),
                    models.Index(fields=["tenant", "start"], name="daily_statistics_of_tenant"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("domain", "start"), name="daily_statistics_once", nulls_distinct=False
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="HourlyStatistics",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("start", models.DateTimeField()),
                ("delivered", models.BigIntegerField(db_default=0, help_text="Messages, one for each mailbox.")),
                ("delivered_octets", models.BigIntegerField(db_default=0)),
                (
                    "sessions",
                    models.BigIntegerField(
                        db_default=0, help_text="POP3 sessions that ended and fetched or removed mail."
                    ),
                ),
                ("fetched", models.BigIntegerField(db_default=0, help_text="Messages retrieved in them.")),
                ("removed", models.BigIntegerField(db_default=0, help_text="Messages removed in them.")),
                ("refused", models.BigIntegerField(db_default=0, help_text="Recipients that were refused mail.")),
                ("stored_messages", models.BigIntegerField(help_text="In maildrops.", null=True)),
                ("stored_octets", models.BigIntegerField(null=True)),
                (
                    "domain",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.domain",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name": "statistics by hour",
                "verbose_name_plural": "statistics by hour",
                "indexes": [
                    models.Index(fields=["start"], name="hourly_statistics_age"),
                    models.Index(fields=["tenant", "start"], name="hourly_statistics_of_tenant"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("domain", "start"), name="hourly_statistics_once", nulls_distinct=False
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="PurgeForecast",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField(help_text="What is due already goes today.")),
                ("messages", models.BigIntegerField()),
                ("octets", models.BigIntegerField()),
                ("mailboxes", models.BigIntegerField(help_text="Closed ones.")),
                (
                    "domain",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.domain",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name": "purge forecast",
                "indexes": [models.Index(fields=["tenant", "day"], name="purge_forecast_of_tenant")],
                "constraints": [
                    models.UniqueConstraint(fields=("domain", "day"), name="purge_forecast_once", nulls_distinct=False)
                ],
            },
        ),
    ]
