import io
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from accounts import principals, provisioning, web_sessions
from accounts.middleware import WithinScope
from accounts.models import User
from tests.fixtures import Customer


class Watched(io.BytesIO):
    """What a browser sends; knows whether a transaction was open while it was read."""

    waited = False

    def read(self, *sizes: Any) -> bytes:
        self.waited |= connection.in_atomic_block
        return super().read(*sizes)


def let_in(request: Any, user: User) -> None:
    """As if he had signed in, and this came from his browser."""
    request.user, request.session = user, SessionStore()
    web_sessions.begin(request, user)


@pytest.mark.django_db(transaction=True)
def test_no_transaction_waits_for_what_a_browser_sends(acme: Customer) -> None:
    boss = provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant)
    body = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--x--\r\n"
    stream = Watched(body)
    request: Any = RequestFactory().post("/admin/", content_type="multipart/form-data; boundary=x")
    request = type(request)(request.environ | {"wsgi.input": stream, "CONTENT_LENGTH": str(len(body))})
    let_in(request, boss)

    def answer(request: HttpRequest) -> HttpResponse:
        assert connection.in_atomic_block
        assert principals.acting().user_id == boss.pk
        return HttpResponse(request.POST["a"])

    assert WithinScope(answer)(request).content == b"b"  # type: ignore[attr-defined]
    assert not stream.waited


@pytest.mark.parametrize(("is_signed_in", "status"), [(True, 200), (False, 413)])
def test_what_is_too_large_is_not_read(is_signed_in: bool, status: int, acme: Customer, settings: Any) -> None:
    boss = provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant)
    settings.MAILHOST_MAX_UPLOAD = 100
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 50

    def sent(octets: int) -> int:
        request: Any = RequestFactory().post("/admin/", b"x" * octets, content_type="application/octet-stream")
        request.user = AnonymousUser()
        if is_signed_in:
            let_in(request, boss)
        return WithinScope(lambda request: HttpResponse())(request).status_code

    assert (sent(50), sent(51), sent(150), sent(151)) == (200, status, status, 413)


def test_nothing_exists_for_who_has_not_signed_in(acme: Customer) -> None:
    request = RequestFactory().get("/admin/")
    request.user = AnonymousUser()

    def answer(request: HttpRequest) -> HttpResponse:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM accounts_tenant")
            return HttpResponse(str(cursor.fetchone()))

    assert WithinScope(answer)(request).content == b"(0,)"  # type: ignore[attr-defined]
