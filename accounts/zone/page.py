"""The admin's page about a domain's DNS: what to publish, and what is there."""

from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts import addresses
from accounts.middleware import Waiting
from accounts.models import Domain
from accounts.scoped import Scoped, is_operator
from accounts.zone import asking, records, states
from accounts.zone.records import Host, Hosted, Need, Purpose, Record
from accounts.zone.states import State, Verdict

ASKED: Final = "asked"
"""The parameter of the address with which DNS is asked."""

_NEEDS: Final = {
    Need.REQUIRED: gettext_lazy("required"),
    Need.RECOMMENDED: gettext_lazy("recommended"),
    Need.OPTIONAL: gettext_lazy("optional"),
}
# Each with a sign: nobody has to tell colours apart.
_VERDICTS: Final = {
    Verdict.RIGHT: ("✓", gettext_lazy("Right")),
    Verdict.WRONG: ("✗", gettext_lazy("Wrong")),
    Verdict.MISSING: ("–", gettext_lazy("Missing")),
    Verdict.NO_ANSWER: ("?", gettext_lazy("No answer")),
}


def dns(page: Scoped, request: HttpRequest, domain: Domain) -> HttpResponseBase:
    """Show what to publish; where that is wanted, with what DNS has of it, asked after the transaction."""
    host, hosted = records.this_host(), Hosted.of(domain)
    found = records.records(hosted, host)

    def shown(seen: Mapping[Purpose, State]) -> HttpResponse:
        context = _context(domain, hosted, host, found, seen)
        context |= {**page.admin_site.each_context(request), "opts": page.opts, "object": domain, "original": domain}
        context["may_check"] = page.may(request, "check")
        context["is_operator"] = is_operator(request)
        return TemplateResponse(request, "admin/accounts/dns.html", context)

    if ASKED not in request.GET:
        return shown({})
    return Waiting(lambda: states.look(found, hosted, host, settings.MAILHOST_DNS_SERVERS), shown)


def _context(
    domain: Domain, hosted: Hosted, host: Host, found: list[Record], seen: Mapping[Purpose, State]
) -> dict[str, Any]:
    readable = addresses.readable(domain.name)
    instead = {purpose: state.instead for purpose, state in seen.items() if state.instead}
    return {
        "title": _("DNS of %(domain)s") % {"domain": domain},
        "readable": "" if readable == domain.name else readable,
        "hosted": hosted,
        "host": host,
        "rows": [_row(record, seen.get(record.purpose)) for record in found],
        "seen": bool(seen),
        "summary": _summary(found, seen),
        "zone_file": records.zone_file(found, instead),
        "sts_policy": records.sts_policy(host),
        "dkim_note": records.dkim_note(host),
        "change": reverse("admin:accounts_domain_change", args=[domain.pk]),
        "check": reverse("admin:accounts_domain_check", args=[domain.pk]),
        "seconds": int(asking.LIFETIME),
    }


def _row(record: Record, state: State | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "record": record,
        "need": _NEEDS[record.need],
        "values": [state.instead] if state and state.instead else record.values,
    }
    if state:
        sign, word = _VERDICTS[state.verdict]
        # What is optional and not there is nothing to worry about.
        calm = state.verdict is Verdict.MISSING and record.need is Need.OPTIONAL
        is_copy = sorted(state.found) == sorted(value.removesuffix(".") for value in record.values)
        row["found"] = () if is_copy and state.verdict is Verdict.RIGHT else state.found
        row |= {"state": state, "sign": sign, "word": word, "look": "optional" if calm else state.verdict.value}
    return row


def _summary(found: list[Record], seen: Mapping[Purpose, State]) -> str:
    """In a sentence, how the domain is."""
    if not seen:
        return ""
    verdicts = [seen[record.purpose].verdict for record in found]
    if verdicts.count(Verdict.NO_ANSWER) == len(verdicts):
        return _("DNS has not answered. Ask again.")
    to_mend = sum(
        seen[record.purpose].verdict is Verdict.WRONG
        or (seen[record.purpose].verdict is Verdict.MISSING and record.need is not Need.OPTIONAL)
        for record in found
    )
    right = _("%(right)s of %(all)s records are right.") % {
        "right": verdicts.count(Verdict.RIGHT),
        "all": len(verdicts),
    }
    if not to_mend:
        return right
    mend = ngettext("%(count)s is to be mended.", "%(count)s are to be mended.", to_mend) % {"count": to_mend}
    return f"{right} {mend}"
