import json
import os
import signal
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client, override_settings

from mailhost import health
from mailstore.models import Listener
from tests.servers import Servers


def _ready(client: Client) -> tuple[int, dict[str, Any]]:
    response = client.get("/readyz")
    return response.status_code, json.loads(response.content)


@pytest.fixture
def listeners(transactional_db: None) -> list[Listener]:
    return [Listener.objects.create(kind=kind, host="here", pid=1) for kind in ("pop3", "lmtp")]


def test_the_process_answers_without_a_database(client: Client) -> None:
    response = client.get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok\n")


def test_probes_name_the_host_as_they_like_and_need_no_login(client: Client, listeners: list[Listener]) -> None:
    for host in ("10.1.2.3:8000", "[2001:db8::1]", "no such host!"):
        assert client.get("/healthz", headers={"host": host}).status_code == 200
        assert client.get("/readyz", headers={"host": host}).status_code == 200
    assert client.get("/admin/", headers={"host": "10.1.2.3"}).status_code == 400
    assert client.post("/readyz").status_code == 405
    assert not client.cookies


def test_with_everything_there_the_system_is_ready(client: Client, listeners: list[Listener]) -> None:
    status, answer = _ready(client)
    assert status == 200
    assert answer == {
        "ready": True,
        "checks": dict.fromkeys(("database", "migrations", "pop3", "lmtp", "redis"), "ok"),
    }


def test_a_listener_without_heartbeat_does_not_count(client: Client, listeners: list[Listener]) -> None:
    Listener.objects.filter(kind="lmtp").update(heartbeat_at=Now() - timedelta(seconds=91))
    status, answer = _ready(client)
    assert status == 503
    assert not answer["ready"]
    assert (answer["checks"]["pop3"], answer["checks"]["lmtp"]) == ("ok", "no listener")
    Listener.objects.create(kind="lmtp", host="there", pid=2)
    assert _ready(client)[0] == 200


@override_settings(REDIS_URL="redis://:a-secret@127.0.0.1:1/0")
def test_redis_away_is_told_without_its_address(client: Client, listeners: list[Listener]) -> None:
    status, answer = _ready(client)
    assert status == 503
    assert answer["checks"]["redis"] == "does not answer"
    assert answer["checks"]["database"] == "ok"
    assert "secret" not in json.dumps(answer)


def test_an_empty_database_is_told(client: Client, private_servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailstore.database.conninfo", lambda: private_servers.urls.postgres)
    status, answer = _ready(client)
    assert status == 503
    assert answer["checks"]["database"] == "ok"
    assert answer["checks"]["migrations"] == "migrations are missing"


def test_servers_that_hang_are_told_in_bounded_time(
    client: Client, private_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailstore.database.conninfo", lambda: private_servers.urls.postgres)
    pids = [private_servers.postgres_pid(), private_servers.redis_pid()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with override_settings(REDIS_URL=private_servers.urls.redis):
            answers = [_ready(client) for _ in range(3)]
        took = time.monotonic() - began
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    for status, answer in answers:
        assert status == 503
        assert set(answer["checks"].values()) == {"does not answer"}
    assert took < 3 * (health.PATIENCE + 3)
