"""The page with which an owner changes the password."""

from typing import Final

from django.contrib import messages
from django.contrib.auth.password_validation import (
    CommonPasswordValidator,
    MinimumLengthValidator,
    UserAttributeSimilarityValidator,
    validate_password,
)
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from accounts import provisioning, scope, signing_in
from accounts.authentication import Busy
from accounts.models import User
from accounts.pages import visits
from accounts.pages.visits import Owner
from accounts.passwords import BadPassword, Validator
from accounts.signing_in import WrongPassword
from accounts.throttle import TooManyFailures

SHORTEST: Final = 10  # characters

# The last knows the 20,000 passwords that leak most often; it asks nobody for that.
_STRENGTH: Final = (
    Validator(),
    MinimumLengthValidator(SHORTEST),
    UserAttributeSimilarityValidator(user_attributes=("email",)),
    CommonPasswordValidator(),
)


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@visits.for_owner(in_scope=False)  # the check of the current one takes its time
def change(request: HttpRequest, owner: Owner) -> HttpResponseBase:
    """Change the password, which ends all sessions but this one."""
    errors: dict[str, list[str]] = {}
    status = 200
    if request.method == "POST":
        errors, status = _changed(request, owner)
        if not errors:
            messages.success(request, _("Your password is changed. Everything else that used the old one is out."))
            return redirect("owner-overview")
    return visits.page(request, owner, "password", errors=errors, shortest=SHORTEST, status=status)


def _changed(request: HttpRequest, owner: Owner) -> tuple[dict[str, list[str]], int]:
    """What is wrong, by field, and the status that says so; nothing if the password was changed."""
    new = request.POST.get("new", "")
    errors = weaknesses(new, owner.user)
    if errors:
        return {"new": errors}, 422
    if new != request.POST.get("again", ""):
        return {"again": [_("The two are not the same.")]}, 422
    try:
        current = request.POST.get("current", "")
        signing_in.verify(owner.mailbox.address, current, client=visits.client_of(request))
    except WrongPassword:
        return {"current": [_("That is not your password. An app password does not do here.")]}, 403
    except TooManyFailures:
        return {"current": [_("Too many attempts have failed. Wait a quarter of an hour, then try again.")]}, 429
    except Busy:
        return {"current": [_("Many people are signing in right now. Try again in a moment.")]}, 503
    with scope.entered(owner.principal):
        user = User.objects.visible_to(owner.principal).get(pk=owner.user.pk)
        try:
            provisioning.set_password(user, new)
        except BadPassword as refused:
            return {"new": [str(refused)]}, 422
    visits.stay(request, user)
    return {}, 200


def weaknesses(password: str, user: User) -> list[str]:
    """Why a password is not good enough for somebody who chooses his own, in sentences."""
    try:
        validate_password(password, user, password_validators=list(_STRENGTH))
    except ValidationError as refused:
        return list(refused.messages)
    return []
