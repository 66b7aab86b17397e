"""Celery runs the purge as the settings say."""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from mailhost.celery import app
from mailstore import tasks
from mailstore.models import Message
from mailstore.purging import Keep
from tests.fixtures import Customer
from tests.mailstore.retain import DAY, expunge, fill

pytestmark = pytest.mark.django_db(transaction=True)


@override_settings(
    MAILHOST_RETENTION=1 * DAY,
    MAILHOST_SESSION_HISTORY=2 * DAY,
    MAILHOST_LEDGER_LIFE=3 * DAY,
    MAILHOST_LISTENER_TTL=4 * DAY,
)
def test_what_is_kept_how_long_is_a_setting() -> None:
    assert tasks.keep() == Keep(
        retention=1 * DAY, sessions=2 * DAY, ledger=3 * DAY, listener_ttl=4 * DAY, networks=30 * DAY
    )


@override_settings(MAILHOST_RETENTION=timedelta(seconds=30))
def test_the_task_purges_what_is_due(acme: Customer) -> None:
    due, kept = fill(acme.mailbox, "due", "kept")
    expunge(due, ago=timedelta(seconds=31))
    expunge(kept, ago=timedelta(seconds=1))
    assert tasks.purge.apply().get() is None
    assert list(Message.objects.all()) == [kept]


def test_beat_sends_the_task_that_there_is() -> None:
    app.loader.import_default_modules()
    [entry] = [entry for entry in settings.CELERY_BEAT_SCHEDULE.values() if entry["task"] == tasks.purge.name]
    assert tasks.purge.name in app.tasks
    assert entry["schedule"] == settings.MAILHOST_PURGE_INTERVAL


def test_a_run_ends_well_before_it_would_be_killed_or_given_to_another_worker() -> None:
    longest = tasks.LONGEST.total_seconds()
    assert 2 * longest < settings.CELERY_TASK_SOFT_TIME_LIMIT
    options: dict[str, Any] = settings.CELERY_BROKER_TRANSPORT_OPTIONS
    assert 2 * longest < options["visibility_timeout"]
