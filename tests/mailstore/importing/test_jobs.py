"""Imports in the background: run once at a time, gone on with whoever dies, and with no password left behind."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import override_settings
from django.utils import timezone, translation

from accounts import principals, scope
from accounts.database_roles import WORKER
from accounts.models import AuditEvent, Mailbox
from accounts.principals import Principal
from mailhost.celery import app
from mailstore import drift, tasks
from mailstore.importing import jobs
from mailstore.importing.bring import ITEM_SECONDS
from mailstore.importing.jobs import AlreadyRunning, BadImport, Config, UploadTooLarge
from mailstore.models import ImportJob, Message
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.importing import peers
from tests.mailstore.importing.peers import peer
from tests.mailstore.importing.sources import maildrop
from tests.mailstore.retain import at_once

pytestmark = pytest.mark.django_db(transaction=True)

NAMED = [(name, post.text(name)) for name in ("one", "two", "three")]
SECRET = "a key of the host"


@pytest.fixture(autouse=True)
def nothing_drifts(transactional_db: None) -> Iterator[None]:
    yield
    assert list(drift.find()) == []


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        secret=SECRET,
        limit=10**6,
        spool_directory=str(tmp_path / "spool"),
        uploads=tmp_path / "uploads",
        allow_private=True,
        most=2,
    )


def start(mailbox: Mailbox, port: int = 1, **values: Any) -> ImportJob:
    given: dict[str, Any] = {"source": "pop3", "host": "127.0.0.1", "port": port, "security": "none"}
    given |= {"secret": SECRET, "login": "an", "password": "secret"}
    return jobs.start(mailbox, **given | values)


def again(job: ImportJob) -> ImportJob:
    return ImportJob.objects.get(pk=job.pk)


def state(job: ImportJob) -> tuple[str, int | None, int, int, int]:
    job = again(job)
    return job.state, job.total, job.imported, job.skipped, job.failed


def test_a_job_brings_mail_and_forgets_the_password(acme: Customer, config: Config) -> None:
    with peer(peers.pop3(NAMED)) as port:
        job = start(acme.mailbox, port)
        assert b"secret" not in bytes(again(job).sealed_password or b"")
        assert jobs.run(job.pk, config) is False
    assert state(job) == ("done", 3, 3, 0, 0)
    job = again(job)
    assert (job.sealed_password, jobs.report(job), job.ended_at is None) == (None, [], False)
    assert maildrop(acme.mailbox) == NAMED
    assert jobs.run(job.pk, config) is False  # a second "go" for it does nothing


def test_imap_jobs_make_unique_ids_as_they_are_told(acme: Customer, config: Config) -> None:
    for uidl_format, shown in (("", "00000007000003e8"), ("cyrus", "1000.7")):
        box = acme.add(f"box{len(uidl_format)}")
        with peer(peers.imap([(7, NAMED[0][1])])) as port:
            job = start(box, port, source="imap", uidl_format=uidl_format)
            jobs.run(job.pk, config)
        assert state(job)[0] == "done"
        assert maildrop(box) == [(shown, NAMED[0][1])]


def test_what_fails_is_told_and_can_be_started_again(acme: Customer, config: Config) -> None:
    with peer(peers.pop3(NAMED, instead={b"PASS wrong": b"-ERR no\r\n", b"RETR 2": b"-ERR no\r\n"})) as port:
        job = start(acme.mailbox, port, password="wrong")
        jobs.run(job.pk, config)
        assert (state(job)[0], jobs.report(again(job))) == ("failed", ["the server refuses the login"])
        with pytest.raises(BadImport):
            jobs.restart(again(job), "", secret=SECRET)
        jobs.restart(again(job), "secret", secret=SECRET)
        with pytest.raises(AlreadyRunning):
            jobs.restart(again(job), "secret", secret=SECRET)
        jobs.run(job.pk, config)
    assert state(job) == ("done", 3, 2, 0, 1)
    assert jobs.report(again(job)) == ["message 2: the server does not hand it out"]
    with translation.override("vi"):
        assert jobs.report(again(job)) == ["thư 2: máy chủ không đưa thư này ra"]


def test_what_older_versions_told_is_said_as_it_was(acme: Customer) -> None:
    job = start(acme.mailbox)
    ImportJob.objects.filter(pk=job.pk).update(report="message 2: it is too large\nthe server refuses the login")
    with translation.override("vi"):
        assert jobs.report(again(job)) == ["message 2: it is too large", "máy chủ từ chối đăng nhập"]


def test_a_full_mailbox_ends_it(acme: Customer, config: Config) -> None:
    box = acme.add("full", quota_octets=len(NAMED[0][1]) + 1)
    with peer(peers.pop3(NAMED)) as port:
        job = start(box, port)
        jobs.run(job.pk, config)
        assert state(job) == ("failed", 3, 1, 0, 0)
        assert jobs.report(again(job)) == ["there is no room for more"]
        Mailbox.objects.filter(pk=box.pk).update(quota_octets=None)
        jobs.restart(again(job), "secret", secret=SECRET)
        jobs.run(job.pk, config)
    assert state(job) == ("done", 3, 3, 0, 0)


def test_one_that_died_is_gone_on_with(acme: Customer, config: Config) -> None:
    many = [(f"id-{number}", post.text(str(number))) for number in range(250)]
    with peer(peers.pop3(many)) as port:
        job = start(acme.mailbox, port)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs._Running, "then", _die_at_the_second)
            with pytest.raises(KeyboardInterrupt):
                jobs.run(job.pk, config)
        assert again(job).state == "running"
        assert jobs.due(2) == []  # its heartbeat is fresh
        ImportJob.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() - timedelta(minutes=4))
        assert jobs.due(2) == [job.pk]
        jobs.run(job.pk, config)
    assert state(job) == ("done", 250, 250, 0, 0)
    assert maildrop(acme.mailbox) == many


_then = jobs._Running.then


def _die_at_the_second(self: Any, stored: Any) -> None:
    _then(self, stored)
    if ImportJob.objects.get().imported > 100:
        raise KeyboardInterrupt


def test_one_that_takes_long_makes_room_for_others(acme: Customer, config: Config) -> None:
    many = [(f"id-{number}", post.text(str(number))) for number in range(250)]
    with peer(peers.pop3(many)) as port:
        job = start(acme.mailbox, port)
        runs = 1
        while jobs.run(job.pk, replace(config, slice=timedelta(seconds=0))):
            assert again(job).state == "waiting"
            runs += 1
    assert runs >= 3
    assert state(job) == ("done", 250, 250, 0, 0)


def test_it_ends_as_soon_as_it_is_cancelled(acme: Customer, config: Config) -> None:
    with peer(peers.pop3(NAMED)) as port:
        job = start(acme.mailbox, port)
        jobs.cancel(job)
        assert jobs.run(job.pk, config) is False
        assert state(job) == ("cancelled", None, 0, 0, 0)
        assert again(job).sealed_password is None
        jobs.cancel(job)
        jobs.restart(again(job), "secret", secret=SECRET)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs._Running, "then", _cancelled_meanwhile)
            jobs.run(job.pk, config)
    assert state(job)[0] == "cancelled"
    assert maildrop(acme.mailbox) == []
    actions = [event.action for event in AuditEvent.objects.filter(action__startswith="import").order_by("pk")]
    assert actions == ["import.started", "import.cancelled", "import.restarted", "import.cancelled"]


def _cancelled_meanwhile(self: Any, stored: Any) -> None:
    def cancel() -> None:
        jobs.cancel(self._job)

    at_once([cancel])
    _then(self, stored)


def test_no_more_run_at_once_than_may(acme: Customer, config: Config) -> None:
    made = [start(acme.add(f"m{number}")) for number in range(3)]
    ImportJob.objects.filter(pk=made[0].pk).update(state="running", heartbeat_at=timezone.now())
    assert jobs.due(2) == [made[1].pk]
    assert jobs.due(1) == []
    jobs.run(made[1].pk, replace(config, most=1))
    assert again(made[1]).state == "waiting"


def test_two_workers_do_not_run_one(acme: Customer, config: Config) -> None:
    with peer(peers.pop3(NAMED)) as port:
        job = start(acme.mailbox, port)
        at_once([lambda: jobs.run(job.pk, config) for _ in range(3)])
    assert state(job) == ("done", 3, 3, 0, 0)


def test_a_mailbox_has_one_import_at_a_time(acme: Customer, globex: Customer) -> None:
    start(acme.mailbox)
    with pytest.raises(AlreadyRunning):
        start(acme.mailbox)
    start(globex.mailbox)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("source", {"source": "ftp"}),
        ("host", {"host": ""}),
        ("host", {"host": "http://pop.example.test/"}),
        ("port", {"port": 0}),
        ("security", {"security": "ssl"}),
        ("login", {"login": "an\r\nDELE 1"}),
        ("password", {"password": ""}),
        ("folder", {"source": "imap", "folder": "x\n"}),
        ("uidl_format", {"source": "imap", "uidl_format": "%f"}),
        ("uidl_format", {"uidl_format": "nonsense"}),
        ("upload", {"source": "upload", "upload": "../../etc/passwd"}),
    ],
)
def test_what_cannot_be_is_refused_by_field(acme: Customer, field: str, values: dict[str, Any]) -> None:
    with pytest.raises(BadImport) as refused:
        start(acme.mailbox, **values)
    assert refused.value.field == field
    assert not ImportJob.objects.exists()


def test_it_reaches_nothing_inside(acme: Customer, config: Config) -> None:
    with peer(peers.pop3(NAMED)) as port:
        job = start(acme.mailbox, port)
        jobs.run(job.pk, replace(config, allow_private=False))
    assert jobs.report(again(job)) == ["the host has an address that is not on the public internet"]


def test_a_password_sealed_with_another_key_is_asked_for_again(acme: Customer, config: Config) -> None:
    job = start(acme.mailbox)
    jobs.run(job.pk, replace(config, secret="another"))
    assert "start it again" in jobs.report(again(job))[0]


# Uploads


def test_an_upload_is_brought_in_and_removed(acme: Customer, config: Config) -> None:
    octets = b"From a x\nSubject: x\n\n1\n\nFrom a x\nSubject: y\n\n2\n\n"
    name = jobs.save_upload(iter([octets[:10], octets[10:]]), directory=config.uploads, limit=1000)
    assert (config.uploads / name).stat().st_mode & 0o777 == 0o600
    job = start(acme.mailbox, source="upload", upload=name)
    assert jobs.run(job.pk, config) is False
    assert state(job) == ("done", 2, 2, 0, 0)
    assert list(config.uploads.iterdir()) == []


@pytest.mark.parametrize(("octets", "told"), [(b"hello", "neither"), (b"PK\x03\x04junk", "no zip")])
def test_an_upload_that_is_neither_is_told(acme: Customer, config: Config, octets: bytes, told: str) -> None:
    name = jobs.save_upload([octets], directory=config.uploads, limit=1000)
    job = start(acme.mailbox, source="upload", upload=name)
    jobs.run(job.pk, config)
    assert told in jobs.report(again(job))[0]
    jobs.tidy(config.uploads)
    assert len(list(config.uploads.iterdir())) == 1  # it may be started again
    ImportJob.objects.filter(pk=job.pk).update(ended_at=timezone.now() - timedelta(days=8))
    jobs.tidy(config.uploads)
    assert list(config.uploads.iterdir()) == []
    jobs.restart(again(job), secret=SECRET)
    jobs.run(job.pk, config)
    assert jobs.report(again(job)) == ["the uploaded file is not there any more"]


def test_an_upload_that_is_too_large_is_not_kept(config: Config) -> None:
    with pytest.raises(UploadTooLarge):
        jobs.save_upload([b"x" * 600] * 2, directory=config.uploads, limit=1000)
    assert list(config.uploads.iterdir()) == []


def test_uploads_that_nobody_used_are_removed(config: Config) -> None:
    new, old = (jobs.save_upload([b"x"], directory=config.uploads, limit=10) for _ in range(2))
    os.utime(config.uploads / old, (time.time() - 90_000,) * 2)
    jobs.tidy(config.uploads)
    assert [path.name for path in config.uploads.iterdir()] == [new]
    jobs.tidy(config.uploads / "missing")


# The roles of the database, and Celery


def test_the_web_starts_what_the_worker_runs(acme: Customer, globex: Customer, config: Config) -> None:
    admin = Principal(role="tenant-admin", tenant_id=acme.tenant.pk, through="api")
    with peer(peers.pop3(NAMED)) as port:
        with scope.entered(admin):
            job = start(acme.mailbox, port)
            assert ImportJob.objects.count() == 1
        with scope.entered(replace(admin, tenant_id=globex.tenant.pk)):
            assert ImportJob.objects.count() == 0
        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE {WORKER}")
            try:
                assert jobs.due(2) == [job.pk]
                jobs.run(job.pk, config)
            finally:
                cursor.execute("RESET ROLE")
    assert state(job) == ("done", 3, 3, 0, 0)
    event = AuditEvent.objects.get(action="import.started")
    assert (event.tenant_id, event.mailbox_id, event.role) == (acme.tenant.pk, acme.mailbox.pk, "")
    assert event.through == "api"
    assert "secret" not in str(event.changes)
    with scope.entered(replace(admin, mailbox_id=acme.mailbox.pk)):
        assert Message.objects.count() == 3
    assert principals.acting() == principals.SYSTEM


def test_celery_runs_what_waits(acme: Customer, tmp_path: Path) -> None:
    with peer(peers.pop3(NAMED)) as port, override_settings(MAILHOST_DATA=tmp_path, MAILHOST_PRIVATE_TARGETS=True):
        job = start(acme.mailbox, port, secret=settings.SECRET_KEY)
        tasks.imports.apply().get()
        tasks.run_import.apply((job.pk,)).get()
    assert state(job)[0] == "done"


def test_beat_looks_for_them() -> None:
    app.loader.import_default_modules()
    [entry] = [entry for entry in settings.CELERY_BEAT_SCHEDULE.values() if entry["task"] == tasks.imports.name]
    assert tasks.run_import.name == jobs.RUN
    assert {jobs.RUN, entry["task"]} <= set(app.tasks)


def test_a_run_ends_before_celery_would_end_it() -> None:
    longest = jobs.SLICE.total_seconds() * 1.5 + 60
    assert longest < settings.CELERY_TASK_SOFT_TIME_LIMIT
    assert jobs.SLICE.total_seconds() + ITEM_SECONDS < settings.CELERY_TASK_SOFT_TIME_LIMIT
