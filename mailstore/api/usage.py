"""What is used over the API: of everything, of resellers, tenants and domains, and of a mailbox."""

from dataclasses import asdict
from typing import Any, ClassVar

import django_filters as filters
from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from accounts import addresses
from accounts.addresses import BadAddress
from accounts.api.views import Resource
from accounts.models import Allowance, Domain, Mailbox, Reseller, Tenant
from mailstore import usage
from mailstore.api.within import ADDRESS, TheMailbox, bounded


class DueShown(serializers.Serializer[Any]):
    """Messages."""

    messages = serializers.IntegerField()
    octets = serializers.IntegerField()


class RemovedShown(DueShown):
    """Removed messages that can still be restored, and what of them goes for good until when."""

    exact = serializers.BooleanField(
        help_text=f"False: there are more than {usage.COUNTED}, and all but their number is estimated from a part."
    )
    now = DueShown(help_text="Goes with the next purge.")
    day = DueShown(help_text="Goes within a day.")
    week = DueShown(help_text="Goes within seven days.")


class UseShown(serializers.Serializer[Any]):
    """What is in the maildrops."""

    mailboxes = serializers.IntegerField(help_text="Open ones.")
    closed = serializers.IntegerField(help_text="Mailboxes in quarantine.")
    messages = serializers.IntegerField()
    octets = serializers.IntegerField()
    over_80 = serializers.IntegerField(help_text="Open mailboxes that have used 80 % of their quota, or more.")
    over_90 = serializers.IntegerField()
    over_100 = serializers.IntegerField()


class WholeShown(UseShown):
    """What is in the maildrops, and what was removed from them."""

    removed = RemovedShown()


class AllowanceShown(serializers.Serializer[Any]):
    """What it may have, and has. Without a limit on octets they are not counted here."""

    max_domains = serializers.IntegerField(allow_null=True)
    max_mailboxes = serializers.IntegerField(allow_null=True)
    max_aliases = serializers.IntegerField(allow_null=True)
    max_octets = serializers.IntegerField(allow_null=True)
    domains = serializers.IntegerField()
    mailboxes = serializers.IntegerField()
    aliases = serializers.IntegerField()
    octets = serializers.SerializerMethodField()

    def get_octets(self, allowance: Allowance) -> int | None:
        return None if allowance.max_octets is None else allowance.octets


class SubjectShown(UseShown):
    """What somebody has in his maildrops, and may have."""

    name = serializers.CharField(help_text="A slug, or a domain's name.")
    allowance = AllowanceShown(allow_null=True, help_text="Null: of a whole of which you see a part.")


class SubjectWhole(SubjectShown):
    """The same, with what was removed."""

    removed = RemovedShown()


class MailboxUse(serializers.Serializer[Any]):
    """What a mailbox has, and may have."""

    address = serializers.CharField()
    quota_octets = serializers.IntegerField(allow_null=True)
    octets = serializers.IntegerField()
    messages = serializers.IntegerField()
    percent = serializers.IntegerField(allow_null=True, help_text="Of the quota. Null: there is none.")
    removed = RemovedShown()


def _shown(kind: type[serializers.Serializer[Any]], values: dict[str, Any]) -> dict[str, Any]:
    return dict(kind(values).data)


class Everything(Resource):
    """The mail of all mailboxes that exist for whoever asks, together."""

    resource = "usage"
    queryset = Mailbox.objects.all()
    serializer_class = WholeShown
    pagination_class = None  # type: ignore[assignment] # it is one thing

    @extend_schema(responses={200: WholeShown}, operation_id="usage_retrieve")
    def retrieve(self, request: Request, **names: str) -> HttpResponseBase:
        """How much mail there is, how full mailboxes are, and what goes for good soon."""
        with bounded():
            found = asdict(usage.of_mailboxes(self.rows()))
            found["removed"] = asdict(usage.removed(self.rows(), kept=settings.MAILHOST_RETENTION))
        return self.answer(found)


class _Subjects(Resource):
    """Those that have an allowance, each with what it uses."""

    resource = "usage"
    serializer_class = SubjectShown
    of: ClassVar[usage.Of]

    def retrieve(self, request: Request, **names: str) -> HttpResponseBase:
        """What one uses, and what was removed and goes for good soon."""
        row = self.find()
        mailboxes = self._mailboxes().filter(**{usage.PATHS[self.of]: row.pk})
        with bounded():
            found = self._row(row, usage.of_mailboxes(mailboxes), self._allowances([row.pk]).get(row.pk))
            found["removed"] = asdict(usage.removed(mailboxes, kept=settings.MAILHOST_RETENTION))
        return self.answer(found)

    def get_serializer_class(self) -> Any:
        return SubjectWhole if self.action == "retrieve" else SubjectShown

    def _mailboxes(self) -> QuerySet[Mailbox]:
        found: QuerySet[Mailbox] = Mailbox.objects.visible_to(self.principal)
        return found

    def _allowances(self, ids: list[int]) -> dict[int, Allowance]:
        if self.of != "domain" and self.principal.domain_ids is not None:
            return {}  # who looks after some domains knows nothing of the whole
        column = f"{self.of}_id"
        found = Allowance.objects.filter(**{f"{column}__in": ids})
        if self.of == "tenant":
            found = found.filter(domain=None)
        return {getattr(one, column): one for one in found}

    def _row(self, row: Any, use: usage.Use, allowance: Allowance | None) -> dict[str, Any]:
        return {"name": str(row), "allowance": allowance, **asdict(use)}

    def list(self, request: Request, **names: str) -> HttpResponseBase:
        """Those that exist for whoever asks, with what they use, a page at a time."""
        with bounded():
            page = self.paginate_queryset(self._filtered(self.rows()))
            assert page is not None
            uses = usage.of_each(self._mailboxes(), self.of, [row.pk for row in page])
            allowances = self._allowances([row.pk for row in page])
        rows = [self._row(row, uses[row.pk], allowances.get(row.pk)) for row in page]
        return self.get_paginated_response([self._selected(_shown(SubjectShown, row)) for row in rows])


class ResellersUsage(_Subjects):
    """Resellers, with what their tenants use."""

    resource = "resellers"
    of = "reseller"
    queryset = Reseller.objects.all()
    lookup_field = "slug"
    lookup_value_regex = "[-a-zA-Z0-9_]+"
    orderings = ("slug",)


class TenantFilters(filters.FilterSet):  # type: ignore[misc] # django-filter has no types
    reseller = filters.CharFilter(field_name="reseller__slug", help_text="Its slug.")

    class Meta:
        model = Tenant
        fields: ClassVar[list[str]] = []


class TenantsUsage(_Subjects):
    """Tenants, with what they use."""

    of = "tenant"
    queryset = Tenant.objects.all()
    filterset_class = TenantFilters
    lookup_field = "slug"
    lookup_value_regex = "[-a-zA-Z0-9_]+"
    orderings = ("slug",)


class DomainFilters(filters.FilterSet):  # type: ignore[misc] # django-filter has no types
    tenant = filters.CharFilter(field_name="tenant__slug", help_text="Its slug.")

    class Meta:
        model = Domain
        fields: ClassVar[list[str]] = []


class DomainsUsage(_Subjects):
    """Domains, with what they use."""

    of = "domain"
    queryset = Domain.objects.all()
    filterset_class = DomainFilters
    lookup_field = "name"
    lookup_value_regex = "[^/]+"
    orderings = ("name",)

    def look_up(self, name: str, *, lock: bool = False) -> Any:
        try:
            return super().look_up(addresses.domain(name), lock=lock)
        except BadAddress:
            return None


class MailboxUsage(TheMailbox):
    """What a mailbox uses."""

    serializer_class = MailboxUse

    @extend_schema(parameters=[ADDRESS], responses={200: MailboxUse})
    def retrieve(self, request: Request, **names: str) -> HttpResponseBase:
        """What is in its maildrop, and what was removed and goes for good soon."""
        mailbox = self.mailbox
        quota = mailbox.quota_octets
        with bounded():
            gone = usage.removed(Mailbox.objects.filter(pk=mailbox.pk), kept=settings.MAILHOST_RETENTION)
        return self.answer(
            {
                "address": mailbox.address,
                "quota_octets": quota,
                "octets": mailbox.used_octets,
                "messages": mailbox.message_count,
                "percent": None if quota is None else 100 if quota == 0 else mailbox.used_octets * 100 // quota,
                "removed": asdict(gone),
            }
        )
