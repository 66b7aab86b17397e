"""What matters now: what needs somebody, and numbers with what is behind them, as they exist for whoever looks."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import connection
from django.db.models import Case, Count, Q, Sum, When
from django.db.models.functions import Now
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.text import capfirst
from django.utils.timezone import now
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts import languages, limits, quotas, verification
from accounts.models import Allowance, Domain, FailedLogin, Mailbox, Tenant, little_room
from accounts.principals import Principal
from accounts.scoped import may
from mailstore import background, statistics
from mailstore.dashboard import words
from mailstore.dashboard.charts import rows_of
from mailstore.models import (
    HourlyStatistics,
    Listener,
    MaildropSession,
    PurgeForecast,
    Refusal,
    Rollup,
)

DAY: Final = timedelta(days=1)
_PURGE: Final = "mailstore.tasks.purge"
_SHOWN: Final = 5  # mailboxes, reasons
_MOST_LISTENERS: Final = 20
_MOST_COUNTED: Final = 10_000  # as lists do
_BEHIND: Final = timedelta(minutes=15)  # after which it is told that statistics stand still

CALM, GOOD, WARN, BAD = "calm", "good", "warn", "bad"


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number, and where what it counts is listed."""

    name: str
    title: str
    value: str
    link: str
    icon: str
    of_a_day: bool = False  # else of now
    tone: str = CALM
    more: tuple[tuple[str, str], ...] = ()
    """What it is made of: a text and, if there is one, its own link."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that needs somebody."""

    text: str
    link: str
    tone: str = WARN


@dataclass(frozen=True, kw_only=True)
class DayAhead:
    """What goes for good on a day."""

    day: date
    messages: int
    shown_messages: str
    octets: str
    mailboxes: int
    percent: int  # of the day on which most goes
    link: str


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process of the host, or something that one does again and again."""

    title: str
    detail: str
    seen: str
    is_well: bool
    link: str

    @property
    def state(self) -> str:
        """In a word."""
        return _("well") if self.is_well else _("late")


def of(request: HttpRequest, principal: Principal, rollup: Rollup | None) -> dict[str, Any]:
    """All of it, for the template."""
    page = _Page(request, principal)
    page.mail()
    page.mailboxes()
    page.refusals()
    page.failed_logins()
    page.domains()
    page.tenants()
    page.sessions()
    processes = page.processes(rollup)
    page.notices.sort(key=lambda notice: notice.tone != BAD)
    return {
        "notices": page.notices,
        "numbers": [
            (_("In 24 hours"), [number for number in page.numbers if number.of_a_day]),
            (_("Now"), [number for number in page.numbers if not number.of_a_day]),
        ],
        "fullest": page.fullest,
        "forecast": list(page.forecast()),
        "forecast_link": _list("mailstore_purgeforecast", **page.whole),
        "closed_link": _list("accounts_mailbox", state="closed"),
        "processes": processes,
    }


class _Page:
    """What is found for one who looks."""

    def __init__(self, request: HttpRequest, principal: Principal) -> None:
        self.numbers: list[Number] = []
        self.notices: list[Notice] = []
        self.fullest: list[dict[str, Any]] = []
        self.whole: dict[str, str] = {"of": "host"} if principal.is_host_wide else {}
        self._request = request
        self._principal = principal

    def mail(self) -> None:
        """What came and went in a day."""
        if not self._may("usage"):
            return
        names = ("delivered", "delivered_octets", "sessions", "fetched", "removed")
        found = (
            statistics.of(HourlyStatistics, self._principal)
            .filter(start__gte=Now() - DAY)
            .aggregate(**{name: Sum(name) for name in names})
        )
        sums = {name: int(found[name] or 0) for name in names}
        link = rows_of(HourlyStatistics, self._principal, since="day")
        self._add(
            "delivered", _("Delivered"), sums["delivered"], link, "call_received", of_a_day=True,
            more=((_("%(octets)s octets") % {"octets": quotas.rounded(sums["delivered_octets"])}, ""),),
        )  # fmt: skip
        in_sessions = ngettext("in %(number)s session", "in %(number)s sessions", sums["sessions"])
        self._add(
            "fetched", _("Fetched"), sums["fetched"], link, "call_made", of_a_day=True,
            more=(
                (in_sessions % {"number": languages.number(sums["sessions"])}, ""),
                (_("%(number)s removed") % {"number": languages.number(sums["removed"])}, ""),
            ),
        )  # fmt: skip

    def mailboxes(self) -> None:
        """Those with little room, and how many there are."""
        if not self._may("mailboxes"):
            return
        near = Mailbox.objects.visible_to(self._principal).filter(little_room(80)).order_by()
        found = near.aggregate(
            all=Count("pk"),
            nearly=Count("pk", filter=little_room(90)),
            full=Count("pk", filter=little_room(100)),
        )
        link = _list("accounts_mailbox", room=80)
        if found["full"]:
            text = ngettext(
                "%(number)s mailbox is full: mail to it is refused.",
                "%(number)s mailboxes are full: mail to them is refused.",
                found["full"],
            )
            self._tell(text % {"number": languages.number(found["full"])}, _list("accounts_mailbox", room=100), BAD)
        self._add(
            "room", _("Mailboxes near quota"), found["all"], link, "hard_drive",
            tone=BAD if found["full"] else WARN if found["all"] else GOOD,
            more=tuple(
                (text % {"number": languages.number(number)}, _list("accounts_mailbox", room=percent))
                for text, number, percent in (
                    (_("%(number)s full"), found["full"], 100),
                    (_("%(number)s from 90 %%"), found["nearly"], 90),
                )
            ) if found["all"] else ((_("none from 80 %%") % {}, ""),),
        )  # fmt: skip
        if found["all"]:
            rows: Any = near.order_by("-warned_percent", "-used_octets").values(
                "pk", "address", "used_octets", "quota_octets"
            )
            self.fullest = [
                {
                    "address": row["address"],
                    "link": reverse("admin:accounts_mailbox_change", args=[row["pk"]]),
                    "used": quotas.rounded(row["used_octets"]),
                    "quota": quotas.rounded(row["quota_octets"]),
                    "percent": min(100, row["used_octets"] * 100 // row["quota_octets"]),
                    "tone": BAD if row["used_octets"] * 100 >= row["quota_octets"] * 90 else WARN,
                }
                for row in rows[:_SHOWN]
            ]

    def refusals(self) -> None:
        """Mail that was refused in a day."""
        if not self._may("why"):
            return
        rows = Refusal.objects.visible_to(self._principal).filter(last_at__gte=Now() - DAY)
        by_reason = {row["reason"]: row["all"] for row in rows.values("reason").annotate(all=Sum("count")).order_by()}
        self._of_a_day("refused", _("Refused mail"), "mailstore_refusal", "reason", "block", by_reason, words.REASONS)

    def failed_logins(self) -> None:
        """Logins that failed in a day."""
        if not self._may("why"):
            return
        rows = FailedLogin.objects.visible_to(self._principal).filter(hour__gte=Now() - DAY)
        by_reason = {row["reason"]: row["all"] for row in rows.values("reason").annotate(all=Sum("count")).order_by()}
        labels = dict(FailedLogin.Reason.choices)
        self._of_a_day(
            "failed-logins", _("Failed logins"), "accounts_failedlogin", "reason__exact", "lock", by_reason, labels
        )

    def domains(self) -> None:
        """Domains that nobody has shown to be his."""
        if not self._may("domains"):
            return
        unverified = Q(closed_at=None) & ~Q(state=Domain.State.VERIFIED)
        lapses = verification.lapsing(verification.SOON)
        found = Domain.objects.visible_to(self._principal).aggregate(
            unverified=Count("pk", filter=unverified),
            failing=Count("pk", filter=unverified & Q(state=Domain.State.FAILING)),
            lapsing=Count("pk", filter=lapses),
        )
        if settings.MAILHOST_UNVERIFIED_DOMAINS == "receive":
            found["lapsing"] = 0  # then none does
        if found["lapsing"]:
            text = ngettext(
                "The claim to %(number)s domain lapses within 7 days: its TXT record is missing.",
                "The claims to %(number)s domains lapse within 7 days: their TXT records are missing.",
                found["lapsing"],
            )
            self._tell(
                text % {"number": languages.number(found["lapsing"])}, _list("accounts_domain", verified="lapsing")
            )
        if found["failing"]:
            text = ngettext(
                "%(number)s domain was verified once, and is not any more.",
                "%(number)s domains were verified once, and are not any more.",
                found["failing"],
            )
            self._tell(
                text % {"number": languages.number(found["failing"])}, _list("accounts_domain", state__exact="failing")
            )
        self._add(
            "domains", _("Domains not verified"), found["unverified"], _list("accounts_domain", verified="no"),
            "language",
            tone=WARN if found["unverified"] else GOOD,
            more=((self._unverified_means(), ""),) if found["unverified"] else ((_("all are"), ""),),
        )  # fmt: skip

    def tenants(self) -> None:
        """How much there is, and who has nearly all that he may."""
        counts = Allowance.objects.order_by()
        if self._principal.domain_ids is not None:
            counts = counts.filter(domain__in=self._principal.domain_ids)
        else:
            counts = counts.filter(domain=None, tenant__in=Tenant.objects.visible_to(self._principal))
        if self._may("mailboxes"):
            found = counts.aggregate(mailboxes=Sum("mailboxes"), domains=Sum("domains"), allowances=Count("pk"))
            domains = found["allowances"] if self._principal.domain_ids is not None else int(found["domains"] or 0)
            more = [
                (
                    ngettext("in %(number)s domain", "in %(number)s domains", domains)
                    % {"number": languages.number(domains)},
                    _list("accounts_domain"),
                )
            ]
            if self._principal.is_host_wide and (messages := _estimated_messages()):
                more.append((_("about %(number)s messages") % {"number": languages.number(messages)}, ""))
            self._add(
                "mailboxes", _("Mailboxes"), int(found["mailboxes"] or 0), _list("accounts_mailbox"), "inbox",
                more=tuple(more),
            )  # fmt: skip
        if self._may("tenants") and self._principal.domain_ids is None:
            near = (
                Tenant.objects.visible_to(self._principal).filter(pk__in=limits.nearly_reached().values("pk")).count()
            )
            if near:
                text = ngettext(
                    "%(number)s tenant has nearly all mailboxes or octets that it may.",
                    "%(number)s tenants have nearly all mailboxes or octets that they may.",
                    near,
                )
                self._tell(text % {"number": languages.number(near)}, _list("accounts_tenant", limits="near"))

    def sessions(self) -> None:
        """Sessions that are open."""
        if not self._may("sessions"):
            return
        rows = MaildropSession.objects.visible_to(self._principal).filter(ended_at=None).order_by()
        number = rows[: _MOST_COUNTED + 1].count()
        self._add(
            "sessions", _("Open sessions"), min(number, _MOST_COUNTED), _list("mailstore_maildropsession", open="yes"),
            "devices", more=((_("or more"), ""),) if number > _MOST_COUNTED else (),
        )  # fmt: skip

    def forecast(self) -> Iterator[DayAhead]:
        """What goes for good on each of the next days."""
        if not self._may("usage"):
            return
        names = ("messages", "octets", "mailboxes")
        rows: Any = (
            statistics.of(PurgeForecast, self._principal)
            .values("day")
            .annotate(**{f"all_{name}": Sum(name) for name in names})
            .order_by("day")
        )
        found = {row["day"]: row for row in rows}
        today = now().astimezone(UTC).date()
        most = max((row["all_messages"] for row in found.values()), default=0)
        for number in range(statistics.DAYS_AHEAD):
            day = today + timedelta(days=number)
            messages, octets, mailboxes = (int(found.get(day, {}).get(f"all_{name}", 0)) for name in names)
            yield DayAhead(
                day=day,
                messages=messages,
                shown_messages=languages.number(messages),
                octets=quotas.rounded(octets),
                mailboxes=mailboxes,
                percent=messages * 100 // most if most else 0,
                link=self._going(day),
            )

    def _going(self, day: date) -> str:
        """The messages that go on a day; of many tenants, where they are many, first the domains that have some."""
        if self._principal.tenant_id is not None:
            return _list("mailstore_message", goes=day.isoformat())
        return _list("mailstore_purgeforecast", of="domains", day=day.isoformat())

    def processes(self, rollup: Rollup | None) -> list[Process]:
        """What runs here, for those who run it."""
        if not self._may("listeners"):
            return []
        return [*self._listeners(), *self._celery(rollup)]

    def _listeners(self) -> Iterator[Process]:
        alive = Q(heartbeat_at__gte=Now() - settings.MAILHOST_LISTENER_TTL)
        shown = Listener.objects.annotate(alive=Case(When(alive, then=1), default=0), now=Now())
        found = list(shown.order_by("-alive", "kind", "-heartbeat_at")[:_MOST_LISTENERS])
        for kind, means in (
            ("pop3", _("No POP3 listener runs: nobody can fetch mail.")),
            ("lmtp", _("No LMTP listener runs: no mail comes in.")),
        ):
            if not any(row.alive and row.kind == kind for row in found):
                self._tell(means, _list("mailstore_listener", kind=kind), BAD)
        for row in found:
            yield Process(
                title=_("%(kind)s listener") % {"kind": row.kind.upper()},
                detail=_("%(host)s, process %(pid)s") % {"host": row.host, "pid": row.pid},
                seen=words.ago(row.now - row.heartbeat_at),
                is_well=bool(row.alive),
                link=reverse("admin:mailstore_listener_change", args=[row.pk]),
            )

    def _celery(self, rollup: Rollup | None) -> Iterator[Process]:
        schedule = {str(entry["task"]): _period(entry["schedule"]) for entry in settings.CELERY_BEAT_SCHEDULE.values()}
        found = background.look(schedule)
        link = _list("mailstore_backgroundrun")
        if found.workers_are_late:
            self._tell(self._why_nothing_is_done(found), link, BAD)
        elif found.beat_is_late:
            self._tell(_("Celery beat does not run: nothing is asked for, and purging stands still."), link, BAD)
        else:
            for task in found.tasks:
                if task.late:
                    since = words.ago(found.now - task.done_at) if task.done_at else _("never")
                    told = {"task": words.task(task.name), "when": since}
                    self._tell(_("Late: %(task)s. It last ended: %(when)s.") % told, link)
                elif task.error:
                    told = {"task": words.task(task.name), "error": task.error}
                    self._tell(_("Failed the last time: %(task)s (%(error)s).") % told, link)
            if rollup and rollup.counted_at and found.now - rollup.counted_at > _BEHIND:
                behind = words.ago(found.now - rollup.counted_at)
                text = _("Statistics stand still since %(when)s: a transaction of the database does not end.")
                self._tell(text % {"when": behind}, link)
        workers = ngettext("%(number)s worker", "%(number)s workers", found.workers) % {"number": found.workers}
        yield Process(
            title=_("Celery workers"),
            detail=workers,
            seen=words.ago(found.now - found.worked_at) if found.worked_at else _("never"),
            is_well=not found.workers_are_late,
            link=link,
        )
        yield Process(
            title=_("Celery beat"),
            detail=_("asks workers for what is due"),
            seen=words.ago(found.now - found.asked_at) if found.asked_at else _("never"),
            is_well=not found.beat_is_late,
            link=link,
        )
        for task in found.tasks:
            if not task.late and not task.error and task.name != _PURGE:
                continue
            yield Process(
                title=capfirst(words.task(task.name)),
                detail=_("every %(period)s") % {"period": words.long(task.every)},
                seen=words.ago(found.now - task.done_at) if task.done_at else _("not yet"),
                is_well=not task.late and not task.error,
                link=link,
            )

    def _why_nothing_is_done(self, found: background.Background) -> str:
        if found.worked_at is None:
            return _("Celery has not run yet: nothing is purged, and no domain is verified.")
        since = words.long(found.now - found.worked_at)
        text = _("Celery has not run for %(time)s: nothing is purged, and no domain is verified.") % {"time": since}
        if not found.beat_is_late:
            return text + " " + _("Beat runs; workers do not.")
        return text

    def _of_a_day(
        self,
        name: str,
        title: str,
        of: str,
        parameter: str,
        icon: str,
        by_reason: dict[str, int],
        labels: dict[str, Any],
    ) -> None:
        total = int(sum(by_reason.values()))
        most = sorted(by_reason, key=lambda reason: -by_reason[reason])[: _SHOWN - 2]
        self._add(
            name, title, total, _list(of, since="day"), icon, of_a_day=True,
            tone=WARN if total else GOOD,
            more=tuple(
                (
                    f"{languages.number(int(by_reason[reason]))} {labels.get(reason, reason)}",
                    _list(of, since="day", **{parameter: reason}),
                )
                for reason in most
            ) if total else ((_("none"), ""),),
        )  # fmt: skip

    def _unverified_means(self) -> str:
        match settings.MAILHOST_UNVERIFIED_DOMAINS:
            case "receive":
                return _("their mail is taken all the same")
            case "defer":
                return _("their mail is deferred")
        return _("their mail is refused")

    def _may(self, resource: str) -> bool:
        return may(self._request, resource, "read")

    def _add(self, name: str, title: str, number: int, link: str, icon: str, **more: Any) -> None:
        self.numbers.append(
            Number(name=name, title=title, value=languages.number(number), link=link, icon=icon, **more)
        )

    def _tell(self, text: str, link: str, tone: str = WARN) -> None:
        self.notices.append(Notice(text=text, link=link, tone=tone))


def _estimated_messages() -> int:
    """How many messages are stored, as the database's own statistics have it; also those that can be restored."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'mailstore_message'::regclass")
        return int(cursor.fetchone()[0])


def _list(name: str, **parameters: Any) -> str:
    link = reverse(f"admin:{name}_changelist")
    return f"{link}?{urlencode(parameters)}" if parameters else link


def _period(schedule: Any) -> timedelta:
    return schedule if isinstance(schedule, timedelta) else timedelta(seconds=float(schedule))
