"""Every process of the project sends tasks through its own Celery application."""

from celery import current_app
from django.conf import settings


def test_tasks_go_to_our_broker_and_only_json_is_taken() -> None:
    assert current_app.main == "mailhost"
    assert current_app.conf.broker_url == settings.CELERY_BROKER_URL
    assert set(current_app.conf.accept_content) == {"json"}


def test_the_schedule_names_tasks_that_exist() -> None:
    current_app.loader.import_default_modules()
    for entry in current_app.conf.beat_schedule.values():
        assert entry["task"] in current_app.tasks


def test_tasks_keep_their_database_connection() -> None:
    """Read from the application alone; opening one around every task costs three times the task."""
    assert current_app.conf["CELERY_DB_REUSE_MAX"] > 1
