"""The admin's page that answers why somebody cannot sign in or gets no mail, with what helps beside each reason."""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import F
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from accounts import clients, failed_logins, principals, provisioning, throttle
from accounts.addresses import BadAddress
from accounts.models import Domain, Mailbox
from accounts.provisioning import REFUSALS
from accounts.scoped import Scoped, may
from mailstore import configured, sessions, why
from mailstore.models import MaildropSession
from mailstore.why import About, Finding, Severity


def urls(site: admin.AdminSite) -> list[URLPattern]:
    """Where the page is, and what it does."""
    return [
        path("why/", site.admin_view(require_safe(_look)), name="why"),
        path(
            "why/<slug:name>/<path:key>/", site.admin_view(require_http_methods(["GET", "POST"])(_act)), name="why_act"
        ),
    ]


def may_look(request: HttpRequest) -> bool:
    """Whether the page is there for whoever looks."""
    return may(request, "why", "read")


def of_mailbox(page: Scoped, request: HttpRequest, mailbox: Mailbox) -> HttpResponseBase:
    """The page about a mailbox's address."""
    return HttpResponseRedirect(_page(mailbox.address))


def _page(address: str) -> str:
    return f"{reverse('admin:why')}?{urlencode({'address': address})}"


# --- Looking -------------------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """What is found of one thing: signing in, or mail."""

    title: str
    worst: Severity
    verdict: str
    findings: list[tuple[Finding, list[tuple[str, str]]]]  # each with links: title and address


def _look(request: HttpRequest) -> HttpResponse:
    if not may_look(request):
        raise PermissionDenied
    typed = request.GET.get("address", "").strip()
    context: dict[str, Any] = {**admin.site.each_context(request), "title": _("Why?"), "typed": typed}
    if typed:
        try:
            address = why.typed(typed, default_domain=settings.MAILHOST_DEFAULT_DOMAIN)
        except BadAddress:
            context["no_address"] = True
        else:
            principal = principals.acting()
            found = why.findings(address, principal, configured.looking())
            mailboxes = Mailbox.objects.visible_to(principal).filter(address=address)
            mailbox = mailboxes.order_by(F("closed_at").desc(nulls_first=True)).first()
            context |= {"address": address, "parts": list(_parts(address, found)), "mailbox": mailbox}
            context["tab"] = "accounts_mailbox_why"
    return TemplateResponse(request, "admin/why.html", context)


def _parts(address: str, found: list[Finding]) -> Iterator[_Part]:
    titles = {About.ADDRESS: _("The address"), About.LOGIN: _("Signing in"), About.MAIL: _("Its mail")}
    verdicts = {
        About.ADDRESS: {Severity.WRONG: _("Does not work")},
        About.LOGIN: {
            Severity.WRONG: _("Nobody can sign in"),
            Severity.WARNING: _("Something stands in the way"),
            Severity.GOOD: _("Works"),
        },
        About.MAIL: {
            Severity.WRONG: _("Does not arrive"),
            Severity.WARNING: _("Something was refused"),
            Severity.GOOD: _("Arrives"),
        },
    }
    for about, title in titles.items():
        own = [one for one in found if one.about == about]
        if own:
            worst = own[0].severity
            if worst == Severity.NOTE and any(one.severity == Severity.GOOD for one in own):
                worst = Severity.GOOD
            shown = [(one, [(action.title, _link(action, address)) for action in one.actions]) for one in own]
            yield _Part(title, worst, verdicts[about].get(worst, ""), shown)


def _link(action: why.Action, address: str) -> str:
    """Where an action leads to: the form in which it is done, or the page that asks for it."""
    if action.name in _PAGES:
        return _PAGES[action.name](action.key)
    to = reverse("admin:why_act", args=[action.name, action.key])
    return f"{to}?{urlencode({'address': address})}"


def _change(model: str, part: str = "") -> Callable[[Any], str]:
    return lambda key: reverse(f"admin:accounts_{model}_change", args=[key]) + part


def _listed(view: str, parameter: str) -> Callable[[Any], str]:
    return lambda key: f"{reverse(f'admin:accounts_{view}')}?{urlencode({parameter: key})}"


_PAGES: Final[dict[str, Callable[[Any], str]]] = {
    why.LOOK: _page,
    "set-password": _change("mailbox", "#id_password"),
    "networks": _change("mailbox", "#id_allowed_networks"),
    "quota": _change("mailbox", "#id_quota_octets"),
    "mailbox": _change("mailbox"),
    "login": _change("user"),
    "second-step": lambda key: reverse("admin:accounts_user_reset-two-factor", args=[key]),
    "alias": _change("alias"),
    "domain-limits": _change("domain", "#id_max_octets"),
    "tenant-limits": _change("tenant", "#id_max_octets"),
    "check-domain": lambda key: reverse("admin:accounts_domain_check", args=[key]),
    "app-password": _listed("apppassword_add", "mailbox"),
    "add-mailbox": _listed("mailbox_add", "address"),
    "failed-logins": _listed("failedlogin_changelist", "mailbox__id__exact"),
}
"""By name of an action, the page where it is done."""


# --- Doing ---------------------------------------------------------------------------------------------------------


class _Act(NamedTuple):
    """What is asked for, and then done with one row."""

    model: Any
    do: Callable[..., object]
    meaning: Any
    done: Any


def _end_session(session: MaildropSession) -> None:
    sessions.end(MaildropSession.objects.filter(pk=session.pk))


def _enable_pop3(mailbox: Mailbox) -> None:
    provisioning.change_mailbox(mailbox, pop3_enabled=True)


def _let_in(mailbox: Mailbox, client: Any) -> None:
    failed_logins.let_in(mailbox, client, redis_url=settings.REDIS_URL)


_ACTS: Final[dict[str, _Act]] = {
    "end-session": _Act(
        MaildropSession,
        _end_session,
        gettext_lazy("Its connection is closed at once, and nothing that it marked is removed. The maildrop is free."),
        gettext_lazy("The session has ended."),
    ),
    "resume": _Act(
        Mailbox,
        provisioning.resume,
        gettext_lazy("It takes mail again, and its owner can sign in."),
        gettext_lazy("The mailbox is active."),
    ),
    "enable-pop3": _Act(
        Mailbox,
        _enable_pop3,
        gettext_lazy("Mail programs can fetch its mail."),
        gettext_lazy("POP3 is on."),
    ),
    "reopen": _Act(
        Mailbox,
        provisioning.reopen_mailbox,
        gettext_lazy("It is open again, with its mail and its password."),
        gettext_lazy("The mailbox is open."),
    ),
    "reopen-domain": _Act(
        Domain,
        provisioning.reopen_domain,
        gettext_lazy("It takes mail again. Its mailboxes are reopened each for itself."),
        gettext_lazy("The domain is open."),
    ),
    "let-in": _Act(
        Mailbox,
        _let_in,
        gettext_lazy(
            "Passwords from there are looked at again, at this mailbox alone: for a day its network counts as one that "
            "signed in. Wrong ones are still delayed. Do it when you know who sits there."
        ),
        gettext_lazy("Attempts from that network are looked at again."),
    ),
}


def _act(request: HttpRequest, name: str, key: str) -> HttpResponseBase:
    """Say what would be done, and ask; then do it, and look again."""
    if name not in _ACTS:
        raise Http404
    resource, verb, title = why.ACTIONS[name]
    if not may(request, resource, verb):
        raise PermissionDenied
    act = _ACTS[name]
    where: list[Any] = []
    if name == "let-in":
        key, _slash, text = key.partition("/")
        where = [_client(text)]
    row = _row(request, act.model, key)
    back = _page(request.GET.get("address", ""))
    refusals: list[str] = []
    if request.method == "POST":
        try:
            act.do(row, *where)
        except REFUSALS as refusal:
            refusals = [f"{refusal}."]
        except throttle.Away:
            away = _("Its network is let in. Redis does not answer: what failed at the mailbox is not counted anew.")
            messages.warning(request, away)
            return HttpResponseRedirect(back)
        else:
            messages.success(request, str(act.done))
            return HttpResponseRedirect(back)
    context = {
        **admin.site.each_context(request),
        "title": f"{title}: {_named(row)}",
        "meaning": act.meaning,
        "facts": [(_("From"), client) for client in where] or _facts(row),
        "refusals": refusals,
        "button": title,
        "back": back,
    }
    return TemplateResponse(request, "admin/accounts/asking.html", context)


def _client(text: str) -> Any:
    client = clients.parsed(text)
    if client is None or "%" in text:  # a zone of one machine's interfaces is no network
        raise Http404
    return client


def _row(request: HttpRequest, model: Any, key: str) -> Any:
    try:
        found = model.objects.visible_to(request.user).filter(pk=model._meta.pk.to_python(key)).first()
    except (ValidationError, OverflowError):
        found = None
    if found is None:
        raise Http404
    return found


def _named(row: Any) -> str:
    return str(row.mailbox if isinstance(row, MaildropSession) else row)


def _facts(row: Any) -> list[tuple[str, Any]]:
    if isinstance(row, MaildropSession):
        return [
            (_("From"), row.client_address or _("this machine")),
            (_("Since"), row.started_at),
            (_("Fetched"), row.fetched),
        ]
    if isinstance(row, Mailbox):
        return [(_("State"), row.get_state_display()), (_("Tenant"), row.tenant)]
    return [(_("Tenant"), row.tenant)]
