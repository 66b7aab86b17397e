"""Who has signed in to the owner's pages: a sign-in of its own, which is good for nothing else.

It is kept beside Django's in the session. So an app password never opens the admin, and whoever signed in to the admin
is nobody here. Here everybody is the owner of his mailbox, whatever he may do elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.crypto import constant_time_compare
from django.utils.http import urlencode

from accounts import clients, languages, scope, signing_in
from accounts.clients import Address
from accounts.models import AppPassword, Mailbox, User
from accounts.principals import Principal
from accounts.signing_in import SignedIn

View = Callable[..., HttpResponseBase]

LASTS: Final = 12 * 3600
"""Seconds after the last change to a session when it ends by itself."""

_KEY: Final = "owner"
_SHUT: Final = frozenset({Mailbox.State.SUSPENDED, Mailbox.State.NO_LOGIN})


class NoMailbox(Exception):
    """The login has none: it is somebody who manages others."""


class Shut(Exception):
    """The password is right, and nobody may sign in to the mailbox; its owner is told why."""

    def __init__(self, mailbox: Mailbox) -> None:
        super().__init__()
        self.mailbox = mailbox


@dataclass(frozen=True)
class Owner:
    """The owner of a mailbox, who has signed in."""

    mailbox: Mailbox
    principal: Principal
    app_password_id: int | None

    @property
    def user(self) -> User:
        return self.mailbox.user


def client_of(request: HttpRequest) -> Address | None:
    """Where a request comes from."""
    return clients.address_of(request, proxies=settings.MAILHOST_HTTP_PROXIES)


def begin(request: HttpRequest, signed_in: SignedIn) -> None:
    """Let somebody whose password was right in. Raises `NoMailbox`, `Shut`."""
    with scope.whole_host():
        mailbox = Mailbox.objects.open().filter(user=signed_in.user).first()
        if mailbox is None:
            raise NoMailbox
        languages.speak_to(mailbox.user, request)
        if mailbox.state in _SHUT:
            raise Shut(mailbox)
        user = User.objects.get(pk=signed_in.user.pk)  # its hash may have become one of ours
    request.session.cycle_key()
    request.session.set_expiry(LASTS)
    request.session[_KEY] = {
        "user": user.pk,
        "hash": user.get_session_auth_hash(),
        "app_password": signed_in.app_password_id,
    }


def stay(request: HttpRequest, user: User) -> None:
    """Let somebody who has just changed his password stay, under another key; his other sessions have ended."""
    request.session.cycle_key()
    request.session[_KEY] = {**request.session[_KEY], "hash": user.get_session_auth_hash()}


def end(request: HttpRequest) -> None:
    """Sign out, of all that this browser was signed in to."""
    request.session.flush()


def owner_of(request: HttpRequest) -> Owner | None:
    """Who has signed in.

    Whose password was changed since, or whose app password is not good any more, has not. Raises `Shut`.
    """
    kept = request.session.get(_KEY)
    if kept is None:
        return None
    client = client_of(request)
    with scope.whole_host():
        open_ones = Mailbox.objects.open().select_related("user", "tenant")
        mailbox = open_ones.filter(user_id=kept["user"], user__is_active=True).first()
        holds = mailbox is not None and constant_time_compare(kept["hash"], mailbox.user.get_session_auth_hash())
        if mailbox and holds and kept["app_password"] is not None:
            found, why_not = signing_in.app_password_of(
                mailbox, client, AppPassword.Scope.SELF, id=kept["app_password"]
            )
            holds = found is not None and why_not is None
    if mailbox is None or not holds:
        end(request)
        return None
    languages.speak_to(mailbox.user, request)
    if mailbox.state in _SHUT:
        end(request)
        raise Shut(mailbox)
    return Owner(mailbox, principal_of(mailbox, client), kept["app_password"])


def principal_of(mailbox: Mailbox, client: Address | None) -> Principal:
    """What its owner is on these pages."""
    return Principal(
        role="member",
        tenant_id=mailbox.tenant_id,
        mailbox_id=mailbox.pk,
        user_id=mailbox.user_id,
        through="pages",
        address=client,
        name=mailbox.address,
    )


def for_owner(*, in_scope: bool = True) -> Callable[[View], View]:
    """A view that gets the `Owner` as its second argument, in one transaction in his scope; others sign in first.

    An answer that says the request failed leaves nothing behind. Without `in_scope` the view enters it itself.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def answer(request: HttpRequest, *args: Any, **named: Any) -> HttpResponseBase:
            try:
                owner = owner_of(request)
            except Shut as shut:
                return refusal(request, shut)
            if owner is None:
                query = {"next": request.get_full_path()} if request.method == "GET" else {}
                return redirect(f"{reverse('owner-sign-in')}?{urlencode(query)}" if query else "owner-sign-in")
            if not in_scope:
                return view(request, owner, *args, **named)
            return scope.attempt(
                owner.principal,
                lambda: view(request, owner, *args, **named),
                keeps=lambda response: response.status_code < 400,
            )

        return answer

    return decorate


def page(request: HttpRequest, owner: Owner, name: str, /, *, status: int = 200, **context: Any) -> HttpResponse:
    """A page for somebody who has signed in."""
    return render(request, f"owner/{name}.html", {"owner": owner, "page": name, **context}, status=status)


def refusal(request: HttpRequest, shut: Shut) -> HttpResponse:
    """The page for the owner of a mailbox that nobody may sign in to."""
    return render(request, "owner/shut.html", {"mailbox": shut.mailbox}, status=403)
