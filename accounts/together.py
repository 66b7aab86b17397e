"""What the admin does to many rows at once: it says first what that would be, in numbers, and asks."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from django import forms
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Max, Q, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts import languages, quotas
from accounts.models import Allowance, Mailbox, Tenant
from accounts.scoped import Scoped, dress

MOST: Final = 1000
"""Rows that one request changes: each is a change of its own, with its record and its event."""

Facts = Sequence[tuple[str, Any]]


def confirmed(
    page: Scoped,
    request: HttpRequest,
    queryset: QuerySet[Any],
    *,
    title: str,
    button: str,
    meaning: str = "",
    facts: Callable[[dict[str, Any] | None], Facts] = lambda given: (),
    form: forms.Form | None = None,
) -> HttpResponse | None:
    """A page that says what an action would do to these rows, and asks; None once somebody has answered yes.

    `facts` are told before anything was filled in (`None`), and again with what was: then `form` is not asked again.
    """
    number = queryset.order_by().values("pk")[: MOST + 1].count()
    if number > MOST:
        text = _("At most %(most)s can be changed at once. Choose fewer, or let a program do it over the API.")
        return _page(page, request, title=title, refusals=[text % {"most": languages.number(MOST)}])
    answered = "asked" in request.POST
    given = form.cleaned_data if form is not None and answered and form.is_valid() else None
    if answered and (form is None or given is not None) and "sure" in request.POST:
        return None
    kept = [("action", request.POST.get("action", "")), ("asked", "yes")]
    if request.POST.get("select_across") == "1":
        kept.append(("select_across", "1"))
    kept += [(ACTION_CHECKBOX_NAME, key) for key in request.POST.getlist(ACTION_CHECKBOX_NAME)]
    if form is None or given is not None:
        kept.append(("sure", "yes"))
        kept += [(name, request.POST.get(name, "")) for name in (given or {})]
    asked = form if form is not None and given is None else None
    if asked is not None:
        dress(asked)
    button = button if asked is None else _("Look at it first")
    return _page(page, request, title=title, meaning=meaning, form=asked, kept=kept, facts=facts(given), button=button)


def _page(page: Scoped, request: HttpRequest, **context: Any) -> HttpResponse:
    context |= {**page.admin_site.each_context(request), "opts": page.opts, "back": request.get_full_path()}
    return TemplateResponse(request, "admin/accounts/asking.html", context)


def answers(request: HttpRequest) -> Any:
    """What a form of an action is made from: nothing until it was asked for."""
    return request.POST if "asked" in request.POST else None


def of_mailboxes(queryset: QuerySet[Mailbox]) -> list[tuple[str, str]]:
    """How many there are in which state, and how much mail they hold."""
    chosen = Mailbox.objects.filter(pk__in=queryset.order_by().values("pk"))
    sums = chosen.aggregate(octets=Sum("used_octets"), messages=Sum("message_count"))
    shown = [(_("Mailboxes"), languages.number(chosen.count()))]
    for state in Mailbox.State:
        number = chosen.filter(closed_at=None, state=state).count()
        if number:
            shown.append((str(state.label)[:1].upper() + str(state.label)[1:], languages.number(number)))
    if closed := chosen.exclude(closed_at=None).count():
        shown.append((_("Closed: left as they are"), languages.number(closed)))
    return [
        *shown,
        (_("Messages in them"), languages.number(sums["messages"] or 0)),
        (_("Octets in them"), quotas.rounded(sums["octets"] or 0)),
    ]


def of_quota(queryset: QuerySet[Mailbox], given: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What a quota would mean to these mailboxes."""
    chosen = Mailbox.objects.filter(pk__in=queryset.order_by().values("pk"), closed_at=None)
    most = chosen.aggregate(most=Max("used_octets"))["most"] or 0
    facts = [
        (_("Open mailboxes"), languages.number(chosen.count())),
        (_("The fullest of them uses"), quotas.rounded(most)),
    ]
    if given is None:
        return facts
    quota = given["quota_octets"]
    unlimited = Q(quota_octets=None)
    facts.append((_("New quota"), quotas.exact(quota) if quota is not None else _("no limit")))
    if quota is not None:
        over = chosen.filter(used_octets__gt=quota).count()
        facts.append(
            (_("Get less than now"), languages.number(chosen.filter(unlimited | Q(quota_octets__gt=quota)).count()))
        )
        text = ngettext(
            "%(number)s: it takes no new mail until enough was removed",
            "%(number)s: they take no new mail until enough was removed",
            over,
        )
        facts.append((_("Use more than that"), text % {"number": languages.number(over)} if over else "0"))
    return facts


def of_plan(queryset: QuerySet[Tenant], given: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What a plan would mean to these tenants."""
    chosen = Allowance.objects.filter(tenant__in=queryset.order_by().values("pk"), domain=None)
    facts = [(_("Tenants"), languages.number(chosen.count()))]
    if given is None:
        return facts
    plan = given["plan"]
    facts.append((_("Plan"), plan.name))
    columns = {"max_domains": "domains", "max_mailboxes": "mailboxes", "max_aliases": "aliases"}
    names = {"max_domains": _("Domains"), "max_mailboxes": _("Mailboxes"), "max_aliases": _("Aliases")}
    for limit, column in columns.items():
        most = getattr(plan, limit)
        over = chosen.filter(**{f"{column}__gt": most}).count() if most is not None else 0
        shown = _("no limit") if most is None else languages.number(most)
        text = ngettext("%(shown)s; %(number)s tenant has more", "%(shown)s; %(number)s tenants have more", over)
        facts.append((names[limit], text % {"shown": shown, "number": languages.number(over)} if over else shown))
    room = plan.max_octets
    facts.append((_("Octets"), _("no limit") if room is None else quotas.exact(room)))
    return facts
