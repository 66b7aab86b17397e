"""How things that are noted under names of ours are called before people."""

from datetime import timedelta
from typing import Any, Final

from django.utils.timesince import timesince
from django.utils.timezone import now
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from mailstore.delivery import Outcome
from mailstore.refusals import TOO_LARGE

REASONS: Final[dict[str, Any]] = {
    Outcome.GONE.value: _("nobody has the address"),
    Outcome.OVER_QUOTA.value: _("over quota"),
    Outcome.SUSPENDED.value: _("suspended"),
    Outcome.DEFERRED.value: _("takes no mail for now"),
    Outcome.LOOP.value: _("sent outside before"),
    "unverified": _("domain not verified"),
    TOO_LARGE: _("too large"),
}
"""Why mail was refused (`Refusal.reason`), in few words; `mailstore.why` has more."""

TASKS: Final[dict[str, Any]] = {
    "mailstore.tasks.announce_refusals": _("telling webhooks of refused mail"),
    "mailstore.tasks.erase": _("erasing"),
    "mailstore.tasks.forward": _("sending on to addresses outside"),
    "mailstore.tasks.imports": _("looking for imports"),
    "mailstore.tasks.purge": _("purging"),
    "mailstore.tasks.roll_up_statistics": _("counting for the statistics"),
    "mailstore.tasks.run_import": _("importing"),
    "mailstore.tasks.tell_of_quotas": _("telling whose room is little"),
    "accounts.tasks.check_domains": _("verifying domains"),
    "accounts.tasks.send_webhooks": _("sending to webhooks"),
    "accounts.tasks.tidy": _("tidying"),
}
"""What Celery does."""


def reason(name: str) -> str:
    """Why mail was refused."""
    return str(REASONS.get(name, name))


def task(name: str) -> str:
    """What Celery does."""
    return str(TASKS.get(name, name))


def ago(time: timedelta) -> str:
    """How long ago something was."""
    return gettext("%(time)s ago") % {"time": long(time)}


def long(time: timedelta) -> str:
    """How long something is, by its largest unit."""
    seconds = max(0, round(time.total_seconds()))
    if seconds < 60:
        return ngettext("%(number)s second", "%(number)s seconds", seconds) % {"number": seconds}
    moment = now()
    return timesince(moment - time, moment, depth=1)
