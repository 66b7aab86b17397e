"""The web side as `make run` has it: gunicorn, on servers of its own, in the web's role of the database."""

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.core.management.color import no_style
from django.db import connection
from pytest_django import DjangoDbBlocker

from accounts import app_passwords, provisioning, tokens, webhooks
from accounts.models import ApiToken, AppPassword, Event, Webhook, WebhookDelivery
from mailstore.models import MaildropSession
from tests import servers
from tests.accounts.api.programs import token_text
from tests.accounts.nameserver import name_server
from tests.mailhost.lineserver.running import eventually
from tests.mailstore.rows import add_listener, add_message, add_session
from tests.system import PROJECT, System

PLENTY = 1_000_000
"""Requests per minute: no test is slowed down."""


_SETTINGS = {
    "MAILHOST_DATABASE_ROLE": "mailhost_web",
    "MAILHOST_FORWARD_SMTP": "127.0.0.1:25",
    "MAILHOST_HTTP_PROXIES": "127.0.0.1",  # whoever asks says from where
}


@dataclass(frozen=True)
class Web:
    """A running web side in which the tenants `example` and `globex` have a row of every kind."""

    url: str
    system: System
    log_file: Path
    operator: str
    """An operator's token."""
    admin: str
    """The token of example's administrator."""


@contextmanager
def running(blocker: DjangoDbBlocker, *, workers: int = 1) -> Iterator[Web]:
    """Start it, and end it; the models of this process work on its database meanwhile."""
    with ExitStack() as until_the_end:
        pair = until_the_end.enter_context(servers.throw_away())
        directory = Path(until_the_end.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        until_the_end.enter_context(blocker.unblock())
        system = until_the_end.enter_context(System.on(pair, directory))
        until_the_end.enter_context(system.models())
        names = until_the_end.enter_context(name_server())
        operator, admin = _furnish()
        host, port = system.port()
        options = ["--worker-class=gthread", "--threads=4", "--no-control-socket", "--reuse-port"]
        log = until_the_end.enter_context((directory / "web.log").open("wb"))
        command = [sys.executable, "-m", "gunicorn", "mailhost.wsgi", f"--bind={host}:{port}", f"--workers={workers}"]
        process = subprocess.Popen(
            [*command, *options],
            cwd=PROJECT,
            env=system.environment | _SETTINGS | {"MAILHOST_DNS_SERVERS": f"127.0.0.1:{names.port}"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        until_the_end.callback(process.wait, 60)
        until_the_end.callback(process.terminate)
        web = Web(f"http://{host}:{port}", system, directory / "web.log", operator, admin)
        eventually(lambda: _answers((host, port)))
        yield web


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 1).close()
    except OSError:
        return False
    return True


def _furnish() -> tuple[str, str]:
    """Two tenants with a row of every kind. Returns the tokens of an operator and of the first's administrator."""
    texts = []
    for slug in ("example", "globex"):
        seller, _ = provisioning.add_reseller(slug)
        tenant, _ = provisioning.add_tenant(slug)
        type(tenant).objects.filter(pk=tenant.pk).update(reseller=seller)
        provisioning.add_domain(f"{slug}.test", tenant=tenant)
        mailbox, _ = provisioning.add_mailbox(f"an@{slug}.test", password=None, quota_octets=None)
        provisioning.add_alias(f"sales@{slug}.test", mailbox=mailbox)
        app, _ = app_passwords.create(mailbox, name="phone")
        webhook, _ = webhooks.add("https://example.com/", tenant=tenant, allow_private=False)
        support = tokens.prefix_of(token_text("support", tenant=tenant))
        session = add_session(mailbox, add_listener("pop3"))
        add_message(mailbox)
        if slug == "example":  # the rows that the description's examples name
            AppPassword.objects.filter(pk=app.pk).update(id=7)
            Webhook.objects.filter(pk=webhook.pk).update(id=7)
            ApiToken.objects.filter(prefix=support).update(prefix="h1pw2gqx")
            MaildropSession.objects.filter(pk=session.pk).update(id="0b9ed5a0-9a7c-4e0c-9a61-3f5d0f6d2c11")
        event = Event.objects.create(tenant=tenant, kind="mailbox.created", payload={})
        sent = WebhookDelivery(tenant=tenant, webhook=Webhook.objects.get(tenant=tenant), event=event)
        sent.pk = 7 if slug == "example" else None
        sent.save(force_insert=True)
        texts.append(token_text("tenant-admin", tenant=tenant, requests_per_minute=PLENTY))
    with connection.cursor() as cursor:  # the numbers after 7 are to be had
        for statement in connection.ops.sequence_reset_sql(no_style(), [AppPassword, Webhook, WebhookDelivery]):
            cursor.execute(statement)
    return token_text("operator", requests_per_minute=PLENTY), texts[0]
