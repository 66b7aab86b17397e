"""The pages of the second step: where it is done, and where everybody adds, removes and looks at what is his own.

Those below `/admin/login/` take seconds where something is wrong, and run outside of any transaction; they enter a
scope themselves.
"""

import time
from collections.abc import Callable
from functools import wraps
from ipaddress import ip_address
from typing import Any, Final, cast
from urllib.parse import urlencode, urlsplit

import segno
from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.contrib.auth import update_session_auth_hash
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.widgets import INPUT_CLASSES

from accounts import clients, languages, principals, provisioning, scope, sealing, signing_in, web_sessions
from accounts.authentication import Busy
from accounts.models import FailedLogin, Passkey, User, WebSession
from accounts.pages.password import SHORTEST, weaknesses
from accounts.principals import Principal
from accounts.provisioning import REFUSALS
from accounts.signing_in import WrongCode, WrongPassword
from accounts.throttle import TooManyFailures
from accounts.two_factor import factors, gate, passkeys, totp
from accounts.two_factor.gate import Way
from accounts.two_factor.passkeys import BadAnswer, Party, Question

View = Callable[..., HttpResponseBase]

_ISSUER: Final = "Mailhost"
_QUESTION: Final = "passkey_question"
_NEW_APP: Final = "new_app"
_PURPOSE: Final = "mailhost.two_factor.new_app"
_CLASSES: Final = " ".join(INPUT_CLASSES)


# --- Signing in: outside of any scope ------------------------------------------------------------------------------


class CodeForm(forms.Form):
    code = forms.CharField(
        label=gettext_lazy("Code of your app"),
        max_length=20,
        widget=forms.TextInput(
            attrs={"class": _CLASSES, "autocomplete": "one-time-code", "inputmode": "numeric", "autofocus": True}
        ),
    )


class RecoveryForm(forms.Form):
    recovery = forms.CharField(
        label=gettext_lazy("Recovery code"),
        max_length=100,
        widget=forms.TextInput(attrs={"class": _CLASSES, "autocomplete": "off", "autocapitalize": "none"}),
    )


class PasswordForm(forms.Form):
    password = forms.CharField(
        label=gettext_lazy("Password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"class": _CLASSES, "autocomplete": "current-password", "autofocus": True}),
    )


def second_step(site: AdminSite, request: HttpRequest) -> HttpResponseBase:
    """Ask whoever has given his password for the second step."""
    user = gate.waiting(request)
    principal = _principal_of(user, request) if user else None
    if user is None or principal is None:
        return redirect("admin:login")
    languages.speak_to(user, request)
    error, status = "", 200
    if request.method == "POST":
        step, is_right = _shown(request, user, principal)
        try:
            guessable = step == WebSession.SecondStep.APP
            signing_in.second_step(user, is_right, client=_client_of(request), guessable=guessable)
            return redirect(gate.let_in(request, user, step))
        except WrongCode:
            error, status = _WRONG[step], 403
        except (TooManyFailures, Busy) as refused:
            error, status = _refusal(refused)
            if isinstance(refused, TooManyFailures):
                error = _("Too many codes were wrong. Wait an hour, or use another way.")
    with scope.entered(principal):
        found = factors.of(user)
    party = _party_of(request)
    form = CodeForm()
    if found.recovery_codes:
        form.fields["code"].help_text = _("A recovery code works as well: open its field below.")
    context = {
        "title": _("One more step"),
        "login": user,
        "error": error,
        "app": form if found.app else None,
        "recovery": RecoveryForm() if found.recovery_codes else None,
        "has_passkeys": bool(found.passkeys),
        "question": _kept(request, passkeys.ask_to_sign(party, found.passkeys)) if party and found.passkeys else None,
    }
    return _page(site, request, "second-step", context, status=status)


_WRONG: Final[dict[str, Any]] = {
    WebSession.SecondStep.APP: gettext_lazy(
        "That code is not right, or was used already. Wait for the next one that the app shows."
    ),
    WebSession.SecondStep.PASSKEY: gettext_lazy(
        "That passkey does not open this login. Try again, or use another way."
    ),
    WebSession.SecondStep.RECOVERY: gettext_lazy("That is none of your recovery codes. Each is good once."),
}


def _shown(request: HttpRequest, user: User, principal: Principal) -> tuple[WebSession.SecondStep, Callable[[], bool]]:
    """What somebody shows for the second step, and how to see whether it is right."""
    state = _asked(request)
    if answer := request.POST.get("answer"):
        party = _party_of(request)

        def has_signed() -> bool:
            if party is None or state is None:
                return False
            with scope.entered(principal):
                try:
                    return factors.take_signature(passkeys.used(party, state, factors.of(user).passkeys, answer))
                except BadAnswer:
                    return False

        return WebSession.SecondStep.PASSKEY, has_signed
    if recovery := request.POST.get("recovery"):

        def is_recovery_code() -> bool:
            with scope.entered(principal):
                return factors.take_recovery_code(user, recovery)

        return WebSession.SecondStep.RECOVERY, is_recovery_code
    code = request.POST.get("code", "")

    def is_code() -> bool:
        with scope.entered(principal):
            return factors.take_code(user, code, secret=settings.SECRET_KEY)

    return WebSession.SecondStep.APP, is_code


def password_again(site: AdminSite, request: HttpRequest) -> HttpResponseBase:
    """Ask whoever is signed in for his password, before he changes how he signs in."""
    with scope.whole_host():
        is_in = request.user.is_authenticated and gate.way_of(request) is not Way.OUT
    if not is_in:
        return redirect("admin:login")
    user = _own(request)
    languages.speak_to(user, request)
    error, status = "", 200
    if request.method == "POST":
        try:
            password = request.POST.get("password", "")
            signing_in.verify(str(user), password, client=_client_of(request), through=FailedLogin.Through.ADMIN)
        except WrongPassword:
            error, status = _("That is not your password."), 403
        except (TooManyFailures, Busy) as refused:
            error, status = _refusal(refused)
        else:
            request.session.cycle_key()
            web_sessions.gave_password(request)
            return redirect(_next(request))
    context = {
        "title": _("Your password, please"),
        "login": user,
        "error": error,
        "form": PasswordForm(),
        "next": _next(request),
    }
    return _page(site, request, "password", context, status=status)


def _next(request: HttpRequest) -> str:
    wanted = request.POST.get("next", request.GET.get("next", ""))
    inside = wanted.startswith("/admin/") and url_has_allowed_host_and_scheme(wanted, allowed_hosts=None)
    return wanted if inside else reverse("admin:security")


def _refusal(error: Exception) -> tuple[str, int]:
    if isinstance(error, TooManyFailures):
        return _("Too many attempts have failed. Wait a while, then try again."), 429
    return _("Many people are signing in right now. Try again in a moment."), 503


# --- What is one's own: in the scope of whoever has signed in ------------------------------------------------------


def _after_password(view: View) -> View:
    """A view for who has given his password lately; others give it first."""

    @wraps(view)
    def answer(site: AdminSite, request: HttpRequest, **named: Any) -> HttpResponseBase:
        if gate.is_recent(request):
            return view(site, request, **named)
        then = request.get_full_path() if request.method == "GET" else reverse("admin:security")
        return redirect(f"{reverse('admin:password-again')}?{urlencode({'next': then})}")

    return answer


def security(site: AdminSite, request: HttpRequest) -> HttpResponseBase:
    """What somebody has for the second step."""
    found = factors.of(_own(request))
    context = {
        "title": _("Signing in"),
        "found": found,
        "must_add": not found.any and gate.is_required(request.user),
        "is_required": gate.is_required(request.user),
        "most_codes": factors.RECOVERY_CODES,
    }
    return _page(site, request, "security", context)


@_after_password
def add_app(site: AdminSite, request: HttpRequest) -> HttpResponseBase:
    """Show a new secret, and take it once its first code is right."""
    user = _own(request)
    if factors.of(user).app:
        return redirect("admin:security")
    box = sealing.box(settings.SECRET_KEY, _PURPOSE)
    if _NEW_APP not in request.session:
        request.session[_NEW_APP] = box.encrypt(totp.new_secret().encode()).decode()
    shared = box.decrypt(request.session[_NEW_APP].encode()).decode()
    error, status = "", 200
    if request.method == "POST":
        try:
            factors.add_app(user, shared, request.POST.get("code", ""), secret=settings.SECRET_KEY)
        except REFUSALS as refusal:
            error, status = f"{refusal}.", 422
        else:
            del request.session[_NEW_APP]
            return _added(
                site,
                request,
                user,
                WebSession.SecondStep.APP,
                _("The app is added. From now on its code is asked for."),
            )
    image = segno.make(totp.uri(shared, login=str(user), issuer=_ISSUER), error="m")
    context = {
        "title": _("Add an authenticator app"),
        "image": image.svg_data_uri(scale=5, border=2, light="#fff"),
        "shared": " ".join(shared[start : start + 4] for start in range(0, len(shared), 4)),
        "error": error,
        "form": CodeForm(),
    }
    return _page(site, request, "app", context, status=status)


@_after_password
def remove_app(site: AdminSite, request: HttpRequest) -> HttpResponseBase:
    """Forget the app."""
    user = _own(request)
    if request.method == "POST":
        factors.remove_app(user)
        messages.success(request, _("The app is removed. Its codes are good for nothing."))
        return redirect("admin:security")
    return _removal(site, request, user, _("Remove the authenticator app"), last=not factors.of(user).passkeys)


class PasskeyForm(forms.Form):
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=100,
        help_text=gettext_lazy("What it is kept on: Telephone, blue key, password manager."),
        widget=forms.TextInput(attrs={"class": _CLASSES, "autocomplete": "off", "autofocus": True}),
    )


@_after_password
def add_passkey(site: AdminSite, request: HttpRequest) -> HttpResponseBase:
    """Ask the browser for a new passkey, and take it."""
    user, party = _own(request), _party_of(request)
    error, status = "", 200
    if request.method == "POST":
        state = _asked(request)
        try:
            if party is None or state is None:
                raise BadAnswer("nobody asked for it")  # noqa: TRY301 - as every other that is none
            made = passkeys.made(party, state, request.POST.get("answer", ""))
            factors.add_passkey(user, request.POST.get("name", ""), made)
        except BadAnswer:
            error, status = _("The passkey could not be added. Try again."), 422
        except REFUSALS as refusal:
            error, status = f"{refusal}.", 422
        else:
            return _added(
                site,
                request,
                user,
                WebSession.SecondStep.PASSKEY,
                _("The passkey is added. From now on it is asked for."),
            )
    there = factors.of(user).passkeys
    context = {
        "title": _("Add a passkey"),
        "error": error,
        "form": PasskeyForm(initial={"name": request.POST.get("name", "")}),
        "question": _kept(request, passkeys.ask_to_make(party, user, there)) if party else None,
    }
    return _page(site, request, "passkey", context, status=status)


@_after_password
def remove_passkey(site: AdminSite, request: HttpRequest, key: int) -> HttpResponseBase:
    """Forget a passkey."""
    user = _own(request)
    passkey = Passkey.objects.filter(pk=key, user=user).first()
    if passkey is None:
        raise Http404
    if request.method == "POST":
        factors.remove_passkey(passkey)
        messages.success(request, _("The passkey %(name)s is removed.") % {"name": passkey})
        return redirect("admin:security")
    found = factors.of(user)
    last = found.app is None and len(found.passkeys) == 1
    return _removal(site, request, user, _("Remove the passkey %(name)s") % {"name": passkey}, last=last)


@_after_password
def recovery_codes(site: AdminSite, request: HttpRequest) -> HttpResponseBase:
    """Make new recovery codes, which is said to end those there are."""
    user = _own(request)
    if request.method == "POST":
        try:
            return _codes(site, request, user)
        except REFUSALS as refusal:
            messages.error(request, f"{refusal}.")
            return redirect("admin:security")
    context = {
        "title": _("New recovery codes"),
        "meaning": _("Those that you have are good for nothing then."),
        "button": _("Make new codes"),
        "back": reverse("admin:security"),
    }
    return _asking(site, request, context)


def my_sessions(site: AdminSite, request: HttpRequest) -> HttpResponseBase:
    """Where somebody is signed in; one of them, or all others, can be ended."""
    user, this = _own(request), web_sessions.id_of(request)
    if request.method == "POST":
        which = request.POST.get("end", "")
        own = web_sessions.of(user)
        others = {str(row.pk) for row in own} - {str(this)}
        ended = web_sessions.end(own.filter(pk__in=others if which == "others" else others & {which}), user)
        text = ngettext("%(number)d session is ended.", "%(number)d sessions are ended.", ended)
        messages.success(request, text % {"number": ended})
        return redirect("admin:my-sessions")
    context = {"title": _("Where I am signed in"), "rows": web_sessions.of(user), "this": this}
    return _page(site, request, "sessions", context)


class OwnPasswordForm(forms.Form):
    login = forms.CharField(  # for whatever keeps passwords: whose it is
        label=gettext_lazy("Login"),
        disabled=True,
        widget=forms.TextInput(attrs={"class": _CLASSES, "autocomplete": "username"}),
    )
    new = forms.CharField(
        label=gettext_lazy("New password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"class": _CLASSES, "autocomplete": "new-password", "autofocus": True}),
    )
    again = forms.CharField(
        label=gettext_lazy("New password, again"),
        strip=False,
        widget=forms.PasswordInput(attrs={"class": _CLASSES, "autocomplete": "new-password"}),
    )

    def __init__(self, user: User, data: Any) -> None:
        super().__init__(data, initial={"login": str(user)})
        self._user = user
        self.fields["new"].help_text = _("At least %(number)d characters.") % {"number": SHORTEST}

    def clean(self) -> dict[str, Any]:
        given = self.cleaned_data
        if wrong := weaknesses(given.get("new", ""), self._user):
            self.add_error("new", wrong)
        elif given["new"] != given.get("again"):
            self.add_error("again", _("The two are not the same."))
        return given


@_after_password
def own_password(site: AdminSite, request: HttpRequest) -> HttpResponseBase:
    """Change one's own password, which ends all sessions but this one."""
    user = _own(request)
    form = OwnPasswordForm(user, request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            _change_password(request, user, form.cleaned_data["new"])
        except REFUSALS as refusal:
            form.add_error("new", f"{refusal}.")
        else:
            messages.success(request, _("Your password is changed. Everything else that used the old one is out."))
            return redirect("admin:index")
    context = {
        "title": _("Change my password"),
        "meaning": _("It ends all your other sessions, also of mail programs that use the old one."),
        "form": form,
        "button": _("Change it"),
        "back": reverse("admin:security"),
    }
    return _asking(site, request, context, status=422 if form.errors else 200)


def _change_password(request: HttpRequest, user: User, new: str) -> None:
    step = web_sessions.current(request).second_step
    provisioning.set_password(user, new)
    update_session_auth_hash(request, user)
    web_sessions.begin(request, user)
    web_sessions.took_second_step(request, step)


# --- What these have in common -------------------------------------------------------------------------------------


def _added(
    site: AdminSite, request: HttpRequest, user: User, step: WebSession.SecondStep, said: str
) -> HttpResponseBase:
    """Go on after something was added: the first time to recovery codes, and out wherever the password was enough."""
    web_sessions.took_second_step(request, step)
    web_sessions.of(user).filter(second_step="").delete()
    request.session.cycle_key()
    messages.success(request, said)
    if factors.of(user).recovery_codes:
        return redirect("admin:security")
    return _codes(site, request, user)


def _codes(site: AdminSite, request: HttpRequest, user: User) -> HttpResponseBase:
    context = {"title": _("Your recovery codes"), "codes": factors.new_recovery_codes(user)}
    return _page(site, request, "recovery-codes", context)


def _removal(site: AdminSite, request: HttpRequest, user: User, title: str, *, last: bool) -> HttpResponseBase:
    meaning = ""
    if last and gate.is_required(user):
        meaning = _("It is the last one: you must add another before you can go on.")
    elif last:
        meaning = _("It is the last one: the password alone lets you in then, and the recovery codes go, too.")
    back = reverse("admin:security")
    return _asking(site, request, {"title": title, "meaning": meaning, "button": _("Remove it"), "back": back})


def _own(request: HttpRequest) -> User:
    return cast("User", request.user)


def _principal_of(user: User, request: HttpRequest) -> Principal | None:
    with scope.whole_host():
        principal = principals.of(user)
    return principal.via("admin", _client_of(request)) if principal else None


def _client_of(request: HttpRequest) -> clients.Address | None:
    """Where a request comes from."""
    return clients.address_of(request, proxies=settings.MAILHOST_HTTP_PROXIES)


def _party_of(request: HttpRequest) -> Party | None:
    """Who asks for passkeys; None where browsers have none: not over TLS, or under a bare address."""
    origin = settings.MAILHOST_PUBLIC_URL or f"{request.scheme}://{request.get_host()}"
    parts = urlsplit(origin)
    host = parts.hostname or ""
    if parts.scheme != "https" and host != "localhost":
        return None
    try:
        ip_address(host)
    except ValueError:
        return Party(host, origin)
    return None


def _kept(request: HttpRequest, question: Question) -> str:
    """The question for the browser; what must be remembered of it is."""
    request.session[_QUESTION] = {"state": question.state, "until": time.time() + gate.LASTS}
    return question.options


def _asked(request: HttpRequest) -> dict[str, Any] | None:
    """What was asked in this session, once."""
    kept = request.session.pop(_QUESTION, None)
    return kept["state"] if kept and kept["until"] > time.time() else None


def _page(
    site: AdminSite, request: HttpRequest, name: str, context: dict[str, Any], *, status: int = 200
) -> HttpResponse:
    return _answer(site, request, f"admin/two_factor/{name}.html", context, status)


def _asking(site: AdminSite, request: HttpRequest, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    return _answer(site, request, "admin/accounts/asking.html", context, status)


def _answer(site: AdminSite, request: HttpRequest, template: str, context: Any, status: int) -> HttpResponse:
    response = TemplateResponse(request, template, {**site.each_context(request), **context}, status=status)
    response["Cache-Control"] = "no-store"
    return response
