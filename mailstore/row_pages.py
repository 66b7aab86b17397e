"""Pages of the admin about one mailbox or one domain, because of its mail: export, import, erase, move."""

from typing import Any, Final, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Sum
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, StreamingHttpResponse
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from accounts import audit, permissions, principals, quotas
from accounts.models import Domain, Mailbox, Tenant
from accounts.principals import Principal
from accounts.provisioning import REFUSALS
from accounts.scoped import Choice, RowPage, Scoped
from mailstore import exporting, moving, purging, tasks, why_pages
from mailstore.models import Message

Facts = list[tuple[str, Any]]

_FORMATS: Final[dict[str, Any]] = {
    "mbox": "mbox",
    "maildir": _lazy("Maildir (zip, unique-ids kept)"),
    "eml": _lazy("a file for each message (zip)"),
}


class _ExportForm(forms.Form):
    format = forms.ChoiceField(label=_lazy("Format"), choices=[(name, _FORMATS[name]) for name in exporting.FORMATS])
    removed = forms.BooleanField(required=False, label=_lazy("Also what can still be restored"))


class _MoveForm(forms.Form):
    def __init__(self, *args: Any, request: HttpRequest) -> None:
        super().__init__(*args)
        self.fields["tenant"] = forms.ModelChoiceField(
            Tenant.objects.visible_to(request.user).filter(closed_at=None),
            label=_("New tenant"),
            widget=Choice(Domain._meta.get_field("tenant"), admin.site),
        )


def _export(page: Scoped, request: HttpRequest, mailbox: Mailbox) -> HttpResponseBase:
    """Ask how; then the file, a piece at a time."""
    form = _ExportForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        chosen, removed = form.cleaned_data["format"], form.cleaned_data["removed"]
        audit.record("mailbox.exported", mailbox, detail={"format": chosen, "removed": removed})
        return StreamingHttpResponse(
            exporting.FORMATS[chosen](mailbox, removed=removed, principal=principals.acting()),
            content_type=exporting.MEDIA_TYPES[chosen],
            headers={"Content-Disposition": f'attachment; filename="{mailbox.pk}.{exporting.EXTENSIONS[chosen]}"'},
        )
    meaning = _("Who took it along is written in the audit. A file that breaks off is not whole.")
    facts = _mail(mailbox)
    return page.asking(
        request,
        mailbox,
        _("Export %(mailbox)s") % {"mailbox": mailbox},
        form=form,
        facts=facts,
        meaning=meaning,
        button=_("Export"),
    )


def _import(page: Scoped, request: HttpRequest, mailbox: Mailbox) -> HttpResponseBase:
    return HttpResponseRedirect(f"{reverse('admin:mailstore_importjob_add')}?{urlencode({'mailbox': mailbox.pk})}")


def _erase(page: Scoped, request: HttpRequest, mailbox: Mailbox) -> HttpResponseBase:
    """Say what goes; then let it go."""
    refusals = []
    if mailbox.legal_hold:
        refusals = [_("%(mailbox)s is on legal hold: its mail must be kept.") % {"mailbox": mailbox}]
    if request.method == "POST":
        try:
            purging.erase(mailbox)
        except REFUSALS as refusal:
            refusals = [f"{refusal}."]
        else:
            pk = mailbox.pk
            transaction.on_commit(lambda: tasks.erase.apply_async((pk,), retry=False), robust=True)
            page.message_user(
                request, _("%(mailbox)s is closed, and is being erased.") % {"mailbox": mailbox}, messages.SUCCESS
            )
            return page.to_list()
    return page.asking(
        request,
        mailbox,
        _("Erase %(mailbox)s") % {"mailbox": mailbox},
        refusals=refusals,
        meaning=_("It is closed, and removed with all its mail at once and for good. Nothing undoes it."),
        facts=_mail(mailbox),
        button="" if refusals else _("Erase for good"),
    )


def _move(page: Scoped, request: HttpRequest, domain: Domain) -> HttpResponseBase:
    """Ask where to; say what would move, or what holds on to it; move it."""
    form = _MoveForm(request.POST or None, request=request)
    title = _("Move %(domain)s to another tenant") % {"domain": domain}
    how: dict[str, Any] = {
        "meaning": _(
            "Its alias domains, mailboxes, aliases and all mail become the new tenant's. Open sessions end. The old"
            " tenant's staff and tokens let go of it."
        ),
        "form": form,
        "button": _("Look at it first"),
    }
    if request.method != "POST" or not form.is_valid():
        return page.asking(request, domain, title, **how)
    to = form.cleaned_data["tenant"]
    if to.pk == domain.tenant_id:
        return page.asking(
            request, domain, title, **how, refusals=[_("It is a domain of %(tenant)s already.") % {"tenant": to}]
        )
    try:
        if "apply" in request.POST:
            moved = moving.move_domain(domain, to=to)
            said = _("Moved to %(tenant)s: %(domains)s. Mailboxes: %(mailboxes)s, messages: %(messages)s.") % {
                "tenant": to,
                "domains": ", ".join(moved.names),
                "mailboxes": moved.mailboxes,
                "messages": moved.messages,
            }
            page.message_user(request, said, messages.SUCCESS)
            return page.to_row(domain)
        moved = moving.forecast(domain, to=to)
    except moving.Tied as tied:
        return page.asking(request, domain, title, **how, refusals=[f"{reason}." for reason in tied.reasons])
    except REFUSALS as refusal:
        return page.asking(request, domain, title, **how, refusals=[f"{refusal}."])
    facts: Facts = [
        (_("To"), to), (_("Domains"), ", ".join(moved.names)), (_("Mailboxes"), moved.mailboxes),
        (_("Of these, closed"), moved.closed), (_("Aliases"), moved.aliases), (_("Messages"), moved.messages),
        (_("Octets"), quotas.rounded(moved.octets)),
    ]  # fmt: skip
    kept = [("tenant", to.pk), ("apply", "yes")]
    return page.asking(request, domain, title, meaning=how["meaning"], facts=facts, kept=kept, button=_("Move"))


def _mail(mailbox: Mailbox) -> Facts:
    """What there is, with what can still be restored."""
    found = Message.objects.filter(mailbox=mailbox).order_by()
    octets = found.aggregate(sum=Sum("octets"))["sum"] or 0
    removed = found.expunged().count()
    return [(_("Messages"), found.count()), (_("Of these, removed"), removed), (_("Octets"), quotas.rounded(octets))]


def may_read_content(request: HttpRequest, row: Mailbox | Message) -> bool:
    """Whether the tenant's policy lets whoever looks read what is in messages."""
    principal = principals.of(request.user)
    try:
        permissions.check_content(cast("Principal", principal), row.tenant, default=settings.MAILHOST_CONTENT_ROLES)
    except permissions.NotAllowed:
        return False
    return True


def _is_open(row: Mailbox | Domain) -> bool:
    return row.closed_at is None


OF_MAILBOXES: Final = [
    RowPage("why", _lazy("Why?"), "why", "read", why_pages.of_mailbox, listed=False),
    RowPage("mail", _lazy("Export mail"), "mailboxes", "export", _export, permits=may_read_content),
    RowPage("bring", _lazy("Import mail"), "imports", "create", _import, _is_open),
    RowPage("erase", _lazy("Erase"), "mailboxes", "erase", _erase),
]
OF_DOMAINS: Final = [RowPage("move", _lazy("Move to another tenant"), "domains", "move", _move, _is_open)]
