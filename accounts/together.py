"""What the admin does to many rows at once: it says first what that would be, in numbers, and asks."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final

from django import forms
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Max, Q, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts import languages, limits, provisioning, quotas
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


def left(state: str, rows: QuerySet[Any]) -> list[tuple[str, str]]:
    """How many of them an action leaves as they are, since they are in that state; nothing where none is."""
    return _some(_("%(state)s: left as they are") % {"state": state}, rows)


def of_mailboxes(queryset: QuerySet[Mailbox]) -> list[tuple[str, str]]:
    """How many there are in which state, and how much mail they hold. All are open."""
    chosen = _chosen(queryset)
    states = [_some(_capital(state), chosen.filter(state=state)) for state in Mailbox.State]
    return [(_("Mailboxes"), _number(chosen)), *chain(*states), *_mail(chosen)]


def of_state(queryset: QuerySet[Mailbox], state: Mailbox.State, reason: str | None) -> list[tuple[str, str]]:
    """What a state, active or suspended, would mean to these mailboxes, with its reason: None was not said yet."""
    chosen = _chosen(queryset)
    are_open = chosen.filter(closed_at=None)
    others, same = are_open.exclude(state=state), are_open.filter(state=state)
    names = {Mailbox.State.ACTIVE: _("Become active"), Mailbox.State.SUSPENDED: _("Become suspended")}
    facts = [(names[state], _number(others))]
    for before in Mailbox.State:
        facts += _some(_("Until now: %(state)s") % {"state": before.label}, others.filter(state=before))
    facts += _mail(others)
    already = {"state": _capital(state)}
    if reason is None:
        facts += _some(_("%(state)s already") % already, same)
    else:
        facts += _some(_("%(state)s: only the reason changes") % already, same.exclude(state_reason=reason))
        facts += left(_capital(state), same.filter(state_reason=reason))
    return [*facts, *_left_closed(chosen)]


def of_reopening(queryset: QuerySet[Mailbox]) -> list[tuple[str, str]]:
    """What reopening would mean to these mailboxes."""
    chosen = _chosen(queryset)
    closed = chosen.exclude(closed_at=None)
    coming = provisioning.reopenable(chosen)
    return [
        (_("Become open"), _number(coming)),
        *_mail(coming),
        *left(_("Cannot be reopened"), closed.exclude(pk__in=coming.values("pk"))),
        *left(_("Open now"), chosen.filter(closed_at=None)),
    ]


def of_quota(queryset: QuerySet[Mailbox], given: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What a quota would mean to these mailboxes."""
    every = _chosen(queryset)
    chosen = every.filter(closed_at=None)
    most = chosen.aggregate(most=Max("used_octets"))["most"] or 0
    facts = [(_("Open mailboxes"), _number(chosen)), (_("The fullest of them uses"), quotas.rounded(most))]
    if given is None:
        return [*facts, *_left_closed(every)]
    quota = given["quota_octets"]
    unlimited = Q(quota_octets=None)
    facts.append((_("New quota"), quotas.exact(quota) if quota is not None else _("no limit")))
    if quota is None:
        facts.append((_("Get more than now"), _number(chosen.exclude(unlimited))))
    else:
        over = chosen.filter(used_octets__gt=quota).count()
        facts += [
            (_("Get less than now"), _number(chosen.filter(unlimited | Q(quota_octets__gt=quota)))),
            (_("Get more than now"), _number(chosen.filter(quota_octets__lt=quota))),
        ]
        text = ngettext(
            "%(number)s: it takes no new mail until enough was removed",
            "%(number)s: they take no new mail until enough was removed",
            over,
        )
        facts.append((_("Use more than that"), text % {"number": languages.number(over)} if over else "0"))
    return [*facts, *left(_("Have that quota"), chosen.filter(quota_octets=quota)), *_left_closed(every)]


def of_plan(queryset: QuerySet[Tenant], given: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What a plan would mean to these tenants."""
    chosen = Allowance.objects.filter(tenant__in=queryset.order_by().values("pk"), domain=None)
    facts = [(_("Tenants"), _number(chosen))]
    if given is None:
        return facts
    plan = given["plan"]
    coming = chosen.filter(tenant__reseller=plan.reseller_id)
    others = coming.exclude(tenant__plan=plan)
    same = coming.filter(tenant__plan=plan, **{limit: getattr(plan, limit) for limit in limits.FIELDS})
    again = coming.filter(tenant__plan=plan).exclude(pk__in=same.values("pk"))
    facts += [
        (_("Plan"), plan.name),
        (_("Move to it"), _number(others)),
        *_some(_("On it already: get its limits again"), again),
        *left(_("On it already"), same),
        *left(_("Of another reseller"), chosen.exclude(pk__in=coming.values("pk"))),
    ]
    columns = {"max_domains": "domains", "max_mailboxes": "mailboxes", "max_aliases": "aliases"}
    names = {"max_domains": _("Domains"), "max_mailboxes": _("Mailboxes"), "max_aliases": _("Aliases")}
    for limit, column in columns.items():
        most = getattr(plan, limit)
        over = coming.filter(**{f"{column}__gt": most}).count() if most is not None else 0
        shown = _("no limit") if most is None else languages.number(most)
        text = ngettext("%(shown)s; %(number)s tenant has more", "%(shown)s; %(number)s tenants have more", over)
        facts.append((names[limit], text % {"shown": shown, "number": languages.number(over)} if over else shown))
    room = plan.max_octets
    facts.append((_("Octets"), _("no limit") if room is None else quotas.exact(room)))
    return facts


def _chosen(queryset: QuerySet[Mailbox]) -> QuerySet[Mailbox]:
    """The same rows without what a list put there: an order, annotations, joins."""
    return Mailbox.objects.filter(pk__in=queryset.order_by().values("pk"))


def _number(rows: QuerySet[Any]) -> str:
    return languages.number(rows.count())


def _some(name: str, rows: QuerySet[Any]) -> list[tuple[str, str]]:
    """A fact about them, where there are any."""
    number = rows.count()
    return [(name, languages.number(number))] if number else []


def _left_closed(chosen: QuerySet[Mailbox]) -> list[tuple[str, str]]:
    return left(_("Closed"), chosen.exclude(closed_at=None))


def _mail(rows: QuerySet[Mailbox]) -> list[tuple[str, str]]:
    sums = rows.aggregate(octets=Sum("used_octets"), messages=Sum("message_count"))
    return [
        (_("Messages in them"), languages.number(sums["messages"] or 0)),
        (_("Octets in them"), quotas.rounded(sums["octets"] or 0)),
    ]


def _capital(state: Mailbox.State) -> str:
    label = str(state.label)
    return label[:1].upper() + label[1:]
