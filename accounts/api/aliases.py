"""Aliases over the API."""

from typing import Any, ClassVar

import django_filters as filters
from django.db.models import Q, QuerySet
from django.http import HttpResponseBase
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from accounts import addresses, provisioning
from accounts.addresses import BadAddress
from accounts.api.domains import domain_of
from accounts.api.filters import At, Flag
from accounts.api.named import Named
from accounts.api.problems import FieldError, Problem
from accounts.api.serializers import Moment, Strict, Text, Truth
from accounts.api.spreadsheets import Spreadsheets, exports_file, imports_file
from accounts.api.tenants import written
from accounts.models import Alias, Domain, Mailbox
from accounts.spreadsheets import Table, aliases

MOST_LINES = 2000
"""Of one file: their domains are held meanwhile, while somebody waits."""

IMPORTED = """\
address,targets,expires_at
sales@example.test,an@example.test an@elsewhere.test,
fair@example.test,an@example.test,2027-01-31T18:00:00Z
"""
EXPORTED = """\
address,targets,expires_at\r
sales@example.test,an@elsewhere.test an@example.test,\r
"""


class AliasShown(serializers.ModelSerializer[Alias]):
    """A further address, whose mail goes to mailboxes and to addresses outside."""

    tenant = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    domain = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)
    targets = serializers.SerializerMethodField()
    example: ClassVar = {"address": "sales@example.test"}

    class Meta:
        model = Alias
        fields: ClassVar = ["id", "address", "tenant", "domain", "targets", "expires_at", "created_at"]
        read_only_fields = fields

    def get_targets(self, alias: Alias) -> list[str]:
        return sorted(target.mailbox.address if target.mailbox else target.address for target in alias.targets.all())


class AliasWanted(Strict):
    """What an alias is to be."""

    address = Text(max_length=400, required=False, help_text="As the address has it, in any spelling.")
    targets = serializers.ListField(
        child=Text(max_length=400),
        required=False,
        allow_empty=False,
        max_length=200,
        help_text="Mailboxes of the tenant, and addresses outside.",
    )
    expires_at = Moment(required=False, allow_null=True, help_text="From then on it takes no mail.")
    release = Truth(required=False, write_only=True, help_text="Give the address away although it is in quarantine.")
    example: ClassVar = {"targets": ["an@example.test", "an@elsewhere.test"]}


class AliasAdded(AliasWanted):
    """An alias to be."""

    address = Text(max_length=400, help_text="`@example.test` takes what nothing else does.")
    targets = serializers.ListField(
        child=Text(max_length=400),
        allow_empty=False,
        max_length=200,
        help_text="Mailboxes of the tenant, and addresses outside.",
    )
    example: ClassVar = {"address": "sales@example.test", **AliasWanted.example}


class AliasFilters(filters.FilterSet):  # type: ignore[misc] # django-filter has no types
    search = filters.CharFilter(method="begins", help_text="How the address begins; or @ and its domain.")
    tenant = filters.CharFilter(field_name="tenant__slug")
    domain = filters.CharFilter(method="of_domain", help_text="Its name, in any spelling.")
    target = filters.CharFilter(method="to_target", help_text="An address that its mail goes to.")
    expired = Flag(method="is_expired")
    created_since = At(field_name="created_at", lookup_expr="gte")
    created_until = At(field_name="created_at", lookup_expr="lt")

    def begins(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        return rows.filter(address__startswith=text.lower())

    def of_domain(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        try:
            host = addresses.domain(text)
        except BadAddress:
            return rows.none()
        domain = Domain.objects.visible_to(self.request.principal).filter(name=host).first()
        return rows.filter(domain=domain) if domain else rows.none()

    def to_target(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        try:
            address = addresses.address(text)
        except BadAddress:
            return rows.none()
        mailbox = Mailbox.objects.visible_to(self.request.principal).open().filter(address=address).first()
        to = Q(targets__mailbox=mailbox) if mailbox else Q(targets__address=address)
        return rows.filter(to)

    def is_expired(self, rows: QuerySet[Any], name: str, expired: bool) -> QuerySet[Any]:
        past = Q(expires_at__lte=timezone.now())
        return rows.filter(past) if expired else rows.exclude(past)


class AliasExportFilters(AliasFilters):
    expired = None  # type: ignore[assignment] # those take no mail, and are not exported


@written(AliasAdded, AliasWanted, AliasShown)
class Aliases(Named, Spreadsheets):
    """Aliases."""

    resource = "aliases"
    queryset = Alias.objects.select_related("tenant", "domain").prefetch_related("targets__mailbox")
    serializer_class = AliasShown
    wanted = AliasWanted
    added = AliasAdded
    filterset_class = AliasFilters
    lookup_field = "address"
    lookup_value_regex = "[^/]+"
    orderings = ("address", "created_at", "expires_at")

    def normal(self, name: str) -> str:
        return addresses.alias(name)

    def add(self, name: str, values: dict[str, Any]) -> tuple[Any, bool]:
        domain = domain_of(self, name, field="address")
        address = self.normal(name)
        if there := self.rows().filter(address=address).first():
            return there, False
        if "targets" not in values:
            raise Problem("invalid", errors=[FieldError("targets", "required", "This field is required.")])
        mailboxes, outside = self._targets(values["targets"])
        return provisioning.set_alias(
            address,
            tenant_id=domain.tenant_id,
            mailboxes=mailboxes,
            outside=outside,
            expires_at=values.get("expires_at"),
            release=values.get("release", False),
        )

    def change(self, row: Any, values: dict[str, Any]) -> None:
        if "targets" in values:
            mailboxes, outside = self._targets(values["targets"])
        else:
            targets = list(row.targets.select_related("mailbox"))
            mailboxes = [target.mailbox for target in targets if target.mailbox]
            outside = [target.address for target in targets if not target.mailbox]
        provisioning.set_alias(
            row.address,
            tenant_id=row.tenant_id,
            mailboxes=mailboxes,
            outside=outside,
            expires_at=values.get("expires_at", row.expires_at),
        )

    def remove(self, row: Any) -> None:
        self.would("remove", f"removes the alias {row}", aliases=1)
        provisioning.remove_alias(row)

    @exports_file("aliases_export_csv", EXPORTED, filters=AliasExportFilters)
    def export_file(self, request: Request) -> HttpResponseBase:
        """All that match and take mail, as a CSV file that the import reads.

        Who took them along is written in the audit. A file that breaks off is not whole.
        """
        rows = self._filtered(self.rows()).exclude(expires_at__lte=timezone.now())
        return self.exported(rows, aliases.write)

    @imports_file("aliases_import_csv", IMPORTED)
    def import_file(self, request: Request) -> HttpResponseBase:
        """Add the aliases of a CSV file, all or none: 422 `bad-rows` says which lines cannot be, and why.

        Columns: address, targets (with blanks between them), expires_at; they need no line that names them. Those that
        exist stay as they are, unless they are to be updated.
        """
        return self.imported(aliases, updating=("change",), most=_few_lines)

    def _targets(self, texts: list[str]) -> tuple[list[Mailbox], list[str]]:
        """The mailboxes among them that exist for whoever asks, and the other addresses."""
        names: dict[str, None] = {}
        for number, text in enumerate(texts):
            try:
                names[addresses.address(text)] = None
            except BadAddress as refusal:
                raise Problem("bad-address", f"{refusal}.", field=f"targets.{number}") from None
        found = Mailbox.objects.visible_to(self.principal).open().filter(address__in=names)
        mailboxes = {mailbox.address: mailbox for mailbox in found}
        return list(mailboxes.values()), [name for name in names if name not in mailboxes]


def _few_lines(table: Table) -> None:
    if len(table) > MOST_LINES:
        raise Problem("too-large", f"At most {MOST_LINES} aliases are imported at once: send the file in parts.")
