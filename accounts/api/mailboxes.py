"""Mailboxes over the API."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ClassVar

import django_filters as filters
from django.conf import settings
from django.db.models import F, QuerySet
from django.http import HttpResponseBase
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import addresses, languages, permissions, provisioning
from accounts.addresses import BadAddress
from accounts.api.domains import domain_of
from accounts.api.fields import Days, ExternalId, Seconds, closing
from accounts.api.filters import At, Flag
from accounts.api.named import Named
from accounts.api.problems import Problem, about, of_refusal
from accounts.api.serializers import Network, Strict, Text, Truth, Whole
from accounts.api.spreadsheets import Spreadsheets, exports_file, imports_file
from accounts.api.tenants import NameFilters, written
from accounts.api.views import needs
from accounts.models import Domain, Mailbox
from accounts.provisioning import bulk
from accounts.spreadsheets import Table, mailboxes

MOST_ITEMS = 1000
"""Mailboxes of one request."""
MOST_PASSWORDS = 2000
"""Of one file: they are hashed while somebody waits."""

IMPORTED = """\
address,password,password_hash,quota,name
an@example.test,correct horse battery,,1G,An Example
binh@example.test,,{SSHA}ODzbSbYbgrHFcSc9WvKqh5sYsWFhYmNk,,
"""
EXPORTED = """\
address,quota,name,external_id,state,state_reason,pop3,allowed_networks,retention,keep_time,language\r
an@example.test,1G,An Example,customer-4711,active,,on,192.0.2.0/24,14d,365d,vi\r
"""


_LANGUAGE = "In which its owner reads pages and what is written to him. Null: as his browser asks, and the host's."


class MailboxShown(serializers.ModelSerializer[Mailbox]):
    """A hosted address with its quota. Passwords are never shown."""

    tenant = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    domain = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)
    retention = Seconds(read_only=True, allow_null=True, help_text="Seconds. Null: the tenant's.")
    language = serializers.ChoiceField(
        source="user.language", choices=languages.NAMES, read_only=True, allow_null=True, help_text=_LANGUAGE
    )
    keep_time = Seconds(
        read_only=True,
        allow_null=True,
        help_text="Seconds, of whole days: mail that is in the maildrop for longer is expunged. Null: the tenant's.",
    )

    class Meta:
        model = Mailbox
        fields: ClassVar = [
            "id", "address", "tenant", "domain", "name", "external_id", "state", "state_reason", "legal_hold",
            "quota_octets", "used_octets", "message_count", "pop3_enabled", "allowed_networks", "retention",
            "keep_time", "language", "last_login_at", "last_login_address", "closed_at", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class MailboxValues(Strict):
    """What of a mailbox can be said."""

    name = Text(max_length=200, required=False, allow_blank=True, help_text="Whose it is, as people read it.")
    external_id = ExternalId()
    password = Text(
        max_length=500, required=False, allow_null=True, trim_whitespace=False, write_only=True, help_text="Null: none."
    )
    password_hash = Text(
        max_length=1000, required=False, write_only=True, help_text="From another server: {SHA512-CRYPT}$6$…"
    )
    state = serializers.ChoiceField(choices=Mailbox.State.choices, required=False)
    state_reason = Text(max_length=500, required=False, allow_blank=True, help_text="Its owner reads it.")
    quota_octets = Whole(required=False, allow_null=True, min_value=0, max_value=2**63 - 1, help_text="Null: no limit.")
    pop3_enabled = Truth(required=False)
    allowed_networks = serializers.ListField(
        child=Network(), required=False, max_length=100, help_text="Such as 192.0.2.0/24. Empty: anywhere."
    )
    retention = Seconds(required=False, allow_null=True, help_text="Seconds. Null: the tenant's.")
    language = serializers.ChoiceField(choices=languages.NAMES, required=False, allow_null=True, help_text=_LANGUAGE)
    keep_time = Days(
        required=False,
        allow_null=True,
        help_text="Seconds, of whole days: mail that is in the maildrop for longer is expunged. Null: the tenant's.",
    )
    release = Truth(required=False, write_only=True, help_text="Give the address away although it is in quarantine.")


class MailboxWanted(MailboxValues):
    """What a mailbox is to be."""

    address = Text(max_length=400, required=False, help_text="As the address has it, in any spelling.")
    legal_hold = Truth(required=False, help_text="No purge removes any of its mail.")
    keep_sessions = Truth(
        required=False,
        write_only=True,
        help_text="With a new password: open sessions that began with the old one go on. Else they end at once.",
    )
    example: ClassVar = {"name": "An Example", "password": "correct horse battery", "quota_octets": 1073741824}


class MailboxAdded(MailboxWanted):
    """A mailbox to be."""

    address = Text(max_length=400, help_text="In any spelling.")
    example: ClassVar = {"address": "an@example.test", **MailboxWanted.example}


class Renaming(Strict):
    """Another address."""

    address = Text(max_length=400)
    keep_alias = Truth(default=True, help_text="The old address stays as an alias.")
    example: ClassVar = {"address": "an.example@example.test"}


class Item(MailboxValues):
    """What is to become of one mailbox."""

    action = serializers.ChoiceField(choices=["create", "update", "put", "close"], default="put")
    address = Text(max_length=400)


class Items(Strict):
    """What is to become of many mailboxes."""

    atomic = Truth(default=False, help_text="All or none; else each by itself.")
    items = serializers.ListField(child=Item(), allow_empty=False, max_length=MOST_ITEMS)


@extend_schema_field({"$ref": "#/components/schemas/Problem"})
class ProblemShown(serializers.JSONField):
    """A problem document."""


class ItemResult(serializers.Serializer[Any]):
    """What became of one mailbox."""

    address = serializers.CharField()
    done = serializers.ChoiceField(choices=["created", "changed", "unchanged", "closed"], allow_null=True)
    id = Whole(allow_null=True)
    problem = ProblemShown(allow_null=True)
    example: ClassVar = {"problem": None}


class ItemResults(serializers.Serializer[Any]):
    """What became of each, in order."""

    results = ItemResult(many=True)


class MailboxFilters(NameFilters):
    search = filters.CharFilter(method="begins", help_text="How the address begins; or @ and its domain.")
    tenant = filters.CharFilter(field_name="tenant__slug")
    domain = filters.CharFilter(method="of_domain", help_text="Its name, in any spelling.")
    state = filters.ChoiceFilter(choices=Mailbox.State.choices)
    closed = filters.ChoiceFilter(
        choices=[("true", "closed"), ("false", "open"), ("any", "both")], method="is_closed", help_text="Usually false."
    )
    legal_hold = Flag()
    pop3_enabled = Flag()
    last_login_since = At(field_name="last_login_at", lookup_expr="gte")
    last_login_until = At(field_name="last_login_at", lookup_expr="lt")
    never_logged_in = Flag(field_name="last_login_at", lookup_expr="isnull")
    used_percent = filters.NumberFilter(
        method="is_full", min_value=0, max_value=1000, help_text="At least so much of the quota is used."
    )

    def begins(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        if text.startswith("@"):
            return self.of_domain(rows, name, text[1:])
        return rows.filter(address__startswith=text.lower())

    def of_domain(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        try:
            host = addresses.domain(text)
        except BadAddress:
            return rows.none()
        domain = Domain.objects.visible_to(self.request.principal).filter(name=host).first()
        return rows.filter(domain=domain) if domain else rows.none()

    def is_closed(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        return rows  # by `Mailboxes.rows_listed`, which knows what is usual

    def is_full(self, rows: QuerySet[Any], name: str, percent: Any) -> QuerySet[Any]:
        return rows.filter(quota_octets__gt=0, used_octets__gte=F("quota_octets") * percent / 100)


class MailboxExportFilters(MailboxFilters):
    closed = None  # only open ones are exported


@written(MailboxAdded, MailboxWanted, MailboxShown)
class Mailboxes(Named, Spreadsheets):
    """Mailboxes. A name stands for the open one; without any, for the one that was closed last."""

    resource = "mailboxes"
    queryset = Mailbox.objects.select_related("tenant", "domain").prefetch_related("user")
    serializer_class = MailboxShown
    wanted = MailboxWanted
    added = MailboxAdded
    filterset_class = MailboxFilters
    lookup_field = "address"
    lookup_value_regex = "[^/]+"
    orderings = ("address", "created_at", "last_login_at", "used_octets")
    volatile = frozenset({"used_octets", "message_count", "last_login_at", "last_login_address"})
    max_body = 4 * 1024 * 1024

    def normal(self, name: str) -> str:
        return addresses.address(name)

    def look_up(self, name: str, *, lock: bool = False) -> Any:
        try:
            address = self.normal(name)
        except BadAddress:
            return None
        rows = self.rows().filter(address=address)
        if lock:
            # Before the mailbox, as everywhere (accounts.provisioning).
            Domain.objects.select_for_update(no_key=True).filter(name=addresses.split(address)[1]).first()
            rows = rows.select_for_update(no_key=True, of=("self",))
        return rows.order_by(F("closed_at").desc(nulls_first=True)).first()

    def listed(self) -> QuerySet[Any]:
        match self.request.query_params.get("closed", "false"):
            case "true":
                return self.rows().exclude(closed_at=None)
            case "any":
                return self.rows()
        return self.rows().filter(closed_at=None)

    def add(self, name: str, values: dict[str, Any]) -> tuple[Any, bool]:
        domain_of(self, name, field="address")
        given = dict(values)
        given.pop("keep_sessions", None)
        state, reason, hold = given.pop("state", None), given.pop("state_reason", ""), given.pop("legal_hold", False)
        given = {"password": None, "quota_octets": settings.MAILHOST_DEFAULT_QUOTA, **given}
        mailbox, added = provisioning.add_mailbox(name, **given)
        if added:
            if state:
                provisioning.set_state(mailbox, state, reason=reason)
            if hold:
                self._hold(mailbox, hold)
        return mailbox, added

    def change(self, row: Any, values: dict[str, Any]) -> None:
        values = dict(values)
        values.pop("release", None)
        keep_sessions = values.pop("keep_sessions", False)
        if "legal_hold" in values:
            self._hold(row, values.pop("legal_hold"))
        if row.closed_at:
            if values:
                raise Problem("closed")
            return
        password, stored = values.pop("password", _STAYS), values.pop("password_hash", None)
        if password is not _STAYS or stored is not None:
            permissions.check(self.principal, self.resource, "password")
            text = None if password is _STAYS else password
            with about("password"):
                provisioning.set_password(row.user, text, password_hash=stored, keep_sessions=keep_sessions)
        state, reason = values.pop("state", row.state), values.pop("state_reason", None)
        if reason is not None or state != row.state:
            provisioning.set_state(row, state, reason=reason or "")
        if values:
            provisioning.change_mailbox(row, **values)

    def remove(self, row: Any) -> None:
        summary, counts = closing("", pk=row.pk)
        self.would("close", summary, **counts)
        provisioning.close_mailbox(row)

    @extend_schema(request=None, responses={200: MailboxShown})
    @needs("reopen")
    @action(detail=True, methods=["post"])
    def reopen(self, request: Request, address: str) -> HttpResponseBase:
        """Undo the closing of a mailbox, with all its mail."""
        row = self.find(lock=True)
        provisioning.reopen_mailbox(row)
        self.would("reopen", f"reopens {row}", mailboxes=1)
        return self._written(row, is_new=False)

    @extend_schema(request=Renaming, responses={200: MailboxShown})
    @needs("change")
    @action(detail=True, methods=["post"])
    def rename(self, request: Request, address: str) -> HttpResponseBase:
        """Give it another address, in any domain of its tenant; mail to the old one still arrives."""
        row = self.find(lock=True)
        wanted = self.body(Renaming)
        if row.closed_at:
            raise Problem("closed")
        domain_of(self, wanted["address"], field="address")
        before = row.address
        with about("address"):
            provisioning.rename_mailbox(row, wanted["address"], keep_alias=wanted["keep_alias"])
        self.would("rename", f"renames {before} to {row.address}", mailboxes=1)
        return self._written(row, is_new=False)

    @extend_schema(request=Items, responses={200: ItemResults}, filters=False)
    @needs("change")
    @action(detail=False, methods=["post"], pagination_class=None)
    def bulk(self, request: Request) -> HttpResponseBase:
        """Create, change and close many, all or each by itself; an answer for each, in order."""
        wanted = self.body(Items)
        for done in {item["action"] for item in wanted["items"]}:
            for verb in _VERBS_OF[done]:
                permissions.check(self.principal, self.resource, verb)
        there = self._there(item["address"] for item in wanted["items"])
        items = [_item(dict(item), there) for item in wanted["items"]]
        within = Domain.objects.visible_to(self.principal)
        try:
            results = bulk.apply(items, atomic=wanted["atomic"], within=within)
        except bulk.NotAll as refusal:
            told = [_told(result) for result in refusal.results]
            raise Problem("not-all", f"{refusal}.", results=told) from None
        counts: dict[str, int] = {}
        for result in results:
            counts[result.done or "refused"] = counts.get(result.done or "refused", 0) + 1
        self.would("bulk", ", ".join(f"{count} {what}" for what, count in sorted(counts.items())), **counts)
        return Response({"results": [_told(result) for result in results]})

    @exports_file("mailboxes_export_csv", EXPORTED, filters=MailboxExportFilters)
    def export_file(self, request: Request) -> HttpResponseBase:
        """All open ones that match, as a CSV file that the import reads; without passwords, and without their hashes.

        Who took them along is written in the audit. A file that breaks off is not whole.
        """
        return self.exported(self._filtered(self.listed()), mailboxes.write)

    @imports_file("mailboxes_import_csv", IMPORTED)
    def import_file(self, request: Request) -> HttpResponseBase:
        """Add the mailboxes of a CSV file, all or none: 422 `bad-rows` says which lines cannot be, and why.

        Columns: address, password, password_hash, quota, name, external_id, state, state_reason, pop3,
        allowed_networks, retention, keep_time, language; without a line that names them, address, password, quota.
        Those that exist stay as they are, unless they are to be updated.
        """
        return self.imported(
            mailboxes,
            updating=("change", "password"),
            most=_few_passwords,
            default_quota=settings.MAILHOST_DEFAULT_QUOTA,
        )

    def _there(self, names: Iterable[str]) -> set[str]:
        """Which of these are the addresses of open mailboxes."""
        found = set()
        for name in names:
            with suppress(BadAddress):
                found.add(addresses.address(name))
        return set(self.rows().filter(address__in=found, closed_at=None).values_list("address", flat=True))

    def _hold(self, row: Mailbox, hold: bool) -> None:
        if row.legal_hold != hold:
            permissions.check(self.principal, self.resource, "hold")
            provisioning.set_legal_hold(row, hold)


_STAYS = object()
_VERBS_OF = {
    "create": ("create",),
    "update": ("change", "password"),
    "put": ("create", "change", "password"),
    "close": ("delete",),
}


def _few_passwords(table: Table) -> None:
    if sum(bool(line.cells.get("password")) for line in table) > MOST_PASSWORDS:
        text = f"At most {MOST_PASSWORDS} passwords are set at once: send the file in parts, or hashes."
        raise Problem("too-large", text)


def _item(said: dict[str, Any], there: set[str]) -> bulk.Item:
    own = {
        name: said.pop(name)
        for name in ("action", "address", "password", "password_hash", "state", "state_reason", "release")
        if name in said
    }
    with suppress(BadAddress):
        if own["action"] in ("create", "put") and addresses.address(own["address"]) not in there:
            said.setdefault("quota_octets", settings.MAILHOST_DEFAULT_QUOTA)
    return bulk.Item(values=said, **own)


def _told(result: bulk.Result) -> dict[str, Any]:
    return {
        "address": result.address,
        "done": result.done,
        "id": result.mailbox.pk if result.mailbox else None,
        "problem": of_refusal(result.refusal).document() if result.refusal else None,
    }
