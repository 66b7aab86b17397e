"""Where somebody is signed in to the admin: a row for each browser, and whoever's row is gone is signed out."""

import time
import uuid
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone

from accounts import audit, clients, principals
from accounts.models import AuthenticatorApp, Passkey, User, WebSession
from accounts.provisioning.logins import refuse_out_of_reach

_KEY: Final = "web_session"
_PASSWORD_AT: Final = "password_at"  # noqa: S105 - when, not what
_BROWSER_LENGTH: Final = 300
_SEEN_EVERY: Final = timedelta(minutes=1)


def begin(request: HttpRequest, user: User) -> None:
    """Keep that somebody has signed in here; he has just given his password. Belongs into a scope that sees him."""
    client = clients.address_of(request, proxies=settings.MAILHOST_HTTP_PROXIES)
    browser = "".join(filter(str.isprintable, request.META.get("HTTP_USER_AGENT", "")))[:_BROWSER_LENGTH]
    if before := request.session.get(_KEY):  # whoever signs in here again is not here twice
        WebSession.objects.filter(pk=before, user=user).delete()
    row = WebSession.objects.create(
        user=user, client_address=str(client) if client is not None else None, browser=browser
    )
    request.session[_KEY] = row.pk.hex
    gave_password(request)


def gave_password(request: HttpRequest) -> None:
    """Remember that the password was given just now."""
    request.session[_PASSWORD_AT] = int(time.time())


def password_age(request: HttpRequest) -> float:
    """Seconds since the password was given in this session."""
    return time.time() - float(request.session.get(_PASSWORD_AT, 0))


def current(request: HttpRequest) -> Any:
    """The row of this session with `has_factor`, whether its login has anything for a second step; None if it is gone.

    Keeps that it was seen. Belongs into a scope that sees the login.
    """
    key = id_of(request)
    if key is None or not request.user.is_authenticated:
        return None
    own = {"user": OuterRef("user")}
    row: Any = (
        WebSession.objects.filter(pk=key, user=request.user.pk)
        .annotate(has_factor=Exists(AuthenticatorApp.objects.filter(**own)) | Exists(Passkey.objects.filter(**own)))
        .first()
    )
    if row is not None and row.last_seen_at < timezone.now() - _SEEN_EVERY:
        WebSession.objects.filter(pk=key).update(last_seen_at=Now())
    return row


def id_of(request: HttpRequest) -> uuid.UUID | None:
    """The id of this session's row."""
    text = request.session.get(_KEY)
    return uuid.UUID(text) if text else None


def took_second_step(request: HttpRequest, step: WebSession.SecondStep) -> None:
    """Keep that whoever is signed in here has shown more than his password, and what it was first."""
    here = WebSession.objects.filter(pk=request.session[_KEY], user=request.user.pk, second_step="")
    here.update(second_step=step)


def forget(request: HttpRequest) -> None:
    """Nobody is signed in here any more."""
    if key := id_of(request):
        WebSession.objects.filter(pk=key).delete()


def of(user: User) -> QuerySet[WebSession]:
    """Where he is signed in, where he was last seen first."""
    return WebSession.objects.filter(user=user).order_by("-last_seen_at", "pk")


def end(sessions: QuerySet[WebSession], user: User) -> int:
    """Sign him out there; returns in how many browsers he was. Raises `NotAllowed`: nobody does it to who may more."""
    if user.pk != principals.acting().user_id:
        refuse_out_of_reach(user)
    with transaction.atomic():
        ended, _ = sessions.filter(user=user).delete()
        if ended:
            audit.record("login.sessions_ended", user, detail={"sessions": ended})
    return ended
