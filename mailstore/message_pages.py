"""The page of the admin on which a message is read: as text, as HTML in a frame that nothing leaves, and as files.

Each look is written in the audit, once for what is seen at once.
"""

import base64
import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

from django.conf import settings
from django.contrib import messages
from django.core import signing
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.template.response import TemplateResponse
from django.utils.html import escape
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from accounts import audit, principals, quotas
from accounts.middleware import Waiting
from accounts.scoped import RowPage, Scoped
from mailstore import exporting, reading
from mailstore.models import Message
from mailstore.reading import Busy, CannotBeShown
from mailstore.row_pages import may_read_content

T = TypeVar("T")

_FIRST: Final = ("from", "sender", "reply-to", "to", "cc", "bcc", "date")
"""Fields of a header that people look for, beside the subject."""

_STYLE: Final = """
:root { color-scheme: only light; background: #fff; color: #111827; }
body { margin: 1rem; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
img:not([src]) { padding: 0 .25rem; outline: 1px dashed #9ca3af; color: #4b5563; }
table { max-width: 100%; }
pre { white-space: pre-wrap; }
blockquote { margin: 0 0 0 .25rem; padding-left: .75rem; border-left: 3px solid #d1d5db; }
a { text-decoration: underline dotted; }
a[data-host]::after { content: " [" attr(data-host) "]"; font-size: .85em; color: #4b5563; }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_DOCUMENT: Final = """<!doctype html>
<html lang="und"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>{style}</style></head>
<body>{shown}</body></html>
"""
_FRAME_HEADERS: Final = {
    "Content-Security-Policy": f"sandbox; default-src 'none'; img-src data:; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_BUSY: Final = _lazy("Many messages are being read right now, and this one was not. Try again in a moment.")
_SALT: Final = "mailstore.message_pages"
_LOADED_WITHIN: Final = 120  # seconds in which a frame comes after its page


def _read(page: Scoped, request: HttpRequest, message: Message) -> HttpResponseBase:
    """The page, or what of it the address asks for: its frame, its source, one of its attachments."""
    if request.method != "GET":
        return HttpResponseNotAllowed(["GET"])
    asked = request.GET
    if "source" in asked:
        return _source(message)
    if "attachment" in asked:
        return _attachment(page, request, message, asked["attachment"])
    if "frame" in asked:
        return _frame(request, message, asked["frame"])
    return _page(page, request, message, as_html=asked.get("show") == "html")


def _page(page: Scoped, request: HttpRequest, message: Message, *, as_html: bool) -> HttpResponseBase:
    def shown(looked: reading.Page | CannotBeShown) -> HttpResponse:
        found = None if isinstance(looked, CannotBeShown) else looked
        as_frame = found is not None and found.has_html and as_html
        context: dict[str, Any] = {
            **page.admin_site.each_context(request),
            "opts": page.opts,
            "object": message,
            "original": message,
            "title": message.subject or _("Message without a subject"),
            "found": found,
            "busy": _BUSY if isinstance(looked, Busy) else "",
            "as_html": as_frame,
            "size": quotas.rounded(message.octets),
        }
        if found is not None:
            _look(message, "html" if as_frame else "text")
            context["first"] = [(name, value) for name, value in _in_order(found.fields) if value]
            context["attachments"] = found.attachments
            context["frame"] = _signed(request, message)
        response = TemplateResponse(request, "admin/mailstore/read.html", context)
        response["Cache-Control"] = "no-store"
        return response

    return _waiting(lambda: reading.page(message, **_how()), shown)


def _frame(request: HttpRequest, message: Message, signed: str) -> HttpResponseBase:
    def shown(found: str | CannotBeShown) -> HttpResponse:
        if isinstance(found, CannotBeShown):
            said = _BUSY if isinstance(found, Busy) else _("The HTML of this message cannot be shown.")
            found = f"<p>{escape(said)}</p>"
        elif not _is_of_page(request, message, signed):
            _look(message, "html")
        title = escape(_("The message as its sender laid it out"))
        return HttpResponse(_DOCUMENT.format(title=title, style=_STYLE, shown=found), headers=_FRAME_HEADERS)

    return _waiting(lambda: reading.frame(message, **_how()), shown)


def _source(message: Message) -> HttpResponseBase:
    _look(message, "source")
    return StreamingHttpResponse(
        exporting.octets_of(message, principal=principals.acting()),
        content_type="message/rfc822",
        headers={
            "Content-Length": str(message.octets),
            "Content-Disposition": f'attachment; filename="{message.pk}.eml"',
            "Cache-Control": "no-store",
        },
    )


def _attachment(page: Scoped, request: HttpRequest, message: Message, number: str) -> HttpResponseBase:
    if not (number.isascii() and number.isdecimal() and len(number) < 5):
        raise Http404

    def found() -> Any:
        try:
            return reading.attachment(message, int(number), **_how())
        except reading.NoSuchPart as refusal:
            return refusal

    def shown(found: Any) -> HttpResponseBase:
        match found:
            case (name, file):
                _look(message, "attachment")
                response = FileResponse(
                    file, as_attachment=True, filename=name, content_type="application/octet-stream"
                )
                response["Cache-Control"] = "no-store"
                return response
            case CannotBeShown():
                cannot = _("The attachment cannot be taken out of the message. Download its source.")
                said = _BUSY if isinstance(found, Busy) else cannot
                page.message_user(request, said, messages.WARNING)
                return HttpResponseRedirect(request.path)
        raise Http404

    return _waiting(found, shown)


def _waiting(look: Callable[[], T], then: Callable[[T | CannotBeShown], HttpResponseBase]) -> HttpResponseBase:
    """An answer made of what a look gives, or of why the message cannot be shown. No transaction waits for it."""

    def found() -> T | CannotBeShown:
        try:
            return look()
        except CannotBeShown as refusal:
            return refusal

    return Waiting(found, then)


def _how() -> dict[str, Any]:
    return {"directory": settings.MAILHOST_DATA, "principal": principals.acting()}


def _look(message: Message, what: str) -> None:
    audit.record("message.read", message, detail={"what": what})


def _in_order(fields: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    found = [field for field in fields if field[0].lower() in _FIRST]
    return sorted(found, key=lambda field: _FIRST.index(field[0].lower()))


def _signed(request: HttpRequest, message: Message) -> str:
    """Says that the page was written in the audit which a frame is of. It opens nothing."""
    return signing.TimestampSigner(salt=_SALT).sign(f"{request.user.pk}.{message.pk}")


def _is_of_page(request: HttpRequest, message: Message, signed: str) -> bool:
    try:
        said = signing.TimestampSigner(salt=_SALT).unsign(signed, max_age=_LOADED_WITHIN)
    except signing.BadSignature:
        return False
    return said == f"{request.user.pk}.{message.pk}"


OF_MESSAGES: Final = [RowPage("read", _lazy("Read"), "messages", "content", _read, permits=may_read_content)]
