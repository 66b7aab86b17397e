"""What Celery does for accounts: all of it is found in the database, and nothing is lost with the queue."""

import ssl
import time
from datetime import timedelta
from functools import cache
from typing import Final

from celery import shared_task
from django.conf import settings

from accounts import sending, tidying, verification
from accounts.endpoint import Config

LONGEST: Final = timedelta(seconds=50)
"""Nothing new is begun after this: what is left is for the next run."""


@shared_task
def send_webhooks() -> None:
    """Send the events that are due."""
    sending.send(Config(allow_private=settings.MAILHOST_PRIVATE_TARGETS, tls=_tls()), budget=LONGEST)


@shared_task
def tidy() -> None:
    """Remove old events, answers to repeated requests and sessions, and close domains whose claim has lapsed."""
    tidying.tidy()
    if settings.MAILHOST_UNVERIFIED_DOMAINS != "receive":
        verification.lapse()


@shared_task
def check_domains() -> None:
    """Ask DNS whether the domains that are due are their tenants'."""
    deadline = time.monotonic() + LONGEST.total_seconds()
    while verification.check_due(verification_config()) and time.monotonic() < deadline:
        pass


def verification_config() -> verification.Config:
    """How domains are verified, by the settings."""
    return verification.Config(servers=settings.MAILHOST_DNS_SERVERS, grace=settings.MAILHOST_DOMAIN_GRACE)


@cache
def _tls() -> ssl.SSLContext:
    """Certificates as the system trusts them."""
    return ssl.create_default_context()
