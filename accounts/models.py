"""Who has mail: tenants, their domains, the people who sign in, and the mailboxes."""

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower, Now

from accounts import addresses
from accounts.tenancy import TenantOwned, TenantQuerySet, owned


class TenantRoots(models.QuerySet["Tenant"]):
    """Tenants themselves."""

    def visible_to(self, principal: Any) -> "TenantRoots":
        """As `TenantQuerySet.visible_to`: a tenant's staff sees the tenant it belongs to."""
        if not principal.is_active or not principal.is_staff:
            return self.none()
        return self if principal.is_superuser else self.filter(pk=principal.tenant_id)


class Tenant(models.Model):
    """A customer; owns domains."""

    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    retention = models.DurationField(
        null=True,
        blank=True,
        help_text="How long expunged mail can be restored before it is purged. Empty: the host's setting.",
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
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[Any] = TenantRoots.as_manager()

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.slug


class Domain(TenantOwned):
    """A domain whose mail is hosted here. Belongs to one tenant."""

    name = models.CharField(max_length=253, unique=True, help_text="In normal form: A-labels in lower case.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("name",)
        constraints = (
            models.UniqueConstraint(fields=("tenant", "id"), name="domain_of_tenant"),
            models.CheckConstraint(condition=Q(name=Lower(F("name"))), name="domain_name_folded"),
        )

    def __str__(self) -> str:
        return self.name


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
        user = self.model(email=email, is_staff=True, is_superuser=True, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user


class User(AbstractBaseUser, PermissionsMixin):
    """Someone who signs in anywhere: an operator, a tenant's staff, or the owner of a mailbox."""

    # An operator belongs to no tenant. A closed mailbox's user has no login: the address may get a new owner.
    tenant = models.ForeignKey(
        Tenant, models.PROTECT, null=True, blank=True, related_name="+", help_text="Empty for operators."
    )
    email = models.CharField(  # noqa: DJ001 - null, since many closed mailboxes may have none
        "login", max_length=320, unique=True, null=True, help_text="An address in normal form."
    )
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField("may use the admin", default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[Users] = Users()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("tenant", "id"), name="user_of_tenant"),
            models.CheckConstraint(condition=Q(email=Lower(F("email"))), name="user_email_folded"),
        )

    def __str__(self) -> str:
        return self.email or f"user {self.pk}"


class MailboxQuerySet(TenantQuerySet["Mailbox"]):
    """Mailboxes."""

    def open(self) -> "MailboxQuerySet":
        """Mailboxes that are in use; the others wait in quarantine for their purge."""
        return self.filter(closed_at=None)


class Mailbox(TenantOwned):
    """A hosted address with its password and quota (RFC 5598).

    Its counters are as hot as its mail: they are not the user's row, and change only in the transaction that
    changes the messages they count.
    """

    class State(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"

    domain = owned("accounts.Domain", related_name="mailboxes")
    user = models.OneToOneField(User, models.PROTECT, related_name="mailbox", db_constraint=False)
    address = models.CharField(max_length=320, help_text="In normal form: folded, the domain as A-labels.")
    state = models.CharField(max_length=9, choices=State, default=State.ACTIVE)
    closed_at = models.DateTimeField(
        null=True, blank=True, help_text="Since then nobody can use it; it is purged after the retention."
    )
    quota_octets = models.BigIntegerField(null=True, blank=True, help_text="Empty: no limit.")
    used_octets = models.BigIntegerField(default=0, editable=False)
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
    last_login_at = models.DateTimeField(null=True, editable=False)
    last_login_address = models.GenericIPAddressField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[Any] = MailboxQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "mailboxes"
        ordering = ("address",)
        constraints = (
            models.UniqueConstraint(fields=("address",), condition=Q(closed_at=None), name="mailbox_address_of_open"),
            models.UniqueConstraint(fields=("tenant", "id"), name="mailbox_of_tenant"),
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
        )

    def __str__(self) -> str:
        return self.address


class Alias(TenantOwned):
    """A further address of a mailbox."""

    domain = owned("accounts.Domain", related_name="aliases")
    address = models.CharField(max_length=320, unique=True, help_text="In normal form.")
    mailbox = owned("accounts.Mailbox", related_name="aliases")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name_plural = "aliases"
        ordering = ("address",)
        constraints = (models.CheckConstraint(condition=Q(address=Lower(F("address"))), name="alias_address_folded"),)

    def __str__(self) -> str:
        return self.address


class KnownNetwork(TenantOwned):
    """A network that signed in to a mailbox with its password: guesses from elsewhere do not lock it out."""

    mailbox = owned("accounts.Mailbox", related_name="known_networks", db_index=False)
    network = models.CharField(max_length=43)
    last_login_at = models.DateTimeField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("mailbox", "network"), name="known_network"),)
        indexes = (models.Index(fields=("last_login_at",), name="known_network_age"),)

    def __str__(self) -> str:
        return self.network
