"""Who has mail: tenants, their domains, the people and programs that sign in, and the mailboxes."""

import hashlib
import secrets
import uuid
from typing import Any, ClassVar

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Least, Lower, Now
from django.utils.translation import gettext_lazy as _

from accounts import addresses, browsers, languages
from accounts.tenancy import OfLogin, RootQuerySet, TenantOwned, TenantQuerySet, owned


class Role(models.TextChoices):
    """What somebody is here. What each may do stands in `accounts.permissions`, what each sees in `principals`."""

    OPERATOR = "operator"
    RESELLER = "reseller"
    TENANT_ADMIN = "tenant-admin", "Tenant admin"
    DOMAIN_ADMIN = "domain-admin", "Domain admin"
    SUPPORT = "support"
    MEMBER = "member"


class Reseller(models.Model):
    """Sells mail hosting: owns tenants."""

    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    external_id = models.CharField(
        max_length=200, null=True, blank=True, unique=True, help_text="What the caller's own system calls it."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[Any] = RootQuerySet.as_manager()

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.slug


class Plan(models.Model):
    """What a tenant may have, under a name: the host's own, or a reseller's, for its tenants. None is no limit."""

    slug = models.SlugField(max_length=63)
    name = models.CharField(max_length=200)
    reseller = models.ForeignKey(
        Reseller, models.CASCADE, null=True, blank=True, related_name="plans", help_text=_("Empty: the host's own.")
    )
    max_domains = models.BigIntegerField(null=True, blank=True)
    max_mailboxes = models.BigIntegerField(null=True, blank=True)
    max_aliases = models.BigIntegerField(null=True, blank=True)
    max_octets = models.BigIntegerField(null=True, blank=True, help_text=_("Of all its mail together."))
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[Any] = RootQuerySet.as_manager()

    class Meta:
        verbose_name = _("plan")
        verbose_name_plural = _("plans")
        ordering = ("slug",)
        constraints = (models.UniqueConstraint(fields=("reseller", "slug"), nulls_distinct=False, name="plan_slug"),)

    def __str__(self) -> str:
        return self.slug


class Tenant(models.Model):
    """A customer; owns domains."""

    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    reseller = models.ForeignKey(
        Reseller, models.PROTECT, null=True, blank=True, related_name="tenants", help_text="Empty: the host's own."
    )
    external_id = models.CharField(  # noqa: DJ001 - null, since many may have none
        max_length=200, null=True, blank=True, help_text="What the caller's own system calls it."
    )
    retention = models.DurationField(
        null=True,
        blank=True,
        help_text="How long expunged mail can be restored before it is purged. Empty: the host's setting.",
    )
    keep_time = models.DurationField(
        null=True,
        blank=True,
        help_text="How long mail stays in the maildrop, from delivery; then it is expunged. Empty: for ever.",
    )
    plan = models.ForeignKey(
        Plan, models.PROTECT, null=True, blank=True, related_name="tenants", help_text=_("Whose limits it has.")
    )
    admin_mailbox = models.ForeignKey(
        "Mailbox",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        help_text="Receives the mail to postmaster@ of every domain that has no such mailbox.",
    )
    content_roles = ArrayField(
        models.CharField(max_length=12),
        null=True,
        blank=True,
        help_text="The roles that may read what is in its messages, beside their owners. Null: the host's.",
    )
    closed_at = models.DateTimeField(
        null=True, editable=False, help_text="Since then nothing of it can be used; it goes when its mail is purged."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[Any] = RootQuerySet.as_manager()

    class Meta:
        ordering = ("slug",)
        constraints = (
            models.UniqueConstraint(
                fields=("reseller", "external_id"),
                condition=~Q(external_id=None),
                name="tenant_external_id",
                nulls_distinct=False,
            ),
        )

    def __str__(self) -> str:
        return self.slug


def _verification_token() -> str:
    return secrets.token_hex(16)


class Domain(TenantOwned):
    """A domain whose mail is hosted here. Belongs to one tenant."""

    class State(models.TextChoices):
        PENDING = "pending"  # nobody has shown yet that it is the tenant's
        VERIFIED = "verified"
        FAILING = "failing"  # it was shown once, and is not any more

    name = models.CharField(max_length=253, unique=True, help_text="In normal form: A-labels in lower case.")
    external_id = models.CharField(  # noqa: DJ001 - null, since many may have none
        max_length=200, null=True, blank=True, help_text="What the caller's own system calls it."
    )
    state = models.CharField(max_length=8, choices=State, default=State.PENDING, editable=False)
    verification_token = models.CharField(max_length=32, default=_verification_token, editable=False)
    checked_at = models.DateTimeField(null=True, editable=False, help_text="When DNS was last asked.")
    failing_since = models.DateTimeField(null=True, editable=False)
    alias_of = owned(
        "accounts.Domain",
        null=True,
        blank=True,
        related_name="alias_domains",
        help_text="Mail to an address here is for the same local part there.",
    )
    closed_at = models.DateTimeField(
        null=True, editable=False, help_text="Since then it takes no mail; it goes when its mail is purged."
    )
    subaddress = models.CharField(  # noqa: DJ001 - null: the host's; empty: none
        max_length=1, null=True, blank=True, help_text="What separates a subaddress, such as +. Empty: nothing does."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    domain_path: ClassVar = "pk"

    class Meta:
        ordering = ("name",)
        constraints = (
            models.UniqueConstraint(fields=("tenant", "id"), name="domain_of_tenant"),
            models.UniqueConstraint(fields=("tenant", "external_id"), name="domain_external_id"),
            models.CheckConstraint(condition=Q(name=Lower(F("name"))), name="domain_name_folded"),
            models.CheckConstraint(condition=~Q(alias_of=F("id")), name="domain_alias_of_another"),
        )

    def __str__(self) -> str:
        return self.name


class Allowance(models.Model):
    """How much a reseller, a tenant or a domain may have, and how much it has: one row for each of them.

    Counts are kept for all, in the transaction that changes what they count (`accounts.limits`). `octets` is kept only
    while `max_octets` is set, by a trigger on the mailboxes' counters: else every delivery would lock one row.
    """

    reseller = models.OneToOneField(Reseller, models.CASCADE, null=True, related_name="allowance")
    tenant = models.ForeignKey(
        "accounts.Tenant", models.CASCADE, null=True, related_name="allowances", db_index=False, db_constraint=False
    )
    domain = models.OneToOneField(Domain, models.CASCADE, null=True, related_name="allowance", db_constraint=False)
    max_domains = models.BigIntegerField(null=True, blank=True, help_text="Empty: no limit.")
    max_mailboxes = models.BigIntegerField(null=True, blank=True, help_text="Empty: no limit.")
    max_aliases = models.BigIntegerField(null=True, blank=True, help_text="Empty: no limit.")
    max_octets = models.BigIntegerField(null=True, blank=True, help_text="Of all its mail together. Empty: no limit.")
    domains = models.BigIntegerField(default=0, editable=False)
    mailboxes = models.BigIntegerField(default=0, editable=False, help_text="Those that are open.")
    aliases = models.BigIntegerField(default=0, editable=False)
    octets = models.BigIntegerField(default=0, editable=False, help_text="While max_octets is set.")
    warned_percent = models.SmallIntegerField(default=0, editable=False)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(reseller__isnull=False, tenant=None, domain=None) | Q(reseller=None, tenant__isnull=False),
                name="allowance_of_one",
            ),
            models.UniqueConstraint(fields=("tenant",), condition=Q(domain=None), name="allowance_of_tenant"),
        )

    def __str__(self) -> str:
        return f"allowance {self.pk}"


class Users(BaseUserManager["User"]):
    """Everyone who signs in."""

    def get_queryset(self) -> TenantQuerySet["User"]:
        return TenantQuerySet(self.model, using=self._db)

    def visible_to(self, principal: Any) -> TenantQuerySet["User"]:
        return self.get_queryset().visible_to(principal)

    def get_by_natural_key(self, username: str | None) -> "User":
        """Who signs in by that login, in any spelling of the address. Raises `User.DoesNotExist`."""
        try:
            return super().get_by_natural_key(addresses.address(username or ""))
        except addresses.BadAddress:
            raise self.model.DoesNotExist from None

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Make an operator: may do everything, has no mailbox. Raises `ValidationError`."""
        try:
            email = addresses.address(email)
        except addresses.BadAddress as error:
            raise ValidationError(str(error)) from None
        user = self.model(email=email, role=Role.OPERATOR, is_staff=True, is_superuser=True, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user


class User(AbstractBaseUser, PermissionsMixin):
    """Someone who signs in anywhere: an operator, a tenant's staff, or the owner of a mailbox."""

    # An operator belongs to no tenant. A closed mailbox's user has no login: the address may get a new owner.
    tenant = models.ForeignKey(
        Tenant, models.PROTECT, null=True, blank=True, related_name="+", help_text="Empty for operators."
    )
    role = models.CharField(max_length=12, choices=Role, default=Role.MEMBER)
    reseller = models.ForeignKey(
        Reseller, models.PROTECT, null=True, blank=True, related_name="+", help_text="Whose staff it is."
    )
    domains: Any = models.ManyToManyField(
        Domain, through="DomainAdmin", related_name="+", blank=True, help_text="What a domain admin looks after."
    )
    # Longer than Django's own: hashes come along from other servers (accounts.hashes).
    password = models.CharField("password", max_length=255)
    former_password = models.BinaryField(
        null=True, help_text="SHA-256 of the stored password before: open sessions that began with it go on."
    )
    email = models.CharField(  # noqa: DJ001 - null, since many closed mailboxes may have none
        "login", max_length=320, unique=True, null=True, help_text="An address in normal form."
    )
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField("may use the admin", default=False)
    language = models.CharField(  # noqa: DJ001 - null: nothing was chosen
        max_length=10, null=True, blank=True, choices=languages.NAMES, help_text="Empty: as the browser asks."
    )
    time_zone = models.CharField(  # noqa: DJ001 - null: nothing was chosen
        max_length=64, null=True, blank=True, help_text="Empty: the host's, or the browser's."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[Users] = Users()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"

    mailbox_path: ClassVar = "mailbox"
    domain_path: ClassVar = "mailbox__domain"

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("tenant", "id"), name="user_of_tenant"),
            models.CheckConstraint(
                condition=Q(is_superuser=True, role="operator") | Q(is_superuser=False) & ~Q(role="operator"),
                name="user_operator_is_superuser",
            ),
            models.CheckConstraint(condition=Q(tenant=None) | Q(reseller=None), name="user_of_tenant_or_reseller"),
            models.CheckConstraint(condition=Q(email=Lower(F("email"))), name="user_email_folded"),
        )

    def __str__(self) -> str:
        return self.email or _("user %(id)s") % {"id": self.pk}

    def check_password(self, raw_password: str | None) -> bool:
        """Whether it is the password. A hash of another server gives way to ours then (`accounts.hashes`)."""

        def replace(password: str) -> None:
            anew, former = make_password(password), self.as_former()
            # Unless somebody changed the password meanwhile, who wants this one to be good for nothing.
            unchanged = User.objects.filter(pk=self.pk, password=self.password)
            if unchanged.update(password=anew, former_password=former):
                self.password, self.former_password = anew, former

        return check_password(raw_password, self.password, replace)

    def as_former(self) -> bytes:
        """What `former_password` is once another hash is stored, and open sessions that began with this one go on.

        With the one before it: a hash gives way to another of the same password, and then the password is changed.
        """
        return hashlib.sha256(self.password.encode()).digest() + bytes(self.former_password or b"")[:32]


class DomainAdmin(TenantOwned):
    """A domain that a domain admin looks after."""

    user = models.ForeignKey(User, models.CASCADE, db_constraint=False, related_name="+")
    domain = models.ForeignKey(Domain, models.CASCADE, db_constraint=False, related_name="+")

    domain_path: ClassVar = "domain"

    class Meta:
        constraints = (models.UniqueConstraint(fields=("user", "domain"), name="domain_admin_once"),)


class MailboxQuerySet(TenantQuerySet["Mailbox"]):
    """Mailboxes."""

    def open(self) -> "MailboxQuerySet":
        """Mailboxes that are in use; the others wait in quarantine for their purge."""
        return self.filter(closed_at=None)


def little_room(percent: int) -> Q:
    """The open mailboxes that have used so many percent of their quota; at 100 an ordinary message finds no room.

    As of the last time that people were told of it (`mailstore.notices`), so that few are looked at.
    """
    quota = F("quota_octets")
    step = quota - Least(quota / 100, 65536) if percent >= 100 else quota / 100 * percent
    return Q(closed_at=None, warned_percent__gt=0, quota_octets__gt=0, used_octets__gte=step)


class Mailbox(TenantOwned):
    """A hosted address with its password and quota (RFC 5598).

    Its counters are as hot as its mail: they are not the user's row, and change only in the transaction that
    changes the messages they count.
    """

    class State(models.TextChoices):
        ACTIVE = "active"
        NO_LOGIN = "no-login", "receives mail, login off"
        NO_RECEIVE = "no-receive", "login works, mail is deferred"
        SUSPENDED = "suspended"

    domain = owned("accounts.Domain", related_name="mailboxes")
    user = models.OneToOneField(User, models.PROTECT, related_name="mailbox", db_constraint=False)
    address = models.CharField(max_length=320, help_text="In normal form: folded, the domain as A-labels.")
    name = models.CharField(max_length=200, blank=True, default="", help_text="Whose it is, as people read it.")
    external_id = models.CharField(  # noqa: DJ001 - null, since many may have none
        max_length=200, null=True, blank=True, help_text="What the caller's own system calls it."
    )
    state = models.CharField(max_length=10, choices=State, default=State.ACTIVE)
    state_reason = models.CharField(
        max_length=500, blank=True, default="", help_text="Why it is in that state; its owner reads it."
    )
    legal_hold = models.BooleanField(default=False, help_text="No purge removes any of its mail.")
    closed_at = models.DateTimeField(
        null=True, blank=True, help_text="Since then nobody can use it; it is purged after the retention."
    )
    quota_octets = models.BigIntegerField(null=True, blank=True, help_text="Empty: no limit.")
    used_octets = models.BigIntegerField(default=0, editable=False)
    warned_percent = models.SmallIntegerField(default=0, editable=False)
    message_count = models.BigIntegerField(default=0, editable=False)
    # The next message's uid. Only ever grows, so that no unique-id comes twice.
    next_uid = models.BigIntegerField(default=1, editable=False)
    pop3_enabled = models.BooleanField("POP3", default=True)
    allowed_networks = ArrayField(
        models.CharField(max_length=43),
        default=list,
        blank=True,
        help_text="Networks POP3 may be used from, such as 192.0.2.0/24. Empty: anywhere.",
    )
    retention = models.DurationField(
        null=True, blank=True, help_text="How long expunged mail can be restored. Empty: the tenant's."
    )
    keep_time = models.DurationField(
        null=True,
        blank=True,
        help_text="How long mail stays in the maildrop, from delivery; then it is expunged. Empty: the tenant's.",
    )
    last_login_at = models.DateTimeField(null=True, editable=False)
    last_login_address = models.GenericIPAddressField(null=True, editable=False)
    last_login_secure = models.BooleanField(null=True, editable=False, help_text="Over TLS.")
    last_login_app_password_id = models.BigIntegerField(null=True, editable=False, help_text="The device.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[Any] = MailboxQuerySet.as_manager()

    mailbox_path: ClassVar = "pk"
    domain_path: ClassVar = "domain"

    class Meta:
        verbose_name_plural = "mailboxes"
        ordering = ("address",)
        constraints = (
            models.UniqueConstraint(fields=("address",), condition=Q(closed_at=None), name="mailbox_address_of_open"),
            models.UniqueConstraint(fields=("tenant", "id"), name="mailbox_of_tenant"),
            models.UniqueConstraint(
                fields=("tenant", "external_id"), condition=Q(closed_at=None), name="mailbox_external_id"
            ),
            models.CheckConstraint(condition=Q(address=Lower(F("address"))), name="mailbox_address_folded"),
            models.CheckConstraint(
                condition=Q(used_octets__gte=0, message_count__gte=0, next_uid__gte=1),
                name="mailbox_counters",
            ),
            models.CheckConstraint(
                condition=Q(quota_octets=None) | Q(quota_octets__gte=0), name="mailbox_quota_octets"
            ),
        )
        indexes = (
            models.Index(fields=("address",), condition=~Q(closed_at=None), name="mailbox_in_quarantine"),
            models.Index(fields=("closed_at",), condition=~Q(closed_at=None), name="mailbox_closed"),
            models.Index(fields=("id",), condition=~Q(keep_time=None), name="mailbox_with_keep_time"),
            models.Index(fields=("tenant", "address"), name="mailbox_listed"),
            # On no column that a delivery changes: else each would write all indexes.
            models.Index(
                fields=("tenant", "address"),
                condition=Q(closed_at=None, warned_percent__gt=0),
                name="mailbox_with_little_room",
            ),
        )

    def __str__(self) -> str:
        return self.address


class Alias(TenantOwned):
    """A further address, whose mail goes to mailboxes and to addresses outside.

    `@example.test`, without a local part, takes what no other address of the domain does (a catch-all).
    """

    domain = owned("accounts.Domain", related_name="aliases")
    address = models.CharField(max_length=320, unique=True, help_text="In normal form.")
    expires_at = models.DateTimeField(null=True, blank=True, help_text="From then on it takes no mail.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    domain_path: ClassVar = "domain"

    class Meta:
        verbose_name_plural = "aliases"
        ordering = ("address",)
        constraints = (
            models.UniqueConstraint(fields=("tenant", "id"), name="alias_of_tenant"),
            models.CheckConstraint(condition=Q(address=Lower(F("address"))), name="alias_address_folded"),
        )
        indexes = (models.Index(fields=("tenant", "address"), name="alias_listed"),)

    def __str__(self) -> str:
        return self.address


class AliasTarget(TenantOwned):
    """Where an alias's mail goes: to a mailbox, or to an address outside."""

    alias = models.ForeignKey(Alias, models.CASCADE, db_constraint=False, related_name="targets", db_index=False)
    mailbox = owned("accounts.Mailbox", null=True, related_name="alias_targets")
    address = models.CharField(max_length=320, blank=True, default="", help_text="Outside, in normal form.")

    domain_path: ClassVar = "alias__domain"

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("alias", "mailbox", "address"), nulls_distinct=False, name="alias_target"),
            models.CheckConstraint(
                condition=Q(mailbox=None, address__gt="") | Q(mailbox__isnull=False, address=""),
                name="alias_target_is_one",
            ),
        )

    def __str__(self) -> str:
        return self.address or str(self.mailbox)


class AppPassword(TenantOwned):
    """A password of one device or program of a mailbox's owner. Made here, shown once, random: a digest is stored."""

    class Scope(models.TextChoices):
        POP3 = "pop3", "POP3"
        SELF = "self", "self-service"

    mailbox = owned("accounts.Mailbox", related_name="app_passwords")
    name = models.CharField(max_length=100, help_text="The device: Outlook office.")
    digest = models.BinaryField(help_text="SHA-256 of the password.")
    scopes = ArrayField(models.CharField(max_length=8, choices=Scope), default=list)
    allowed_networks = ArrayField(models.CharField(max_length=43), default=list, blank=True)
    own_copy = models.BooleanField(
        default=False,
        db_default=False,
        help_text="The device has its own view of the maildrop: what it removes is gone for that device only. A "
        "message leaves the mailbox when every device with an own copy has removed it.",
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    last_used_address = models.GenericIPAddressField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    mailbox_path: ClassVar = "mailbox"
    domain_path: ClassVar = "mailbox__domain"

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("mailbox", "digest"), name="app_password_digest"),
            models.CheckConstraint(
                condition=Q(own_copy=False) | Q(scopes__contains=["pop3"]), name="app_password_own_copy_fetches"
            ),
        )
        indexes = (
            models.Index(
                fields=("expires_at",),
                condition=Q(own_copy=True, revoked_at=None, expires_at__isnull=False),
                name="app_password_own_copy_ends",
            ),
        )

    def __str__(self) -> str:
        return self.name


class ApiToken(TenantOwned):
    """What a program signs in with. Shown once; `prefix` is what can be seen of it, a digest is stored."""

    tenant = models.ForeignKey(  # type: ignore[assignment] # it may have none
        Tenant, models.CASCADE, null=True, blank=True, related_name="+", help_text="Empty: of the host or a reseller."
    )
    reseller = models.ForeignKey(Reseller, models.CASCADE, null=True, blank=True, related_name="+")
    domains: Any = models.ManyToManyField(Domain, db_constraint=False, related_name="+", blank=True)
    mailbox = models.ForeignKey(Mailbox, models.CASCADE, null=True, blank=True, related_name="+", db_constraint=False)
    role = models.CharField(max_length=12, choices=Role)
    name = models.CharField(max_length=100, help_text="What uses it.")
    prefix = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.BinaryField(help_text="SHA-256 of the token.")
    scopes = ArrayField(models.CharField(max_length=40), default=list, help_text="Such as mailboxes:write.")
    allowed_networks = ArrayField(models.CharField(max_length=43), default=list, blank=True)
    requests_per_minute = models.IntegerField(default=600)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    last_used_address = models.GenericIPAddressField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)
    told_to = ArrayField(
        models.CharField(max_length=12),
        default=list,
        db_default=[],
        editable=False,
        help_text="The roles of whoever was told its text. It reads messages where they may, too. Empty: of a command.",
    )
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+", db_index=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    mailbox_path: ClassVar = "mailbox"

    class Meta:
        verbose_name = "API token"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class AuditEvent(models.Model):
    """Who changed what. Only ever added to, in the transaction of the change.

    People are named by the ids of their rows, which erasure removes, and values that are personal or secret are left
    out: of those only is said that they changed. References are not constrained: what they name may be gone.
    """

    class Through(models.TextChoices):
        API = "api", "API"
        ADMIN = "admin"
        PAGES = "pages", "Owner's pages"
        COMMAND = "command", "manage.py"
        SYSTEM = "system"

    at = models.DateTimeField(db_default=Now())
    tenant_id = models.BigIntegerField(null=True)
    reseller_id = models.BigIntegerField(null=True)
    user_id = models.BigIntegerField(null=True, help_text="Who.")
    token_id = models.BigIntegerField(null=True, help_text="Or which program.")
    role = models.CharField(max_length=12, blank=True)
    through = models.CharField(max_length=8, choices=Through)
    client_address = models.GenericIPAddressField(null=True)
    action = models.CharField(max_length=40, help_text="Such as mailbox.suspended.")
    target_kind = models.CharField(max_length=20)
    target_id = models.BigIntegerField(null=True)
    target = models.CharField(max_length=253, blank=True, help_text="Its name, unless that is personal.")
    domain_id = models.BigIntegerField(null=True)
    mailbox_id = models.BigIntegerField(null=True)
    changes = models.JSONField(default=dict, help_text="By field, before and after; null where it is not told.")

    objects: ClassVar[Any] = TenantQuerySet.as_manager()
    domain_path: ClassVar = "domain_id"
    mailbox_path: ClassVar = "mailbox_id"

    class Meta:
        indexes = (
            models.Index(fields=("tenant_id", "id"), name="audit_of_tenant"),
            models.Index(fields=("target_kind", "target_id", "id"), name="audit_of_target"),
            models.Index(fields=("mailbox_id", "id"), condition=~Q(mailbox_id=None), name="audit_of_mailbox"),
        )

    def __str__(self) -> str:
        return f"{self.action} {self.target or self.target_id}"


class IdempotencyKey(models.Model):
    """The answer to a request that must not be carried out twice, in the transaction that carried it out."""

    principal = models.CharField(max_length=40, help_text="Whose key: token 5, user 7.")
    key = models.CharField(max_length=255)
    digest = models.BinaryField(help_text="SHA-256 of method, path and body.")
    status = models.SmallIntegerField()
    headers = models.JSONField(default=dict)
    body = models.BinaryField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = (models.UniqueConstraint(fields=("principal", "key"), name="idempotency_key_once"),)
        indexes = (models.Index(fields=("created_at",), name="idempotency_key_age"),)

    def __str__(self) -> str:
        return self.key


class Webhook(TenantOwned):
    """Where events are sent to: of one tenant, of a reseller's tenants, or of all."""

    tenant = models.ForeignKey(  # type: ignore[assignment] # it may have none
        Tenant, models.CASCADE, null=True, blank=True, related_name="+"
    )
    reseller = models.ForeignKey(Reseller, models.CASCADE, null=True, blank=True, related_name="+")
    url = models.CharField(max_length=2000)
    secret = models.CharField(max_length=100, help_text="Signs what is sent.")
    events = ArrayField(models.CharField(max_length=40), default=list, help_text="Empty: all.")
    enabled = models.BooleanField(default=True)
    held_until = models.DateTimeField(
        null=True, editable=False, help_text="Until then nothing is sent: somebody does, or nobody answers there."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return self.url


class Event(TenantOwned):
    """Something that happened and others may want to know: what webhooks tell."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    kind = models.CharField(max_length=40, help_text="Such as mailbox.created.")
    domain_name = models.CharField(max_length=253, blank=True)
    payload = models.JSONField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = (
            models.Index(fields=("tenant", "created_at"), name="event_of_tenant"),
            models.Index(fields=("created_at",), name="event_age"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class WebhookDelivery(TenantOwned):
    """An event on its way to a webhook."""

    class State(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"  # given up; can be sent again

    webhook = models.ForeignKey(Webhook, models.CASCADE, related_name="deliveries")
    event = models.ForeignKey(Event, models.CASCADE, related_name="deliveries")
    state = models.CharField(max_length=9, choices=State, default=State.PENDING)
    attempts = models.IntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, db_default=Now())
    last_status = models.IntegerField(null=True)
    last_error = models.CharField(max_length=200, blank=True, default="")
    delivered_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "webhook deliveries"
        indexes = (
            models.Index(
                fields=("webhook", "next_attempt_at"), condition=Q(state="pending"), name="delivery_due_of_webhook"
            ),
        )

    def __str__(self) -> str:
        return _("%(event)s to %(webhook)s") % {"event": self.event_id, "webhook": self.webhook_id}


class KnownNetwork(TenantOwned):
    """A network that signed in to a mailbox with its password: guesses from elsewhere do not lock it out."""

    mailbox = owned("accounts.Mailbox", related_name="known_networks", db_index=False)
    network = models.CharField(max_length=43)
    last_login_at = models.DateTimeField()

    mailbox_path: ClassVar = "mailbox"
    domain_path: ClassVar = "mailbox__domain"

    class Meta:
        constraints = (models.UniqueConstraint(fields=("mailbox", "network"), name="known_network"),)
        indexes = (models.Index(fields=("last_login_at",), name="known_network_age"),)

    def __str__(self) -> str:
        return self.network


class FailedLogin(TenantOwned):
    """Logins that failed, hour by hour: at a mailbox, by a login without one, or by addresses that nobody has.

    Without foreign keys: what it tells of may be gone before it. `accounts.failed_logins` says what is kept, and how
    much of it.
    """

    class Reason(models.TextChoices):
        PASSWORD = "password", _("wrong password")
        REVOKED = "app-revoked", _("app password that was revoked")
        EXPIRED = "app-expired", _("app password that has expired")
        NOT_MEANT = "app-scope", _("app password that is not for that")
        NOT_FROM_THERE = "app-network", _("app password not allowed from there")
        UNKNOWN = "unknown", _("no such address")
        STATE = "state", _("right password, login is off")
        NO_POP3 = "no-pop3", _("right password, POP3 is off")
        NETWORK = "network", _("right password, not allowed from there")
        SECOND_STEP = "second-step", _("right password, second step failed")
        UNSEEN = "too-many", _("refused unseen, after too many failures")
        IN_USE = "in-use", _("right password, another session had the maildrop")

    class Through(models.TextChoices):
        POP3 = "pop3", "POP3"
        PAGES = "pages", _("owner's pages")
        ADMIN = "admin", _("admin")

    tenant = models.ForeignKey(  # type: ignore[assignment] # it may be nobody's
        Tenant, models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False
    )
    reseller = models.ForeignKey(
        Reseller, models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False
    )
    domain = owned("accounts.Domain", models.DO_NOTHING, null=True, related_name="+", db_index=False)
    mailbox = owned("accounts.Mailbox", models.DO_NOTHING, null=True, related_name="+", db_index=False)
    user = models.ForeignKey(
        User, models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False, verbose_name="login"
    )
    subject = models.CharField(max_length=30, help_text="Whose: mailbox 5, login 7, domain 3, or nobody's.")
    address = models.CharField(max_length=320, blank=True, help_text="That nobody has, in a domain hosted here.")
    reason = models.CharField(max_length=12, choices=Reason)
    through = models.CharField(max_length=5, choices=Through)
    network = models.CharField(max_length=43, blank=True, help_text="Empty: others, added up.")
    app_password_id = models.BigIntegerField(null=True, help_text="The device.")
    client_address = models.GenericIPAddressField(null=True, help_text="The last one.")
    hour = models.DateTimeField()
    count = models.BigIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    mailbox_path: ClassVar = "mailbox"
    domain_path: ClassVar = "domain"

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("subject", "hour", "reason", "through", "network", "address", "app_password_id"),
                nulls_distinct=False,
                name="failed_login_of_hour",
            ),
        )
        indexes = (
            models.Index(fields=("hour",), name="failed_login_age"),
            models.Index(fields=("tenant", "hour"), name="failed_login_of_tenant"),
            models.Index(fields=("mailbox", "hour"), name="failed_login_of_mailbox"),
        )

    def __str__(self) -> str:
        return _("failed login %(id)s") % {"id": self.pk}


class AuthenticatorApp(OfLogin):
    """An app that shows another code every half a minute (TOTP, RFC 6238). A login has at most one."""

    user = models.OneToOneField(User, models.DO_NOTHING, db_constraint=False, related_name="+")
    sealed_secret = models.BinaryField(help_text="What app and host share; encrypted.")
    last_step = models.BigIntegerField(
        help_text="Of the last code that was taken: none before it is, and no code twice."
    )
    last_used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return _("authenticator app %(id)s") % {"id": self.pk}


class Passkey(OfLogin):
    """A key of WebAuthn: in a device, or in a password manager that keeps it on several."""

    name = models.CharField(max_length=100)
    credential_id = models.BinaryField(unique=True)
    credential = models.BinaryField(help_text="Attested credential data (WebAuthn section 6.5.1): id and public key.")
    sign_count = models.BigIntegerField(help_text="Of its last signature. Only grows, unless it stays 0.")
    last_used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


class RecoveryCode(OfLogin):
    """A code for who has lost the rest. Made here, shown once, random: a digest is stored, and goes when it is used."""

    digest = models.BinaryField(help_text="SHA-256 of the code.")

    class Meta:
        constraints = (models.UniqueConstraint(fields=("user", "digest"), name="recovery_code_digest"),)

    def __str__(self) -> str:
        return _("recovery code %(id)s") % {"id": self.pk}


class WebSession(OfLogin):
    """A browser in which somebody signed in to the admin. When the row goes, he is signed out there."""

    class SecondStep(models.TextChoices):
        APP = "app", _("password and code")
        PASSKEY = "passkey", _("password and passkey")
        RECOVERY = "recovery", _("password and recovery code")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    second_step = models.CharField(max_length=8, choices=SecondStep, blank=True, default="")
    client_address = models.GenericIPAddressField(null=True)
    browser = models.CharField(max_length=300, blank=True, default="", help_text="What it calls itself.")
    last_seen_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return _("web session %(id)s") % {"id": self.pk}

    @property
    def browser_name(self) -> str:
        """What people call the browser."""
        return browsers.named(self.browser)
