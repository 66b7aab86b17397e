"""The project as an application: its management commands, and the Celery application that tasks are sent by."""

from django.apps import AppConfig


class MailhostConfig(AppConfig):
    """Loads the Celery application in every process, so that `shared_task` knows its broker."""

    name = "mailhost"

    def ready(self) -> None:
        from mailhost import celery  # noqa: F401 - after the settings are there
