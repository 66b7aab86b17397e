"""What Celery does for the store."""

from datetime import timedelta
from typing import Final

from celery import shared_task
from django.conf import settings

from mailstore import background, configured, forwarding, notices, purging, refusals, statistics
from mailstore.importing import jobs

LONGEST: Final = timedelta(minutes=4)
"""A run ends after this even if more is due: well before the broker would hand the task to another worker."""

background.listen()  # each process of Celery reads this file


def keep() -> purging.Keep:
    """How long things are kept, by the settings."""
    return purging.Keep(
        retention=settings.MAILHOST_RETENTION,
        sessions=settings.MAILHOST_SESSION_HISTORY,
        ledger=settings.MAILHOST_LEDGER_LIFE,
        listener_ttl=settings.MAILHOST_LISTENER_TTL,
    )


@shared_task
def purge() -> None:
    """Remove for good what is due, until the next run begins."""
    purging.purge(keep(), budget=min(settings.MAILHOST_PURGE_INTERVAL, LONGEST), give_way=True)


@shared_task
def forward() -> None:
    """Hand what goes on to addresses outside to the MTA."""
    mta = settings.MAILHOST_FORWARD_SMTP
    if mta is not None:
        config = forwarding.Config(
            host=mta.host, port=mta.port, name=configured.host_name(), key=configured.forward_key()
        )
        forwarding.forward(config, budget=LONGEST)


@shared_task
def announce_refusals() -> None:
    """Tell webhooks whose mail is refused."""
    refusals.announce()


@shared_task
def roll_up_statistics() -> None:
    """Count what happened since the last time, and once an hour what lies there and what will go."""
    statistics.roll_up(retention=settings.MAILHOST_RETENTION, budget=LONGEST)


def import_config() -> jobs.Config:
    """How imports run, by the settings."""
    return jobs.Config(
        secret=settings.SECRET_KEY,
        limit=settings.MAILHOST_MAX_MESSAGE,
        spool_directory=str(settings.MAILHOST_DATA / "spool"),
        uploads=settings.MAILHOST_DATA / "uploads",
        allow_private=settings.MAILHOST_PRIVATE_TARGETS,
        most=settings.MAILHOST_IMPORTS,
    )


@shared_task
def run_import(job_id: int) -> None:
    """Run an import that waits, for a while; then it is somebody else's turn."""
    if jobs.run(job_id, import_config()):
        run_import.delay(job_id)


@shared_task
def imports() -> None:
    """Have those imports run that nobody runs, and remove uploads that nobody needs."""
    config = import_config()
    for job_id in jobs.due(config.most):
        run_import.apply_async((job_id,), expires=60)
    jobs.tidy(config.uploads)


@shared_task
def tell_of_quotas() -> None:
    """Tell by mail whose room for mail is used up, or soon will be."""
    notices.tell(hostname=settings.MAILHOST_HOSTNAME)


@shared_task
def erase(mailbox_id: int) -> None:
    """Remove a mailbox that is to be erased without waiting for the next purge, which would remove it, too."""
    purging.erase_now(keep(), mailbox_id)
