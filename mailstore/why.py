"""Why somebody cannot sign in and why mail is refused: what stored facts say of an address, and what helps.

Everything is asked as whoever wants to know (`visible_to`): an address in a domain that does not exist for him is
answered like one that is hosted nowhere.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import unquote

from django.contrib.postgres.aggregates import ArrayAgg
from django.db import connection
from django.db.models import F, Max, Min, Q, Sum
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.timesince import timesince
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts import addresses, failed_logins, permissions, quotas, throttle
from accounts.models import Alias, Allowance, AppPassword, Domain, FailedLogin, Mailbox, User
from accounts.principals import Principal
from mailstore import delivery
from mailstore.delivery import Outcome, Unverified
from mailstore.models import MaildropSession, Message, Refusal
from mailstore.refusals import TOO_LARGE

LOOKED_BACK: Final = timedelta(days=7)
"""How far back failed logins and refused mail are told of."""

_LATELY: Final = timedelta(days=1)
_MOST: Final = 5  # of one kind: networks that failed, mailboxes that mail goes to, sessions
_CANDIDATES: Final = 2000  # addresses among which one that looks alike is searched
_MOST_TYPED: Final = 500  # characters


class About(StrEnum):
    """What a finding explains."""

    ADDRESS = "address"
    LOGIN = "login"
    MAIL = "mail"


class Severity(StrEnum):
    """How much a finding explains, the most first."""

    WRONG = "wrong"  # nobody signs in, or no mail is taken, because of it
    WARNING = "warning"  # it may be why
    NOTE = "note"
    GOOD = "good"


@dataclass(frozen=True)
class Action:
    """What helps, for whoever asks may do it. `key` is the row that it is done to, or an address."""

    name: str
    key: Any
    title: str


@dataclass(frozen=True)
class Finding:
    """One reason, or one thing that speaks against it."""

    code: str
    about: About
    severity: Severity
    text: str
    facts: dict[str, Any] = field(default_factory=dict)  # what the text says, for programs
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the host's settings say."""

    subaddress: str
    default_domain: str
    unverified: Unverified
    forwards: bool
    """Whether mail goes on to addresses outside."""
    puts_off: bool
    """Whether mail for who is suspended is put off, and not refused."""
    redis_url: str
    listener_ttl: timedelta


ACTIONS: Final[dict[str, tuple[str, str, Any]]] = {
    "end-session": ("sessions", "end", gettext_lazy("End this session")),
    "resume": ("mailboxes", "change", gettext_lazy("Resume")),
    "enable-pop3": ("mailboxes", "change", gettext_lazy("Enable POP3")),
    "let-in": ("why", "reset", gettext_lazy("Let this network in")),
    "reopen": ("mailboxes", "reopen", gettext_lazy("Reopen")),
    "reopen-domain": ("domains", "delete", gettext_lazy("Reopen the domain")),
    "set-password": ("mailboxes", "password", gettext_lazy("Set a new password")),
    "networks": ("mailboxes", "change", gettext_lazy("Change its networks")),
    "quota": ("mailboxes", "change", gettext_lazy("Give it more room")),
    "app-password": ("app-passwords", "create", gettext_lazy("Make a new app password")),
    "login": ("logins", "change", gettext_lazy("See the login")),
    "second-step": ("logins", "password", gettext_lazy("Reset the second step")),
    "check-domain": ("domains", "check", gettext_lazy("Check DNS")),
    "domain-limits": ("domains", "limits", gettext_lazy("Change the domain's limits")),
    "tenant-limits": ("tenants", "limits", gettext_lazy("Change the tenant's limits")),
    "alias": ("aliases", "change", gettext_lazy("Change the alias")),
    "add-mailbox": ("mailboxes", "create", gettext_lazy("Add this mailbox")),
    "mailbox": ("mailboxes", "read", gettext_lazy("See the mailbox")),
    "failed-logins": ("why", "read", gettext_lazy("See all failed logins")),
}
"""By name, what of the table of permissions it takes, and its title."""

LOOK: Final = "look"
"""The action of looking at another address."""


def typed(text: str, *, default_domain: str) -> str:
    """The address that somebody means who pastes it from anywhere: with mailto:, a name, brackets, blanks.

    A bare name is one of the default domain. Raises `BadAddress`.
    """
    text = text[:_MOST_TYPED].strip()
    if in_brackets := re.search(r"<([^<>]*)>", text):
        text = in_brackets[1]
    if text.lower().startswith("mailto:"):
        text = unquote(text[len("mailto:") :].partition("?")[0])
    return addresses.login(text.strip(" \t\r\n\"'()[],;:."), default_domain=default_domain)


def findings(address: str, principal: Principal, config: Config) -> list[Finding]:
    """Why nobody can sign in as `address`, in normal form, or why its mail is refused; or that all is well.

    As far as `principal` may know, with what it may do about it. About the address first, then about logins, then
    about mail; each with what explains the most first.
    """
    found = list(_Look(address, principal, config).all())
    about, severities = list(About), list(Severity)
    return sorted(found, key=lambda one: (about.index(one.about), severities.index(one.severity)))


class _Look:
    """One look at one address."""

    def __init__(self, address: str, principal: Principal, config: Config) -> None:
        self._address = address
        self._local, self._host = addresses.split(address)
        self._who = principal
        self._config = config
        self._now = timezone.now()
        self._devices: dict[int, str] = {}  # looked up once each

    def all(self) -> Iterator[Finding]:
        domain = Domain.objects.visible_to(self._who).filter(name=self._host).select_related("tenant", "alias_of")
        self._domain: Domain | None = domain.first()
        staff = User.objects.visible_to(self._who).filter(email=self._address, mailbox=None).first()
        if staff:
            yield from self._of_staff(staff)
        if self._domain is None:
            if staff is None:
                yield self._unknown_domain()
            return
        yield from self._of_domain(self._domain)
        if self._domain.closed_at:
            yield from self._closed_mailbox()
            return
        mailbox = self._mailboxes().open().filter(address=self._address).first()
        going = self._going()
        boxes = list(self._mailboxes().open().filter(pk__in=[row.mailbox for row in going if row.mailbox])[:_MOST])
        yield from self._of_address(mailbox, going, boxes)
        user_of = mailbox or (boxes[0] if len(boxes) == 1 else None)
        if user_of:
            yield from self._logins(user_of)
        for box in boxes:
            yield from self._mail(box)

    # --- The address ---

    def _unknown_domain(self) -> Finding:
        names = list(Domain.objects.visible_to(self._who).filter(closed_at=None).values_list("name", flat=True)[:200])
        alike = get_close_matches(self._host, names, n=3, cutoff=0.75)
        text = _("The domain %(domain)s is not hosted here.") % {"domain": self._host}
        return self._say(
            "unknown-domain",
            About.ADDRESS,
            Severity.WRONG,
            text,
            {"domain": self._host, "similar": [f"{self._local}@{name}" for name in alike]},
            *(_look(f"{self._local}@{name}") for name in alike),
        )

    def _of_domain(self, domain: Domain) -> Iterator[Finding]:
        names = {"domain": domain.name}
        if domain.tenant.closed_at:
            text = _("The tenant %(tenant)s was closed on %(when)s: nothing of it can be used.")
            given = {"tenant": str(domain.tenant), "when": self._when(domain.tenant.closed_at)}
            yield self._say("tenant-closed", About.ADDRESS, Severity.WRONG, text % given, names)
        elif domain.closed_at:
            text = _("The domain %(domain)s was closed on %(when)s: it takes no mail, and its mailboxes are closed.")
            given = {"domain": domain.name, "when": self._when(domain.closed_at)}
            reopen = self._do("reopen-domain", domain.pk)
            yield self._say("domain-closed", About.ADDRESS, Severity.WRONG, text % given, names, reopen)
        if domain.closed_at:
            return
        if domain.state == Domain.State.PENDING and self._config.unverified != "receive":
            text = _("Nobody has shown yet that %(domain)s is the tenant's: until then its mail is refused.")
            check = self._do("check-domain", domain.pk)
            yield self._say("domain-unverified", About.MAIL, Severity.WRONG, text % names, names, check)
        elif domain.state != Domain.State.VERIFIED:
            text = _("DNS does not show that %(domain)s is the tenant's. Mail is taken all the same.")
            check = self._do("check-domain", domain.pk)
            yield self._say("domain-unverified", About.MAIL, Severity.NOTE, text % names, names, check)
        if domain.alias_of:
            there = f"{self._local}@{domain.alias_of}"
            text = _("%(domain)s is an alias domain: mail is for %(address)s, and so is the login.")
            given = {"domain": domain.name, "address": there}
            yield self._say("alias-domain", About.ADDRESS, Severity.NOTE, text % given, given, _look(there))

    def _going(self) -> "list[_Going]":
        """Where its mail goes, found as a delivery finds it."""
        parameters = {"addresses": self._address, "subaddress": self._config.subaddress}
        with connection.cursor() as cursor:
            cursor.execute(delivery.FIND, parameters)
            rows = cursor.fetchall()
        return [_Going(row[4], row[10] or "", row[11], row[12] or "") for row in rows if row[4] or row[10]]

    def _of_address(self, mailbox: Mailbox | None, going: "list[_Going]", boxes: list[Mailbox]) -> Iterator[Finding]:
        aliases = Alias.objects.visible_to(self._who)
        if mailbox is None:
            yield from self._not_a_login(going, boxes)
        if not going:
            yield from self._nowhere(aliases.filter(address=self._address).prefetch_related("targets__mailbox").first())
        alias = next((row for row in going if row.alias_id), None)
        if alias:
            yield from self._by_alias(alias, going, boxes)
        elif mailbox is None and boxes:
            text = _("Mail for %(address)s goes to %(mailbox)s.")
            facts = {"address": self._address, "mailbox": boxes[0].address}
            yield self._say("goes-to", About.ADDRESS, Severity.NOTE, text % facts, facts)
        outside = [row.outside for row in going if row.outside]
        if outside and not self._config.forwards:
            text = _("Mail to addresses outside is put off: this host has no server that takes it there.")
            yield self._say("no-forwarding", About.MAIL, Severity.WRONG, text, {"outside": outside})

    def _not_a_login(self, going: "list[_Going]", boxes: list[Mailbox]) -> Iterator[Finding]:
        """Somebody signs in with a mailbox's own address only."""
        if not going:
            return
        names = [box.address for box in boxes]
        facts = {"address": self._address, "mailboxes": names}
        if boxes:
            text = ngettext(
                "Nobody signs in as %(address)s, which has no password of its own: sign in as %(mailboxes)s.",
                "Nobody signs in as %(address)s, which has no password of its own: sign in as one of %(mailboxes)s.",
                len(boxes),
            )
        else:
            text = _("Nobody signs in as %(address)s: there is no mailbox of that name.")
        given = {"address": self._address, "mailboxes": _listed(names)}
        looks = (_look(box.address) for box in boxes)
        yield self._say("not-a-login", About.LOGIN, Severity.WRONG, text % given, facts, *looks)
        yield from self._tried()

    def _by_alias(self, first: "_Going", going: "list[_Going]", boxes: list[Mailbox]) -> Iterator[Finding]:
        names = [box.address for box in boxes] + [row.outside for row in going if row.outside]
        unseen = sum(1 for row in going if row.mailbox) - len(boxes)
        if unseen > 0:
            text = ngettext("%(count)s further mailbox", "%(count)s further mailboxes", unseen)
            names.append(text % {"count": unseen})
        if first.alias.startswith("@"):
            text = _("No mailbox has this name. The catch-all of %(domain)s takes its mail, to %(targets)s.")
        else:
            text = _("%(alias)s is an alias: its mail goes to %(targets)s.")
        facts = {"alias": first.alias, "domain": self._host, "targets": names}
        change = self._do("alias", first.alias_id)
        given = {**facts, "targets": _listed(names)}
        yield self._say("alias", About.ADDRESS, Severity.NOTE, text % given, facts, change)

    def _nowhere(self, alias: Alias | None) -> Iterator[Finding]:
        """Nothing takes its mail."""
        facts = {"address": self._address}
        if alias and alias.expires_at and alias.expires_at <= self._now:
            text = _("The alias %(address)s expired on %(when)s: its mail is refused.")
            given = {**facts, "when": self._when(alias.expires_at)}
            change = self._do("alias", alias.pk)
            yield self._say("alias-expired", About.ADDRESS, Severity.WRONG, text % given, facts, change)
            return
        if alias:
            text = _("The alias %(address)s leads nowhere: the mailboxes that it goes to are closed.")
            change = self._do("alias", alias.pk)
            yield self._say("alias-empty", About.ADDRESS, Severity.WRONG, text % facts, facts, change)
            return
        closed = list(self._closed_mailbox())
        if closed:
            yield from closed
            yield from self._tried()
            return
        alike = self._alike()
        text = _("There is no mailbox and no alias %(address)s: its mail is refused, and nobody signs in with it.")
        actions: list[Action | None] = [_look(name) for name in alike]
        if self._domain and not self._domain.alias_of_id:
            actions.append(self._do("add-mailbox", self._address))
        yield self._say(
            "unknown-address", About.ADDRESS, Severity.WRONG, text % facts, {**facts, "similar": alike}, *actions
        )
        yield from self._tried()
        yield from self._refused(None)

    def _closed_mailbox(self) -> Iterator[Finding]:
        closed = self._mailboxes().exclude(closed_at=None).filter(address=self._address).order_by("-closed_at").first()
        if closed is None or self._mailboxes().open().filter(address=self._address).exists():
            return
        text = _("The mailbox %(address)s was closed on %(when)s. It can be reopened with its mail until it is purged.")
        facts = {"address": self._address, "mailbox": closed.pk, "closed_at": closed.closed_at}
        given = {**facts, "when": self._when(closed.closed_at)}
        actions = (self._do("reopen", closed.pk), self._do("mailbox", closed.pk))
        yield self._say("closed", About.ADDRESS, Severity.WRONG, text % given, facts, *actions)

    def _alike(self) -> list[str]:
        """Addresses of the domain that somebody may have meant."""
        assert self._domain
        domain = self._domain.alias_of or self._domain
        of_domain = Q(domain=domain) & Q(tenant=domain.tenant_id)
        names: list[str] = []
        for beginning in dict.fromkeys((self._local[:1], self._local[1:2])):  # the first letter may be one too many
            of_beginning = of_domain & Q(address__startswith=beginning)
            for rows in (self._mailboxes().open(), Alias.objects.visible_to(self._who)):
                names += rows.filter(of_beginning).order_by("address").values_list("address", flat=True)[:_CANDIDATES]
        by_local = {addresses.split(name)[0]: name for name in names if not name.startswith("@")}
        return [by_local[local] for local in get_close_matches(self._local, by_local, n=3, cutoff=0.7)]

    def _tried(self) -> Iterator[Finding]:
        """Somebody tried to sign in with an address that nobody has."""
        assert self._domain
        rows = FailedLogin.objects.visible_to(self._who).filter(
            subject=failed_logins.subject(self._domain), address=self._address, hour__gt=self._now - LOOKED_BACK
        )
        for row in _added_up(rows, "network", "through")[:_MOST]:
            text = ngettext(
                "A login with it failed once, from %(network)s through %(through)s on %(last)s.",
                "Logins with it failed %(count)s times, from %(network)s through %(through)s, the last on %(last)s.",
                row["count"],
            )
            yield self._say("tried", About.LOGIN, Severity.NOTE, text % self._told(row), _facts(row))

    def _of_staff(self, user: User) -> Iterator[Finding]:
        facts = {"login": self._address}
        see = self._do("login", user.pk)
        text = _("%(login)s is a login for the admin without a mailbox: it does not fetch mail over POP3.") % facts
        yield self._say("staff", About.ADDRESS, Severity.NOTE, text, facts, see)
        yield from self._of_user(user, see)
        rows = FailedLogin.objects.visible_to(self._who).filter(
            subject=failed_logins.subject(user), hour__gt=self._now - LOOKED_BACK
        )
        yield from self._failures(rows, user.last_login, user, None)
        if user.last_login:
            text = _("It signed in well on %(when)s.") % {"when": self._when(user.last_login)}
            yield self._say("last-login", About.LOGIN, Severity.GOOD, text, {"at": user.last_login})

    # --- Signing in ---

    def _logins(self, mailbox: Mailbox) -> Iterator[Finding]:
        found = list(self._against_login(mailbox))
        yield from found
        if mailbox.last_login_at:
            device = self._device(mailbox.last_login_app_password_id)
            given = {
                "mailbox": mailbox.address,
                "when": self._when(mailbox.last_login_at),
                "client": mailbox.last_login_address or _("this machine"),
                "device": device,
            }
            text = (
                _("%(mailbox)s signed in well on %(when)s from %(client)s with “%(device)s”.")
                if device
                else _("%(mailbox)s signed in well on %(when)s from %(client)s.")
            )
            facts = {"at": mailbox.last_login_at, "client_address": mailbox.last_login_address}
            yield self._say("last-login", About.LOGIN, Severity.GOOD, text % given, facts)
        else:
            text = _("Nobody has ever fetched mail from %(mailbox)s.") % {"mailbox": mailbox}
            yield self._say("never", About.LOGIN, Severity.NOTE, text)
        if not any(one.severity in (Severity.WRONG, Severity.WARNING) for one in found):
            text = _("Nothing that is stored keeps %(mailbox)s from signing in.") % {"mailbox": mailbox}
            yield self._say("login-well", About.LOGIN, Severity.GOOD, text)

    def _against_login(self, mailbox: Mailbox) -> Iterator[Finding]:
        names = {"mailbox": mailbox.address}
        if mailbox.state in (Mailbox.State.SUSPENDED, Mailbox.State.NO_LOGIN):
            text = (
                _("%(mailbox)s is suspended: nobody can sign in.")
                if mailbox.state == Mailbox.State.SUSPENDED
                else _("The login of %(mailbox)s is off.")
            ) % names + self._reason(mailbox)
            facts = {"state": mailbox.state, "state_reason": mailbox.state_reason}
            resume = self._do("resume", mailbox.pk)
            yield self._say("login-off", About.LOGIN, Severity.WRONG, text, facts, resume)
        yield from self._of_user(mailbox.user, self._do("login", mailbox.user_id), self._do("set-password", mailbox.pk))
        if not mailbox.pop3_enabled:
            text = _("POP3 is off for %(mailbox)s.") % names
            enable = self._do("enable-pop3", mailbox.pk)
            yield self._say("pop3-off", About.LOGIN, Severity.WRONG, text, {}, enable)
        if mailbox.allowed_networks:
            text = _("%(mailbox)s may be used over POP3 from these networks only: %(networks)s.")
            given = {**names, "networks": _listed(mailbox.allowed_networks)}
            networks = {"networks": mailbox.allowed_networks}
            change = self._do("networks", mailbox.pk)
            yield self._say("networks", About.LOGIN, Severity.NOTE, text % given, networks, change)
        rows = FailedLogin.objects.visible_to(self._who).filter(mailbox=mailbox, hour__gt=self._now - LOOKED_BACK)
        yield from self._failures(rows, mailbox.last_login_at, mailbox.user, mailbox)
        yield from self._throttled(mailbox, rows)
        yield from self._in_use(mailbox)

    def _of_user(self, user: User, *actions: Action | None) -> Iterator[Finding]:
        if not user.is_active:
            text = _("The login %(login)s is switched off.") % {"login": user}
            yield self._say("inactive", About.LOGIN, Severity.WRONG, text, {}, *actions)
        if not user.has_usable_password():
            text = _("No password was ever set for %(login)s.") % {"login": user}
            yield self._say("no-password", About.LOGIN, Severity.WRONG, text, {}, *actions)

    def _failures(
        self, rows: Any, last_login: datetime | None, user: User, mailbox: Mailbox | None
    ) -> Iterator[Finding]:
        see = self._do("failed-logins", mailbox.pk) if mailbox else None
        for row in _added_up(rows, "reason", "network", "through", "app_password_id")[:_MOST]:
            reason = FailedLogin.Reason(row["reason"])
            if reason == FailedLogin.Reason.IN_USE and row["last"] < self._now - _LATELY:
                continue
            since = last_login is None or row["last"] > last_login
            severity = Severity.WARNING if since and row["last"] > self._now - _LATELY else Severity.NOTE
            text = _FAILED[reason](row["count"]) % self._told(row) + " " + self._from(row)
            helps = self._do(_HELPS[reason], mailbox.pk) if mailbox and reason in _HELPS else None
            if reason == FailedLogin.Reason.SECOND_STEP:
                helps = self._do("second-step", user.pk)
            yield self._say(f"failed-{reason.value}", About.LOGIN, severity, text, _facts(row), helps, see)
            see = None  # once is enough

    def _throttled(self, mailbox: Mailbox, rows: Any) -> Iterator[Finding]:
        """Attempts that are refused now without a look at the password."""
        lately = rows.filter(hour__gt=self._now - timedelta(hours=2)).exclude(client_address=None)
        asked = lately.order_by("-last_at").values_list("client_address", flat=True)[: _MOST * 4]
        clients = [ip_address(text) for text in dict.fromkeys(asked)][:_MOST]
        known = set(
            mailbox.known_networks.filter(
                network__in=[throttle.near(client) for client in clients],
                last_login_at__gt=self._now - failed_logins.KNOWN_FOR,
            ).values_list("network", flat=True)
        )
        try:
            found = throttle.refusing(redis_url=self._config.redis_url, address=mailbox.address, clients=clients)
        except throttle.Away:
            text = _("Redis does not answer: whether attempts are refused for now cannot be told.")
            yield self._say("throttle-unknown", About.LOGIN, Severity.NOTE, text)
            return
        for one in found:
            if one.client and throttle.near(one.client) in known:
                continue
            minutes = max(1, round(one.seconds / 60))
            given = {"client": one.client, "minutes": minutes, "mailbox": mailbox.address}
            if one.client:
                text = ngettext(
                    "Too many logins have failed from %(client)s: its attempts are refused unseen for another minute.",
                    "Too many logins have failed from %(client)s: its attempts are refused unseen for another "
                    "%(minutes)s minutes.",
                    minutes,
                )
            else:
                text = ngettext(
                    "Too many logins have failed at %(mailbox)s: for another minute attempts from networks that never "
                    "signed in to it are refused unseen.",
                    "Too many logins have failed at %(mailbox)s: for another %(minutes)s minutes attempts from "
                    "networks that never signed in to it are refused unseen.",
                    minutes,
                )
            client = str(one.client) if one.client else None
            facts = {"client_address": client, "seconds": one.seconds}
            let_in = self._do("let-in", f"{mailbox.pk}/{client}") if client else None
            yield self._say("throttled", About.LOGIN, Severity.WARNING, text % given, facts, let_in)

    def _in_use(self, mailbox: Mailbox) -> Iterator[Finding]:
        opened = MaildropSession.objects.visible_to(self._who).filter(mailbox=mailbox, ended_at=None)
        for session in opened.select_related("listener").order_by("started_at")[:_MOST]:
            alive = session.listener.heartbeat_at > self._now - self._config.listener_ttl
            device = self._device(session.app_password_id)
            given = {
                "mailbox": mailbox.address,
                "client": session.client_address or _("this machine"),
                "when": self._when(session.started_at),
                "device": device,
            }
            if session.view:
                text = _("“%(device)s” fetches its own copy of %(mailbox)s from %(client)s since %(when)s.")
            elif device:
                text = _("The maildrop of %(mailbox)s is in use by “%(device)s” from %(client)s since %(when)s.")
            else:
                text = _("The maildrop of %(mailbox)s is in use from %(client)s since %(when)s.")
            state = (
                _("Its listener is alive: until that session ends, another is told that the maildrop is in use.")
                if alive
                else _("Its listener has gone: the next login takes the maildrop over.")
            )
            facts = {
                "session": str(session.pk), "client_address": session.client_address, "since": session.started_at,
                "listener_alive": alive,
            }  # fmt: skip
            severity = Severity.WARNING if alive and not session.view else Severity.NOTE
            end = self._do("end-session", session.pk)
            yield self._say("in-use", About.LOGIN, severity, f"{text % given} {state}", facts, end)

    # --- Mail ---

    def _mail(self, mailbox: Mailbox) -> Iterator[Finding]:
        found = [*self._against_mail(mailbox), *self._refused(mailbox)]
        yield from found
        last = Message.objects.visible_to(self._who).filter(mailbox=mailbox).order_by("-uid").first()
        if last:
            text = _("The last message for %(mailbox)s came on %(when)s from %(sender)s.")
            sender = last.reverse_path or last.sender or "<>"
            given = {"mailbox": mailbox.address, "when": self._when(last.delivered_at), "sender": sender}
            facts = {"at": last.delivered_at, "reverse_path": last.reverse_path}
            yield self._say("last-mail", About.MAIL, Severity.GOOD, text % given, facts)
        if not any(one.severity in (Severity.WRONG, Severity.WARNING) for one in found):
            text = _("Nothing that is stored keeps mail from %(mailbox)s.") % {"mailbox": mailbox}
            yield self._say("mail-well", About.MAIL, Severity.GOOD, text)

    def _against_mail(self, mailbox: Mailbox) -> Iterator[Finding]:
        names = {"mailbox": mailbox.address}
        if mailbox.state in (Mailbox.State.SUSPENDED, Mailbox.State.NO_RECEIVE):
            if mailbox.state != Mailbox.State.SUSPENDED:
                text = _("%(mailbox)s takes no mail for now: senders are asked to come again.")
            elif self._config.puts_off:
                text = _("%(mailbox)s is suspended: its mail is put off, and senders come again.")
            else:
                text = _("%(mailbox)s is suspended: its mail is refused.")
            text = text % names + self._reason(mailbox)
            facts = {"state": mailbox.state, "state_reason": mailbox.state_reason}
            resume = self._do("resume", mailbox.pk)
            yield self._say("mail-off", About.MAIL, Severity.WRONG, text, facts, resume)
        quota, used = mailbox.quota_octets, mailbox.used_octets
        if quota is not None and used >= quota * 0.9:
            full = used >= quota or quota - used <= min(quota // 100, 65536)
            text = (
                _("%(mailbox)s is full: %(used)s of %(quota)s. New mail finds no room.")
                if full
                else _("%(mailbox)s is nearly full: %(used)s of %(quota)s. Large messages find no room.")
            )
            given = {**names, "used": quotas.rounded(used), "quota": quotas.rounded(quota)}
            numbers = {"used_octets": used, "quota_octets": quota}
            severity = Severity.WRONG if full else Severity.WARNING
            more = self._do("quota", mailbox.pk)
            yield self._say("full" if full else "nearly-full", About.MAIL, severity, text % given, numbers, more)
        yield from self._pooled(mailbox)

    def _pooled(self, mailbox: Mailbox) -> Iterator[Finding]:
        """Limits that it shares with others: of its domain, its tenant, its reseller."""
        of_domain, of_tenant = Q(domain=mailbox.domain_id), Q(tenant=mailbox.tenant_id, domain=None)
        limited = Allowance.objects.filter(max_octets__lte=F("octets") + 65536).select_related("domain", "tenant")
        for allowance in limited.filter(of_domain | of_tenant):
            if allowance.domain:
                text = _("The domain %(name)s has no room left: all its mail takes %(used)s of %(most)s.")
                given, action = {"name": allowance.domain.name}, self._do("domain-limits", allowance.domain_id)
            elif self._who.domain_ids is None:
                text = _("The tenant %(name)s has no room left: all its mail takes %(used)s of %(most)s.")
                given, action = {"name": str(allowance.tenant)}, self._do("tenant-limits", allowance.tenant_id)
            else:  # who looks after some domains knows nothing of the whole
                text, given, action = _("The tenant has no room left for mail."), {}, None
            given |= {"used": quotas.rounded(allowance.octets), "most": quotas.rounded(allowance.max_octets)}
            facts = {"of": "domain" if allowance.domain else "tenant"}
            yield self._say("pool-full", About.MAIL, Severity.WRONG, text % given, facts, action)
        reseller = mailbox.tenant.reseller_id if self._who.tenant_id is None else None
        if reseller is not None and limited.filter(reseller=reseller).exists():
            text = _("The reseller of %(tenant)s has no room left for mail.") % {"tenant": mailbox.tenant}
            yield self._say("pool-full", About.MAIL, Severity.WRONG, text, {"of": "reseller"})

    def _refused(self, mailbox: Mailbox | None) -> Iterator[Finding]:
        """Mail that was refused: of the mailbox, or for addresses of the domain that nobody has."""
        rows = Refusal.objects.visible_to(self._who).filter(hour__gt=self._now - LOOKED_BACK, mailbox=mailbox)
        if mailbox is None:
            rows = rows.filter(domain=self._domain)
        found = rows.values("reason").annotate(
            total=Sum("count"), last=Max("last_at"), senders=ArrayAgg("sender_domain", distinct=True)
        )
        for row in found.order_by("-last"):
            senders = [name for name in row["senders"] if name][:_MOST]
            given = {
                "mailbox": mailbox.address if mailbox else self._host,
                "count": row["total"],
                "last": self._when(row["last"]),
                "senders": _listed(senders) if senders else "<>",
                "reason": _REFUSED.get(row["reason"], row["reason"]),
            }
            text = (
                ngettext(
                    "A message for %(mailbox)s was refused on %(last)s, from %(senders)s: %(reason)s.",
                    "%(count)s messages for %(mailbox)s were refused, the last on %(last)s, from %(senders)s: "
                    "%(reason)s.",
                    row["total"],
                )
                if mailbox
                else ngettext(
                    "A message for some address of %(mailbox)s was refused on %(last)s, from %(senders)s: %(reason)s.",
                    "%(count)s messages for addresses of %(mailbox)s were refused, the last on %(last)s, from "
                    "%(senders)s: %(reason)s.",
                    row["total"],
                )
            )
            severity = Severity.WARNING if mailbox and row["last"] > self._now - _LATELY else Severity.NOTE
            facts = {
                "reason": row["reason"], "count": row["total"], "last_at": row["last"], "sender_domains": senders,
            }  # fmt: skip
            more = self._do("quota", mailbox.pk) if mailbox and row["reason"] == Outcome.OVER_QUOTA else None
            yield self._say("refused", About.MAIL, severity, text % given, facts, more)

    # --- How it is said ---

    def _mailboxes(self) -> Any:
        return Mailbox.objects.visible_to(self._who).select_related("user", "tenant")

    def _say(
        self,
        code: str,
        about: About,
        severity: Severity,
        text: str,
        facts: dict[str, Any] | None = None,
        *actions: Action | None,
    ) -> Finding:
        return Finding(code, about, severity, str(text), facts or {}, tuple(one for one in actions if one))

    def _do(self, name: str, key: Any) -> Action | None:
        resource, verb, title = ACTIONS[name]
        return Action(name, key, str(title)) if permissions.may(self._who, resource, verb) else None

    def _device(self, app_password_id: int | None) -> str:
        """The name of a device, for whoever may know the devices."""
        if app_password_id is None:
            return ""
        if app_password_id not in self._devices and permissions.may(self._who, "app-passwords", "read"):
            named = AppPassword.objects.visible_to(self._who).filter(pk=app_password_id)
            self._devices[app_password_id] = named.values_list("name", flat=True).first() or ""
        return self._devices.get(app_password_id) or _("an app password")

    def _reason(self, mailbox: Mailbox) -> str:
        if not mailbox.state_reason:
            return ""
        return " " + _("The reason given: %(reason)s") % {"reason": mailbox.state_reason}

    def _told(self, row: dict[str, Any]) -> dict[str, Any]:
        """What sentences about failed logins name."""
        return {
            "count": row["count"],
            "network": _network(row["network"]),
            "through": _THROUGH[row["through"]],
            "last": self._when(row["last"]),
            "device": self._device(row.get("app_password_id")) or _("an app password"),
        }

    def _from(self, row: dict[str, Any]) -> str:
        text = (
            _("It came from %(client)s through %(through)s, on %(last)s.")
            if row["count"] == 1
            else _("They came from %(network)s through %(through)s, the last on %(last)s from %(client)s.")
        )
        return text % {**self._told(row), "client": row["client"] or _network(row["network"])}

    def _when(self, moment: datetime | None) -> str:
        assert moment
        ago = (
            _("just now")
            if self._now - moment < timedelta(minutes=1)
            else _("%(time)s ago") % {"time": timesince(moment, self._now, depth=1)}
        )
        return f"{date_format(localtime(moment), 'DATETIME_FORMAT')} ({ago})"


@dataclass(frozen=True)
class _Going:
    """Where a copy of its mail goes."""

    mailbox: int | None
    outside: str
    alias_id: int | None
    alias: str


Reason = FailedLogin.Reason
_FAILED: Final[dict[str, Callable[[int], str]]] = {
    Reason.PASSWORD: lambda n: ngettext("A wrong password.", "A wrong password, %(count)s times.", n),
    Reason.REVOKED: lambda n: ngettext(
        "The password of “%(device)s” was revoked, and is still used.",
        "The password of “%(device)s” was revoked, and was still used %(count)s times.",
        n,
    ),
    Reason.EXPIRED: lambda n: ngettext(
        "The password of “%(device)s” has expired, and is still used.",
        "The password of “%(device)s” has expired, and was still used %(count)s times.",
        n,
    ),
    Reason.NOT_MEANT: lambda n: ngettext(
        "The password of “%(device)s” is not for signing in there.",
        "The password of “%(device)s” is not for signing in there; it was tried %(count)s times.",
        n,
    ),
    Reason.NOT_FROM_THERE: lambda n: ngettext(
        "The password of “%(device)s” is not allowed from that network.",
        "The password of “%(device)s” is not allowed from that network; it was tried %(count)s times.",
        n,
    ),
    Reason.UNKNOWN: lambda n: ngettext("There was no such login.", "There was no such login, %(count)s times.", n),
    Reason.STATE: lambda n: ngettext(
        "The password was right, but the login was off.",
        "The password was right %(count)s times, but the login was off.",
        n,
    ),
    Reason.NO_POP3: lambda n: ngettext(
        "The password was right, but POP3 was off.", "The password was right %(count)s times, but POP3 was off.", n
    ),
    Reason.NETWORK: lambda n: ngettext(
        "The password was right, but the network is not one of those allowed.",
        "The password was right %(count)s times, but the network is not one of those allowed.",
        n,
    ),
    Reason.SECOND_STEP: lambda n: ngettext(
        "The password was right, but the second step failed.",
        "The password was right %(count)s times, but the second step failed.",
        n,
    ),
    Reason.UNSEEN: lambda n: ngettext(
        "An attempt was refused without a look at the password, after too many failures.",
        "%(count)s attempts were refused without a look at the password, after too many failures.",
        n,
    ),
    Reason.IN_USE: lambda n: ngettext(
        "The password was right, but another session had the maildrop.",
        "The password was right %(count)s times, but another session had the maildrop.",
        n,
    ),
}
_THROUGH: Final = {
    FailedLogin.Through.POP3: "POP3",
    FailedLogin.Through.PAGES: gettext_lazy("the owner's pages"),
    FailedLogin.Through.ADMIN: gettext_lazy("the admin"),
}
_HELPS: Final = {
    Reason.PASSWORD: "set-password",
    Reason.REVOKED: "app-password",
    Reason.EXPIRED: "app-password",
    Reason.NOT_MEANT: "app-password",
    Reason.NOT_FROM_THERE: "app-password",
    Reason.NETWORK: "networks",
}
_REFUSED: Final = {
    Outcome.GONE: gettext_lazy("nobody has the address"),
    Outcome.SUSPENDED: gettext_lazy("it was suspended"),
    Outcome.DEFERRED: gettext_lazy("it took no mail for now"),
    Outcome.OVER_QUOTA: gettext_lazy("no room, by its quota or by a limit of its domain, tenant or reseller"),
    Outcome.LOOP: gettext_lazy("the alias had sent it outside before"),
    "unverified": gettext_lazy("the domain was not verified"),
    TOO_LARGE: gettext_lazy("larger than any message may be here"),
}


def _added_up(rows: Any, *columns: str) -> list[dict[str, Any]]:
    """Failed logins of all hours together, the latest first."""
    found = rows.values(*columns).annotate(
        total=Sum("count"),
        first=Min("first_at"),
        last=Max("last_at"),
        clients=ArrayAgg("client_address", order_by="-last_at", filter=~Q(client_address=None)),
    )
    return [
        {**row, "count": row["total"], "client": str(row["clients"][0]) if row["clients"] else None}
        for row in found.order_by("-last")[: _MOST * 2]
    ]


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    names = {"first": "first_at", "last": "last_at", "client": "client_address"}
    return {names.get(name, name): value for name, value in row.items() if name not in ("total", "reason", "clients")}


def _network(name: str) -> str:
    return {"": _("other networks"), "local": _("this machine")}.get(name, name)


def _listed(names: list[str]) -> str:
    return ", ".join(names)


def _look(address: str) -> Action:
    return Action(LOOK, address, _("Look at %(address)s") % {"address": address})
