"""Bringing mail along over the API: jobs that fetch it from another server, or out of a file."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import django_filters as filters
from django.conf import settings
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request

from accounts.api.parsers import Json
from accounts.api.problems import Problem
from accounts.api.serializers import Strict, Text
from accounts.api.views import Resource, needs
from mailstore.api.receiving import FILE, MULTIPART, Receives
from mailstore.api.within import ADDRESS, OfMailbox, OfWhom
from mailstore.importing import jobs
from mailstore.models import ImportJob

FILES: Final = ("application/mbox", "application/zip")


class ImportShown(serializers.ModelSerializer[ImportJob]):
    """Mail that is being brought along. The password is never shown, and forgotten when the job ends."""

    mailbox = serializers.SlugRelatedField[Any](slug_field="address", read_only=True)
    report = serializers.SerializerMethodField(help_text="What went wrong.")

    class Meta:
        model = ImportJob
        fields: ClassVar = [
            "id", "mailbox", "source", "host", "port", "security", "login", "folder", "uidl_format", "state", "total",
            "imported", "skipped", "failed", "report", "created_at", "started_at", "ended_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_report(self, job: ImportJob) -> list[str]:
        return jobs.report(job)


class ImportWanted(Strict):
    """Where the mail is."""

    source = serializers.ChoiceField(choices=["pop3", "imap"])  # type: ignore[assignment] # as a field of the body
    host = Text(max_length=253, help_text="A name such as pop.example.net; none of a private network.")
    port = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=65535)
    security = serializers.ChoiceField(choices=["tls", "starttls", "none"], default="tls")
    login = Text(max_length=320)
    password = Text(max_length=1000, trim_whitespace=False, write_only=True)
    folder = Text(max_length=255, required=False, allow_blank=True, help_text="Of IMAP; empty: INBOX.")
    uidl_format = Text(
        max_length=32,
        required=False,
        allow_blank=True,
        help_text="How IMAP's server makes unique-ids; `none` keeps none.",
    )


class Again(Strict):
    """What was forgotten."""

    password = Text(max_length=1000, required=False, trim_whitespace=False, write_only=True)


class ImportFilters(OfWhom):
    """What one would look for."""

    state = filters.ChoiceFilter(choices=ImportJob.State.choices)
    source = filters.ChoiceFilter(choices=ImportJob.Source.choices)

    class Meta:
        model = ImportJob
        fields: ClassVar[list[str]] = []


class MailboxImportFilters(filters.FilterSet):  # type: ignore[misc] # django-filter has no types
    """What one would look for."""

    state = filters.ChoiceFilter(choices=ImportJob.State.choices)

    class Meta:
        model = ImportJob
        fields: ClassVar[list[str]] = []


_EXAMPLE = OpenApiExample(
    "pop3",
    value={"source": "pop3", "host": "pop.example.net", "login": "an", "password": "correct horse"},
    request_only=True,
    media_type="application/json",
)


class _Imports(Resource):
    resource = "imports"
    queryset = ImportJob.objects.select_related("mailbox")
    serializer_class = ImportShown
    lookup_field = "id"
    lookup_value_regex = "[0-9]{1,18}"
    orderings = ("-id",)
    volatile = frozenset({"total", "imported", "skipped", "failed", "report", "state", "started_at", "ended_at"})


class Imports(_Imports):
    """Imports of all mailboxes that exist for whoever asks, newest first."""

    filterset_class = ImportFilters

    @extend_schema(request=None, responses={200: ImportShown})
    @needs("change")
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, id: str) -> HttpResponseBase:
        """End an import; what came along stays. One that has ended stays as it is."""
        job = self.find(lock=True)
        jobs.cancel(job)
        self.would("cancel", f"cancels the import of {job.mailbox}", imports=1)
        return self.answer(self.rows().get(pk=job.pk))

    @extend_schema(request=Again, responses={200: ImportShown})
    @needs("change")
    @action(detail=True, methods=["post"])
    def restart(self, request: Request, id: str) -> HttpResponseBase:
        """Go on with an import that has ended. A server's password is needed again."""
        job = self.find(lock=True)
        with _told():
            jobs.restart(job, self.body(Again).get("password", ""), secret=settings.SECRET_KEY)
        self.would("restart", f"goes on with the import of {job.mailbox}", imports=1)
        return self.answer(self.rows().get(pk=job.pk))


@extend_schema_view(list=extend_schema(parameters=[ADDRESS]))
class MailboxImports(OfMailbox, Receives, _Imports):
    """Imports of one mailbox, newest first."""

    filterset_class = MailboxImportFilters
    http_method_names = ["get", "head", "post"]
    parser_classes = (Json,)
    large = FILES
    extra_parameters = frozenset({"uidl_format"})
    _upload = ""
    _digest = b""
    _is_needed = False

    @extend_schema(
        parameters=[
            ADDRESS,
            OpenApiParameter("uidl_format", str, description="Of a zip with a Maildir; `none` keeps no unique-ids."),
        ],
        request={
            "application/json": ImportWanted,
            **dict.fromkeys(FILES, OpenApiTypes.BINARY),
            MULTIPART: {
                "type": "object",
                "required": [FILE],
                "properties": {FILE: {"type": "string", "format": "binary"}},
            },
        },
        responses={201: ImportShown},
        filters=False,
        examples=[_EXAMPLE],
    )
    def create(self, request: Request, address: str) -> HttpResponseBase:
        """Bring mail along from a POP3 or IMAP server, or out of an mbox or a zip that is sent here.

        It goes on in the background; each message comes along once, however often it is tried.
        """
        if self.mailbox.closed_at is not None:
            raise Problem("takes-no-mail", "It is closed.")
        with _told():
            if self.is_large:
                given: dict[str, Any] = {"source": "upload", "upload": self._upload}
                given["uidl_format"] = self.request.query_params.get("uidl_format", "")
            else:
                given = self.body(ImportWanted)
                if not settings.MAILHOST_PRIVATE_TARGETS:
                    jobs.check_public(given["host"])
            job = jobs.start(self.mailbox, secret=settings.SECRET_KEY, **given)
        self._is_needed = not self.is_dry_run
        self.would("import", f"brings mail along to {self.mailbox}", imports=1)
        job = self.rows().get(pk=job.pk)
        return self.answer(job, status=201, headers={"Location": f"/api/v1/imports/{job.pk}/"})

    # --- The file --------------------------------------------------------------------------------------------------

    def largest(self) -> int:
        limit: int = settings.MAILHOST_MAX_UPLOAD
        return limit

    def receive(self, pieces: Iterator[bytes]) -> None:
        hashed = hashlib.sha256()

        def read() -> Iterator[bytes]:
            for piece in pieces:
                hashed.update(piece)
                yield piece

        try:
            self._upload = jobs.save_upload(read(), directory=self._directory(), limit=self.largest())
        except jobs.UploadTooLarge:
            raise Problem("too-large", f"A file has at most {self.largest()} octets here.") from None
        self._digest = hashed.digest()

    def said(self) -> bytes:
        return self._digest if self._upload else super().said()

    def let_go(self) -> None:
        if self._upload and not self._is_needed:
            with suppress(OSError):
                (self._directory() / self._upload).unlink()

    def _directory(self) -> Path:
        directory: Path = settings.MAILHOST_DATA / "uploads"
        return directory


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except jobs.BadImport as refusal:
        raise Problem("bad-import", f"{refusal}.", field=refusal.field) from None
    except jobs.AlreadyRunning:
        raise Problem("import-running") from None
