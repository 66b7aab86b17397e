"""Who gets into the admin: after the password only who has no second step and needs none; all others do it first.

Between the two steps nobody is signed in. Who was in before he had a second step does it, too; and who needs one and
has none is led to where he adds it, and reaches nothing else.
"""

import time
from enum import Enum, auto
from typing import Any, Final, Literal

from django.conf import settings
from django.contrib.auth import login
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare

from accounts import principals, scope, web_sessions
from accounts.models import Role, User, WebSession
from accounts.principals import Principal

Setting = Literal["optional", "required-operators", "required"]

LASTS: Final = 600
"""Seconds from the password to the second step, at the most; for so long it also stands for a change of the factors."""

_WAITING: Final = "second_step"


class Way(Enum):
    """How far somebody who is signed in gets."""

    IN = auto()
    TO_ENROL = auto()  # to where he adds a second step, and no further
    OUT = auto()  # he signs in anew


def way_of(request: HttpRequest) -> Way:
    """How far whoever is signed in gets. Belongs into a scope that sees him."""
    session = web_sessions.current(request)
    if session is None or (session.has_factor and not session.second_step):
        return Way.OUT
    return Way.TO_ENROL if not session.has_factor and is_required(request.user) else Way.IN


def principal_of(request: HttpRequest) -> Principal | None:
    """Who is in the admin; None for whoever is not, or not yet all the way. Found out before there is a scope."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return None
    with scope.whole_host():
        return principals.of(user) if way_of(request) is Way.IN else None


def is_required(user: Any) -> bool:
    """Whether he must have a second step."""
    wanted: Setting = settings.MAILHOST_TWO_FACTOR
    return wanted == "required" or (wanted == "required-operators" and user.role == Role.OPERATOR)


def wait(request: HttpRequest, user: User, *, then: str) -> None:
    """His password was right; he is not signed in before the second step, and goes on to the address `then`."""
    request.session.cycle_key()
    request.session[_WAITING] = {
        "user": user.pk,
        "hash": user.get_session_auth_hash(),
        "then": then,
        "until": time.time() + LASTS,
    }


def waiting(request: HttpRequest) -> User | None:
    """Whose password was right, in this browser and lately."""
    kept = request.session.get(_WAITING)
    if kept is None or kept["until"] < time.time():
        return None
    with scope.whole_host():
        user = User.objects.filter(pk=kept["user"], is_active=True, is_staff=True).first()
    if user is None or not constant_time_compare(kept["hash"], user.get_session_auth_hash()):
        return None
    return user


def let_in(request: HttpRequest, user: User, step: WebSession.SecondStep) -> str:
    """Sign him in, under another key of the session; where he goes on."""
    then: str = request.session.pop(_WAITING)["then"]
    login(request, user, backend="accounts.backends.Backend")
    with scope.whole_host():
        web_sessions.took_second_step(request, step)
    return then


def is_recent(request: HttpRequest) -> bool:
    """Whether the password was given so lately that it stands for a change of the factors, too."""
    return web_sessions.password_age(request) < LASTS
