"""Messages over the API: what became of each, its content, and bringing back what was removed."""

from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

import django_filters as filters
from django.conf import settings
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpResponseBase, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import audit, permissions
from accounts.api.fields import octets, plural
from accounts.api.filters import At
from accounts.api.negotiation import Anything
from accounts.api.problems import FieldError, Problem
from accounts.api.serializers import Moment, Strict
from accounts.api.views import needs
from accounts.models import User
from mailstore import exporting, life, retention
from mailstore.api.within import ADDRESS, ID, MOST, OfMailbox, OfWhom, Searched, Whole
from mailstore.models import MaildropSession, Message, OwnCopy
from mailstore.quota import QuotaExceeded
from mailstore.retention import Moved

MOST_IDS: Final = 10_000
"""Messages that one request names."""
_NAMED: Final = 100  # unknown ids that a problem tells


class OwnCopyShown(serializers.ModelSerializer[OwnCopy]):
    """What a device with an own copy of the maildrop did with a message."""

    device = serializers.SlugRelatedField[Any](source="app_password", slug_field="name", read_only=True)
    app_password_id = serializers.IntegerField(read_only=True)
    fetched_in = serializers.UUIDField(
        source="fetched_in_id", read_only=True, allow_null=True, help_text="The session."
    )
    removed_in = serializers.UUIDField(
        source="removed_in_id", read_only=True, allow_null=True, help_text="The session."
    )

    class Meta:
        model = OwnCopy
        fields: ClassVar = [
            "app_password_id", "device", "fetched_at", "fetched_in", "removed_at", "removed_in", "returns",
        ]  # fmt: skip
        read_only_fields = fields
        extra_kwargs: ClassVar = {
            "fetched_at": {"help_text": "When this device first fetched it."},
            "removed_at": {"help_text": "Since then it is gone for this device. Null: it is not."},
            "returns": {"help_text": "How often it was brought back for this device."},
        }


class MessageShown(serializers.ModelSerializer[Message]):
    """A message and its life: delivered, first fetched, removed. Its content is shown elsewhere."""

    mailbox = serializers.SlugRelatedField[Any](slug_field="address", read_only=True)
    state = serializers.SerializerMethodField(help_text="`maildrop`, or `removed`: that can be restored.")
    unique_id = serializers.CharField(read_only=True, help_text="What POP3 shows (UIDL).")
    first_fetched_in = serializers.UUIDField(
        source="first_fetched_in_id", read_only=True, allow_null=True, help_text="The session."
    )
    expunged_in = serializers.UUIDField(
        source="expunged_in_id", read_only=True, allow_null=True, help_text="The session that removed it."
    )
    expunged_by = serializers.SerializerMethodField(help_text="`user 7`; empty: a session, a token or a command.")
    own_copies = OwnCopyShown(many=True, read_only=True, help_text="Of the devices that have one, and did something.")
    purge_due_at = serializers.SerializerMethodField(
        help_text="When it goes for good. Null: it is in the maildrop, or must be kept."
    )

    class Meta:
        model = Message
        fields: ClassVar = [
            "id", "mailbox", "state", "unique_id", "subject", "sender", "message_id", "date", "reverse_path", "octets",
            "delivered_at", "first_fetched_at", "first_fetched_in", "expunged_at", "expunged_in", "expunged_by",
            "expired", "own_copies", "purge_due_at",
        ]  # fmt: skip
        read_only_fields = fields
        extra_kwargs: ClassVar = {
            "sender": {"help_text": "The From of its header."},
            "message_id": {"help_text": "The Message-ID of its header."},
            "date": {"help_text": "The Date of its header."},
            "expired": {"help_text": "It was removed because its keep-time ended."},
            "octets": {"help_text": "As POP3 counts them, with what was added on arrival."},
        }

    def get_state(self, message: Message) -> str:
        return "maildrop" if message.expunged_at is None else "removed"

    def get_expunged_by(self, message: Message) -> str:
        return f"user {message.expunged_by_id}" if message.expunged_by_id else ""

    def get_purge_due_at(self, message: Message) -> datetime | None:
        return retention.due_at(message, kept=settings.MAILHOST_RETENTION)


class LifeEventShown(serializers.Serializer[life.Event]):
    """Something that happened to a message, or will."""

    kind = serializers.ChoiceField(
        choices=[kind.value for kind in life.Kind],
        help_text="`due` and `held` are to come: it goes for good then, or would go and must be kept.",
    )
    at = serializers.DateTimeField(allow_null=True, help_text="Null: `held`.")
    session = serializers.UUIDField(source="seen.session_id", default=None, allow_null=True, help_text="In which.")
    device = serializers.CharField(source="seen.device", default="", help_text="The app password's name.")
    client_address = serializers.IPAddressField(source="seen.address", default="", help_text="The client's.")
    from_host = serializers.CharField(
        source="hop.host", default="", help_text="Of a delivery, the host that the MTA took it from, as that said."
    )
    from_address = serializers.IPAddressField(source="hop.address", default="", help_text="And its address.")
    queue_id = serializers.CharField(source="hop.queue_id", default="", help_text="The MTA's.")
    by = serializers.CharField(help_text="Who, if not in a session; empty: a program or a command.")


class MovedShown(serializers.Serializer[Moved]):
    """What came back, or was removed."""

    messages = serializers.IntegerField()
    octets = serializers.IntegerField()
    mailboxes = serializers.IntegerField()


class Ids(Strict):
    """Some messages."""

    ids = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=MOST), allow_empty=False, max_length=MOST_IDS
    )


class Restored(Strict):
    """Which messages are brought back: say one of these."""

    ids = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=MOST),
        allow_empty=False,
        max_length=MOST_IDS,
        required=False,
    )
    session = serializers.UUIDField(required=False, help_text="All that this session removed: undoes it.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            names = ", ".join(self.fields)
            raise serializers.ValidationError(f"Say one of: {names}.", code="one-of")
        return attrs


class RestoredHere(Restored):
    """Which messages are brought back: say one of these."""

    as_of = Moment(required=False, help_text="All that the maildrop had then. What came later stays, too.")


class MessageFilters(filters.FilterSet):  # type: ignore[misc] # django-filter has no types
    """What one would look for."""

    state = filters.ChoiceFilter(
        choices=[("maildrop", "there"), ("fetched", "there, and fetched"), ("removed", "can be restored")],
        method="in_state",
    )
    session = filters.UUIDFilter(method="of_session", help_text="First fetched, or removed, in it.")
    subject = filters.CharFilter(lookup_expr="icontains", help_text="A part of it.")
    sender = filters.CharFilter(lookup_expr="icontains", help_text="A part of the From.")
    # The whole: of what row-level security has not let through yet, indexes answer nothing but equality.
    message_id = filters.CharFilter(method="of_message_id", help_text="The whole one, with angle brackets or without.")
    unique_id = filters.CharFilter(method="of_unique_id", help_text="What POP3 shows.")
    reverse_path = filters.CharFilter()
    delivered_since = At(field_name="delivered_at", lookup_expr="gte")
    delivered_until = At(field_name="delivered_at", lookup_expr="lt")
    expunged_since = At(field_name="expunged_at", lookup_expr="gte")
    expunged_until = At(field_name="expunged_at", lookup_expr="lt")
    min_octets = Whole(field_name="octets", lookup_expr="gte")
    max_octets = Whole(field_name="octets", lookup_expr="lte")

    class Meta:
        model = Message
        fields: ClassVar[list[str]] = []

    def in_state(self, rows: Any, name: str, state: str) -> QuerySet[Any]:
        if state == "removed":
            return rows.expunged()  # type: ignore[no-any-return]
        present: QuerySet[Any] = rows.in_maildrop()
        return present.exclude(first_fetched_at=None) if state == "fetched" else present

    def of_session(self, rows: QuerySet[Any], name: str, session: UUID) -> QuerySet[Any]:
        # The session says which mailbox to look in; none is found for somebody else's.
        found = MaildropSession.objects.visible_to(self.request.principal).filter(pk=session).first()
        if found is None:
            return rows.none()
        in_it = Q(first_fetched_in=found.pk) | Q(expunged_in=found.pk)
        if found.own_copy:
            own = OwnCopy.objects.filter(Q(fetched_in=found.pk) | Q(removed_in=found.pk), app_password=found.view)
            in_it |= Q(pk__in=own.values("message"))
        return rows.filter(in_it, mailbox=found.mailbox_id)

    def of_message_id(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        bare = text.removeprefix("<").removesuffix(">")
        return rows.filter(message_id__in=(bare, f"<{bare}>"))

    def of_unique_id(self, rows: QuerySet[Any], name: str, text: str) -> QuerySet[Any]:
        wanted = Q(kept_unique_id=text)
        try:
            # A device with an own copy may have been shown a fourth number.
            mailbox, epoch, uid = (int(part, 16) for part in text.split(".", 3)[:3])
        except ValueError:
            return rows.filter(wanted)
        if max(mailbox, epoch, uid) > MOST or epoch >= 2**31:
            return rows.filter(wanted)
        return rows.filter(wanted | Q(kept_unique_id=None, mailbox=mailbox, epoch=epoch, uid=uid))


class AllMessageFilters(OfWhom, MessageFilters):
    """What one would look for."""


class _Messages(Searched):
    """What is the same for the messages of one mailbox and of many."""

    resource = "messages"
    queryset = (
        Message.objects.select_related("mailbox", "tenant")
        .prefetch_related(Prefetch("own_copies", OwnCopy.objects.select_related("app_password")))
        .defer("trace")
    )
    serializer_class = MessageShown
    lookup_field = "id"
    lookup_value_regex = "[0-9]{1,18}"
    volatile = frozenset({"purge_due_at"})

    def _by(self) -> User | None:
        return User.objects.filter(pk=self.principal.user_id or 0).first()

    def _chosen(self, ids: list[int]) -> QuerySet[Message]:
        """These messages. Raises `Problem` if one does not exist for whoever asks."""
        chosen = self.rows().filter(pk__in=ids)
        known = set(chosen.values_list("pk", flat=True))
        errors = [
            FieldError(f"ids.{number}", "unknown-message", f"There is no message {one}.")
            for number, one in enumerate(ids)
            if one not in known
        ]
        if errors:
            raise Problem("unknown-message", errors=errors[:_NAMED])
        return chosen

    def _undo(self, session: UUID) -> HttpResponseBase:
        found = MaildropSession.objects.visible_to(self.principal).filter(pk=session).first()
        if found is None or not self._is_here(found):
            text = f"There is no session {session}."
            raise Problem("unknown-session", text, field="session")
        return self._restore(retention.removed_in(found), undoing=found)

    def _is_here(self, session: MaildropSession) -> bool:
        return True

    def _expunge(self) -> HttpResponseBase:
        chosen = self._chosen(self.body(Ids)["ids"])
        moved = retention.expunge(chosen, by=self._by())
        self.would("expunge", _sentence("removes", moved, "from"), **moved._asdict())
        return Response(MovedShown(moved).data)

    def _life(self) -> HttpResponseBase:
        message = self.find()
        events: Any = life.of([message], kept=settings.MAILHOST_RETENTION)[message.pk]
        return Response(LifeEventShown(events, many=True).data)

    def _restore(self, chosen: QuerySet[Message], undoing: MaildropSession | None = None) -> HttpResponseBase:
        try:
            moved = retention.restore(chosen, by=self._by(), undoing=undoing)
        except QuotaExceeded as refusal:
            raise Problem("no-room", f"{refusal}: nothing was restored.", octets=refusal.octets) from None
        self.would("restore", _sentence("restores", moved, "to"), **moved._asdict())
        return Response(MovedShown(moved).data)


def _sentence(does: str, moved: Moved, where: str) -> str:
    """`restores 812 messages, 4.1 GB, to 3 mailboxes`."""
    messages = plural(moved.messages, "message")
    return f"{does} {messages}, {octets(moved.octets)}, {where} {plural(moved.mailboxes, 'mailbox')}"


_MOVED = OpenApiExample(
    "moved", value={"messages": 812, "octets": 4402341478, "mailboxes": 1}, response_only=True, status_codes=["200"]
)


class Messages(_Messages):
    """Messages of all mailboxes that exist for whoever asks, newest first."""

    filterset_class = AllMessageFilters
    orderings = ("-id",)

    @extend_schema(responses={200: LifeEventShown(many=True)}, filters=False)
    @needs("read")
    @action(detail=True, methods=["get"], pagination_class=None)
    def life(self, request: Request, id: str) -> HttpResponseBase:
        """What happened to a message, oldest first, and what will: delivered, fetched, removed, restored, by whom."""
        return self._life()

    @extend_schema(request=Ids, responses={200: MovedShown}, filters=False, examples=[_MOVED])
    @needs("expunge")
    @action(detail=False, methods=["post"], pagination_class=None)
    def expunge(self, request: Request) -> HttpResponseBase:
        """Take messages out of their maildrops and quotas. They can be restored until they are purged."""
        return self._expunge()

    @extend_schema(request=Restored, responses={200: MovedShown}, filters=False, examples=[_MOVED])
    @needs("restore")
    @action(detail=False, methods=["post"], pagination_class=None)
    def restore(self, request: Request) -> HttpResponseBase:
        """Bring removed messages back into their maildrops. They are new to every client. All or none.

        Those that only the own copies of devices lack come back for these devices: of all that removed them, or of the
        session's alone.
        """
        wanted = self.body(Restored)
        return self._restore(self._chosen(wanted["ids"])) if "ids" in wanted else self._undo(wanted["session"])


@extend_schema_view(
    list=extend_schema(parameters=[ADDRESS]),
    retrieve=extend_schema(parameters=[ADDRESS, ID]),
    life=extend_schema(parameters=[ADDRESS, ID]),
    content=extend_schema(parameters=[ADDRESS, ID]),
    expunge=extend_schema(parameters=[ADDRESS]),
    restore=extend_schema(parameters=[ADDRESS]),
)
class MailboxMessages(OfMailbox, _Messages):
    """Messages of one mailbox, newest first."""

    filterset_class = MessageFilters
    orderings = ("-uid", "octets", "delivered_at", "expunged_at")

    @extend_schema(responses={200: LifeEventShown(many=True)}, filters=False)
    @needs("read")
    @action(detail=True, methods=["get"], pagination_class=None)
    def life(self, request: Request, address: str, id: str) -> HttpResponseBase:
        """What happened to a message, oldest first, and what will: delivered, fetched, removed, restored, by whom."""
        return self._life()

    @extend_schema(request=RestoredHere, responses={200: MovedShown}, filters=False, examples=[_MOVED])
    @needs("restore")
    @action(detail=False, methods=["post"], pagination_class=None)
    def restore(self, request: Request, address: str) -> HttpResponseBase:
        """Bring removed messages back into the maildrop. They are new to every client. All or none.

        Those that only the own copies of devices lack come back for these devices: of all that removed them, or of the
        session's alone.
        """
        wanted = self.body(RestoredHere)
        if "as_of" in wanted:
            return self._restore(retention.removed_since(self.mailbox, wanted["as_of"]))
        return self._restore(self._chosen(wanted["ids"])) if "ids" in wanted else self._undo(wanted["session"])

    @extend_schema(request=Ids, responses={200: MovedShown}, filters=False, examples=[_MOVED])
    @needs("expunge")
    @action(detail=False, methods=["post"], pagination_class=None)
    def expunge(self, request: Request, address: str) -> HttpResponseBase:
        """Take messages out of the maildrop and its quota. They can be restored until they are purged."""
        return self._expunge()

    @extend_schema(responses={(200, "message/rfc822"): OpenApiTypes.BINARY}, filters=False)
    @needs("content")
    @action(detail=True, methods=["get"], pagination_class=None, content_negotiation_class=Anything)
    def content(self, request: Request, address: str, id: str) -> HttpResponseBase:
        """The message as POP3 hands it out, octet by octet. Who read it is written in the audit."""
        message = self.find()
        permissions.check_content(self.principal, message.tenant, default=settings.MAILHOST_CONTENT_ROLES)
        audit.record("message.read", message, detail={"what": "source"})
        return StreamingHttpResponse(
            exporting.octets_of(message, principal=self.principal),
            content_type="message/rfc822",
            headers={
                "Content-Length": str(message.octets),
                "Content-Disposition": f'attachment; filename="{message.pk}.eml"',
                "Cache-Control": "private, no-store",
            },
        )

    def _is_here(self, session: MaildropSession) -> bool:
        return session.mailbox_id == self.mailbox.pk
