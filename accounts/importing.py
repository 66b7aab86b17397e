"""Pages of the admin that read and write CSV files: looked at first, with a report, and then carried out."""

import base64
import binascii
import zlib
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy
from django.views.decorators.http import require_http_methods, require_safe

from accounts import principals, scope
from accounts.models import Domain
from accounts.scoped import Scoped, dress
from accounts.spreadsheets import BadFile, BadLines, Report, Table

LIMIT: Final = 1024 * 1024
"""Octets of a file that the admin takes: it goes to the browser and back between report and import."""
MOST_PASSWORDS: Final = 2000
"""To be hashed while a browser waits."""

_SHOWN: Final = 500  # problems


class SheetForm(forms.Form):
    file = forms.FileField(
        label=_lazy("File"),
        required=False,
        help_text=_lazy("UTF-8, at most 1 MB. Larger ones: with manage.py, or the API."),
    )
    update = forms.BooleanField(
        label=_lazy("Update"), required=False, help_text=_lazy("Also give those that exist what their lines say.")
    )
    content = forms.CharField(required=False, widget=forms.HiddenInput)


class Importing(Scoped):
    """A list that is imported and exported as CSV. To be named first among several bases."""

    change_list_template = "admin/accounts/change_list_with_sheets.html"
    imports: ClassVar[tuple[str, str]]
    """The verbs that are needed: to add, and to update."""
    sheet_columns: ClassVar[tuple[str, ...]]

    def read_sheet(self, octets: bytes) -> Table:
        """Raises `BadFile`."""
        raise NotImplementedError

    def check_sheet(self, table: Table, **how: Any) -> Report:
        """What would be done."""
        raise NotImplementedError

    def apply_sheet(self, table: Table, **how: Any) -> Report:
        """Raises `BadLines`."""
        raise NotImplementedError

    def write_sheet(self, rows: Any) -> Iterator[bytes]:
        """The file of these."""
        raise NotImplementedError

    def get_urls(self) -> list[Any]:
        name = self.opts.label_lower.replace(".", "_")
        view = self.admin_site.admin_view
        return [
            path("import/", view(require_http_methods(["GET", "POST"])(self.import_view)), name=f"{name}_import"),
            path("export/", view(require_safe(self.export_view)), name=f"{name}_export"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        more = {"may_import": self.may(request, self.imports[0]), "may_export": self.may(request, "list-export")}
        return super().changelist_view(request, (extra_context or {}) | more)

    def export_view(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """The file of all that exist for whoever asks, as it is read from the database."""
        if not self.may(request, "list-export"):
            raise PermissionDenied
        return self._file(request, self.model._default_manager.visible_to(request.user))

    def has_export_permission(self, request: HttpRequest) -> bool:
        """For the action."""
        return self.may(request, "list-export")

    @admin.action(permissions=["export"], description=_lazy("Export as CSV"))
    def export_chosen(self, request: HttpRequest, queryset: QuerySet[Any]) -> StreamingHttpResponse:
        """The file of those that were chosen."""
        chosen = queryset.order_by().values("pk")
        return self._file(request, self.model._default_manager.visible_to(request.user).filter(pk__in=chosen))

    def _file(self, request: HttpRequest, rows: Any) -> StreamingHttpResponse:
        principal = principals.acting()

        def file() -> Iterator[bytes]:
            yield b"\xef\xbb\xbf"  # else spreadsheets take it for another encoding
            yield from self.write_sheet(rows)

        response = StreamingHttpResponse(scope.streamed(principal, file), content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="{self.opts.model_name}.csv"'
        response["Cache-Control"] = "no-store"
        return response

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """A form; then the report on a file, and a button; then it is carried out."""
        if not self.may(request, self.imports[0]):
            raise PermissionDenied
        form = SheetForm(request.POST or None, request.FILES or None)
        dress(form)
        report: Report | None = None
        content = ""
        if request.method == "POST" and form.is_valid():
            update = form.cleaned_data["update"]
            if update and not self.may(request, self.imports[1]):
                raise PermissionDenied
            how = {"update": update, "within": Domain.objects.visible_to(request.user)}
            try:
                octets = _octets(form)
                table = _bounded(self.read_sheet(octets))
                if form.cleaned_data["content"] and "apply" in request.POST:
                    return self._carry_out(request, self.apply_sheet(table, **how))
                report = self.check_sheet(table, **how)
                content = base64.b64encode(zlib.compress(octets)).decode()
            except BadLines as refused:
                report = refused.report
            except BadFile as refusal:
                form.add_error("file", f"{refusal}.")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Import %(names)s") % {"names": self.opts.verbose_name_plural},
            "form": form,
            "report": report,
            "problems": report.problems[:_SHOWN] if report else (),
            "content": content,
            "columns": self.sheet_columns,
        }
        response = TemplateResponse(request, "admin/accounts/import.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def _carry_out(self, request: HttpRequest, report: Report) -> HttpResponse:
        text = _("Imported: %(created)s added, %(changed)s changed, %(unchanged)s left as they are.")
        counts = {"created": report.created, "changed": report.changed, "unchanged": report.unchanged}
        self.message_user(request, text % counts, messages.SUCCESS)
        return self.to_list()


def _octets(form: SheetForm) -> bytes:
    """What was uploaded, or comes back with the report. Raises `BadFile`."""
    if upload := form.cleaned_data["file"]:
        octets = bytes(upload.read(LIMIT + 1))
    elif content := form.cleaned_data["content"]:
        try:
            octets = zlib.decompressobj().decompress(base64.b64decode(content, validate=True), LIMIT + 1)
        except (binascii.Error, zlib.error, ValueError):
            raise BadFile(_("send the file again")) from None
    else:
        raise BadFile(_("choose a file"))
    if len(octets) > LIMIT:
        raise BadFile(_("the file has more than 1 MB: use manage.py or the API"))
    return octets


def _bounded(table: Table) -> Table:
    passwords = sum(bool(line.cells.get("password")) for line in table)
    if passwords > MOST_PASSWORDS:
        raise BadFile(
            _("at most %(most_passwords)s passwords can be set at once here: use manage.py, or hashes")
            % {"most_passwords": MOST_PASSWORDS}
        )
    return table
