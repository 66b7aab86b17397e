"""The admin of the mail: what became of each message, and who fetched it. It shows no content."""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import BooleanField, Count, ExpressionWrapper, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.timezone import localtime

from accounts import quotas
from accounts.admin import MAILBOX_PAGES
from accounts.scoped import ReadOnly, TenantFilter, is_operator, links
from mailstore import retention
from mailstore.models import Listener, MaildropSession, Message
from mailstore.quota import QuotaExceeded

MAILBOX_PAGES.extend(
    [
        ("Messages", "admin:mailstore_message_changelist"),
        ("Sessions", "admin:mailstore_maildropsession_changelist"),
    ]
)


class PresenceFilter(admin.SimpleListFilter):
    title = "where it is"
    parameter_name = "where"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("maildrop", "In the maildrop"), ("fetched", "There, and fetched"), ("removed", "Removed")]

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
    list_filter = (PresenceFilter, TenantFilter)
    list_select_related = ("mailbox", "first_fetched_in", "expunged_in", "expunged_by")
    sortable_by = ()  # no index serves any other order
    ordering = ("-pk",)
    narrowed_by = ("mailbox__id__exact", "expunged_in__id__exact")
    # Without a mailbox to look in, words of a subject would be looked for in every message there is.
    search_fields = ("mailbox__address__startswith",)
    search_help_text = "The beginning of the mailbox's address; in the messages of one mailbox: sender or subject."
    actions = ("restore", "remove")
    fieldsets = (
        (None, {"fields": ("mailbox", "sender", "subject", "date", "message_id")}),
        ("Life", {"fields": ("delivered_at", "first_fetched", "removed")}),
        ("As it was delivered", {"fields": ("reverse_path", "octets", "shown_unique_id", "shown_trace")}),
    )
    readonly_fields = ("first_fetched", "removed", "shown_unique_id", "shown_trace")

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

    @admin.action(permissions=["restore"], description="Restore to the maildrop")
    def restore(self, request: HttpRequest, queryset: QuerySet[Message]) -> None:
        try:
            restored, *_ = retention.restore(queryset, by=_user(request))
        except QuotaExceeded as refusal:
            self.message_user(request, f"Nothing was restored: {refusal}.", messages.ERROR)
        else:
            self.message_user(request, f"Restored: {restored}. They are new to every client.", messages.SUCCESS)

    @admin.action(permissions=["expunge"], description="Remove from the maildrop")
    def remove(self, request: HttpRequest, queryset: QuerySet[Message]) -> None:
        removed, *_ = retention.expunge(queryset, by=_user(request))
        self.message_user(request, f"Removed: {removed}. They can be restored until they are purged.", messages.SUCCESS)

    @admin.display(description="size")
    def size(self, message: Message) -> str:
        return quotas.rounded(message.octets)

    @admin.display(description="first fetched")
    def first_fetched(self, message: Message) -> str:
        if message.first_fetched_at is None:
            return "not yet"
        return f"{_time(message.first_fetched_at)} {_from(message.first_fetched_in)}"

    @admin.display(description="removed")
    def removed(self, message: Message) -> str:
        if message.expunged_at is None:
            return "no"
        if message.expunged_in_id:
            return f"{_time(message.expunged_at)} {_from(message.expunged_in)}"
        return f"{_time(message.expunged_at)} by {_who(message)}"

    @admin.display(description="unique-id")
    def shown_unique_id(self, message: Message) -> str:
        return message.unique_id

    @admin.display(description="trace")
    def shown_trace(self, message: Message) -> str:
        return format_html("<pre>{}</pre>", bytes(message.trace).decode(errors="replace"))


class OpenFilter(admin.SimpleListFilter):
    title = "open"
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Open now"), ("no", "Ended")]

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

    resource = "sessions"
    list_display = ("started_at", "mailbox", "client_address", "secure", "how_ended", "fetched", "expunged")
    list_filter = (OpenFilter, "end", "secure", TenantFilter)
    list_select_related = ("mailbox",)
    sortable_by = ()
    ordering = ("-ended_at",)  # by the index: open ones first, then the latest
    narrowed_by = ("mailbox__id__exact", "listener__id__exact")
    search_fields = ("mailbox__address__startswith",)
    search_help_text = "The beginning of the mailbox's address."
    readonly_fields = ("how_ended", "pages")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        where = ("listener",) if is_operator(request) else ()
        return (
            "mailbox", "client_address", "secure", *where, "started_at", "how_ended", "fetched", "expunged", "pages",
        )  # fmt: skip

    @admin.display(description="ended")
    def how_ended(self, session: MaildropSession) -> str:
        if session.ended_at is None:
            return "open"
        return f"{_time(session.ended_at)} ({session.get_end_display()})"

    @admin.display(description="pages")
    def pages(self, session: MaildropSession) -> str:
        return links(
            [("Messages that it removed", "admin:mailstore_message_changelist")], expunged_in__id__exact=session.pk
        )


@admin.register(Listener)
class ListenerAdmin(ReadOnly):
    """Listener processes. One without a heartbeat is gone, and its row goes with the next purge."""

    resource = "listeners"
    list_display = ("kind", "host", "pid", "started_at", "heartbeat_at", "alive", "open_sessions")
    list_filter = ("kind",)
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

    @admin.display(boolean=True)
    def alive(self, listener: Any) -> bool:
        return bool(listener.alive)

    @admin.display(description="open sessions")
    def open_sessions(self, listener: Any) -> int:
        return int(listener.open_sessions)


def _time(moment: Any) -> str:
    return f"{localtime(moment):%Y-%m-%d %H:%M}"


def _from(session: MaildropSession | None) -> str:
    """Where somebody sat; a session's record may be purged before the messages that mention it."""
    if session is None:
        return "in a session"
    return f"from {session.client_address or 'this machine'}"


def _user(request: HttpRequest) -> Any:
    return request.user


def _who(message: Message) -> str:
    """Who expunged it, as he may be named: a tenant sees no operator's row."""
    try:
        by = message.expunged_by
    except ObjectDoesNotExist:
        by = None
    if message.expunged_by_id is None:
        return "a command"
    return str(by) if by is not None and by.tenant_id else "an operator"
