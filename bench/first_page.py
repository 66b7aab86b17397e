"""What the first page of the admin costs on a large host: for the operator, a reseller and a tenant.

    python -m bench.first_page

Servers of its own, filled by SQL: a million messages in 200,000 mailboxes of 1000 tenants, a year of statistics, a
day's refusals and failed logins. Prints for each who looks how many queries the whole page takes and how long it
takes to make, which of them are slow, how long the lists behind the numbers take, and the statistics' own task.
"""

import os
import re
import sys
import time
from datetime import timedelta
from html import unescape
from typing import Any, Final

from tests import servers

TENANTS: Final = 1000
MAILBOXES: Final = 200_000
MESSAGES: Final = 1_000_000
TIMES: Final = 5  # that each page is made; the fastest counts
SLOW: Final = 0.02  # seconds of a query that is shown

_FILL: Final = (
    "INSERT INTO accounts_reseller (slug, name) VALUES ('shop', 'Shop')",
    "INSERT INTO accounts_tenant (slug, name, reseller_id) SELECT 't' || n, 't' || n, CASE WHEN n <= 100 THEN 1 END"
    " FROM generate_series(1, %(tenants)s) n",
    "INSERT INTO accounts_domain (tenant_id, name, state, verification_token)"
    " SELECT id, slug || '.test', CASE WHEN id %% 50 = 0 THEN 'pending' ELSE 'verified' END, '' FROM accounts_tenant",
    "INSERT INTO accounts_allowance (tenant_id, domain_id, domains, mailboxes, aliases, octets, warned_percent)"
    " SELECT tenant_id, domain, 1, %(mailboxes)s / %(tenants)s, 0, 0, 0"
    " FROM accounts_domain, LATERAL (VALUES (NULL::bigint), (id)) one (domain)",
    "INSERT INTO accounts_mailbox (tenant_id, domain_id, user_id, address, name, state, state_reason, legal_hold,"
    " quota_octets, used_octets, message_count, next_uid, pop3_enabled, allowed_networks, warned_percent)"
    " SELECT domain.tenant_id, domain.id, n, 'n' || n || '@' || domain.name, '', 'active', '', false,"
    " 1000000, n %% 1000 * 1000, 5, 6, true, '{}', CASE WHEN n %% 1000 >= 900 THEN 90 WHEN n %% 1000 >= 800 THEN 80"
    " ELSE 0 END"
    " FROM generate_series(1, %(mailboxes)s) n JOIN accounts_domain domain ON domain.id = n %% %(tenants)s + 1",
    "INSERT INTO mailstore_message (tenant_id, mailbox_id, content_id, uid, epoch, trace, octets, reverse_path,"
    " subject, sender, message_id, delivered_at, expunged_at)"
    " SELECT box.tenant_id, box.id, 1, n / %(mailboxes)s + 1, 1, 'Return-Path: <>', 20000, '', 'Subject ' || n,"
    " 'a@example.test', 'm' || n, now() - interval '60 days' * (1 - n::float / %(messages)s),"
    " CASE WHEN n %% 3 = 0 THEN now() - interval '14 days' * (n %% 100) / 100 END"
    " FROM generate_series(1, %(messages)s) n JOIN accounts_mailbox box ON box.id = n %% %(mailboxes)s + 1",
    "INSERT INTO mailstore_maildropsession (id, tenant_id, mailbox_id, view, listener_id, secure, started_at, ended_at,"
    " \"end\", fetched, expunged)"
    " SELECT gen_random_uuid(), box.tenant_id, box.id, 0, 1, true, now() - interval '30 days' * n / 300000,"
    " CASE WHEN n > 2000 THEN now() - interval '30 days' * n / 300000 END, '', 3, 2"
    " FROM generate_series(1, 300000) n JOIN accounts_mailbox box ON box.id = n %% %(mailboxes)s + 1",
    "INSERT INTO mailstore_refusal (tenant_id, domain_id, mailbox_id, reason, hour, count, first_at, last_at,"
    " sender_domain)"
    " SELECT tenant_id, domain_id, box.id, 'over quota', date_trunc('hour', now(), 'UTC') - h * interval '1 hour', 9,"
    " now() - h * interval '1 hour', now() - h * interval '1 hour', ''"
    " FROM accounts_mailbox box, generate_series(0, 23) h WHERE box.id %% 400 = 0",
    "INSERT INTO accounts_failedlogin (tenant_id, domain_id, mailbox_id, subject, address, reason, through, network,"
    " hour, count, first_at, last_at)"
    " SELECT tenant_id, domain_id, id, 'mailbox ' || id, '', 'password', 'pop3', '192.0.2.0/24',"
    " date_trunc('hour', now(), 'UTC') - id %% 24 * interval '1 hour', 5, now(), now()"
    " FROM accounts_mailbox WHERE id %% 4 = 0",
    *(
        f"INSERT INTO mailstore_{step}lystatistics (tenant_id, domain_id, start, delivered, stored_octets,"
        f" stored_messages) SELECT tenant_id, id, date_trunc('{unit}', now(), 'UTC') - n * interval '1 {unit}', 9, 9, 9"
        f" FROM accounts_domain, generate_series(0, {last}) n"
        for step, unit, last in (("hour", "hour", 191), ("dai", "day", 399))
    ),
)  # fmt: skip


def main() -> None:
    """Fill a database, and measure."""
    with servers.throw_away() as pair:
        os.environ.update(pair.environment, DJANGO_SETTINGS_MODULE="mailhost.settings")
        measure()


def measure() -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from accounts import provisioning
    from accounts.models import Reseller, Tenant
    from mailstore import statistics
    from tests.fixtures import signed_in

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        for statement in _FILL:
            cursor.execute(statement, {"tenants": TENANTS, "mailboxes": MAILBOXES, "messages": MESSAGES})
        cursor.execute("RESET session_replication_role")
        cursor.execute("ANALYZE")
    retention = timedelta(days=14)
    statistics.roll_up(retention=retention)
    began = time.perf_counter()
    statistics.roll_up(retention=retention)
    _say(f"statistics: all of it {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    statistics.roll_up(retention=retention)
    _say(f"statistics: nothing new {time.perf_counter() - began:.3f} s")

    shop, tenant = Reseller.objects.get(), Tenant.objects.get(slug="t7")
    for who in (
        provisioning.add_staff("operator@localhost", password=None, tenant=None),
        provisioning.add_staff("shop@localhost", password=None, tenant=None, reseller=shop, role="reseller"),
        provisioning.add_staff("boss@t7.test", password=None, tenant=tenant),
    ):
        browser = signed_in(who)
        for span in ("day", "week", "month", "year"):
            _page(who, browser, span)
        _lists(who, browser)


def _page(who: Any, browser: Any, span: str) -> None:
    from django.db import connection

    asked: list[tuple[float, str]] = []

    def note(execute: Any, sql: str, *more: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, *more)
        finally:
            asked.append((time.perf_counter() - began, sql))

    times = []
    for _ in range(TIMES):
        asked.clear()
        began = time.perf_counter()
        with connection.execute_wrapper(note):
            answer = browser.get("/admin/", {"span": span}, HTTP_HOST="localhost")
        times.append(time.perf_counter() - began)
    assert answer.status_code == 200, answer.status_code
    for took, sql in asked:
        if took > SLOW:
            _say(f"    {took * 1000:.0f} ms: {' '.join(sql.split())[:200]}")
    told = re.search(r"(\d+) queries, (\d+) ms", answer.content.decode())
    _say(f"{who.role:12} {span:5} {len(asked)} queries, {min(times) * 1000:.0f} ms in all; it says {told and told[0]}")


def _lists(who: Any, browser: Any) -> None:
    """The lists behind the numbers: how long each takes."""
    page = browser.get("/admin/", HTTP_HOST="localhost").content.decode()
    for link in sorted({unescape(link) for link in re.findall(r'href="(/admin/[^"]*[?][^"]+)"', page)}):
        began = time.perf_counter()
        answer = browser.get(link, HTTP_HOST="localhost")
        _say(f"    {(time.perf_counter() - began) * 1000:5.0f} ms, {answer.status_code}: {link}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
