"""What stands above every page about one mailbox: the other ones."""

from typing import Any, Final, NamedTuple

from django import template
from django.db.models import Model
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy as _

from accounts import permissions, principals
from accounts.models import Mailbox

register = template.Library()


class Tab(NamedTuple):
    """A page about a mailbox, or a list that can be narrowed to one."""

    title: Any
    view: str
    """Its URL's name in the admin."""
    resource: str
    verb: str
    """What whoever sees it may do (`accounts.permissions`)."""
    parameter: str = ""
    """By which a list is narrowed."""


TABS: Final = (
    Tab(_("Mail"), "accounts_mailbox_messages", "messages", "read"),
    Tab(_("Sessions"), "accounts_mailbox_sessions", "sessions", "read"),
    Tab(_("Why?"), "accounts_mailbox_why", "why", "read"),
    Tab(_("Settings"), "accounts_mailbox_change", "mailboxes", "read"),
    Tab(_("App passwords"), "accounts_apppassword_changelist", "app-passwords", "read", "mailbox__id__exact"),
    Tab(_("Failed logins"), "accounts_failedlogin_changelist", "why", "read", "mailbox__id__exact"),
    Tab(_("Imports"), "mailstore_importjob_changelist", "imports", "read", "mailbox__id__exact"),
    Tab(_("Audit"), "accounts_auditevent_changelist", "audit-events", "read", "mailbox_id__exact"),
)


_OF_MAILBOX: Final = {
    "message": "accounts_mailbox_messages",
    "maildropsession": "accounts_mailbox_sessions",
    "apppassword": "accounts_apppassword_changelist",
    "importjob": "mailstore_importjob_changelist",
}
"""By model of what belongs to a mailbox, the tab below which its pages stand."""


@register.inclusion_tag("admin/accounts/mailbox_tab_list.html", takes_context=True)
def mailbox_tabs(context: Any) -> dict[str, Any]:
    """The tabs of the mailbox that a page is about, or is about something of, if it is."""
    request = context["request"]
    principal: Any = principals.of(request.user)
    mailbox: Any = None
    tab_here = context.get("tab")
    for name in ("mailbox", "original", "object"):
        row = context.get(name)
        if isinstance(row, Mailbox):
            mailbox = row
        elif isinstance(row, Model) and row._meta.model_name in _OF_MAILBOX:
            mailbox, tab_here = getattr(row, "mailbox", None), _OF_MAILBOX[row._meta.model_name]
        if mailbox:
            break
    tabs: list[dict[str, Any]] = []
    for tab in TABS if mailbox and principal else ():
        if not permissions.may(principal, tab.resource, tab.verb):
            continue
        path, query, here = reverse(f"admin:{tab.view}", args=[] if tab.parameter else [mailbox.pk]), "", True
        if tab.parameter:
            query = f"?{urlencode({tab.parameter: mailbox.pk})}"
            here = request.GET.get(tab.parameter) == str(mailbox.pk)
        here = (path == request.path and here) or tab_here == tab.view
        tabs.append({"title": tab.title, "url": path + query, "here": here})
    return {"tabs": tabs, "mailbox": mailbox}
