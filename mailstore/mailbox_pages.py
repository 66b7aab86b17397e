"""Pages of the admin that answer where a mailbox's mail went, and bring it back."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import messages as notes
from django.contrib.admin.utils import quote
from django.core.exceptions import ValidationError
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.http import urlencode
from django.utils.timezone import localtime, make_aware
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext_lazy

from accounts import languages
from accounts.models import Mailbox
from accounts.scoped import Bounded, RowPage, Scoped, dress, may
from mailstore import life, retention, search, sessions
from mailstore.life import Seen
from mailstore.models import MaildropSession, Message, MessageQuerySet, OwnCopy
from mailstore.quota import QuotaExceeded
from mailstore.row_pages import may_read_content
from mailstore.search import Wanted
from mailstore.templatetags.life import client

_ON_A_PAGE: Final = 25
_MOST_PAGES: Final = 400
_LATEST: Final = 5
"""Sessions that the page of the mail shows."""

MESSAGES: Final = "admin:accounts_mailbox_messages"
SESSIONS: Final = "admin:accounts_mailbox_sessions"
RESTORE: Final = "admin:accounts_mailbox_restore"


# --- The mail ------------------------------------------------------------------------------------------------------


class _SearchForm(forms.Form):
    """What is looked for; of a mailbox's messages."""

    words = forms.CharField(
        required=False, max_length=200, label=gettext_lazy("Subject, sender or Message-ID"), widget=forms.TextInput
    )
    since = forms.DateField(
        required=False,
        label=gettext_lazy("Delivered from"),
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )
    until = forms.DateField(
        required=False,
        label=pgettext_lazy("date", "through"),
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )
    where = forms.ChoiceField(
        required=False,
        choices=[("", ""), ("maildrop", ""), ("fetched", ""), ("removed", "")],
        widget=forms.HiddenInput,
    )
    session = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def __init__(self, data: Any, *, mailbox: Mailbox) -> None:
        super().__init__(data, auto_id="search-%s")
        self._mailbox = mailbox
        self.found_session: MaildropSession | None = None

    def clean_since(self) -> datetime | None:
        return _midnight(self.cleaned_data["since"])

    def clean_until(self) -> datetime | None:
        """The end of that day."""
        day: date | None = self.cleaned_data["until"]
        return _midnight(day + timedelta(days=1) if day and day < date.max else day)

    def clean_session(self) -> UUID | None:
        wanted: UUID | None = self.cleaned_data["session"]
        if wanted:
            self.found_session = _session(self._mailbox, wanted)
            if self.found_session is None:
                raise ValidationError(_("There is no such session of this mailbox any more."))
        return wanted

    def wanted(self) -> Wanted | None:
        """None if it cannot be."""
        if not self.is_valid():
            return None
        given = self.cleaned_data
        return Wanted(given["words"], given["where"], given["since"], given["until"], self.found_session)

    def query(self, **changed: str) -> str:
        """What was asked for, as the address of the page has it, with something else."""
        asked = {name: self.data.get(name, "") for name in self.fields} | changed
        return urlencode({name: value for name, value in asked.items() if value})


def _messages(page: Scoped, request: HttpRequest, mailbox: Mailbox) -> HttpResponseBase:
    """State, sessions, and the messages with their life."""
    form = _SearchForm(request.GET, mailbox=mailbox)
    dress(form)
    wanted, number = form.wanted(), _page_of(request)
    found: list[Message] = []
    too_broad = False
    if wanted:
        start = (number - 1) * _ON_A_PAGE
        try:
            with search.bounded():
                found = list(search.find(mailbox, wanted).defer("trace")[start : start + _ON_A_PAGE + 1])
        except search.TooBroad:
            too_broad = True
    listed = found[:_ON_A_PAGE]
    removed = Message.objects.filter(mailbox=mailbox).expunged().order_by()[: Bounded.MOST].count()
    context = {
        "form": form,
        "too_broad": too_broad,
        "searched": bool(form.query()),
        "listed": _lives(mailbox, listed),
        "filters": [
            (form.query(where=where), title, count, form.data.get("where", "") == where)
            for where, title, count in (
                ("", _("All"), ""),
                ("maildrop", _("In the maildrop"), languages.number(mailbox.message_count)),
                ("fetched", _("Fetched, and there"), ""),
                ("removed", _("Removed"), _at_most(removed)),
            )
        ],
        "of_session": _with_who([form.found_session])[0] if form.found_session else None,
        "without_session": form.query(session=""),
        "newer": form.query(page=str(number - 1)) if number > 1 else "",
        "is_second": number == 2,
        "older": form.query(page=str(number + 1)) if len(found) > _ON_A_PAGE and number < _MOST_PAGES else "",
        "last": len(found) > _ON_A_PAGE and number == _MOST_PAGES,
        "query": form.query(),
        "removed": removed,
        "kept": retention.kept_for(mailbox, default=settings.MAILHOST_RETENTION),
        "percent": _percent(mailbox),
        "last_seen": _last_seen(mailbox),
        "open": _with_who(_sessions(mailbox).filter(ended_at=None)),
        "latest": _with_who(_sessions(mailbox).exclude(ended_at=None)[:_LATEST]),
        **_verbs(request, mailbox),
    }
    return _shown(page, request, mailbox, "messages", context)


def _lives(mailbox: Mailbox, messages: list[Message]) -> list[tuple[Message, list[life.Event]]]:
    for message in messages:
        message.mailbox, message.tenant = mailbox, mailbox.tenant
    lives = life.of(messages, kept=settings.MAILHOST_RETENTION)
    return [(message, lives[message.pk]) for message in messages]


def _percent(mailbox: Mailbox) -> int | None:
    if not mailbox.quota_octets:
        return None if mailbox.quota_octets is None else 100
    return min(100, round(100 * mailbox.used_octets / mailbox.quota_octets))


def _last_seen(mailbox: Mailbox) -> Seen | None:
    """Who signed in last; of those before it was written down how, there is only where from."""
    if mailbox.last_login_at is None:
        return None
    session = MaildropSession(
        app_password_id=mailbox.last_login_app_password_id,
        client_address=mailbox.last_login_address,
        secure=bool(mailbox.last_login_secure),
    )
    return life.seen_in([session])[session.pk]


# --- The sessions --------------------------------------------------------------------------------------------------


def _sessions_page(page: Scoped, request: HttpRequest, mailbox: Mailbox) -> HttpResponseBase:
    """Who fetched and removed: each session that did, and those that are open."""
    number = _page_of(request)
    start = (number - 1) * _ON_A_PAGE
    found = list(_sessions(mailbox)[start : start + _ON_A_PAGE + 1])
    context = {
        "listed": _with_who(found[:_ON_A_PAGE]),
        "newer": urlencode({"page": number - 1}) if number > 1 else "",
        "older": urlencode({"page": number + 1}) if len(found) > _ON_A_PAGE and number < _MOST_PAGES else "",
        **_verbs(request, mailbox),
    }
    return _shown(page, request, mailbox, "sessions", context)


class _Session(NamedTuple):
    """A session as it is shown."""

    row: MaildropSession
    seen: Seen
    back: int
    """Messages that undoing it would bring back."""
    lasted: timedelta | None


def _with_who(rows: Iterable[MaildropSession]) -> list[_Session]:
    rows = list(rows)
    seen = life.seen_in(rows) if rows else {}
    removing = [row.pk for row in rows if row.expunged]
    own = [row.pk for row in rows if row.expunged and row.own_copy]
    back = Counter[UUID]()
    for found, column in (
        (Message.objects.filter(expunged_in__in=removing) if removing else None, "expunged_in"),
        (OwnCopy.objects.filter(removed_in__in=own, message__expunged_at=None) if own else None, "removed_in"),
    ):
        if found is not None:
            back.update(dict(found.order_by().values(column).annotate(n=Count("*")).values_list(column, "n")))
    return [
        _Session(row, seen[row.pk], back[row.pk], row.ended_at - row.started_at if row.ended_at else None)
        for row in rows
    ]


def _sessions(mailbox: Mailbox) -> QuerySet[MaildropSession]:
    found: QuerySet[MaildropSession] = MaildropSession.objects.filter(mailbox=mailbox).order_by("-started_at", "pk")
    return found


def _session(mailbox: Mailbox, key: UUID | str) -> MaildropSession | None:
    try:
        return _sessions(mailbox).filter(pk=UUID(str(key))).first()
    except ValueError:
        return None


def _end(page: Scoped, request: HttpRequest, mailbox: Mailbox) -> HttpResponseBase:
    """Say what it means; end a session."""
    session = _session(mailbox, request.POST.get("session") or request.GET.get("session", ""))
    back = reverse(MESSAGES, args=[quote(mailbox.pk)])
    if session is None or session.ended_at:
        notes.info(request, _("That session has ended."))
        return HttpResponseRedirect(back)
    if request.method == "POST":
        if sessions.end(_sessions(mailbox).filter(pk=session.pk)):
            notes.success(request, _("The session is ended. Nothing that it marked was removed."))
        else:
            notes.info(request, _("That session has ended."))
        return HttpResponseRedirect(back)
    [shown] = _with_who([session])
    return page.asking(
        request,
        mailbox,
        _("End the session of %(mailbox)s") % {"mailbox": mailbox},
        meaning=_(
            "Its connection is closed at once, and the maildrop is free for others. Nothing that it marked is removed;"
            " what it has fetched already, it has."
        ),
        facts=[
            (_("Since"), _moment(session.started_at)),
            (_("By"), client(shown.seen)),
            (_("Encrypted"), _("yes") if session.secure else _("no")),
        ],
        kept=[("session", session.pk)],
        button=_("End it"),
        back=back,
        tab="accounts_mailbox_sessions",
    )


# --- Bringing back, and taking out ---------------------------------------------------------------------------------


class _Chosen(NamedTuple):
    """Messages that something is to be done with."""

    messages: MessageQuerySet
    title: str
    kept: list[tuple[str, Any]]
    """What chose them, to be sent along."""
    facts: Sequence[tuple[str, Any]] = ()
    said: str = ""
    """What is said once it is done, before the numbers."""
    meaning: str = ""
    undoing: MaildropSession | None = None


class _Nothing(Exception):
    """Nothing was chosen; the text is for whoever asked."""


def _restore(page: Scoped, request: HttpRequest, mailbox: Mailbox) -> HttpResponseBase:
    """Say in numbers what would come back, and whether there is room; bring it back."""
    back = reverse(MESSAGES, args=[quote(mailbox.pk)])
    try:
        chosen = _chosen(request, mailbox, restoring=True)
    except _Nothing as nothing:
        notes.warning(request, str(nothing))
        return HttpResponseRedirect(back)
    forecast = retention.forecast(chosen.messages, mailbox, undoing=chosen.undoing)
    refusals = []
    if not forecast.messages:
        refusals = [_("None of them can be brought back: they are in the maildrop, or gone for good.")]
    elif forecast.missing:
        refusals = [
            _("There is no room: %(octets)s more are needed. Nothing is restored.")
            % {"octets": filesizeformat(forecast.missing)}
        ]
    elif request.method == "POST" and "apply" in request.POST:
        try:
            moved = retention.restore(chosen.messages, by=_user(request), undoing=chosen.undoing)
        except QuotaExceeded:
            refusals = [_("There is no room: a limit of whoever hosts the domain was reached. Nothing is restored.")]
        else:
            text = ngettext(
                "%(number)s message is back, %(octets)s. It is new to every mail program.",
                "%(number)s messages are back, %(octets)s. They are new to every mail program.",
                moved.messages,
            )
            done = text % {"number": languages.number(moved.messages), "octets": filesizeformat(moved.octets)}
            notes.success(request, f"{chosen.said} {done}".strip())
            return HttpResponseRedirect(f"{back}?where=maildrop")
    facts = [
        *chosen.facts,
        (_("Come back"), _counted(forecast.messages, forecast.octets)),
        (_("Space now"), _space(mailbox, 0)),
        (_("Space then"), _space(mailbox, forecast.octets)),
    ]
    return page.asking(
        request,
        mailbox,
        chosen.title,
        meaning=chosen.meaning or _("They come back into the maildrop, and are new to every mail program."),
        facts=facts,
        refusals=refusals,
        kept=[*chosen.kept, ("apply", "yes")],
        button="" if refusals else _("Restore"),
        back=back,
        tab="accounts_mailbox_messages",
    )


def _remove(page: Scoped, request: HttpRequest, mailbox: Mailbox) -> HttpResponseBase:
    """Say in numbers what would be taken out; take it out."""
    back = reverse(MESSAGES, args=[quote(mailbox.pk)])
    try:
        chosen = _chosen(request, mailbox, restoring=False)
    except _Nothing as nothing:
        notes.warning(request, str(nothing))
        return HttpResponseRedirect(back)
    there = chosen.messages.in_maildrop().order_by()
    found = there.aggregate(count=Count("*"), octets=Sum("octets"))
    count, octets = found["count"], int(found["octets"] or 0)
    kept = retention.kept_for(mailbox, default=settings.MAILHOST_RETENTION).days
    refusals = [] if count else [_("None of them is in the maildrop.")]
    if count and request.method == "POST" and "apply" in request.POST:
        moved = retention.expunge(chosen.messages, by=_user(request))
        text = ngettext(
            "%(number)s message is removed, %(octets)s.", "%(number)s messages are removed, %(octets)s.", moved.messages
        )
        notes.success(
            request, text % {"number": languages.number(moved.messages), "octets": filesizeformat(moved.octets)}
        )
        return HttpResponseRedirect(f"{back}?where=removed")
    return page.asking(
        request,
        mailbox,
        chosen.title,
        meaning=ngettext(
            "No mail program finds them any more. They can be brought back for %(number)s day, then they are gone for"
            " good.",
            "No mail program finds them any more. They can be brought back for %(number)s days, then they are gone for"
            " good.",
            kept,
        )
        % {"number": kept},
        facts=[
            (_("Are removed"), _counted(count, octets)),
            (_("Space then"), _space(mailbox, -octets)),
        ],
        refusals=refusals,
        kept=[*chosen.kept, ("apply", "yes")],
        button="" if refusals else _("Remove"),
        back=back,
        tab="accounts_mailbox_messages",
    )


def _chosen(request: HttpRequest, mailbox: Mailbox, *, restoring: bool) -> _Chosen:
    """What was asked for: some messages, all that a search finds, what a session removed, or what was there once.

    Raises `_Nothing`.
    """
    given = request.POST if request.method == "POST" else request.GET
    title = _("Restore messages of %(mailbox)s") if restoring else _("Remove messages of %(mailbox)s")
    title %= {"mailbox": mailbox}
    match given.get("what", ""):
        case "session" if restoring:
            return _of_session(mailbox, given.get("session", ""))
        case "then" if restoring:
            return _as_it_was(mailbox, given.get("at", ""))
        case "found":
            form = _SearchForm(given, mailbox=mailbox)
            wanted = form.wanted()
            if wanted is None:
                raise _Nothing(_("That cannot be looked for."))
            kept = [("what", "found"), *((name, given[name]) for name in form.fields if given.get(name))]
            try:
                with search.bounded():
                    keys = list(search.find(mailbox, wanted).order_by().values_list("pk", flat=True))
            except search.TooBroad:
                text = _("That takes too long to find. Say from when to when, or choose where they are.")
                raise _Nothing(text) from None
            return _Chosen(Message.objects.filter(mailbox=mailbox).among(keys), title, kept)
    keys = [int(key) for key in given.getlist("message") if key.isascii() and key.isdecimal() and len(key) < 19]
    if not keys:
        raise _Nothing(_("Choose messages first."))
    found: MessageQuerySet = Message.objects.filter(mailbox=mailbox, pk__in=keys)
    return _Chosen(found, title, [("message", key) for key in keys])


def _of_session(mailbox: Mailbox, key: str) -> _Chosen:
    session = _session(mailbox, key)
    if session is None:
        raise _Nothing(_("There is no such session of this mailbox any more."))
    [shown] = _with_who([session])
    facts: list[tuple[str, Any]] = [
        (_("Session"), _moment(session.started_at)),
        (_("By"), client(shown.seen)),
        (_("It removed"), _counted(session.expunged)),
    ]
    if gone := session.expunged - shown.back:
        facts.append((_("Of these back already, or gone for good"), _counted(gone)))
    return _Chosen(
        retention.removed_in(session),
        _("Undo a session of %(mailbox)s") % {"mailbox": mailbox},
        [("what", "session"), ("session", session.pk)],
        facts,
        _("The session is undone."),
        _("What it removed from the device's own copy comes back there, and is new to that device.")
        if session.own_copy
        else _("All that it removed comes back into the maildrop, and is new to every mail program."),
        session,
    )


def _as_it_was(mailbox: Mailbox, text: str) -> _Chosen:
    try:
        at: datetime = make_aware(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise _Nothing(_("Say a day and a time.")) from None
    if at > localtime():
        raise _Nothing(_("That is to come."))
    chosen = retention.removed_since(mailbox, at)
    kept = retention.kept_for(mailbox, default=settings.MAILHOST_RETENTION)
    facts = []
    if at < localtime() - kept:
        said = _("What was removed more than %(number)s days ago is gone for good.") % {"number": kept.days}
        facts = [(_("Not all"), said)]
    return _Chosen(
        chosen,
        _("Restore %(mailbox)s as it was") % {"mailbox": mailbox},
        [("what", "then"), ("at", text)],
        [(_("As it was"), _moment(at)), *facts],
        _("The maildrop has again what it had on %(moment)s.") % {"moment": _moment(at)},
        _("What was there then and was removed since comes back. What came later stays, too."),
    )


# --- Words ---------------------------------------------------------------------------------------------------------


def _shown(page: Scoped, request: HttpRequest, mailbox: Mailbox, name: str, context: dict[str, Any]) -> HttpResponse:
    context |= {
        **page.admin_site.each_context(request),
        "opts": page.opts,
        "object": mailbox,
        "mailbox": mailbox,
        "title": str(mailbox),
        "row_pages": page.pages_of(request, mailbox),
    }
    return TemplateResponse(request, f"admin/mailstore/mailbox_{name}.html", context)


def _verbs(request: HttpRequest, mailbox: Mailbox) -> dict[str, bool]:
    is_open = mailbox.closed_at is None
    return {
        "may_restore": is_open and may(request, "messages", "restore"),
        "may_remove": is_open and may(request, "messages", "expunge"),
        "may_end": may(request, "sessions", "end"),
        "may_read": may(request, "messages", "content") and may_read_content(request, mailbox),
    }


def _page_of(request: HttpRequest) -> int:
    text = request.GET.get("page", "")
    return min(max(int(text), 1), _MOST_PAGES) if text.isascii() and text.isdecimal() and len(text) < 9 else 1


def _at_most(count: int) -> str:
    return languages.number(min(count, Bounded.MOST)) + ("+" if count >= Bounded.MOST else "")


def _counted(messages: int, octets: int | None = None) -> str:
    text = ngettext("%(number)s message", "%(number)s messages", messages) % {"number": languages.number(messages)}
    return text if octets is None else f"{text}, {filesizeformat(octets)}"


def _space(mailbox: Mailbox, more: int) -> str:
    used = filesizeformat(max(0, mailbox.used_octets + more))
    if mailbox.quota_octets is None:
        return used
    return _("%(used)s of %(quota)s") % {"used": used, "quota": filesizeformat(mailbox.quota_octets)}


def _midnight(day: date | None) -> datetime | None:
    try:
        return make_aware(datetime.combine(day, time.min)) if day else None
    except OverflowError:
        return None


def _moment(at: datetime) -> str:
    return date_format(localtime(at), "DATETIME_FORMAT")


def _user(request: HttpRequest) -> Any:
    return request.user


def _removed_something(session: MaildropSession) -> bool:
    return bool(session.expunged)


def _is_open(mailbox: Mailbox) -> bool:
    return mailbox.closed_at is None


def _of_session_page(name: str, **query: str) -> Callable[[Scoped, HttpRequest, MaildropSession], HttpResponseBase]:
    """The page about its mailbox where that is done to a session."""

    def view(page: Scoped, request: HttpRequest, session: MaildropSession) -> HttpResponseBase:
        path = reverse(f"admin:accounts_mailbox_{name}", args=[quote(session.mailbox_id)])
        return HttpResponseRedirect(f"{path}?{urlencode({**query, 'session': str(session.pk)})}")

    return view


OF_SESSIONS: Final = [
    RowPage(
        "undo",
        gettext_lazy("Undo"),
        "messages",
        "restore",
        _of_session_page("restore", what="session"),
        _removed_something,
    ),
    RowPage(
        "stop",
        gettext_lazy("End it"),
        "sessions",
        "end",
        _of_session_page("end"),
        lambda session: session.ended_at is None,
    ),
]
OF_MAILBOXES: Final = [
    RowPage("messages", "Mail", "messages", "read", _messages, listed=False),
    RowPage("sessions", "Sessions", "sessions", "read", _sessions_page, listed=False),
    RowPage("restore", "Restore", "messages", "restore", _restore, _is_open, listed=False),
    RowPage("remove", "Remove", "messages", "expunge", _remove, _is_open, listed=False),
    RowPage("end", "End a session", "sessions", "end", _end, listed=False),
]
