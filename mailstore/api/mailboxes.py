"""What can be done with a mailbox as a whole because of its mail: taking it along, and erasing it."""

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.http import HttpResponseBase, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import audit, permissions
from accounts.api.fields import octets, plural
from accounts.api.negotiation import Anything
from accounts.api.problems import FieldError, Problem
from accounts.api.views import needs
from mailstore import exporting, purging, tasks
from mailstore.api.within import ADDRESS, TheMailbox
from mailstore.models import Message


class Export(TheMailbox):
    """All mail of a mailbox, to take along."""

    serializer_class = serializers.Serializer
    content_negotiation_class = Anything
    extra_parameters = frozenset({"format", "removed"})

    @extend_schema(
        parameters=[
            ADDRESS,
            OpenApiParameter("format", str, enum=sorted(exporting.FORMATS), default="mbox"),
            OpenApiParameter("removed", bool, default=False, description="Also what can still be restored."),
        ],
        responses={
            (200, "application/mbox"): OpenApiTypes.BINARY,
            (200, "application/zip"): OpenApiTypes.BINARY,
        },
    )
    @needs("export")
    def retrieve(self, request: Request, **names: str) -> HttpResponseBase:
        """All messages in one file: an mbox, a zip with a Maildir (unique-ids kept), or a zip of .eml files.

        Who took it along is written in the audit. A file that breaks off is not whole.
        """
        form = request.query_params.get("format", "mbox")
        removed = request.query_params.get("removed", "false")
        if form not in exporting.FORMATS:
            known = ", ".join(exporting.FORMATS)
            raise Problem("bad-parameter", errors=[FieldError("format", "invalid", f"It is one of {known}.")])
        if removed not in ("true", "false"):
            raise Problem("bad-parameter", errors=[FieldError("removed", "invalid", "It is true or false.")])
        mailbox = self.mailbox
        permissions.check_content(self.principal, mailbox.tenant, default=settings.MAILHOST_CONTENT_ROLES)
        audit.record("mailbox.exported", mailbox, detail={"format": form, "removed": removed == "true"})
        name = f"{mailbox.pk}.{exporting.EXTENSIONS[form]}"
        return StreamingHttpResponse(
            exporting.FORMATS[form](mailbox, removed=removed == "true", principal=self.principal),
            content_type=exporting.MEDIA_TYPES[form],
            headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"},
        )


class ErasedShown(serializers.Serializer[dict[str, int]]):
    """What goes."""

    mailboxes = serializers.IntegerField()
    messages = serializers.IntegerField()
    octets = serializers.IntegerField()


class Erasure(TheMailbox):
    """The end of a mailbox, at once and for good."""

    serializer_class = ErasedShown

    @extend_schema(
        parameters=[ADDRESS],
        request=None,
        responses={202: ErasedShown},
        examples=[
            OpenApiExample(
                "erased", value={"mailboxes": 1, "messages": 812, "octets": 4402341478}, status_codes=["202"]
            )
        ],
    )
    @needs("erase")
    def create(self, request: Request, address: str) -> HttpResponseBase:
        """Close a mailbox and remove it with all its mail, for good, in the background. Nothing undoes it.

        A mailbox on legal hold is not erased.
        """
        mailbox = self.mailbox
        found = Message.objects.filter(mailbox=mailbox).order_by()
        counts = {"mailboxes": 1, "messages": found.count(), "octets": found.aggregate(sum=Sum("octets"))["sum"] or 0}
        purging.erase(mailbox)
        pk = mailbox.pk
        transaction.on_commit(lambda: tasks.erase.apply_async((pk,), retry=False), robust=True)
        messages = plural(counts["messages"], "message")
        self.would("erase", f"erases {mailbox} for good, {octets(counts['octets'])} in {messages}", **counts)
        return Response(ErasedShown(counts).data, status=202)
