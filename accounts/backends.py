"""Signing in to the web: finding out who asks, before there is a scope for it."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import update_last_login
from django.http import HttpRequest

from accounts import scope
from accounts.models import User


class Backend(ModelBackend):
    """Django's own, which looks among everybody."""

    def authenticate(self, request: HttpRequest | None, *args: Any, **credentials: Any) -> Any:
        with scope.whole_host():
            return super().authenticate(request, *args, **credentials)

    def get_user(self, user_id: int) -> Any:
        with scope.whole_host():
            return super().get_user(user_id)


def signed_in(sender: type[User], user: User, **more: Any) -> None:
    """Keep when somebody signed in, who is nobody until this request ends."""
    with scope.whole_host():
        update_last_login(sender, user, **more)
