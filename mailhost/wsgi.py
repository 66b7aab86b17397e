"""The web side as a WSGI application, for gunicorn."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mailhost.settings")
if not settings.configured:
    os.environ.setdefault("MAILHOST_DATABASE_ROLE", "mailhost_web")

application = get_wsgi_application()
