"""Run the POP3 listener."""

import hashlib
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts.database_roles import LISTENER
from accounts.provisioning.values import SHORTEST_KEEP_TIME
from mailhost import tls
from mailhost.lineserver import Config, ListenError, TLSError, TLSFiles, serve
from mailstore.maildrop import Maildrops
from pop3.backend import Server, Terms
from pop3.session import Config as SessionConfig


class Command(BaseCommand):
    help = "Serve the maildrops over POP3, on MAILHOST_POP3 and, with TLS from the start, on MAILHOST_POP3S."
    requires_system_checks = ()

    def handle(self, **options: Any) -> None:
        if not settings.MAILHOST_TLS_GIVEN:
            tls.ensure_pair(settings.MAILHOST_TLS_CERT, settings.MAILHOST_TLS_KEY, hostname=settings.MAILHOST_HOSTNAME)
        config = Config(
            endpoints=(settings.MAILHOST_POP3, settings.MAILHOST_POP3S),
            workers=settings.MAILHOST_WORKERS,
            delimiter=b"\n",
            tls=TLSFiles(settings.MAILHOST_TLS_CERT, settings.MAILHOST_TLS_KEY),
            alpn=("pop3",),
            proxy_networks=settings.MAILHOST_PROXY_NETWORKS,
            connections_per_address=1000,
        )
        terms = Terms(
            session=SessionConfig(
                implementation="Mailhost", offers_stls=True, expire=f"{SHORTEST_KEEP_TIME.days} USER"
            ),
            plaintext=settings.MAILHOST_PLAINTEXT_AUTH,
            idle_seconds=settings.MAILHOST_POP3_IDLE.total_seconds(),
        )

        def application() -> Server:
            maildrops = Maildrops(
                connections=8,
                listener_ttl=settings.MAILHOST_LISTENER_TTL.total_seconds(),
                default_domain=settings.MAILHOST_DEFAULT_DOMAIN,
                redis_url=settings.REDIS_URL,
                secret=hashlib.sha256(b"throttle" + settings.SECRET_KEY.encode()).digest(),
                throttled=settings.MAILHOST_THROTTLE,
                role=LISTENER,
            )
            return Server(terms, maildrops)

        try:
            code = serve(config, application, name="pop3")
        except (ListenError, TLSError) as error:
            raise CommandError(str(error)) from None
        raise SystemExit(code)
