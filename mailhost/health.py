"""Answering whether the process lives, and whether everything it works with is there."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Final

import psycopg
from django.conf import settings
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from redis import Redis
from redis.exceptions import RedisError

from mailstore import database

PATIENCE: Final = 3.0
"""Seconds after which what has not answered counts as away."""

OK: Final = "ok"
AWAY: Final = "does not answer"

# Few, so that probes cannot heap up work behind a server that hangs: who finds no thread free counts as away.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="readiness")


class Probes:
    """Middleware that answers `/healthz` and `/readyz`. The first in the list.

    A probe names the host by whatever address it has, so this comes before anything that judges hosts, wants TLS or
    opens a session. Neither answer tells more than the names of the parts and whether they work.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        answer = _ANSWERS.get(request.path_info)
        if answer is None:
            return self._get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
        response = answer()
        response["Cache-Control"] = "no-store"
        response["Content-Length"] = str(len(response.content))
        return response


def healthz() -> HttpResponse:
    """This process lives. Asks nobody: a database that is away is no reason to restart the web."""
    return HttpResponse("ok\n", content_type="text/plain")


def readyz() -> HttpResponse:
    """The whole system can be used: 200, or 503 with what is missing."""
    checks = check()
    ready = all(state == OK for state in checks.values())
    return JsonResponse({"ready": ready, "checks": checks}, status=200 if ready else 503)


def check() -> dict[str, str]:
    """The state of each part: `ok`, or what is wrong with it in a few words. Takes at most `PATIENCE`."""
    asked = {"database": _threads.submit(_ask_database), "redis": _threads.submit(_ask_redis)}
    wait(asked.values(), timeout=PATIENCE)
    found = _answer(asked["database"]) or dict.fromkeys(("database", "migrations", "pop3", "lmtp"), AWAY)
    return found | (_answer(asked["redis"]) or {"redis": AWAY})


def _answer(asked: Future[dict[str, str]]) -> dict[str, str] | None:
    if not asked.done():
        asked.cancel()
        return None
    try:
        return asked.result()
    except (psycopg.Error, RedisError, OSError):
        return None


def _ask_database() -> dict[str, str]:
    """Over a connection of its own: that a pooled one still works does not tell that there can be new ones."""
    ttl = settings.MAILHOST_LISTENER_TTL
    with psycopg.connect(database.conninfo(), autocommit=True, connect_timeout=2) as connection:
        connection.execute("SET statement_timeout = '2s'")
        found = {"database": OK}
        try:
            rows = connection.execute("SELECT app, name FROM django_migrations").fetchall()
        except psycopg.errors.UndefinedTable:
            rows = []
        if not _wanted() <= set(rows):
            return found | dict.fromkeys(("migrations", "pop3", "lmtp"), "migrations are missing")
        listeners = connection.execute(
            "SELECT DISTINCT kind FROM mailstore_listener WHERE heartbeat_at > now() - %s", (ttl,)
        )
        present = {kind for (kind,) in listeners}
    found["migrations"] = OK
    return found | {kind: OK if kind in present else "no listener" for kind in ("pop3", "lmtp")}


@cache
def _wanted() -> frozenset[tuple[str, str]]:
    """The migrations that must have been applied for this code to run: the last of each application."""
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).graph.leaf_nodes())


def _ask_redis() -> dict[str, str]:
    with Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2, retry=None) as redis:
        redis.ping()
    return {"redis": OK}


_ANSWERS: Final = {"/healthz": healthz, "/readyz": readyz}
