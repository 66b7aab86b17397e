"""Logins without a mailbox: operators, resellers, tenants' staff; and the passwords of everybody."""

from collections.abc import Iterable
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from accounts import addresses, audit, hashes, notices, permissions, principals
from accounts.models import Domain, DomainAdmin, Mailbox, Reseller, Role, Tenant, User, WebSession
from accounts.provisioning import happened, values
from accounts.provisioning.lookups import domains_of, holders
from accounts.provisioning.refusals import AddressTaken, BadValue, NotAllowed, OtherTenant, OwnsMailbox

_OF_TENANT = (Role.TENANT_ADMIN, Role.DOMAIN_ADMIN)


def add_staff(
    login: str,
    *,
    password: str | None,
    tenant: Tenant | None = None,
    reseller: Reseller | None = None,
    role: str | None = None,
    domains: Iterable[Domain] = (),
) -> User:
    """Somebody without a mailbox who may sign in to the admin.

    Without a role: a tenant's admin, a reseller, or with neither an operator. Support may be of the whole host.
    Raises `AddressTaken`, `BadAddress`, `BadPassword`, `BadValue`, `OtherTenant`, `NotAllowed`.
    """
    email = addresses.address(login)
    role = role or (Role.TENANT_ADMIN if tenant else Role.RESELLER if reseller else Role.OPERATOR)
    _check_role(role, tenant, reseller)
    _check_reach(role)
    user = User(
        email=email,
        tenant=tenant,
        reseller=reseller,
        role=role,
        is_staff=True,
        is_superuser=role == Role.OPERATOR,
        password=hashes.stored(password, None),
    )
    with transaction.atomic():
        domains_of([email], lock=True)
        if holders([email]):
            raise AddressTaken(_("%(email)s is taken") % {"email": email})
        insert([user])
        _look_after(user, domains)
        audit.record("login.created", user, {"role": (None, role)})
    return user


def change_login(user: User, *, is_active: bool, is_staff: bool, domains: Iterable[Domain] | None = None) -> None:
    """Let somebody sign in, and use the admin, or not. Raises `OwnsMailbox`, `OtherTenant`, `NotAllowed`."""
    _check_reach(user.role)
    changes = values.changed(user, {"is_active": is_active, "is_staff": is_staff})
    free_to_change = Q(mailbox=None) | Q(is_active=is_active)
    with transaction.atomic():
        if not User.objects.filter(free_to_change, pk=user.pk).update(is_active=is_active, is_staff=is_staff):
            raise OwnsMailbox(
                _("%(user)s owns a mailbox, and can sign in for as long as that is open") % {"user": user}
            )
        if domains is not None:
            _look_after(user, domains)
        if changes or domains is not None:
            audit.record("login.changed", user, changes)
    user.refresh_from_db()


def set_role(user: User, role: str) -> None:
    """Let the owner of a mailbox also look after his tenant, or no more. Raises `BadValue`, `NotAllowed`."""
    _check_reach(user.role)
    _check_reach(role)
    if user.tenant_id is None or role not in (Role.MEMBER, Role.SUPPORT, *_OF_TENANT):
        raise BadValue(_("%(user)s cannot be %(role)s") % {"user": user, "role": role}, field="role")
    with transaction.atomic():
        changes = values.changed(user, {"role": role, "is_staff": role != Role.MEMBER})
        if changes:
            values.write(User.objects.filter(pk=user.pk), changes)
            if role != Role.DOMAIN_ADMIN:
                DomainAdmin.objects.filter(user=user).delete()
            audit.record("login.changed", user, changes)
    user.refresh_from_db()


def set_language(user: User, *, language: str | None, time_zone: str | None) -> bool:
    """Speak to somebody in this language and zone; None leaves that to the browser. Returns whether any is new.

    Belongs to whoever it is about. Raises `BadValue`.
    """
    wanted = {"language": values.language(language), "time_zone": values.time_zone(time_zone)}
    with transaction.atomic():
        changes = values.changed(user, wanted)
        if changes:
            values.write(User.objects.filter(pk=user.pk), changes)
            mailbox = Mailbox.objects.open().filter(user=user).first()
            if mailbox:
                happened.to_mailbox("changed", mailbox, changes)
            else:
                audit.record("login.changed", user, changes)
    user.refresh_from_db(fields=list(wanted))
    return bool(changes)


def set_password(
    user: User, password: str | None, *, password_hash: str | None = None, keep_sessions: bool = False
) -> None:
    """Change a password; with neither nobody can sign in. It holds at once.

    POP3 sessions that signed in with the old one end and remove nothing, unless `keep_sessions` lets those that are
    open go on. Devices have passwords of their own.

    Raises `BadPassword`, `BadHash`, and `NotAllowed` for somebody whose role is more than that of a mailbox's owner,
    unless whoever asks may change what logins may do: else he could make himself what they are.
    """
    store_password(user, hashes.stored(password, password_hash), keep_sessions=keep_sessions)


def store_password(user: User, stored: str, *, keep_sessions: bool = False) -> None:
    """As `set_password`, with what `accounts.hashes.stored` made of the password before."""
    refuse_stronger(user)
    with transaction.atomic():
        before = User.objects.select_for_update(no_key=True).only("password", "former_password").get(pk=user.pk)
        user.password = stored
        user.former_password = before.as_former() if keep_sessions else None
        user.save(update_fields=["password", "former_password"])
        WebSession.objects.filter(user=user).delete()
        mailbox = Mailbox.objects.open().filter(user=user).first()
        if mailbox:
            happened.to_mailbox("password_changed", mailbox, {"password": (0, 1)})
            notices.mailboxes_changed([mailbox.pk])
        else:
            audit.record("login.password_changed", user, {"password": (0, 1)})


def refuse_stronger(user: User) -> None:
    """Nobody gets a password of somebody who may do more than he. Raises `NotAllowed`."""
    who = principals.acting()
    if user.role != Role.MEMBER and user.pk != who.user_id and not permissions.may(who, "logins", "password"):
        raise NotAllowed(_("%(user)s looks after more than a mailbox: ask who may change logins") % {"user": user})


def refuse_out_of_reach(user: User) -> None:
    """Nobody takes from somebody how he signs in who could not set his password. Raises `NotAllowed`."""
    who = principals.acting()
    if not permissions.may(who, "logins", "password"):
        raise NotAllowed(_("the role %(role)s does not change how others sign in") % {"role": who.role})
    _check_reach(user.role)


def remove_login(user: User) -> None:
    """Remove somebody without a mailbox. Raises `OwnsMailbox`, `NotAllowed`."""
    _check_reach(user.role)
    with transaction.atomic():
        if Mailbox.objects.filter(user=user).exists():
            raise OwnsMailbox(_("%(user)s owns a mailbox: close that instead") % {"user": user})
        audit.record("login.removed", user)
        DomainAdmin.objects.filter(user=user).delete()
        User.objects.filter(pk=user.pk).delete()


def insert(users: list[User]) -> None:
    """Write new logins. Raises `AddressTaken` where somebody was faster, whoever he is."""
    try:
        with transaction.atomic():
            User.objects.bulk_create(users, batch_size=1000)
    except IntegrityError as error:
        values.taken(error)
        raise AddressTaken(_("one of the addresses is taken")) from None


def _check_role(role: str, tenant: Tenant | None, reseller: Reseller | None) -> None:
    fits: Any = {
        Role.OPERATOR: tenant is None and reseller is None,
        Role.RESELLER: tenant is None and reseller is not None,
        Role.SUPPORT: tenant is None or reseller is None,
        Role.TENANT_ADMIN: tenant is not None and reseller is None,
        Role.DOMAIN_ADMIN: tenant is not None and reseller is None,
    }
    if not fits.get(role, False):
        raise BadValue(_("a login without a mailbox cannot be %(role)s there") % {"role": role}, field="role")


def _check_reach(role: str) -> None:
    """Nobody makes, changes or takes over a login that may more than his own. Raises `NotAllowed`."""
    acting = principals.acting()
    if not permissions.makes(acting, role):
        raise NotAllowed(
            _("the role %(role)s does not reach a login with the role %(role2)s") % {"role": acting.role, "role2": role}
        )


def _look_after(user: User, domains: Iterable[Domain]) -> None:
    domains = list(domains)
    if domains and user.role != Role.DOMAIN_ADMIN:
        raise BadValue(_("only a domain admin looks after single domains"), field="domains")
    for domain in domains:
        if domain.tenant_id != user.tenant_id:
            raise OtherTenant(_("%(domain)s is not a domain of the login's tenant") % {"domain": domain})
    DomainAdmin.objects.filter(user=user).delete()
    DomainAdmin.objects.bulk_create(
        [DomainAdmin(tenant_id=domain.tenant_id, user=user, domain=domain) for domain in domains]
    )
