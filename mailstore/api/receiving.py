"""Taking bodies that are larger than memory: a message, or a file of them, read before a transaction begins."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest, HttpResponseBase, UnreadablePostError
from rest_framework.exceptions import UnsupportedMediaType

from accounts import permissions
from accounts.api.problems import Problem
from accounts.api.views import Resource

MULTIPART: Final = "multipart/form-data"
FILE: Final = "file"
"""What a form calls the file."""

_PIECE: Final = 256 * 1024  # octets
_AROUND: Final = 64 * 1024  # octets of a form, beside its file


class Receives(Resource):
    """A resource whose `receives` takes a body of `large` types as it is, or as the file of a form."""

    receives = "create"
    large: tuple[str, ...] = ()

    def largest(self) -> int:
        """Octets that such a body may have."""
        raise NotImplementedError

    def receive(self, pieces: Iterator[bytes]) -> None:
        """Keep the body. Raises `Problem`."""
        raise NotImplementedError

    def let_go(self) -> None:
        """What was kept is not needed any more."""

    @property
    def is_large(self) -> bool:
        """Whether this request has such a body."""
        return self.action == self.receives and self._type() in (*self.large, MULTIPART)

    def body_limit(self) -> int:
        return self.largest() + _AROUND if self.is_large else super().body_limit()

    def said(self) -> bytes:
        return b"" if self.is_large else super().said()  # nothing is read for who may not send it

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return super().dispatch(request, *args, **kwargs)
        finally:
            self.let_go()

    def _begin(self, request: HttpRequest) -> None:
        if self.is_large and self._type() == MULTIPART:
            self._check_body(request)  # a browser's is read while it is found out whose it is
            request.upload_handlers = [_ToDisk(request)]
        super()._begin(request)
        # Who may not do it is refused later, when it is known whether what he names exists for him.
        if self.is_large and permissions.may(self.principal, self.resource, self.verb):
            try:
                self.receive(self._pieces(request))
            except UnreadablePostError:
                raise Problem("malformed", "The body broke off.") from None

    def _pieces(self, request: HttpRequest) -> Iterator[bytes]:
        if self._type() == MULTIPART:
            file = request.FILES.get(FILE)
            if file is None or len(request.FILES) != 1:
                raise Problem("malformed", f"The form has one file, `{FILE}`.")
            yield from file.chunks(_PIECE)
            return
        left = int(request.META["CONTENT_LENGTH"])
        while piece := request.read(min(_PIECE, left)):
            left -= len(piece)
            yield piece
        if left:
            raise Problem("malformed", "The body broke off.")

    def _type(self) -> str:
        return str(self.request._request.content_type or "").lower()

    def only_large(self) -> None:
        """Raise unless the request has such a body."""
        if not self.is_large:
            raise UnsupportedMediaType(self._type())


class _ToDisk(FileUploadHandler):
    """Has the file of a form lie where spools do: /tmp is memory on many systems."""

    def new_file(self, *args: Any, **options: Any) -> None:
        super().new_file(*args, **options)
        self.file = tempfile.TemporaryFile(dir=spool_directory())  # noqa: SIM115 (the request closes it)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self.file.write(raw_data)

    def upload_interrupted(self) -> None:
        if hasattr(self, "file"):
            self.file.close()

    def file_complete(self, file_size: int) -> "UploadedFile[Any]":
        self.file.seek(0)
        return UploadedFile(self.file, self.file_name, self.content_type, file_size)


def spool_directory() -> Path:
    """Where what arrives lies meanwhile."""
    directory: Path = settings.MAILHOST_DATA / "spool"
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=True)
    return directory
