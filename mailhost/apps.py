"""The project as an application: its management commands, its admin, and the Celery application of its tasks."""

from django.apps import AppConfig
from django.contrib import admin
from django.contrib.admin.apps import SimpleAdminConfig


class MailhostConfig(AppConfig):
    """Loads the Celery application in every process, so that `shared_task` knows its broker."""

    name = "mailhost"
    default = True

    def ready(self) -> None:
        from mailhost import celery  # noqa: F401 - after the settings are there


class Admin(SimpleAdminConfig):
    """Django's admin, with a site of ours."""

    default = False
    default_site = "mailhost.adminsite.Site"

    def ready(self) -> None:
        from mailhost import words

        super().ready()
        words.translate_models()  # before there are forms, which take over what fields are called
        admin.autodiscover()
