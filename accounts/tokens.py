"""API tokens: making, rotating and revoking them, and knowing one again. None is stronger than who makes it."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, NamedTuple

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import audit, languages, permissions
from accounts.models import ApiToken, Domain, Mailbox, Reseller, Role, Tenant
from accounts.principals import Principal
from accounts.provisioning import BadValue, Refused

_TEXT = re.compile(r"mh_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_MOST_REQUESTS: Final = 1_000_000


class TooStrong(Refused):
    """A token cannot do more than who makes it."""


class Made(NamedTuple):
    """A token, and its text, which is shown this once."""

    token: ApiToken
    text: str


def make(
    *,
    by: Principal,
    name: str,
    role: str,
    scopes: Iterable[str],
    tenant: Tenant | None = None,
    reseller: Reseller | None = None,
    domains: Collection[Domain] = (),
    mailbox: Mailbox | None = None,
    allowed_networks: Iterable[str] = (),
    expires_at: datetime | None = None,
    requests_per_minute: int | None = None,
) -> Made:
    """A new token, with whatever its maker's own token limits. Raises `BadValue`, `TooStrong`."""
    tenant_id = mailbox.tenant_id if mailbox and tenant is None else tenant.pk if tenant else None
    maker = _maker(by)
    networks = [str(_network(text)) for text in allowed_networks]
    if maker:
        # What was not said is what its maker has.
        networks = networks or maker.allowed_networks
        expires_at = expires_at or maker.expires_at
    most = maker.requests_per_minute if maker else _MOST_REQUESTS
    token = ApiToken(
        name=_name(name),
        role=role,
        tenant_id=tenant_id,
        reseller=reseller,
        mailbox=mailbox,
        scopes=sorted(set(scopes)),
        allowed_networks=networks,
        expires_at=expires_at,
        requests_per_minute=min(600, most) if requests_per_minute is None else requests_per_minute,
        told_to=_told_to(by),
        created_by_id=by.user_id,
    )
    _check_shape(token, domains)
    _check_strength(token, by=by, maker=maker)
    text = _renewed(token)
    with transaction.atomic():
        token.save(force_insert=True)
        token.domains.set(domains)
        audit.record("token.created", token, detail={"role": role, "scopes": token.scopes})
    return Made(token, text)


def rotate(token: ApiToken, *, by: Principal) -> Made:
    """Give a token a new text; the old one ends at once. Raises `TooStrong`, `BadValue`."""
    with transaction.atomic():
        token = ApiToken.objects.select_for_update(no_key=True, of=("self",)).get(pk=token.pk)
        if token.revoked_at is not None:
            raise BadValue(_("the token is revoked"))
        # Else who may make weak tokens could take a strong one over.
        _check_strength(token, by=by, maker=_maker(by))
        text = _renewed(token)
        token.told_to = _told_to(by)
        token.save(update_fields=["prefix", "digest", "told_to"])
        audit.record("token.rotated", token)
    return Made(token, text)


def revoke(token: ApiToken) -> bool:
    """End a token; one that is revoked stays as it is. Whether it was in use."""
    with transaction.atomic():
        used = ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())
        if used:
            audit.record("token.revoked", token)
    token.refresh_from_db()
    return bool(used)


def prefix_of(text: str) -> str | None:
    """What of a token's text can be seen; None if it is none."""
    match = _TEXT.fullmatch(text)
    return match[1] if match else None


def is_text_of(token: ApiToken, text: str) -> bool:
    """Whether this is the token's text."""
    return hmac.compare_digest(bytes(token.digest), _digest(text))


def networks_of(token: ApiToken) -> list[IPv4Network | IPv6Network]:
    """Where it may be used from; empty: anywhere."""
    return [ip_network(text) for text in token.allowed_networks]


def _renewed(token: ApiToken) -> str:
    token.prefix = "".join(secrets.choice(_LETTERS) for _ in range(8))
    text = f"mh_{token.prefix}_{secrets.token_urlsafe(32)}"
    token.digest = _digest(text)
    return text


def _digest(text: str) -> bytes:
    """The text is random: nothing slower is needed."""
    return hashlib.sha256(text.encode()).digest()


def _maker(by: Principal) -> ApiToken | None:
    return ApiToken.objects.get(pk=by.token_id) if by.token_id else None


def _told_to(by: Principal) -> list[str]:
    """The roles of whoever knows a text that he makes: his, and of those who know his own. None on the host itself."""
    return sorted(by.told_to | {by.role}) if by.user_id or by.token_id else []


def _name(text: str) -> str:
    text = text.strip()
    if not text or len(text) > 100 or not text.isprintable():
        raise BadValue(_("a token's name has 1 to 100 printable characters"))
    return text


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text.strip())
    except ValueError:
        network = None
    if network is None or "%" in text:
        raise BadValue(_("%(text)r is not a network such as 192.0.2.0/24 or 2001:db8::/48") % {"text": text})
    return network


def _check_shape(token: ApiToken, domains: Collection[Domain]) -> None:
    """Whether it says for whom it is, as its role wants. Raises `BadValue`."""
    has = {
        name
        for name, given in (
            ("tenant", token.tenant_id),
            ("reseller", token.reseller_id),
            ("domains", domains),
            ("mailbox", token.mailbox_id),
        )
        if given
    }
    wants: dict[str, tuple[set[str], ...]] = {
        Role.OPERATOR: (set(),),
        Role.RESELLER: ({"reseller"},),
        Role.TENANT_ADMIN: ({"tenant"},),
        Role.DOMAIN_ADMIN: ({"tenant", "domains"},),
        Role.SUPPORT: (set(), {"reseller"}, {"tenant"}),
        Role.MEMBER: ({"tenant", "mailbox"},),
    }
    if role_wants := wants.get(token.role):
        if has not in role_wants:
            texts = " / ".join(", ".join(sorted(names)) or "–" for names in role_wants)
            raise BadValue(_("a token with the role %(role)s is for: %(texts)s") % {"role": token.role, "texts": texts})
    else:
        raise BadValue(_("there is no role %(role)r") % {"role": token.role})
    if any(domain.tenant_id != token.tenant_id for domain in domains) or (
        token.mailbox is not None and token.mailbox.tenant_id != token.tenant_id
    ):
        raise BadValue(_("the domains and the mailbox of a token are its tenant's"))
    if too_much := set(token.scopes) - permissions.scopes_of(token.role):
        raise BadValue(_("the role %(role)s has no scope %(scope)s") % {"role": token.role, "scope": min(too_much)})
    if not token.scopes:
        raise BadValue(_("a token has at least one scope"))
    if not 1 <= token.requests_per_minute <= _MOST_REQUESTS:
        raise BadValue(_("a token has from 1 to %(most)s requests per minute") % {"most": _MOST_REQUESTS})
    if token.expires_at is not None and token.expires_at <= timezone.now():
        raise BadValue(_("a token expires in the future"))


def _check_strength(token: ApiToken, *, by: Principal, maker: ApiToken | None) -> None:
    """Raises `TooStrong`."""
    if not permissions.makes(by, token.role):
        raise TooStrong(
            _("the role %(role)s makes no tokens with the role %(other)s") % {"role": by.role, "other": token.role}
        )
    if not _is_within(token, by):
        raise TooStrong(_("the token would be for more than exists for who makes it"))
    if by.scopes is not None and (more := set(token.scopes) - by.scopes):
        raise TooStrong(_("who makes it has not the scope %(scope)s itself") % {"scope": min(more)})
    if maker is None:
        return
    if maker.expires_at and (token.expires_at is None or token.expires_at > maker.expires_at):
        raise TooStrong(
            _("it can live until %(expires_at)s at most, as who makes it")
            % {"expires_at": languages.moment(maker.expires_at)}
        )
    if maker.allowed_networks and not _are_within(networks_of(token), networks_of(maker)):
        raise TooStrong(_("it can be used from the networks of who makes it, or some of them"))
    if token.requests_per_minute > maker.requests_per_minute:
        raise TooStrong(
            _("it can have %(number)s requests per minute at most, as who makes it")
            % {"number": maker.requests_per_minute}
        )


def _is_within(token: ApiToken, by: Principal) -> bool:
    if by.is_host_wide:
        return True
    if by.tenant_id is not None:
        return token.tenant_id == by.tenant_id
    if token.tenant_id is not None:
        exists: bool = Tenant.objects.visible_to(by).filter(pk=token.tenant_id).exists()
        return exists
    return token.reseller_id == by.reseller_id


def _are_within(inner: Collection[IPv4Network | IPv6Network], outer: Collection[IPv4Network | IPv6Network]) -> bool:
    return bool(inner) and all(
        any(one.version == all_.version and one.subnet_of(all_) for all_ in outer)  # type: ignore[arg-type]
        for one in inner
    )
