"""POP3 sessions over the API: who fetches, from where, and ending one."""

from typing import Any, ClassVar

import django_filters as filters
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.filters import At, Flag
from accounts.api.views import needs
from mailstore import sessions
from mailstore.api.within import ADDRESS, Internet, OfMailbox, OfWhom, Searched, Whole
from mailstore.models import MaildropSession


class SessionShown(serializers.ModelSerializer[MaildropSession]):
    """A POP3 session. While it is open, no other has its maildrop, or its device's own copy of it."""

    mailbox = serializers.SlugRelatedField[Any](slug_field="address", read_only=True)
    open = serializers.SerializerMethodField()
    own_copy = serializers.BooleanField(
        read_only=True, help_text="Whether its device had an own copy: what it removed was gone for that device only."
    )
    end = serializers.ChoiceField(
        choices=[*MaildropSession.End.choices, ("", "open")],
        read_only=True,
        help_text="How it ended; empty while it is open.",
    )

    class Meta:
        model = MaildropSession
        fields: ClassVar = [
            "id", "mailbox", "open", "app_password_id", "own_copy", "client_address", "secure", "started_at",
            "ended_at", "end", "fetched", "expunged",
        ]  # fmt: skip
        read_only_fields = fields
        extra_kwargs: ClassVar = {
            "app_password_id": {"help_text": "The device's app password. Null: the mailbox's own password."},
        }

    def get_open(self, session: MaildropSession) -> bool:
        return session.ended_at is None


class SessionFilters(filters.FilterSet):  # type: ignore[misc] # django-filter has no types
    """What one would look for."""

    open = Flag(method="is_open")
    end = filters.ChoiceFilter(choices=MaildropSession.End.choices)
    client_address = Internet(help_text="Where the client is.")
    app_password_id = Whole(help_text="The device's.")
    secure = Flag(method="is_secure")
    since = At(field_name="started_at", lookup_expr="gte")
    until = At(field_name="started_at", lookup_expr="lt")

    class Meta:
        model = MaildropSession
        fields: ClassVar[list[str]] = []

    def is_open(self, rows: QuerySet[Any], name: str, wanted: bool) -> QuerySet[Any]:
        return rows.filter(ended_at__isnull=wanted)

    def is_secure(self, rows: QuerySet[Any], name: str, wanted: bool) -> QuerySet[Any]:
        return rows.filter(secure=wanted)


class AllSessionFilters(OfWhom, SessionFilters):
    """What one would look for."""


class Sessions(Searched):
    """Sessions, those that are open first. What neither fetched nor removed anything leaves no record."""

    resource = "sessions"
    queryset = MaildropSession.objects.select_related("mailbox")
    serializer_class = SessionShown
    filterset_class = AllSessionFilters
    lookup_field = "id"
    lookup_value_regex = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    orderings = ("-ended_at",)
    nulls_first = True
    volatile = frozenset({"fetched", "expunged"})

    @extend_schema(responses={204: OpenApiResponse(description="It has ended.")})
    @needs("end")
    def destroy(self, request: Request, id: str) -> Response:
        """End a session at once: nothing that it marked is removed. One that has ended stays as it is."""
        session = self.find(lock=True)
        ended = sessions.end(MaildropSession.objects.filter(pk=session.pk))
        self.would("end", f"ends {'a session' if ended else 'no session'} of {session.mailbox}", sessions=ended)
        return Response(status=204)


@extend_schema_view(list=extend_schema(parameters=[ADDRESS]))
class MailboxSessions(OfMailbox, Searched):
    """Sessions of one mailbox, those that are open first."""

    resource = "sessions"
    queryset = MaildropSession.objects.select_related("mailbox")
    serializer_class = SessionShown
    filterset_class = SessionFilters
    lookup_field = "id"
    lookup_value_regex = Sessions.lookup_value_regex
    orderings = ("-ended_at", "-started_at")
    nulls_first = True
    http_method_names = ["get", "head"]
