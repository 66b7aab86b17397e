"""What resources of the mail have in common: the mailbox in their address, how long they may search, their filters."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

import django_filters as filters
from django import forms
from django.db.models import F, Q, QuerySet
from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, extend_schema_field
from rest_framework.request import Request

from accounts import addresses
from accounts.addresses import BadAddress
from accounts.api.problems import Problem
from accounts.api.views import Resource
from accounts.models import Domain, Mailbox, Tenant
from accounts.principals import Principal
from mailstore import search

MOST: Final = 2**63 - 1

ADDRESS: Final = OpenApiParameter("address", str, OpenApiParameter.PATH, description="The mailbox's, in any spelling.")
ID: Final = OpenApiParameter("id", int, OpenApiParameter.PATH)


def mailbox_of(principal: Principal, name: str) -> Mailbox | None:
    """The mailbox of that address which exists for whoever asks: the open one, else the one that was closed last."""
    try:
        address = addresses.address(name)
    except BadAddress:
        return None
    found = Mailbox.objects.visible_to(principal).select_related("tenant").filter(address=address)
    mailbox: Mailbox | None = found.order_by(F("closed_at").desc(nulls_first=True)).first()
    return mailbox


class OfMailbox(Resource):
    """Something of the mailbox that the address names."""

    @cached_property
    def mailbox(self) -> Mailbox:
        """The mailbox. Raises `Problem` with 404."""
        found = mailbox_of(self.principal, self.kwargs["address"])
        if found is None:
            raise Problem("not-found")
        return found

    def rows(self) -> QuerySet[Any]:
        return super().rows().filter(mailbox=self.mailbox)

    def _check_allowed(self) -> None:
        _ = self.mailbox  # whatever one may do: there is nothing to be done with what does not exist
        super()._check_allowed()


class TheMailbox(OfMailbox):
    """The mailbox itself."""

    resource = "mailboxes"
    queryset = Mailbox.objects.all()
    lookup_field = "address"
    pagination_class = None  # type: ignore[assignment] # it is one thing

    def rows(self) -> QuerySet[Any]:
        return Resource.rows(self)

    def look_up(self, name: str, *, lock: bool = False) -> Any:
        return mailbox_of(self.principal, name)


class Searched(Resource):
    """A list that can be long, and is looked for in a bounded time."""

    def list(self, request: Request, **names: str) -> HttpResponseBase:
        """Those that exist for whoever asks, a page at a time."""
        with bounded():
            return super().list(request, **names)


@contextmanager
def bounded() -> Iterator[None]:
    """Within, a statement that takes too long raises `Problem`."""
    try:
        with search.bounded():
            yield
    except search.TooBroad:
        raise Problem("too-broad") from None


# --- Filters -------------------------------------------------------------------------------------------------------


class Whole(filters.NumberFilter):  # type: ignore[misc] # django-filter has no types
    """A whole number."""

    field_class = forms.IntegerField

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"min_value": 0, "max_value": MOST, **options})


@extend_schema_field({"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]})
class Internet(filters.Filter):  # type: ignore[misc] # django-filter has no types
    """An IPv4 or IPv6 address."""

    field_class = forms.GenericIPAddressField


class OfWhom(filters.FilterSet):  # type: ignore[misc] # django-filter has no types
    """Whose it is. What does not exist for whoever asks has nothing."""

    mailbox = filters.CharFilter(method="of_mailbox", help_text="Its address, in any spelling.")
    domain = filters.CharFilter(method="of_domain", help_text="Its name, in any spelling.")
    tenant = filters.CharFilter(method="of_tenant", help_text="Its slug.")

    def of_mailbox(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        try:
            return rows.filter(mailbox_id__in=self._ids(Mailbox, Q(address=addresses.address(text))))
        except BadAddress:
            return rows.none()

    def of_domain(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        try:
            return rows.filter(mailbox__domain_id__in=self._ids(Domain, Q(name=addresses.domain(text))))
        except BadAddress:
            return rows.none()

    def of_tenant(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        return rows.filter(tenant_id__in=self._ids(Tenant, Q(slug=text)))

    def _ids(self, model: Any, wanted: Q) -> list[int]:
        """Of what exists for whoever asks. A list: as a subquery it would hide from the planner how few they are."""
        found = model.objects.visible_to(self.request.principal).filter(wanted)
        return list(found.values_list("pk", flat=True)[:1000])
