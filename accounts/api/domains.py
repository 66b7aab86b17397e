"""Domains over the API."""

from typing import Any, ClassVar, Final, NamedTuple

import django_filters as filters
from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request

from accounts import addresses, permissions, provisioning, scope, tasks, verification
from accounts.addresses import BadAddress
from accounts.api import rates
from accounts.api.fields import ExternalId, HasShown, LimitsShown, LimitsWanted, closing, set_limits
from accounts.api.filters import Flag
from accounts.api.named import Named
from accounts.api.problems import FieldError, Problem, about
from accounts.api.serializers import Strict, Text
from accounts.api.tenants import NameFilters, written
from accounts.api.views import needs
from accounts.models import Domain, Tenant
from accounts.verification import Finding
from accounts.zone import records, states
from accounts.zone.records import Host, Hosted, Need, Purpose, Record
from accounts.zone.states import State, Verdict

_MOST_LOOKS: Final = 30
"""Times a minute that somebody may have DNS asked."""


class RecordShown(serializers.Serializer[Any]):
    """The TXT record that shows whose the domain is."""

    name = serializers.CharField()
    text = serializers.CharField()
    example: ClassVar = {"name": "_mailhost.example.test", "text": "mailhost-verification=1d6f8faaeb22e604f0101f30f20"}


class DomainShown(serializers.ModelSerializer[Domain]):
    """A domain whose mail is hosted here."""

    tenant = serializers.SlugRelatedField[Tenant](slug_field="slug", read_only=True)
    alias_of = serializers.SlugRelatedField[Domain](slug_field="name", read_only=True, allow_null=True)
    record = serializers.SerializerMethodField()
    limits = LimitsShown(source="allowance", read_only=True)
    has = HasShown(source="allowance", read_only=True)
    example: ClassVar = {"name": "example.test"}

    class Meta:
        model = Domain
        fields: ClassVar = [
            "name", "tenant", "external_id", "state", "record", "checked_at", "failing_since", "alias_of", "subaddress",
            "limits", "has", "closed_at", "created_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_record(self, domain: Domain) -> RecordShown:
        name, text = verification.record(domain)
        return {"name": name, "text": text}  # type: ignore[return-value] # the annotation is for the description


class DomainWanted(Strict):
    """What a domain is to be."""

    name = Text(max_length=255, required=False, help_text="As the address has it, in any spelling.")
    tenant = Text(max_length=63, required=False, help_text="Whose it is. Yours, if you have but one.")
    external_id = ExternalId()
    alias_of = Text(max_length=255, required=False, allow_null=True, help_text="Has the same local parts as that one.")
    subaddress = Text(
        max_length=1, required=False, allow_null=True, allow_blank=True, help_text="Such as +. Null: the host's."
    )
    limits = LimitsWanted(required=False)
    example: ClassVar = {"tenant": "example", "subaddress": "+"}


class DomainAdded(DomainWanted):
    """A domain to be."""

    name = Text(max_length=255, help_text="In any spelling.")
    example: ClassVar = {"name": "example.test", **DomainWanted.example}


class DnsRecordShown(serializers.Serializer[Any]):
    """A record that a domain should have in DNS, and whether it has it."""

    purpose = serializers.ChoiceField(choices=[purpose.value for purpose in Purpose])
    name = serializers.CharField()
    type = serializers.ChoiceField(choices=["MX", "TXT", "SRV", "CNAME"])
    values = serializers.ListField(
        child=serializers.CharField(), help_text="Of TXT the text itself; of others the data as in a zone file."
    )
    need = serializers.ChoiceField(choices=[need.value for need in Need])
    why = serializers.CharField()
    verdict = serializers.ChoiceField(
        choices=[verdict.value for verdict in Verdict], help_text="With no-answer DNS has not told either way."
    )
    said = serializers.CharField(help_text="The verdict in words.")
    found = serializers.ListField(child=serializers.CharField(), help_text="What stands there.")
    instead = serializers.CharField(help_text="What the record that is there should become. Empty: one of `values`.")
    example: ClassVar = {
        "purpose": "mx", "name": "example.test", "type": "MX", "values": ["10 mx.host.example."], "need": "required",
        "why": "Other mail servers deliver mail for the domain there.", "verdict": "right",
        "said": "Mail for the domain comes here.", "found": ["10 mx.host.example"], "instead": "",
    }  # fmt: skip


class DnsShown(serializers.Serializer[Any]):
    """What a domain should have in DNS, and what DNS has."""

    domain = serializers.CharField()
    records = DnsRecordShown(many=True)
    zone_file = serializers.CharField(help_text="The records as lines for a zone file.")
    sts_policy = serializers.CharField(help_text="The policy of MTA-STS, for whoever serves it.")
    example: ClassVar = {
        "zone_file": "example.test. 3600 IN MX 10 mx.host.example.\n",
        "sts_policy": "version: STSv1\nmode: testing\nmx: mx.host.example\nmax_age: 604800\n",
    }


class Seen(NamedTuple):
    """What a domain should have, and what DNS has."""

    records: list[Record]
    states: dict[Purpose, State]
    host: Host

    def shown(self, domain: Domain) -> dict[str, Any]:
        """For `DnsShown`."""
        states = self.states
        instead = {purpose: state.instead for purpose, state in states.items() if state.instead}
        return {
            "domain": domain.name,
            "records": [
                {
                    "purpose": record.purpose, "name": record.name, "type": record.kind, "values": record.values,
                    "need": record.need, "why": record.why, "verdict": states[record.purpose].verdict,
                    "said": states[record.purpose].said, "found": states[record.purpose].found,
                    "instead": states[record.purpose].instead,
                }
                for record in self.records
            ],
            "zone_file": records.zone_file(self.records, instead),
            "sts_policy": records.sts_policy(self.host),
        }  # fmt: skip


class DomainFilters(NameFilters):
    search = filters.CharFilter(method="begins", help_text="How the name begins.")
    tenant = filters.CharFilter(field_name="tenant__slug")
    state = filters.ChoiceFilter(choices=Domain.State.choices)
    alias_of = filters.CharFilter(field_name="alias_of__name")
    closed = Flag(field_name="closed_at", lookup_expr="isnull", exclude=True)

    def begins(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        return rows.filter(name__startswith=text.lower())


@written(DomainAdded, DomainWanted, DomainShown)
class Domains(Named):
    """Domains, whose mail is hosted here."""

    resource = "domains"
    queryset = Domain.objects.select_related("tenant", "alias_of", "allowance")
    serializer_class = DomainShown
    wanted = DomainWanted
    added = DomainAdded
    filterset_class = DomainFilters
    lookup_field = "name"
    lookup_value_regex = "[^/]+"
    orderings = ("name", "created_at", "checked_at")
    volatile = frozenset({"has", "checked_at"})
    finding: Finding = Finding.UNKNOWN
    seen: "Seen | None" = None

    def get_serializer_class(self) -> Any:
        return DnsShown if self.action == "dns" else DomainShown

    def normal(self, name: str) -> str:
        return addresses.domain(name)

    def add(self, name: str, values: dict[str, Any]) -> tuple[Any, bool]:
        given = self._named(dict(values))
        wanted = given.pop("limits", None)
        tenant = given.pop("tenant", None) or self._own_tenant()
        with about("name"):
            domain, added = provisioning.add_domain(name, tenant=tenant, **given)
        if added:
            set_limits(domain, wanted, resource=self.resource, by=self.principal)
        return domain, added

    def change(self, row: Any, values: dict[str, Any]) -> None:
        if row.closed_at:
            raise Problem("closed")
        values = self._named(dict(values))
        if values.pop("tenant", row.tenant) != row.tenant:
            raise Problem("other-tenant", f"{row} belongs to another tenant.", field="tenant")
        set_limits(row, values.pop("limits", None), resource=self.resource, by=self.principal)
        provisioning.change_domain(row, **values)

    def remove(self, row: Any) -> None:
        summary, counts = closing("1 domain and ", domain=row)
        self.would("close", summary, domains=1, **counts)
        provisioning.close_domain(row)

    def prepare(self) -> None:
        """Ask DNS what a handler wants to know: it may take seconds."""
        if self.action not in ("check", "dns") or self.is_dry_run:
            return
        with scope.entered(self.principal):
            may = permissions.may(self.principal, self.resource, self.verb)
            row = self.look_up(self.kwargs[self.lookup_field]) if may else None
            hosted = Hosted.of(row) if row else None
        if row is None or hosted is None:
            return
        rates.take(f"dns {self.principal.token_id} {self.principal.user_id}", most=_MOST_LOOKS, window=60)
        scope.let_go()
        if self.action == "check":
            self.finding = verification.look(row, tasks.verification_config())
        else:
            host = records.this_host()
            found = records.records(hosted, host)
            self.seen = Seen(found, states.look(found, hosted, host, settings.MAILHOST_DNS_SERVERS), host)

    @extend_schema(responses={200: DnsShown})
    @needs("read")
    @action(detail=True, methods=["get"])
    def dns(self, request: Request, name: str) -> HttpResponseBase:
        """What it should have in DNS, and what DNS has: asked now, within three seconds."""
        row = self.find()
        if self.seen is None:
            raise Problem("not-found")  # it was not there when DNS was asked
        return self.answer(self.seen.shown(row))

    @extend_schema(request=None, responses={200: DomainShown})
    @needs("delete")
    @action(detail=True, methods=["post"])
    def reopen(self, request: Request, name: str) -> HttpResponseBase:
        """Undo the closing of a domain; its mailboxes are reopened each."""
        row = self.find(lock=True)
        provisioning.reopen_domain(row)
        self.would("reopen", f"reopens {row}", domains=1)
        return self._written(row, is_new=False)

    @extend_schema(request=None, responses={200: DomainShown})
    @needs("check")
    @action(detail=True, methods=["post"])
    def check(self, request: Request, name: str) -> HttpResponseBase:
        """Ask DNS now whether the domain is its tenant's."""
        row = self.find(lock=True)
        if row.closed_at:
            raise Problem("closed")
        self.would("check", f"asks DNS for the record of {row}", domains=1)
        if not self.is_dry_run:
            verification.conclude(row, self.finding, tasks.verification_config())
        return self._written(row, is_new=False)

    @extend_schema(request=None, responses={200: DomainShown})
    @needs("verify")
    @action(detail=True, methods=["post"])
    def verify(self, request: Request, name: str) -> HttpResponseBase:
        """Let it be verified because an operator says so."""
        row = self.find(lock=True)
        if row.closed_at:
            raise Problem("closed")
        verification.trust(row)
        self.would("verify", f"takes {row} for its tenant's", domains=1)
        return self._written(row, is_new=False)

    def _own_tenant(self) -> Tenant:
        if self.principal.tenant_id is None:
            text = "It must be said whose the domain is."
            raise Problem("invalid", text, errors=[FieldError("tenant", "required", text)])
        tenant: Tenant = Tenant.objects.get(pk=self.principal.tenant_id)
        return tenant

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        if "tenant" in values:
            values["tenant"] = self.named(Tenant, "tenant", slug=values["tenant"])
        if values.get("alias_of"):
            with about("alias_of"):
                host = addresses.domain(values["alias_of"])
            values["alias_of"] = self.named(Domain, "domain", "alias_of", name=host)
        return values


def domain_of(view: Any, address: str, *, field: str) -> Domain:
    """The domain of an address, if it exists for whoever asks. Raises `Problem`."""
    try:
        host = addresses.split(addresses.alias(address))[1]
    except BadAddress as refusal:
        raise Problem("bad-address", f"{refusal}.", field=field) from None
    found: Domain = view.named(Domain, "domain", field, name=host, closed_at=None)
    return found
