"""Moving a domain with all its mail to another tenant, over the API."""

from typing import Any

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import addresses
from accounts.addresses import BadAddress
from accounts.api.fields import octets, plural
from accounts.api.problems import Problem
from accounts.api.serializers import Strict, Text
from accounts.api.views import Resource, needs
from accounts.models import Domain, Tenant
from mailstore import moving


class MoveWanted(Strict):
    """Where it goes."""

    tenant = Text(max_length=63, help_text="The new tenant's slug.")


class DomainMoved(serializers.Serializer[Any]):
    """What has moved."""

    names = serializers.ListField(child=serializers.CharField(), help_text="The domain, and its alias domains.")
    domains = serializers.IntegerField()
    mailboxes = serializers.IntegerField()
    closed = serializers.IntegerField(help_text="Of the mailboxes, those in quarantine.")
    aliases = serializers.IntegerField()
    messages = serializers.IntegerField(help_text="Also those that can still be restored.")
    octets = serializers.IntegerField()


class DomainMove(Resource):
    """A domain that becomes another tenant's."""

    resource = "domains"
    queryset = Domain.objects.all()
    serializer_class = DomainMoved
    lookup_field = "name"
    pagination_class = None  # type: ignore[assignment] # it is one thing

    @extend_schema(
        parameters=[OpenApiParameter("name", str, OpenApiParameter.PATH, description="The domain's, in any spelling.")],
        request=MoveWanted,
        responses={200: DomainMoved},
        examples=[
            OpenApiExample(
                "moved",
                value={
                    "names": ["example.test"], "domains": 1, "mailboxes": 3, "closed": 0, "aliases": 2, "messages": 812,
                    "octets": 4402341478,
                },
                response_only=True,
                status_codes=["200"],
            )
        ],
    )  # fmt: skip
    @needs("move")
    def create(self, request: Request, name: str) -> HttpResponseBase:
        """Give a domain to another tenant: its alias domains, mailboxes, aliases, all mail and all records.

        Unique-ids stay. Open sessions end. Nothing moves while an alias or a legal hold ties it to where it is.
        """
        domain = self.find()
        slug = self.body(MoveWanted)["tenant"]
        to = Tenant.objects.visible_to(self.principal).filter(slug=slug).first()
        if to is None:
            raise Problem("unknown-tenant", f"There is no tenant {slug}.", field="tenant")
        moved = (moving.forecast if self.is_dry_run else moving.move_domain)(domain, to=to)
        counts = {
            "domains": moved.domains, "mailboxes": moved.mailboxes, "closed": moved.closed, "aliases": moved.aliases,
            "messages": moved.messages, "octets": moved.octets,
        }  # fmt: skip
        self.would(
            "move",
            f"moves {plural(moved.mailboxes, 'mailbox')}, {octets(moved.octets)} in "
            f"{plural(moved.messages, 'message')}, to {to}",
            **counts,
        )
        return Response({"names": list(moved.names), **counts})

    def look_up(self, name: str, *, lock: bool = False) -> Any:
        try:
            return super().look_up(addresses.domain(name), lock=lock)
        except BadAddress:
            return None
