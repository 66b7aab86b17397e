"""Imports in the background: started by the API and the admin, run by Celery, gone on with whoever dies.

A job's row is all there is to it: the queue only says "go". Who runs it renews its heartbeat; one whose heartbeat is
old is taken over, and what came along before is left out.
"""

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, get_args

from celery import current_app
from cryptography.fernet import Fernet, InvalidToken
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Coalesce, Now
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop as noop

from accounts import audit, outside, sealing
from accounts.models import Mailbox
from mailstore.importing import eml, imap, mbox, pop3, unique_ids
from mailstore.importing.arrival import Gone, Stored
from mailstore.importing.bring import NoRoom, Progress, Settings, bring
from mailstore.importing.sentences import Sentence
from mailstore.importing.source import Lost, Refused, Source
from mailstore.importing.wire import Security, Target
from mailstore.models import ImportJob
from mailstore.spool import SpoolFull

log = logging.getLogger(__name__)

RUN: Final = "mailstore.tasks.run_import"
"""The task that runs a job."""
TTL: Final = timedelta(minutes=3)
"""A job whose heartbeat is older is run by nobody."""
SLICE: Final = timedelta(minutes=4)
"""A job makes room for others after this; with the longest message it ends before Celery's time limit."""
UPLOADS_KEPT: Final = timedelta(days=7)
"""So long a job that failed can be started again with the file that was uploaded for it."""

_BEAT: Final = 1.0  # seconds between two looks at the row
_UPLOAD = re.compile(r"[A-Za-z0-9_-]{32}")
_UNUSED: Final = timedelta(days=1)  # an upload that no job was made for
_OPEN: Final = (ImportJob.State.WAITING, ImportJob.State.RUNNING)
_NEVER: Final = "none"  # as a format of unique-ids


class BadImport(ValueError):
    """It cannot be started so: a sentence without its full stop about one field."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


class AlreadyRunning(Exception):
    """The mailbox has an import that has not ended, or this one has not."""


class UploadTooLarge(Exception):
    """The file is larger than uploads may be."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What running jobs takes of the settings."""

    secret: str
    """From which the key is derived that passwords are sealed with."""
    limit: int
    """Octets of the largest message."""
    spool_directory: str
    uploads: Path
    allow_private: bool
    """Whether jobs may reach hosts that are not on the public internet."""
    most: int
    """Jobs that run at once."""
    slice: timedelta = SLICE


def start(
    mailbox: Mailbox,
    *,
    secret: str,
    source: str,
    host: str = "",
    port: int | None = None,
    security: str = "tls",
    login: str = "",
    password: str = "",
    folder: str = "",
    uidl_format: str = "",
    upload: str = "",
) -> ImportJob:
    """Have mail brought into a mailbox. Raises `BadImport`, `AlreadyRunning`.

    `source` is `pop3` or `imap`, from `host` with `login` and `password`, which is kept sealed with a key made from
    `secret` until the job ends; or `upload`, a name that `save_upload` returned. `port` is by default the protocol's.
    `uidl_format` is for IMAP and for a zip with a Maildir (`unique_ids.FORMATS`); `none` keeps none.
    """
    if source not in ImportJob.Source.values:
        raise BadImport("source", _("it is one of %(values)s") % {"values": ", ".join(ImportJob.Source.values)})
    if uidl_format and uidl_format != _NEVER:
        try:
            checked = unique_ids.check(uidl_format)
        except unique_ids.BadFormat as error:
            raise BadImport("uidl_format", str(error)) from None
        if len(uidl_format) > 32 or (source == ImportJob.Source.IMAP and unique_ids.needs_file(checked)):
            raise BadImport("uidl_format", _("that cannot be made from what IMAP shows"))
    if source == ImportJob.Source.UPLOAD:
        if not _UPLOAD.fullmatch(upload):
            raise BadImport("upload", _("it is no file that was uploaded"))
        values: dict[str, Any] = {"upload": upload, "uidl_format": uidl_format}
    else:
        values = _remote(host.strip(), port, security, login, password, folder) | {
            "uidl_format": uidl_format,
            "sealed_password": _sealed(password, secret),
        }
    with transaction.atomic():
        Mailbox.objects.select_for_update(no_key=True).get(pk=mailbox.pk)
        if ImportJob.objects.filter(mailbox=mailbox, state__in=_OPEN).exists():
            raise AlreadyRunning
        job = ImportJob(tenant_id=mailbox.tenant_id, mailbox=mailbox, source=source, **values)
        job.save(force_insert=True)
        audit.record("import.started", job, detail={"source": source})
        _say_go(job)
    return job


def check_public(host: str) -> None:
    """Raises `BadImport` for a host that is not on the public internet. Which names our own DNS has is told to nobody.

    A job looks again when it connects. Asking DNS may take seconds.
    """
    try:
        outside.resolve(host, 0, allow_private=False)
    except outside.Refused:
        raise BadImport("host", _("it is no host of the public internet")) from None


def cancel(job: ImportJob) -> None:
    """End a job; what came along stays. One that has ended stays as it is."""
    with transaction.atomic():
        if _change(job, state__in=_OPEN)(state=ImportJob.State.CANCELLED, sealed_password=None, ended_at=Now()):
            audit.record("import.cancelled", job)


def restart(job: ImportJob, password: str = "", *, secret: str) -> None:
    """Go on with a job that has ended: its password was forgotten then. Raises `BadImport`, `AlreadyRunning`."""
    remote = job.source != ImportJob.Source.UPLOAD
    if remote:
        _remote(job.host, job.port, job.security, job.login, password, job.folder)
    with transaction.atomic():
        Mailbox.objects.select_for_update(no_key=True).get(pk=job.mailbox_id)
        others = ImportJob.objects.filter(mailbox=job.mailbox_id, state__in=_OPEN)
        if others.exists() or not _change(job, ~Q(state__in=_OPEN))(
            state=ImportJob.State.WAITING,
            sealed_password=_sealed(password, secret) if remote else None,
            report="",
            problems=None,
            ended_at=None,
            heartbeat_at=None,
        ):
            raise AlreadyRunning
        audit.record("import.restarted", job)
        _say_go(job)


def save_upload(pieces: Iterable[bytes], *, directory: Path, limit: int) -> str:
    """Keep a file for a job; returns its name. Raises `UploadTooLarge`, `OSError`, and keeps nothing."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = secrets.token_urlsafe(24)
    path = directory / name
    path.touch(mode=0o600, exist_ok=False)
    try:
        with path.open("wb") as file:
            for piece in _limited(pieces, limit):
                file.write(piece)
    except BaseException:
        path.unlink()
        raise
    return name


def _limited(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    octets = 0
    for piece in pieces:
        octets += len(piece)
        if octets > limit:
            raise UploadTooLarge
        yield piece


def due(most: int) -> list[int]:
    """The jobs that are next to be run, as far as no more than `most` run at once."""
    room = most - ImportJob.objects.filter(_alive()).count()
    waiting = ImportJob.objects.filter(~_alive(), state__in=_OPEN)
    found = waiting.order_by(Coalesce("heartbeat_at", "created_at")).values_list("pk", flat=True)
    return list(found[: max(room, 0)])


def run(job_id: int, config: Config) -> bool:
    """Run a job, if nobody does and not too many are run: until it ends, or for a while. Whether it is to go on."""
    if not _claim(job_id, config):
        return False
    job = ImportJob.objects.select_related("mailbox").get(pk=job_id)
    running = _Running(job, config.slice)
    state, failure = ImportJob.State.FAILED, None
    try:
        source = _source(job, config)
        progress = bring(source, job.mailbox, _settings(job, config), watch=running.watch, then=running.then)
        running.tell(progress)
        state = ImportJob.State.DONE
    except _Over:
        return False
    except _Enough:
        _change(job, state=ImportJob.State.RUNNING)(state=ImportJob.State.WAITING, heartbeat_at=Now())
        return True
    except (Refused, Lost) as error:
        failure = error.sentence
    except NoRoom:
        failure = Sentence(noop("there is no room for more"), {})
    except Gone:
        failure = Sentence(noop("the mailbox was closed"), {})
    except _Stuck:
        failure = Sentence(noop("it is too much for the background: use manage.py import"), {})
    except SpoolFull:
        failure = Sentence(noop("there is no space left here"), {})
    except DatabaseError:
        raise  # it is gone on with when the database is back
    except Exception:
        log.exception("import %s failed", job_id)
        failure = Sentence(noop("a fault here, which is logged"), {})
    problems = [*running.progress.problems, *([failure] if failure else [])]
    ended = _change(job, state=ImportJob.State.RUNNING)
    ended(state=state, problems=problems, sealed_password=None, ended_at=Now())
    if state == ImportJob.State.DONE and job.upload:
        (config.uploads / job.upload).unlink(missing_ok=True)
    log.info("import %s %s", job_id, state)
    return False


def report(job: ImportJob) -> list[str]:
    """What went wrong, a line each, in the language of whoever reads it."""
    said = [str(Sentence.kept(problem)) for problem in job.problems or ()]
    return said or [_(line) if line else "" for line in job.report.splitlines()]


def tidy(uploads: Path) -> None:
    """Remove uploaded files that nobody needs any more."""
    with suppress(FileNotFoundError):
        for path in uploads.iterdir():
            job = ImportJob.objects.filter(upload=path.name).order_by("-pk").first()
            now = timezone.now()
            if job is None:
                over = now.timestamp() - path.stat().st_mtime > _UNUSED.total_seconds()
            elif job.state == ImportJob.State.FAILED:
                over = job.ended_at is not None and now - job.ended_at > UPLOADS_KEPT
            else:
                over = job.state not in _OPEN
            if over:
                path.unlink(missing_ok=True)


class _Over(Exception):
    """The job was cancelled, or taken over and ended."""


class _Enough(Exception):
    """The time of this run is up."""


class _Stuck(Exception):
    """The time of this run is long up, and all it did was to pass over what had come along before."""


class _Running:
    """A job that is run here: its row follows."""

    def __init__(self, job: ImportJob, budget: timedelta) -> None:
        self.progress = Progress()
        self._job = job
        self._next = 0.0
        self._until = time.monotonic() + budget.total_seconds()
        self._before = job.imported

    def watch(self, progress: Progress) -> None:
        """Renew the heartbeat now and then."""
        self.progress = progress
        now = time.monotonic()
        if now > self._next:
            self._next = now + _BEAT
            self.tell(progress)
        if now > self._until and progress.imported:
            raise _Enough
        if now > self._until + SLICE.total_seconds() / 2:  # to begin anew would get no further
            raise _Stuck

    def tell(self, progress: Progress) -> None:
        """Write how far it is. Raises `_Over`."""
        self._follow(
            heartbeat_at=Now(),
            total=progress.total,
            # What an earlier run of the job has brought along is met again.
            skipped=max(self._job.skipped, progress.skipped - self._before),
            failed=max(self._job.failed, progress.failed),
        )

    def then(self, stored: Stored) -> None:
        """In the transaction that stores messages: counts them. Raises `_Over`."""
        self._follow(imported=F("imported") + stored.imported)

    def _follow(self, **values: Any) -> None:
        if not _change(self._job, state=ImportJob.State.RUNNING)(**values):
            raise _Over


def _alive() -> Q:
    """Those that somebody runs. Not simply the others' opposite: a heartbeat may be null."""
    return Q(state=ImportJob.State.RUNNING, heartbeat_at__isnull=False, heartbeat_at__gte=Now() - TTL)


def _claim(job_id: int, config: Config) -> bool:
    with transaction.atomic(), connection.cursor() as cursor:
        # Whoever claims one counts the others, alone.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('mailstore.importing.jobs'))")
        if job_id not in due(config.most):
            return False
        claimed = ImportJob.objects.filter(pk=job_id, state__in=_OPEN).update(
            state=ImportJob.State.RUNNING, started_at=Coalesce("started_at", Now()), heartbeat_at=Now()
        )
    return bool(claimed)


def _change(job: ImportJob, *conditions: Q, **lookups: Any) -> Callable[..., int]:
    """An update of a job's row, if it is still so."""
    rows: QuerySet[ImportJob] = ImportJob.objects.filter(*conditions, pk=job.pk, **lookups)
    return rows.update


def _say_go(job: ImportJob) -> None:
    transaction.on_commit(lambda: current_app.send_task(RUN, [job.pk], expires=60, retry=False), robust=True)


def _remote(host: str, port: int | None, security: str, login: str, password: str, folder: str) -> dict[str, Any]:
    """The values of a server, if they can be ones. Raises `BadImport`."""
    for name, text, most in (("host", host, 253), ("login", login, 320), ("password", password, 1000)):
        if not 0 < len(text) <= most or any(ord(character) < ord(" ") for character in text):
            raise BadImport(name, _("it has 1 to %(most)s characters, and is one line") % {"most": most})
    if not host.isprintable() or " " in host or "/" in host:
        raise BadImport("host", _("it is a name such as pop.example.test"))
    if port is not None and not 0 < port < 65536:
        raise BadImport("port", _("it is from 1 to 65535"))
    if security not in get_args(Security):
        raise BadImport("security", _("it is one of %(values)s") % {"values": ", ".join(get_args(Security))})
    if len(folder) > 255 or not folder.isprintable():
        raise BadImport("folder", _("it has at most 255 characters, and is one line"))
    return {"host": host, "port": port, "security": security, "login": login, "folder": folder}


def _source(job: ImportJob, config: Config) -> Source:
    """What a job brings along. Raises `Refused`."""
    uidl_format = None if job.uidl_format == _NEVER else unique_ids.check(job.uidl_format or unique_ids.DOVECOT)
    if job.source == ImportJob.Source.UPLOAD:
        return _uploaded(config.uploads / job.upload, uidl_format)
    security: Security = job.security  # type: ignore[assignment] # checked when it was made
    target = Target(
        host=job.host,
        port=job.port or (pop3.PORTS if job.source == ImportJob.Source.POP3 else imap.PORTS)[security],
        security=security,
        login=job.login,
        password=_opened(job, config.secret),
        allow_private=config.allow_private,
    )
    if job.source == ImportJob.Source.POP3:
        return pop3.Pop3(target)
    return imap.Imap(target, folder=job.folder, uidl_format=uidl_format)


def _uploaded(path: Path, uidl_format: str | None) -> Source:
    try:
        with path.open("rb") as file:
            begins = file.read(5)
    except OSError:
        raise Refused(noop("the uploaded file is not there any more")) from None
    if begins.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return eml.Zip(path, uidl_format=uidl_format)
    if begins == b"From ":
        return mbox.Mbox(path)
    raise Refused(noop("the uploaded file is neither an mbox nor a zip"))


def _settings(job: ImportJob, config: Config) -> Settings:
    Path(config.spool_directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    return Settings(limit=config.limit, directory=config.spool_directory, unique_ids=job.uidl_format != _NEVER)


def _fernet(secret: str) -> Fernet:
    return sealing.box(secret, "mailhost.importing.password")


def _sealed(password: str, secret: str) -> bytes:
    return _fernet(secret).encrypt(password.encode())


def _opened(job: ImportJob, secret: str) -> str:
    try:
        return _fernet(secret).decrypt(bytes(job.sealed_password or b"")).decode()
    except InvalidToken:
        raise Refused(noop("its password cannot be read any more: start it again")) from None
