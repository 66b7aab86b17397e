"""Overview, sessions, removed mail with restore, and export."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.contrib import messages as notes
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST, require_safe

from accounts.models import AppPassword
from accounts.pages import visits
from accounts.pages.visits import Owner
from mailstore import exporting, life, retention, sessions
from mailstore.models import MaildropSession, Message, MessageQuerySet
from mailstore.quota import QuotaExceeded

_ON_A_PAGE: Final = 50
_LATEST: Final = 5  # sessions of the overview


@require_safe
@visits.for_owner()
def overview(request: HttpRequest, owner: Owner) -> HttpResponseBase:
    """How full the mailbox is, who fetched from it last, what can be brought back."""
    mailbox = owner.mailbox
    percent = None
    if mailbox.quota_octets:
        percent = min(100, round(100 * mailbox.used_octets / mailbox.quota_octets))
    context = {
        "percent": percent,
        "sessions": _named(owner, _sessions(owner)[:_LATEST]),
        "removed": _removed(owner).count(),
        "kept": _kept(owner),
    }
    return visits.page(request, owner, "overview", **context)


@require_safe
@visits.for_owner()
def sessions_list(request: HttpRequest, owner: Owner) -> HttpResponseBase:
    """Who fetched the mail: each session that fetched or removed something, and those that are open."""
    listed = Paginator(_sessions(owner), _ON_A_PAGE).get_page(request.GET.get("page"))
    return visits.page(request, owner, "sessions", listed=listed, sessions=_named(owner, listed.object_list))


@require_safe
@visits.for_owner()
def session(request: HttpRequest, owner: Owner, id: UUID) -> HttpResponseBase:
    """One session, and what it removed."""
    found = _session(owner, id)
    removed = Paginator(retention.removed_in(found).order_by("-expunged_at", "-pk"), _ON_A_PAGE).get_page(
        request.GET.get("page")
    )
    [named] = _named(owner, [found])
    _tell_lives(owner, removed)
    return visits.page(request, owner, "session", session=named, listed=removed, kept=_kept(owner))


@require_POST
@visits.for_owner()
def end_session(request: HttpRequest, owner: Owner, id: UUID) -> HttpResponseBase:
    """End an open session."""
    found = _session(owner, id)
    if sessions.end(MaildropSession.objects.visible_to(owner.principal).filter(pk=found.pk)):
        notes.success(request, _("The session is ended. Nothing that it marked is removed."))
    return redirect("owner-sessions")


@require_POST
@visits.for_owner()
def undo_session(request: HttpRequest, owner: Owner, id: UUID) -> HttpResponseBase:
    """Bring back all that a session removed."""
    found = _session(owner, id)
    _restore(request, owner, retention.removed_in(found), undoing=found)
    return redirect("owner-session", id)


@require_safe
@visits.for_owner()
def removed(request: HttpRequest, owner: Owner) -> HttpResponseBase:
    """The messages that can be brought back, the last removed first."""
    words = request.GET.get("words", "").replace("\0", "").strip()
    found = _removed(owner)
    if words:
        found = found.filter(Q(subject__icontains=words) | Q(sender__icontains=words))
    listed = Paginator(found, _ON_A_PAGE).get_page(request.GET.get("page"))
    _tell_lives(owner, listed)
    return visits.page(request, owner, "removed", listed=listed, words=words, kept=_kept(owner))


@require_POST
@visits.for_owner()
def restore(request: HttpRequest, owner: Owner) -> HttpResponseBase:
    """Bring the chosen messages back."""
    given = request.POST.getlist("message")
    chosen = [int(text) for text in given if text.isascii() and text.isdigit() and len(text) < 19]
    back = request.POST.get("back", "")
    undoing = _session(owner, UUID(back)) if _is_id(back) else None
    if not chosen:
        notes.error(request, _("Choose the messages that are to come back."))
    else:
        removed = retention.removed_in(undoing) if undoing else _removed(owner)
        _restore(request, owner, removed.filter(pk__in=chosen), undoing=undoing)
    return redirect("owner-session", undoing.pk) if undoing else redirect("owner-removed")


@require_safe
@visits.for_owner()
def export(request: HttpRequest, owner: Owner) -> HttpResponseBase:
    """All mail in one file."""
    chosen = request.GET.get("format", "")
    if not chosen:
        return visits.page(request, owner, "export", removed=_removed(owner).count())
    if chosen not in exporting.FORMATS:
        raise Http404
    principal = owner.principal
    octets = exporting.FORMATS[chosen](owner.mailbox, removed="removed" in request.GET, principal=principal)
    name = f"{owner.mailbox.pk}.{exporting.EXTENSIONS[chosen]}"
    headers = {"Content-Disposition": f'attachment; filename="mail-{name}"'}
    return StreamingHttpResponse(octets, content_type=exporting.MEDIA_TYPES[chosen], headers=headers)


def _sessions(owner: Owner) -> QuerySet[MaildropSession]:
    found: QuerySet[MaildropSession] = MaildropSession.objects.visible_to(owner.principal).order_by("-started_at")
    return found


def _session(owner: Owner, id: UUID) -> MaildropSession:
    found = _sessions(owner).filter(pk=id).first()
    if found is None:
        raise Http404
    return found


def _removed(owner: Owner) -> MessageQuerySet:
    found: MessageQuerySet = Message.objects.visible_to(owner.principal).expunged().order_by("-expunged_at", "-pk")
    return found


def _tell_lives(owner: Owner, listed: Any) -> None:
    """Give each message of a page its `life`."""
    listed.object_list = list(listed.object_list)
    for message in listed.object_list:
        message.mailbox, message.tenant = owner.mailbox, owner.mailbox.tenant
    lives = life.of(listed.object_list, kept=settings.MAILHOST_RETENTION)
    for message in listed.object_list:
        message.life = lives[message.pk]


def _kept(owner: Owner) -> Any:
    """How long what was removed can be brought back."""
    return retention.kept_for(owner.mailbox, default=settings.MAILHOST_RETENTION)


def _restore(
    request: HttpRequest, owner: Owner, messages: MessageQuerySet, *, undoing: MaildropSession | None = None
) -> None:
    try:
        restored, *_rest = retention.restore(messages, by=owner.user, undoing=undoing)
    except QuotaExceeded:
        notes.error(request, _("There is no room for that many messages, so none came back. Make room first."))
        return
    text = ngettext(
        "%(number)s message is back. Your mail programs will fetch it as a new one.",
        "%(number)s messages are back. Your mail programs will fetch them as new ones.",
        restored,
    )
    notes.success(request, text % {"number": restored})


def _named(owner: Owner, rows: Iterable[MaildropSession]) -> list[dict[str, Any]]:
    """Sessions with the device that began each."""
    names: dict[int | None, str] = dict(AppPassword.objects.visible_to(owner.principal).values_list("pk", "name"))
    return [{"row": row, "device": names.get(row.app_password_id, ""), "seconds": _seconds(row)} for row in rows]


def _seconds(row: MaildropSession) -> int | None:
    ended: datetime | None = row.ended_at
    return None if ended is None else round((ended - row.started_at).total_seconds())


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
