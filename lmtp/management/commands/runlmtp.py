"""Run the LMTP listener."""

import logging
import re
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts import addresses
from accounts.database_roles import LISTENER
from lmtp import replies
from lmtp.backend import Server, Terms
from lmtp.session import Config as SessionConfig
from mailhost.lineserver import Config, ListenError, serve
from mailstore import configured
from mailstore.delivery import Deliveries
from mailstore.presence import Presence

log = logging.getLogger(__name__)

SUSPENDED: Final = {"450": replies.SUSPENDED, "550": replies.DISABLED}
OVER_QUOTA: Final = {"552": replies.OVER_QUOTA, "452": replies.FULL_FOR_NOW}


class Command(BaseCommand):
    help = "Take mail over LMTP, on MAILHOST_LMTP: a TCP address or the path of a Unix socket."
    requires_system_checks = ()

    def handle(self, **options: Any) -> None:
        config = Config(
            endpoints=(settings.MAILHOST_LMTP,),
            workers=settings.MAILHOST_WORKERS,
            delimiter=b"\r\n",
            proxy_networks=settings.MAILHOST_PROXY_NETWORKS,
            max_connections=1000,
        )
        spool_directory = settings.MAILHOST_DATA / "spool"
        spool_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        terms = Terms(
            session=SessionConfig(
                host=announced(settings.MAILHOST_HOSTNAME), message_limit=settings.MAILHOST_MAX_MESSAGE
            ),
            suspended=SUSPENDED[settings.MAILHOST_SUSPENDED_REPLY],
            over_quota=OVER_QUOTA[settings.MAILHOST_OVER_QUOTA_REPLY],
            spool_directory=str(spool_directory),
        )

        def application() -> Server:
            deliveries = Deliveries(connections=8, **configured.delivery())
            presence = Presence(kind="lmtp", ttl=settings.MAILHOST_LISTENER_TTL.total_seconds(), role=LISTENER)
            return Server(terms, deliveries, presence)

        try:
            code = serve(config, application, name="lmtp")
        except ListenError as error:
            raise CommandError(str(error)) from None
        raise SystemExit(code)


def announced(hostname: str) -> str:
    """The name by which this server calls itself: the machine's, if that can be one in a greeting."""
    if re.fullmatch(r"[A-Za-z0-9.:_\[\]-]{1,255}", hostname):
        return hostname
    try:
        return addresses.domain(hostname)
    except addresses.BadAddress:
        log.warning("MAILHOST_HOSTNAME is %r, which no greeting can say: it says localhost.", hostname)
        return "localhost"
