"""The admin of the mail: what became of each message, who fetched it, what is brought along. What is in messages
stands on a page of its own (`mailstore.message_pages`)."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import BooleanField, Count, ExpressionWrapper, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from accounts import languages, quotas
from accounts.admin.domains import DomainAdmin
from accounts.admin.mailboxes import MailboxAdmin
from accounts.admin.provisioned import Provisioned, ProvisioningForm
from accounts.provisioning import BadValue, StillInUse
from accounts.scoped import ReadOnly, RowPage, Scoped, TenantFilter, is_operator
from mailstore import life, mailbox_pages, message_pages, retention, row_pages, sessions
from mailstore.dashboard import lists
from mailstore.importing import jobs
from mailstore.models import ImportJob, Listener, MaildropSession, Message
from mailstore.quota import QuotaExceeded
from mailstore.templatetags.life import lines

MailboxAdmin.row_pages.extend([*mailbox_pages.OF_MAILBOXES, *row_pages.OF_MAILBOXES])
MailboxAdmin.front = "messages"
DomainAdmin.row_pages.extend(row_pages.OF_DOMAINS)


for _model, _page in lists.PAGES.items():
    admin.site.register(_model, _page)


class PresenceFilter(admin.SimpleListFilter):
    title = _lazy("where it is")
    parameter_name = "where"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("maildrop", _("In the maildrop")), ("fetched", _("There, and fetched")), ("removed", _("Removed"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "maildrop":
                return queryset.in_maildrop()  # type: ignore[attr-defined,no-any-return]
            case "fetched":
                return queryset.in_maildrop().exclude(first_fetched_at=None)  # type: ignore[attr-defined,no-any-return]
            case "removed":
                return queryset.expunged()  # type: ignore[attr-defined,no-any-return]
        return queryset


@admin.register(Message)
class MessageAdmin(ReadOnly):
    """Delivered, first fetched by which device from which address, removed by which session: one look."""

    resource = "messages"
    list_display = ("delivered_at", "mailbox", "sender", "subject", "size", "first_fetched", "removed")
    list_display_links = ("delivered_at", "subject")
    list_filter = (PresenceFilter, lists.GoesFilter, TenantFilter)
    list_select_related = ("mailbox", "first_fetched_in", "expunged_in", "expunged_by")
    sortable_by = ()  # no index serves any other order
    ordering = ("-pk",)
    narrowed_by = ("mailbox__id__exact", "mailbox__domain__id__exact", "expunged_in__id__exact")
    # Without a mailbox to look in, words of a subject would be looked for in every message there is.
    search_fields = ("mailbox__address__startswith",)
    search_help_text = _lazy(
        "The beginning of the mailbox's address; in the messages of one mailbox: sender or subject."
    )
    actions = ("restore", "remove")
    fieldsets = (
        (None, {"fields": ("mailbox", "sender", "subject", "date", "message_id")}),
        (_lazy("Life"), {"fields": ("shown_life",)}),
        (_lazy("As it was delivered"), {"fields": ("reverse_path", "octets", "shown_unique_id", "shown_trace")}),
    )
    readonly_fields = ("shown_life", "shown_unique_id", "shown_trace")
    row_pages = message_pages.OF_MESSAGES

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related(*self.list_select_related)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if "mailbox__id__exact" not in request.GET or "\0" in term:
            return super().get_search_results(request, queryset, search_term)
        return queryset.filter(Q(subject__icontains=term) | Q(sender__icontains=term) | Q(message_id=term)), False

    def has_restore_permission(self, request: HttpRequest) -> bool:
        """For the action."""
        return self.may(request, "restore")

    def has_expunge_permission(self, request: HttpRequest) -> bool:
        """For the action."""
        return self.may(request, "expunge")

    @admin.action(permissions=["restore"], description=_lazy("Restore to the maildrop"))
    def restore(self, request: HttpRequest, queryset: QuerySet[Message]) -> None:
        try:
            restored, *_rest = retention.restore(queryset, by=_user(request))
        except QuotaExceeded as refusal:
            self.message_user(request, _("Nothing was restored: %(refusal)s.") % {"refusal": refusal}, messages.ERROR)
        else:
            self.message_user(
                request,
                _("Restored: %(restored)s. They are new to every client.") % {"restored": restored},
                messages.SUCCESS,
            )

    @admin.action(permissions=["expunge"], description=_lazy("Remove from the maildrop"))
    def remove(self, request: HttpRequest, queryset: QuerySet[Message]) -> None:
        removed, *_rest = retention.expunge(queryset, by=_user(request))
        self.message_user(
            request,
            _("Removed: %(removed)s. They can be restored until they are purged.") % {"removed": removed},
            messages.SUCCESS,
        )

    @admin.display(description=_lazy("size"))
    def size(self, message: Message) -> str:
        return quotas.rounded(message.octets)

    @admin.display(description=_lazy("first fetched"))
    def first_fetched(self, message: Message) -> str:
        if message.first_fetched_at is None:
            return _("not yet")
        return f"{_time(message.first_fetched_at)} {_from(message.first_fetched_in)}"

    @admin.display(description=_lazy("removed"))
    def removed(self, message: Message) -> str:
        if message.expunged_at is None:
            return _("no")
        if message.expunged_in_id:
            return f"{_time(message.expunged_at)} {_from(message.expunged_in)}"
        return _("%(time)s by %(who)s") % {"time": _time(message.expunged_at), "who": _who(message)}

    @admin.display(description=_lazy("what happened to it"))
    def shown_life(self, message: Message) -> str:
        [events] = life.of([message], kept=settings.MAILHOST_RETENTION).values()
        return render_to_string("mailstore/life.html", lines(events, "admin:mailstore_maildropsession_change"))

    @admin.display(description=_lazy("unique-id"))
    def shown_unique_id(self, message: Message) -> str:
        return message.unique_id

    @admin.display(description=_lazy("trace"))
    def shown_trace(self, message: Message) -> str:
        return format_html("<pre>{}</pre>", bytes(message.trace).decode(errors="replace"))


class OpenFilter(admin.SimpleListFilter):
    title = _lazy("open")
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", _("Open now")), ("no", _("Ended"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "yes":
                return queryset.filter(ended_at=None)
            case "no":
                return queryset.exclude(ended_at=None)
        return queryset


@admin.register(MaildropSession)
class MaildropSessionAdmin(ReadOnly):
    """POP3 sessions: those that are open, and those that fetched or removed something."""

    audited = False  # it names rows by their numbers, and these have none
    resource = "sessions"
    list_display = ("started_at", "mailbox", "client_address", "secure", "how_ended", "fetched", "expunged")
    list_filter = (OpenFilter, "end", "secure", TenantFilter)
    list_select_related = ("mailbox",)
    sortable_by = ()
    ordering = ("-ended_at",)  # by the index: open ones first, then the latest
    narrowed_by = ("mailbox__id__exact", "listener__id__exact")
    search_fields = ("mailbox__address__startswith",)
    search_help_text = _lazy("The beginning of the mailbox's address.")
    actions = ("end",)
    readonly_fields = ("device", "how_ended", "pages")
    row_pages: ClassVar = mailbox_pages.OF_SESSIONS

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        where = ("listener",) if is_operator(request) else ()
        return (
            "mailbox", "device", "client_address", "secure", *where, "started_at", "how_ended", "fetched", "expunged",
            "pages",
        )  # fmt: skip

    def has_end_permission(self, request: HttpRequest) -> bool:
        """For the action."""
        return self.may(request, "end")

    @admin.action(permissions=["end"], description=_lazy("End the session; nothing it marked is removed"))
    def end(self, request: HttpRequest, queryset: QuerySet[MaildropSession]) -> None:
        self.message_user(request, _("Ended: %(number)s.") % {"number": sessions.end(queryset)}, messages.SUCCESS)

    @admin.display(description=_lazy("signed in with"))
    def device(self, session: MaildropSession) -> str:
        if session.app_password_id is None:
            return _("the mailbox's password")
        return life.seen_in([session])[session.pk].device or _("a device that is gone")

    @admin.display(description=_lazy("ended"))
    def how_ended(self, session: MaildropSession) -> str:
        if session.ended_at is None:
            return _("open")
        return f"{_time(session.ended_at)} ({session.get_end_display()})"

    @admin.display(description=_lazy("pages"))
    def pages(self, session: MaildropSession) -> str:
        path = reverse("admin:accounts_mailbox_messages", args=[session.mailbox_id])
        return format_html(
            '<a class="text-primary-600 dark:text-primary-500" href="{}?session={}#mail">{}</a>',
            path,
            session.pk,
            _("Messages that it fetched or removed"),
        )


# --- What is brought along -----------------------------------------------------------------------------------------

_OPEN: Final = (ImportJob.State.WAITING, ImportJob.State.RUNNING)
_RELOADED: Final = 5  # seconds after which a page about an import that has not ended is shown again
_PASSWORD: Final = forms.PasswordInput(attrs={"autocomplete": "new-password"})


class ImportJobAddForm(ProvisioningForm):
    port = forms.IntegerField(
        label=_lazy("Port"), required=False, min_value=1, max_value=65535, help_text=_lazy("Empty: the protocol's.")
    )
    security = forms.ChoiceField(
        label=_lazy("Security"), choices=[("tls", "TLS"), ("starttls", "STARTTLS"), ("none", _lazy("none"))]
    )
    password = forms.CharField(
        label=_lazy("Password"),
        required=False,
        strip=False,
        max_length=1000,
        widget=_PASSWORD,
        help_text=_lazy("Kept encrypted until the import ends."),
    )
    file = forms.FileField(
        label=_lazy("File"),
        required=False,
        help_text=_lazy("An mbox, or a zip with a Maildir or .eml files; of a server: none."),
    )

    class Meta:
        model = ImportJob
        fields = ("mailbox", "source", "host", "login", "folder", "uidl_format")
        labels: ClassVar = {"uidl_format": _lazy("UIDL format")}

    def write(self) -> ImportJob:
        values = {name: value for name, value in self.cleaned_data.items() if name != "file"}
        mailbox = values.pop("mailbox")
        if mailbox.closed_at is not None:
            raise BadValue(_("it is closed"), field="mailbox")
        with _told():
            if values["source"] != ImportJob.Source.UPLOAD:
                if not settings.MAILHOST_PRIVATE_TARGETS and values["host"]:
                    jobs.check_public(values["host"])
                return jobs.start(mailbox, secret=settings.SECRET_KEY, **values)
            given = {"source": values["source"], "uidl_format": values["uidl_format"], "upload": self._saved()}
            try:
                return jobs.start(mailbox, secret=settings.SECRET_KEY, **given)
            except BaseException:
                with suppress(OSError):
                    (_uploads() / given["upload"]).unlink()
                raise

    def _saved(self) -> str:
        """The name under which the file is kept for the job. Raises `BadValue`."""
        file = self.cleaned_data["file"]
        if file is None:
            raise BadValue(_("choose a file"), field="file")
        limit = settings.MAILHOST_MAX_UPLOAD
        try:
            return jobs.save_upload(file.chunks(), directory=_uploads(), limit=limit)
        except jobs.UploadTooLarge:
            raise BadValue(
                _("a file has at most %(number)s octets here") % {"number": quotas.rounded(limit)}, field="file"
            ) from None


class _RestartForm(forms.Form):
    password = forms.CharField(
        label=_lazy("Password"), strip=False, max_length=1000, widget=_PASSWORD, help_text=_lazy("It was forgotten.")
    )


def _restart(page: Scoped, request: HttpRequest, job: ImportJob) -> HttpResponseBase:
    """Ask for the password, if one is needed; go on."""
    remote = job.source != ImportJob.Source.UPLOAD
    form = _RestartForm(request.POST or None) if remote else None
    refusals = []
    if request.method == "POST" and (form is None or form.is_valid()):
        try:
            with _told():
                jobs.restart(job, form.cleaned_data["password"] if form else "", secret=settings.SECRET_KEY)
        except (BadValue, StillInUse) as refusal:
            refusals = [f"{refusal}."]
        else:
            page.message_user(request, _("It goes on."), messages.SUCCESS)
            return page.to_row(job)
    facts = [(_("Mailbox"), job.mailbox), (_("From"), _whence(job)), (_("Login"), job.login)][: 3 if remote else 2]
    return page.asking(
        request,
        job,
        _("Go on with %(job)s") % {"job": job},
        meaning=_("What came along before is left out."),
        facts=facts,
        form=form,
        refusals=refusals,
        button=_("Go on"),
    )


def _cancel(page: Scoped, request: HttpRequest, job: ImportJob) -> HttpResponseBase:
    if request.method == "POST":
        jobs.cancel(job)
        page.message_user(request, _("It is cancelled."), messages.SUCCESS)
        return page.to_row(job)
    facts = [(_("Mailbox"), job.mailbox), (_("From"), _whence(job)), (_("Imported"), job.imported)]
    return page.asking(
        request,
        job,
        _("Cancel %(job)s") % {"job": job},
        meaning=_("What came along stays."),
        facts=facts,
        button=_("Cancel the import"),
    )


def _has_ended(job: ImportJob) -> bool:
    return job.state not in _OPEN


@admin.register(ImportJob)
class ImportJobAdmin(Provisioned):
    """Mail that is brought along from other servers, or out of a file, in the background."""

    resource = "imports"
    add_form = ImportJobAddForm
    list_display = (
        "created_at", "mailbox", "tenant", "source", "host", "state", "progress", "skipped", "failed", "ended_at",
    )  # fmt: skip
    list_filter = ("state", "source", TenantFilter)
    list_select_related = ("mailbox", "tenant")
    sortable_by = ()
    ordering = ("-pk",)
    narrowed_by = ("mailbox__id__exact",)
    search_fields = ("mailbox__address__startswith",)
    search_help_text = _lazy("The beginning of the mailbox's address.")
    autocomplete_fields = ("mailbox",)
    actions = ("cancel", "restart")
    row_pages: ClassVar = [
        RowPage("cancel", _lazy("Cancel"), "imports", "change", _cancel, lambda job: not _has_ended(job)),
        RowPage("restart", _lazy("Go on"), "imports", "change", _restart, _has_ended),
    ]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return (
                "mailbox", "source", "host", "port", "security", "login", "password", "folder", "uidl_format", "file",
            )  # fmt: skip
        where = () if obj.source == ImportJob.Source.UPLOAD else ("host", "port", "security", "login", "folder")
        return (
            "mailbox", "source", *where, "uidl_format", "state", "progress", "skipped", "failed", "shown_report",
            "created_at", "started_at", "ended_at",
        )  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("progress", "shown_report") if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # what it is stays; it is cancelled, and gone on with

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """For the actions."""
        return self.may(request, "change")

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        context |= {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        self.message_user(request, _("It goes on in the background. This page shows how far it is."), messages.SUCCESS)
        return self.to_row(obj)

    def changeform_view(
        self, request: HttpRequest, object_id: Any = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        response = super().changeform_view(request, object_id, form_url, extra_context)
        job = (getattr(response, "context_data", None) or {}).get("original")
        if job is not None and not _has_ended(job):
            response["Refresh"] = str(_RELOADED)
        return response

    @admin.action(permissions=["cancel"], description=_lazy("Cancel; what came along stays"))
    def cancel(self, request: HttpRequest, queryset: QuerySet[ImportJob]) -> None:
        found = list(queryset.filter(state__in=_OPEN))
        for job in found:
            jobs.cancel(job)
        self.message_user(request, _("Cancelled: %(number)s.") % {"number": len(found)}, messages.SUCCESS)

    @admin.action(permissions=["cancel"], description=_lazy("Go on with one that has ended"))
    def restart(self, request: HttpRequest, queryset: QuerySet[ImportJob]) -> HttpResponse | None:
        found = list(queryset[:2])
        if len(found) != 1:
            self.message_user(request, _("Choose one import."), messages.WARNING)
            return None
        return HttpResponseRedirect(reverse("admin:mailstore_importjob_restart", args=[found[0].pk]))

    @admin.display(description=_lazy("imported"))
    def progress(self, job: ImportJob) -> str:
        if job.total is None:
            return languages.number(job.imported)
        done = min(job.imported + job.skipped + job.failed, job.total)
        return format_html(
            '<progress max="{}" value="{}"></progress> {}', max(job.total, 1), done,
            _("%(number)s of %(total)s")
            % {"number": languages.number(job.imported), "total": languages.number(job.total)},
        )  # fmt: skip

    @admin.display(description=_lazy("report"))
    def shown_report(self, job: ImportJob) -> str:
        said = jobs.report(job)
        return format_html("<pre>{}</pre>", "\n".join(said)) if said else _("nothing went wrong")


@contextmanager
def _told() -> Iterator[None]:
    """What imports refuse, as words of provisioning."""
    try:
        yield
    except jobs.BadImport as refusal:
        raise BadValue(str(refusal), field=refusal.field) from None
    except jobs.AlreadyRunning:
        raise StillInUse(_("the mailbox has an import that has not ended")) from None


def _uploads() -> Path:
    directory: Path = settings.MAILHOST_DATA / "uploads"
    return directory


def _whence(job: ImportJob) -> str:
    return job.host or str(job.get_source_display())


class KindFilter(admin.SimpleListFilter):
    title = _lazy("kind")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("pop3", "POP3"), ("lmtp", "LMTP")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


class AliveFilter(admin.SimpleListFilter):
    title = _lazy("heartbeat")
    parameter_name = "alive"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _lazy("Alive")), ("no", _lazy("Gone"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in ("yes", "no"):
            return queryset.filter(alive=self.value() == "yes")
        return queryset


@admin.register(Listener)
class ListenerAdmin(ReadOnly):
    """Listener processes. One without a heartbeat is gone, and its row goes with the next purge."""

    audited = False
    resource = "listeners"
    list_display = ("kind", "host", "pid", "started_at", "heartbeat_at", "alive", "open_sessions")
    list_filter = (KindFilter, AliveFilter)
    ordering = ("-heartbeat_at",)
    search_fields = ("host__startswith",)
    readonly_fields = ("alive", "open_sessions")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        open_sessions = MaildropSession.objects.filter(listener=OuterRef("pk"), ended_at=None).order_by()
        counted = open_sessions.values("listener").annotate(sessions=Count("*")).values("sessions")
        found: QuerySet[Any] = super().get_queryset(request)
        found = found.annotate(
            alive=ExpressionWrapper(Q(heartbeat_at__gte=Now() - settings.MAILHOST_LISTENER_TTL), BooleanField()),
            open_sessions=Coalesce(Subquery(counted), 0),
        )
        return found

    @admin.display(description=_lazy("alive"), boolean=True)
    def alive(self, listener: Any) -> bool:
        return bool(listener.alive)

    @admin.display(description=_lazy("open sessions"))
    def open_sessions(self, listener: Any) -> int:
        return int(listener.open_sessions)


def _time(moment: Any) -> str:
    return date_format(localtime(moment), "DATETIME_FORMAT")


def _from(session: MaildropSession | None) -> str:
    """Where somebody sat; a session's record may be purged before the messages that mention it."""
    if session is None:
        return _("in a session")
    return _("from %(address)s") % {"address": session.client_address or _("this machine")}


def _user(request: HttpRequest) -> Any:
    return request.user


def _who(message: Message) -> str:
    """Who expunged it, as he may be named: a tenant sees no operator's row."""
    try:
        by = message.expunged_by
    except ObjectDoesNotExist:
        by = None
    if message.expunged_by_id is None:
        return _("a command")
    return str(by) if by is not None and by.tenant_id else _("an operator")
