"""The Celery application: tasks of all apps, found in their `tasks` modules."""

import os
import warnings

from celery import Celery
from celery.exceptions import SecurityWarning
from django.conf import settings

# Workers may run as root in a container. What the warning is about cannot happen: only JSON is accepted.
warnings.filterwarnings("ignore", category=SecurityWarning)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mailhost.settings")
if not settings.configured:
    os.environ.setdefault("MAILHOST_DATABASE_ROLE", "mailhost_worker")

app = Celery("mailhost")
app.config_from_object("django.conf:settings", namespace="CELERY")
# Read from here only: otherwise Celery closes the database connection around every task.
app.conf["CELERY_DB_REUSE_MAX"] = 200
app.autodiscover_tasks()
