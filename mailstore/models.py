"""The mail: contents, the messages that refer to them, and the sessions that fetched them."""

import uuid
from collections.abc import Sequence
from typing import Any, ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from accounts.models import Mailbox
from accounts.tenancy import TenantOwned, TenantQuerySet, owned


class Store(models.Model):
    """The message store as a whole: one row.

    `epoch` is part of every new message's unique-id. Whoever restores the database from a backup raises it
    (`manage.py newepoch`), because the restore rewinds the counters: what was handed out since the backup can
    then never be handed out again, while older messages keep their unique-ids.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    epoch = models.IntegerField(default=1)

    class Meta:
        verbose_name_plural = "store"
        constraints = (models.CheckConstraint(condition=Q(id=1), name="store_is_one"),)

    def __str__(self) -> str:
        return f"epoch {self.epoch}"


class Content(TenantOwned):
    """What was delivered, in canonical CRLF form. Never changes: `octets` is exact for LIST and RETR alike.

    Stored once for all recipients of one transaction and tenant. Small ones lie in `body`, larger ones in
    chunks, because a `bytea` cannot be read in parts without reading the whole.
    """

    octets = models.BigIntegerField()
    header_octets = models.BigIntegerField(help_text="Through the empty line that ends the header.")
    has_dot_lines = models.BooleanField(help_text="Whether any line begins with a dot, and needs stuffing.")
    body = models.BinaryField(null=True, help_text="The octets; null if they lie in chunks.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("tenant", "id"), name="content_of_tenant"),)

    def __str__(self) -> str:
        return f"content {self.pk}"


class ContentChunk(TenantOwned):
    """A piece of a large content; all but the last are of one size (`mailstore.delivery.CHUNK_OCTETS`)."""

    pk = models.CompositePrimaryKey("content_id", "number")
    content = owned("mailstore.Content", related_name="chunks", db_index=False)
    number = models.IntegerField(help_text="From 0.")
    octets = models.BinaryField()

    class Meta:
        verbose_name = "content chunk"


class Listener(models.Model):
    """A running listener process.

    It holds an advisory lock for as long as its database connection lives, and renews the heartbeat: whoever
    finds the lock free or the heartbeat old knows that its sessions are over (`mailstore.presence`).
    """

    id = models.AutoField(primary_key=True)  # 32 bits: half of an advisory lock's key
    kind = models.CharField(max_length=8, help_text="pop3 or lmtp")
    host = models.CharField(max_length=253)
    pid = models.IntegerField()
    started_at = models.DateTimeField(db_default=Now())
    heartbeat_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return _("%(kind)s on %(host)s, process %(pid)s") % {"kind": self.kind, "host": self.host, "pid": self.pid}


class MaildropSession(TenantOwned):
    """A POP3 session: the exclusive lock on its maildrop while open, and its record after.

    The key is random, not counted: rows commit asynchronously, and a sequence would hand a number out twice
    after a crash of the database. It is the fencing token: QUIT changes nothing unless this row is still
    open.
    """

    class End(models.TextChoices):
        QUIT = "quit"
        DROPPED = "dropped", "connection lost"
        ENDED = "ended", "ended from outside"
        LOST = "lost", "listener lost"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    mailbox = owned("accounts.Mailbox", related_name="sessions", db_index=False)
    view = models.BigIntegerField(default=0, help_text="0: the maildrop itself; else a device with its own copy.")
    # No constraint: every login would lock the listener's one row.
    listener = models.ForeignKey(Listener, models.DO_NOTHING, db_constraint=False, related_name="sessions")
    # The app password it signed in with, if not the mailbox's own. Not constrained, as the listener.
    app_password_id = models.BigIntegerField(null=True, help_text="The device.")
    client_address = models.GenericIPAddressField(null=True)
    secure = models.BooleanField(help_text="Over TLS.")
    started_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)
    end = models.CharField(max_length=8, choices=End, blank=True, default="")
    fetched = models.IntegerField(default=0, help_text="Messages retrieved.")
    expunged = models.IntegerField(default=0, help_text="Messages removed.")

    mailbox_path: ClassVar = "mailbox"
    domain_path: ClassVar = "mailbox__domain"

    class Meta:
        verbose_name = "session"
        constraints = (
            models.UniqueConstraint(fields=("mailbox", "view"), condition=Q(ended_at=None), name="maildrop_lock"),
        )
        indexes = (
            models.Index(fields=("mailbox", "started_at"), name="session_of_mailbox"),
            models.Index(fields=("ended_at",), name="session_ended"),
            models.Index(fields=("listener",), name="session_of_listener"),
        )

    def __str__(self) -> str:
        return str(self.id)

    @property
    def own_copy(self) -> bool:
        """Whether it was of a device with its own copy, and removed what it removed there."""
        return self.view != 0


class MessageQuerySet(TenantQuerySet["Message"]):
    """Messages."""

    def in_maildrop(self, mailbox: Mailbox | None = None) -> "MessageQuerySet":
        """Messages that a client can fetch now, of one mailbox or of all."""
        present = self.filter(expunged_at=None)
        return present.filter(mailbox=mailbox) if mailbox else present

    def expunged(self) -> "MessageQuerySet":
        """Messages that were removed, and can be restored until they are purged."""
        return self.exclude(expunged_at=None)

    def among(self, ids: Sequence[int]) -> "MessageQuerySet":
        """Messages with these ids, given as one array: a hundred thousand parameters take longer than all the rest."""
        return self.filter(pk__in=RawSQL("SELECT unnest(%s::bigint[])", (list(ids),)))


class Message(TenantOwned):
    """One recipient's copy: its uid, its own trace block, and its life."""

    mailbox = owned("accounts.Mailbox", related_name="messages", db_index=False)
    content = owned("mailstore.Content", related_name="messages", db_index=False)
    uid = models.BigIntegerField()
    epoch = models.IntegerField(help_text="The store's epoch when the message got its uid.")
    kept_unique_id = models.CharField(  # noqa: DJ001 - null: what UIDL shows follows from mailbox, epoch and uid
        max_length=70, null=True, help_text="The unique-id that came along from another server."
    )
    trace = models.BinaryField(help_text="Return-Path, Delivered-To, Received: what stands before the content.")
    octets = models.BigIntegerField(help_text="Trace and content, as LIST counts.")
    reverse_path = models.TextField(blank=True)
    subject = models.CharField(max_length=255, blank=True)
    sender = models.CharField("from", max_length=255, blank=True)
    message_id = models.CharField(max_length=255, blank=True)
    date = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(db_default=Now())
    kept_since = models.DateTimeField(
        null=True,
        help_text="From when its keep-time counts, if not from delivery: when it was restored, or came along from "
        "another server.",
    )
    first_fetched_at = models.DateTimeField(null=True)
    # Sessions are purged before the messages that mention them, so these two are not constrained.
    first_fetched_in = models.ForeignKey(
        MaildropSession, models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="+"
    )
    expunged_at = models.DateTimeField(null=True)
    expunged_in = models.ForeignKey(
        MaildropSession,
        models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="expunged_messages",
    )
    expunged_by = models.ForeignKey(
        "accounts.User",
        models.SET_NULL,
        null=True,
        db_index=False,
        related_name="+",
        help_text="If not in a session.",
    )
    expired = models.BooleanField(
        default=False, db_default=False, help_text="It was expunged because its keep-time ended."
    )
    earlier = models.JSONField(
        null=True, help_text="What became of it before it was restored, each time, oldest first (mailstore.life)."
    )

    objects: ClassVar[Any] = MessageQuerySet.as_manager()
    mailbox_path: ClassVar = "mailbox"
    domain_path: ClassVar = "mailbox__domain"

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("mailbox", "uid"), name="message_uid"),
            models.UniqueConstraint(
                fields=("mailbox", "kept_unique_id"),
                condition=~Q(kept_unique_id=None),
                name="message_kept_unique_id",
            ),
            models.CheckConstraint(condition=Q(uid__gte=1, octets__gte=0), name="message_numbers"),
        )
        indexes = (
            models.Index(fields=("mailbox", "uid"), condition=Q(expunged_at=None), name="message_in_maildrop"),
            models.Index(
                fields=("mailbox", "expunged_at"), condition=~Q(expunged_at=None), name="message_expunged_of_mailbox"
            ),
            models.Index(fields=("expunged_in",), condition=~Q(expunged_in=None), name="message_expunged_in"),
            models.Index(fields=("expunged_by",), condition=~Q(expunged_by=None), name="message_expunged_by"),
            models.Index(fields=("content",), name="message_content"),
            # For lists over many mailboxes, and for who asks what became of a message.
            models.Index(fields=("tenant", "id"), name="message_listed"),
            models.Index(fields=("message_id",), name="message_message_id"),
        )

    def __str__(self) -> str:
        return _("message %(uid)s of mailbox %(mailbox)s") % {"uid": self.uid, "mailbox": self.mailbox_id}

    @property
    def heading(self) -> str:
        """What people call it; logs and the audit do not."""
        return self.subject or str(self)

    @property
    def unique_id(self) -> str:
        """What UIDL shows."""
        return self.kept_unique_id or unique_id(self.mailbox_id, self.epoch, self.uid)


def unique_id(mailbox_id: int, epoch: int, uid: int) -> str:
    """The unique-id of a message (RFC 1939 section 7): three numbers in hexadecimal, at most 42 characters.

    A mailbox's id and its uids are never used again, and the separators keep two triples from reading the same. For a
    device with its own copy, into whose view the message came back, how often it did follows as a fourth number.
    """
    return f"{mailbox_id:x}.{epoch:x}.{uid:x}"


class OwnCopy(TenantOwned):
    """What a device with its own copy of the maildrop did with a message: a row for each that it fetched or removed.

    What it removed stays in the maildrop for the others. A message that is restored is new to all, and has none.
    """

    pk = models.CompositePrimaryKey("app_password_id", "message_id")
    mailbox = owned("accounts.Mailbox", related_name="+")
    # Neither is constrained: rows go with their message, and with their device when its app password is forgotten.
    app_password = owned("accounts.AppPassword", models.CASCADE, related_name="+", db_index=False)
    message = owned("mailstore.Message", models.CASCADE, related_name="own_copies")
    fetched_at = models.DateTimeField(null=True, help_text="First.")
    fetched_in = models.ForeignKey(
        MaildropSession, models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="+"
    )
    removed_at = models.DateTimeField(null=True, help_text="Since then it is not in the device's view.")
    removed_in = models.ForeignKey(
        MaildropSession, models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="+"
    )
    returns = models.IntegerField(default=0, help_text="How often it came back into the device's view.")

    mailbox_path: ClassVar = "mailbox"
    domain_path: ClassVar = "mailbox__domain"

    class Meta:
        verbose_name_plural = "own copies"
        indexes = (models.Index(fields=("removed_in",), condition=~Q(removed_in=None), name="own_copy_removed_in"),)

    def __str__(self) -> str:
        return f"message {self.message_id} for device {self.app_password_id}"


class DeliveryLedger(TenantOwned):
    """What was delivered to a mailbox lately, so that a retry of the MTA stores nothing again.

    Independent of the message: the retry of something the user has fetched and deleted stores nothing either.
    """

    pk = models.CompositePrimaryKey("mailbox_id", "digest")
    mailbox = owned("accounts.Mailbox", related_name="+", db_index=False)
    digest = models.BinaryField(help_text="SHA-256 of reverse-path and octets.")
    reverse_path = models.TextField(blank=True)
    delivered_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name = "delivery ledger"
        indexes = (models.Index(fields=("delivered_at",), name="ledger_age"),)


class ImportedItem(TenantOwned):
    """A message that came along from another server: remembered for as long as its mailbox, so that none comes twice.

    Also once it was purged: a unique-id that a client has seen never means another message.
    """

    pk = models.CompositePrimaryKey("mailbox_id", "digest")
    mailbox = owned("accounts.Mailbox", related_name="+", db_index=False)
    digest = models.BinaryField(help_text="SHA-256 of its unique-id there, or where it had none of its octets.")

    mailbox_path: ClassVar = "mailbox"
    domain_path: ClassVar = "mailbox__domain"


class ImportJob(TenantOwned):
    """Mail that is being brought into a mailbox from another server, in the background."""

    class State(models.TextChoices):
        WAITING = "waiting"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"  # can be started again: what came along stays
        CANCELLED = "cancelled"

    class Source(models.TextChoices):
        POP3 = "pop3", "POP3"
        IMAP = "imap", "IMAP"
        UPLOAD = "upload", "uploaded mbox or zip"

    mailbox = owned("accounts.Mailbox", related_name="import_jobs")
    source = models.CharField(max_length=6, choices=Source)
    host = models.CharField(max_length=253, blank=True, default="")
    port = models.IntegerField(null=True)
    security = models.CharField(max_length=8, default="tls", help_text="tls, starttls or none.")
    login = models.CharField(max_length=320, blank=True, default="")
    sealed_password = models.BinaryField(null=True, help_text="Encrypted; removed when the job ends.")
    folder = models.CharField(max_length=255, blank=True, default="", help_text="Of IMAP; empty: INBOX.")
    uidl_format = models.CharField(
        max_length=32,
        blank=True,
        default="",
        db_default="",
        help_text="Of that server's unique-ids, where only its UIDs are shown; empty: Dovecot's; none: keeps none.",
    )
    upload = models.CharField(max_length=255, blank=True, default="", help_text="File below the data directory.")
    state = models.CharField(max_length=9, choices=State, default=State.WAITING)
    total = models.IntegerField(null=True, help_text="Messages there.")
    imported = models.IntegerField(default=0)
    skipped = models.IntegerField(default=0, help_text="Had come along before.")
    failed = models.IntegerField(default=0)
    # Older versions wrote lines in English; now sentences are kept, to be said in the reader's language.
    report = models.TextField(blank=True, default="", help_text="What went wrong, a line each.")
    problems = models.JSONField(null=True, help_text="What went wrong, as mailstore.importing.sentences keeps it.")
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    mailbox_path: ClassVar = "mailbox"
    domain_path: ClassVar = "mailbox__domain"

    class Meta:
        indexes = (
            models.Index(
                fields=("created_at",), condition=Q(state__in=("waiting", "running")), name="import_job_to_do"
            ),
        )

    def __str__(self) -> str:
        return _("import %(id)s") % {"id": self.pk}


class Forward(TenantOwned):
    """A copy on its way to an address outside: written with the delivery, handed to the MTA by a task."""

    # Of the alias, or of the address that a bounce came to; null once the domain is gone.
    domain = owned("accounts.Domain", models.SET_NULL, null=True, related_name="+", db_index=False)
    alias_id = models.BigIntegerField(null=True)
    content = owned("mailstore.Content", related_name="forwards", db_index=False)
    trace = models.BinaryField(help_text="What stands before the content.")
    reverse_path = models.TextField(blank=True, help_text="Rewritten, so that bounces find back (SRS).")
    recipient = models.CharField(max_length=320)
    attempts = models.IntegerField(default=0)
    next_attempt_at = models.DateTimeField(db_default=Now())
    last_error = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = (
            models.Index(fields=("next_attempt_at",), name="forward_due"),
            models.Index(fields=("content",), name="forward_content"),
        )

    def __str__(self) -> str:
        return f"forward {self.pk}"


class ForwardLedger(TenantOwned):
    """What was taken to be sent on outside, for as long as `DeliveryLedger`, so that a retry sends nothing again."""

    digest = models.BinaryField(
        primary_key=True, help_text="SHA-256 of the delivery's digest, the alias and the address outside."
    )
    delivered_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name = "forward ledger"
        indexes = (models.Index(fields=("delivered_at",), name="forward_ledger_age"),)


class Refusal(TenantOwned):
    """Mail that was refused, hour by hour: of a domain, or of one mailbox of it.

    A further reason is `mailstore.refusals.TOO_LARGE`. Without foreign keys: what it tells of may be gone before it.
    """

    domain = owned("accounts.Domain", models.DO_NOTHING, related_name="+", db_index=False)
    mailbox = owned("accounts.Mailbox", models.DO_NOTHING, null=True, related_name="+", db_index=False)
    reason = models.CharField(max_length=12, help_text="As mailstore.delivery.Outcome has it, or unverified.")
    hour = models.DateTimeField()
    count = models.BigIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    sender_domain = models.CharField(max_length=255, help_text="Of the last one's reverse-path.")
    told_at = models.DateTimeField(null=True, help_text="When webhooks were told.")

    mailbox_path: ClassVar = "mailbox"
    domain_path: ClassVar = "domain"

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("domain", "mailbox", "reason", "hour"), nulls_distinct=False, name="refusal_of_hour"
            ),
        )
        indexes = (
            models.Index(fields=("last_at",), name="refusal_age"),
            models.Index(fields=("id",), condition=Q(told_at=None, mailbox__isnull=False), name="refusal_to_tell"),
            models.Index(fields=("mailbox", "hour"), name="refusal_of_mailbox"),
        )

    def __str__(self) -> str:
        return _("refusal %(id)s") % {"id": self.pk}


class Statistics(TenantOwned):
    """What happened in a domain in an hour or a day (UTC), and what lay in its maildrops at the end of that.

    The rows of the whole host have neither tenant nor domain. Without foreign keys: what they tell of may be gone.
    """

    tenant = models.ForeignKey(  # type: ignore[assignment] # the host's rows have none
        "accounts.Tenant", models.PROTECT, null=True, related_name="+", db_index=False, db_constraint=False
    )
    domain = owned("accounts.Domain", models.DO_NOTHING, null=True, related_name="+", db_index=False)
    start = models.DateTimeField()
    delivered = models.BigIntegerField(db_default=0, help_text="Messages, one for each mailbox.")
    delivered_octets = models.BigIntegerField(db_default=0)
    sessions = models.BigIntegerField(db_default=0, help_text="POP3 sessions that ended and fetched or removed mail.")
    fetched = models.BigIntegerField(db_default=0, help_text="Messages retrieved in them.")
    removed = models.BigIntegerField(db_default=0, help_text="Messages that sessions, people or programs removed.")
    refused = models.BigIntegerField(db_default=0, help_text="Recipients that were refused mail.")
    stored_messages = models.BigIntegerField(null=True, help_text="In maildrops.")
    stored_octets = models.BigIntegerField(null=True)

    domain_path: ClassVar = "domain"

    class Meta:
        abstract = True


class HourlyStatistics(Statistics):
    """Of an hour."""

    class Meta:
        verbose_name = verbose_name_plural = "statistics by hour"
        constraints = (
            models.UniqueConstraint(fields=("domain", "start"), nulls_distinct=False, name="hourly_statistics_once"),
        )
        indexes = (
            models.Index(fields=("start",), name="hourly_statistics_age"),
            models.Index(fields=("tenant", "start"), name="hourly_statistics_of_tenant"),
        )

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M}"


class DailyStatistics(Statistics):
    """Of a day."""

    class Meta:
        verbose_name = verbose_name_plural = "statistics by day"
        constraints = (
            models.UniqueConstraint(fields=("domain", "start"), nulls_distinct=False, name="daily_statistics_once"),
        )
        indexes = (
            models.Index(fields=("start",), name="daily_statistics_age"),
            models.Index(fields=("tenant", "start"), name="daily_statistics_of_tenant"),
        )

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d}"


class PurgeForecast(TenantOwned):
    """What goes for good on one of the next days (UTC), as it was seen at the last full hour.

    The rows of the whole host have neither tenant nor domain.
    """

    tenant = models.ForeignKey(  # type: ignore[assignment] # the host's rows have none
        "accounts.Tenant", models.PROTECT, null=True, related_name="+", db_index=False, db_constraint=False
    )
    domain = owned("accounts.Domain", models.DO_NOTHING, null=True, related_name="+", db_index=False)
    day = models.DateField(help_text="What is due already goes today.")
    messages = models.BigIntegerField()
    octets = models.BigIntegerField()
    mailboxes = models.BigIntegerField(help_text="Closed ones.")

    domain_path: ClassVar = "domain"

    class Meta:
        verbose_name = "purge forecast"
        constraints = (
            models.UniqueConstraint(fields=("domain", "day"), nulls_distinct=False, name="purge_forecast_once"),
        )
        indexes = (models.Index(fields=("tenant", "day"), name="purge_forecast_of_tenant"),)

    def __str__(self) -> str:
        return f"{self.day}"


class Rollup(models.Model):
    """How far the statistics are: one row. Whoever counts on holds it.

    What was `sampled` is counted once all transactions of this database that may have begun before have ended
    (`mailstore.statistics`).
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    message_id = models.BigIntegerField(db_default=0, help_text="The last message that was counted.")
    audit_id = models.BigIntegerField(db_default=0, help_text="The last record of the audit that was counted.")
    session_ended_at = models.DateTimeField(null=True, help_text="The end of the last session that was counted.")
    refused_at = models.DateTimeField(null=True, help_text="Refusals before are counted.")
    counted_at = models.DateTimeField(null=True, help_text="All that happened before is counted.")
    stored_at = models.DateTimeField(null=True, help_text="When it was last looked what lies there, and what will go.")
    sampled_at = models.DateTimeField(null=True)
    sampled_message_id = models.BigIntegerField(null=True, help_text="The last message that there was then.")
    sampled_audit_id = models.BigIntegerField(db_default=0, help_text="The last record of the audit then.")
    sampled_xid = models.BigIntegerField(null=True, help_text="The next transaction then.")

    class Meta:
        constraints = (models.CheckConstraint(condition=Q(id=1), name="rollup_is_one"),)

    def __str__(self) -> str:
        return f"counted until {self.counted_at}"


class BackgroundRun(models.Model):
    """When a process of Celery last did one of its tasks; or, for beat, last asked for it.

    Processes come and go under new names: a row that nobody renews is removed.
    """

    class Kind(models.TextChoices):
        WORKER = "worker"
        BEAT = "beat"

    kind = models.CharField(max_length=6, choices=Kind)
    process = models.CharField(max_length=300, help_text="Such as celery@host.")
    task = models.CharField(max_length=100)
    at = models.DateTimeField(help_text="When it last ended, or was asked for.")
    first_at = models.DateTimeField(db_default=Now(), help_text="When that was noted first.")
    seconds = models.FloatField(null=True, help_text="How long it took.")
    error = models.CharField(max_length=200, blank=True, default="", help_text="Empty: it went well.")

    class Meta:
        verbose_name = "background run"
        constraints = (models.UniqueConstraint(fields=("process", "task"), name="background_run_once"),)
        indexes = (models.Index(fields=("at",), name="background_run_age"),)

    def __str__(self) -> str:
        return _("%(task)s by %(process)s") % {"task": self.task, "process": self.process}
