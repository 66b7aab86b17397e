"""Signing in to the web: finding out who asks, before there is a scope for it."""

from typing import Any

from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import update_last_login
from django.http import HttpRequest

from accounts import clients, scope, signing_in, web_sessions
from accounts.authentication import Busy
from accounts.models import FailedLogin, User
from accounts.signing_in import WrongPassword
from accounts.throttle import TooManyFailures


class Backend(ModelBackend):
    """Django's own, which looks among everybody, and refuses as late and as often as POP3 does."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **more: Any
    ) -> Any:
        login = username if username is not None else more.get(User.USERNAME_FIELD)
        if login is None or password is None:
            return None
        client = clients.address_of(request, proxies=settings.MAILHOST_HTTP_PROXIES) if request else None
        try:
            return signing_in.verify(login, password, client=client, through=FailedLogin.Through.ADMIN).user
        except (WrongPassword, TooManyFailures, Busy):
            return None

    def get_user(self, user_id: int) -> Any:
        with scope.whole_host():
            return super().get_user(user_id)


def signed_in(sender: type[User], user: User, **more: Any) -> None:
    """Keep when and where somebody signed in, who is nobody until this request ends."""
    with scope.whole_host():
        update_last_login(sender, user, **more)
        web_sessions.begin(more["request"], user)


def signed_out(sender: type[User] | None, request: HttpRequest, **more: Any) -> None:
    """Forget where somebody was signed in, who signs out."""
    with scope.whole_host():
        web_sessions.forget(request)
