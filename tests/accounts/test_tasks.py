"""Beat sends the tasks that there are, and what one run misses the next one does."""

from typing import Any

import pytest
from django.conf import settings

from accounts import tasks
from mailhost.celery import app
from mailstore import tasks as of_mailstore


@pytest.mark.parametrize(
    "task",
    [tasks.send_webhooks, tasks.check_domains, tasks.tidy, of_mailstore.tell_of_quotas],
    ids=lambda task: task.name,
)
def test_beat_sends_it_and_a_queue_that_stood_still_does_not_send_it_twice(task: Any) -> None:
    app.loader.import_default_modules()
    assert task.name in app.tasks
    schedule: dict[str, Any] = settings.CELERY_BEAT_SCHEDULE
    [entry] = [entry for entry in schedule.values() if entry["task"] == task.name]
    assert entry["options"]["expires"] <= entry["schedule"]


def test_a_run_ends_well_before_it_would_be_killed() -> None:
    # After the last claim a webhook's turn, and of a domain two lookups for each of a batch, are still to end.
    assert 4 * tasks.LONGEST.total_seconds() < settings.CELERY_TASK_SOFT_TIME_LIMIT
