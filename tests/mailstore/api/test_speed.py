"""Pages come as fast from many messages as from few: what the database reads for one is counted."""

import re
import time
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts import scope
from accounts.models import Mailbox
from accounts.principals import Principal
from mailstore.models import Content
from tests.accounts.api.programs import Program
from tests.fixtures import Customer


@pytest.fixture(autouse=True, scope="module")
def _from_nothing(django_db_setup: None, django_db_blocker: Any) -> None:
    """What is counted here counts from empty tables, whatever a file before has left in them."""
    with django_db_blocker.unblock():
        call_command("flush", verbosity=0, interactive=False)
        connection.close()


FEW = 2_000
"""Blocks of 8 KiB that a page may cost."""

_FILL = """
INSERT INTO mailstore_message (
    tenant_id, mailbox_id, content_id, uid, epoch, trace, octets, reverse_path, subject, sender, message_id, expunged_at
)
SELECT %(tenant)s, %(mailbox)s, %(content)s, number, 1, '', 100, '', 'subject ' || number, 'binh@elsewhere.test',
    md5(number::text || %(mailbox)s) || '@elsewhere.test', CASE WHEN number %% 2 = 0 THEN now() END
FROM generate_series(1, %(count)s) number
"""


def fill(mailbox: Mailbox, count: int) -> None:
    """Many messages, every other one removed."""
    content = Content.objects.create(
        tenant_id=mailbox.tenant_id, octets=100, header_octets=14, has_dot_lines=False, body=b"x" * 100
    )
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")  # or each row looks its references up
        cursor.execute(
            _FILL, {"tenant": mailbox.tenant_id, "mailbox": mailbox.pk, "content": content.pk, "count": count}
        )
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")


def blocks(program: Program, principal: Principal, path: str, query: str) -> int:
    """How many blocks the database looks at for a page, within the scope of whoever asks."""
    with CaptureQueriesContext(connection) as queries:
        program.read(path, query)
    [found] = [one["sql"] for one in queries if 'FROM "mailstore_message"' in one["sql"]]
    with scope.entered(principal), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {found}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    buffers = re.search(r"Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?", plan)
    assert buffers, plan
    return sum(int(count or 0) for count in buffers.groups())


def pages(acme: Customer) -> list[tuple[str, str]]:
    here = f"/mailboxes/{acme.mailbox}/messages/"
    message_id = "message_id=c4ca4238"
    return [
        (here, ""),
        (here, "state=removed"),
        (here, "state=maildrop"),
        ("/messages/", ""),
        ("/messages/", message_id),
    ]


def check(acme: Customer, admin: Program, host: Program) -> None:
    tenants = Principal(role="tenant-admin", tenant_id=acme.tenant.pk)
    hosts = Principal(role="operator")
    for path, query in pages(acme):
        for program, principal in ((admin, tenants), (host, hosts)):
            assert blocks(program, principal, path, query) < FEW, (principal.role, path, query)
            following = program.read(path, f"limit=20&{query}")["next"]
            if following:
                text = f"limit=20&cursor={following}&{query}"
                assert blocks(program, principal, path, text) < FEW, (principal.role, path, text)


def analyzed() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE mailstore_message, accounts_mailbox")


def test_a_page_of_many_messages_costs_little(acme: Customer, globex: Customer, admin: Program, host: Program) -> None:
    fill(acme.mailbox, 5_000)
    fill(globex.mailbox, 40_000)
    analyzed()
    check(acme, admin, host)


@pytest.mark.slow
def test_a_page_of_a_million_messages_costs_little(
    acme: Customer, globex: Customer, admin: Program, host: Program
) -> None:
    fill(acme.mailbox, 100_000)
    fill(globex.mailbox, 900_000)
    analyzed()
    check(acme, admin, host)
    took: dict[Any, float] = {}
    for path, query in [*pages(acme), ("/usage/", ""), (pages(acme)[0][0], "subject=no+such+words")]:
        for program in (admin, host):
            began = time.monotonic()
            program.read(path, query)
            took[program is host, path, query] = time.monotonic() - began
    assert max(took.values()) < 2, took
