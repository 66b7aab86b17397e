"""What somebody has for the second step of signing in, and every change of it.

Each change owns its transaction and its record. A code, a recovery code and a signature are each good once: whether it
was, is asked in the statement that says so.
"""

import time
from typing import Final, NamedTuple

from cryptography.fernet import InvalidToken
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from accounts import app_passwords, audit, passwords, principals, sealing, web_sessions
from accounts.models import AuthenticatorApp, Passkey, RecoveryCode, User
from accounts.provisioning import values
from accounts.provisioning.logins import refuse_out_of_reach
from accounts.provisioning.refusals import BadValue, NotAllowed, Refused
from accounts.two_factor import totp
from accounts.two_factor.passkeys import Made, Used

RECOVERY_CODES: Final = 10
MOST_PASSKEYS: Final = 20
"""Of a login."""

_PURPOSE: Final = "mailhost.two_factor.secret"


class Factors(NamedTuple):
    """What a login has."""

    app: AuthenticatorApp | None
    passkeys: list[Passkey]
    recovery_codes: int

    @property
    def any(self) -> bool:
        """Whether there is a second step. Recovery codes are none by themselves."""
        return self.app is not None or bool(self.passkeys)


def of(user: User) -> Factors:
    """What he has. Belongs into a scope that sees him."""
    return Factors(
        AuthenticatorApp.objects.filter(user=user).first(),
        list(Passkey.objects.filter(user=user).order_by("created_at", "pk")),
        RecoveryCode.objects.filter(user=user).count(),
    )


# --- The authenticator app -----------------------------------------------------------------------------------------


def add_app(user: User, shared: str, code: str, *, secret: str) -> None:
    """Take an app that shows the codes of the secret that it was told (`shared`), which is sealed with `secret`.

    Raises `BadValue` if the code is not one of them, `Refused` if there is an app already.
    """
    step = totp.step_of(shared, code, now=time.time())
    if step is None:
        raise BadValue(
            _("that is not the code that the app shows now: is the clock of the device right?"), field="code"
        )
    sealed = sealing.box(secret, _PURPOSE).encrypt(shared.encode())
    try:
        with transaction.atomic():
            AuthenticatorApp.objects.create(user=user, sealed_secret=sealed, last_step=step)
            audit.record("login.two_factor_added", user, detail={"kind": "app"})
    except IntegrityError:
        raise Refused(_("there is an authenticator app already: remove it first")) from None


def remove_app(user: User) -> None:
    """Forget the app."""
    with transaction.atomic():
        if AuthenticatorApp.objects.filter(user=user).delete()[0]:
            audit.record("login.two_factor_removed", user, detail={"kind": "app"})
            _forget_idle_codes(user)


def take_code(user: User, code: str, *, secret: str) -> bool:
    """Whether it is a code of his app that was not taken before."""
    app = AuthenticatorApp.objects.filter(user=user).first()
    if app is None:
        return False
    try:
        shared = sealing.box(secret, _PURPOSE).decrypt(bytes(app.sealed_secret)).decode()
    except InvalidToken:  # sealed with another key of the host: a recovery code helps
        return False
    step = totp.step_of(shared, code, now=time.time())
    fresh = AuthenticatorApp.objects.filter(pk=app.pk, last_step__lt=step if step is not None else -1)
    return bool(fresh.update(last_step=step, last_used_at=Now()))


# --- Passkeys ------------------------------------------------------------------------------------------------------


def add_passkey(user: User, name: str, made: Made) -> Passkey:
    """Take a passkey that was made for him. Raises `BadValue`, `Refused`."""
    name = values.line(name, field="name", most=100)
    if not name:
        raise BadValue(_("name what it is kept on"), field="name")
    try:
        with transaction.atomic():
            User.objects.select_for_update().get(pk=user.pk)
            if Passkey.objects.filter(user=user).count() >= MOST_PASSKEYS:
                raise Refused(
                    _("there are %(number)d passkeys: remove one that is not used any more") % {"number": MOST_PASSKEYS}
                )
            passkey = Passkey.objects.create(user=user, name=name, **made._asdict())
            audit.record("login.two_factor_added", user, detail={"kind": "passkey"})
    except IntegrityError:
        raise Refused(_("this passkey is known already")) from None
    return passkey


def remove_passkey(passkey: Passkey) -> None:
    """Forget a passkey."""
    with transaction.atomic():
        if Passkey.objects.filter(pk=passkey.pk).delete()[0]:
            audit.record("login.two_factor_removed", passkey.user, detail={"kind": "passkey"})
            _forget_idle_codes(passkey.user)


def take_signature(used: Used) -> bool:
    """Whether the passkey's count of signatures has grown: if not, there are two of it (WebAuthn section 7.2, 22).

    One that does not count says 0 each time.
    """
    grown = Q(sign_count__lt=used.sign_count) if used.sign_count else Q(sign_count=0)
    fresh = Passkey.objects.filter(grown, pk=used.passkey.pk)
    if fresh.update(sign_count=used.sign_count, last_used_at=Now()):
        return True
    audit.record("login.passkey_cloned", used.passkey.user)
    return False


# --- Recovery codes ------------------------------------------------------------------------------------------------


def new_recovery_codes(user: User) -> list[str]:
    """Make new recovery codes in place of those there were; they can be told nobody again. Raises `Refused`."""
    codes = [passwords.generated() for _ in range(RECOVERY_CODES)]
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)
        if not of(user).any:
            raise Refused(_("recovery codes stand in for an app or a passkey: add one first"))
        RecoveryCode.objects.filter(user=user).delete()
        RecoveryCode.objects.bulk_create(RecoveryCode(user=user, digest=app_passwords.digest(code)) for code in codes)
        audit.record("login.recovery_codes_made", user)
    return codes


def take_recovery_code(user: User, text: str) -> bool:
    """Whether it was one of his recovery codes; it is none any more."""
    digest = app_passwords.digest(text)
    with transaction.atomic():
        taken = bool(digest and RecoveryCode.objects.filter(user=user, digest=digest).delete()[0])
        if taken:
            left = RecoveryCode.objects.filter(user=user).count()
            audit.record("login.recovery_code_used", user, detail={"left": left})
    return taken


# --- For others ----------------------------------------------------------------------------------------------------


def reset(user: User) -> bool:
    """Take all from somebody who has lost it, and sign him out everywhere. Whether he had any.

    Raises `NotAllowed`: as with passwords, nobody does it to somebody who may more than he.
    """
    if user.pk == principals.acting().user_id:
        raise NotAllowed(_("nobody resets his own: remove the app and the passkeys instead"))
    refuse_out_of_reach(user)
    with transaction.atomic():
        removed = sum(
            model.objects.filter(user=user).delete()[0] for model in (AuthenticatorApp, Passkey, RecoveryCode)
        )
        if removed:
            audit.record("login.two_factor_reset", user)
        web_sessions.end(web_sessions.of(user), user)
    return bool(removed)


def _forget_idle_codes(user: User) -> None:
    """Recovery codes are good for nothing without what they stand in for."""
    if not of(user).any:
        RecoveryCode.objects.filter(user=user).delete()
