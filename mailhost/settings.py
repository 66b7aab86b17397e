"""Django's settings, made from the environment; nothing else in the project reads environment variables."""

import logging
import os
import secrets
import socket
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from redis.connection import parse_url

from accounts import addresses, languages
from mailhost import environment as env

BASE_DIR = Path(__file__).resolve().parent.parent


def _secret_key(data: Path) -> str:
    """The key of the data directory, made at the first start."""
    path = data / "secret-key"
    try:
        return path.read_text()
    except FileNotFoundError:
        pass
    data.mkdir(parents=True, exist_ok=True)
    candidate = path.with_name(f"secret-key.{os.getpid()}")
    candidate.touch(mode=0o600)
    candidate.write_text(secrets.token_urlsafe(48))
    try:
        os.link(candidate, path)  # two commands may start at once: the first one's key stands
    except FileExistsError:
        pass
    finally:
        candidate.unlink()
    return path.read_text()


def _database(url: str) -> dict[str, Any]:
    """Django's description of the database at a libpq URL; every further parameter becomes an option."""
    if not url:  # commands that need no database
        return {"ENGINE": "django.db.backends.dummy"}
    if not url.startswith(("postgres://", "postgresql://")):
        raise ValueError("it must begin with postgresql://")
    try:
        parameters = conninfo_to_dict(url)
    except ProgrammingError:
        raise ValueError("it is not a valid PostgreSQL URL") from None
    if not parameters.get("dbname"):
        raise ValueError("it names no database")
    named = {key: parameters.pop(key, None) or "" for key in ("dbname", "user", "password", "host", "port")}
    return {
        "ENGINE": "django.db.backends.postgresql",
        **{key.replace("dbname", "name").upper(): value for key, value in named.items()},
        "CONN_MAX_AGE": 0,
        "OPTIONS": {
            **parameters,
            "pool": {"min_size": 1, "max_size": 8, "timeout": 10},
        },
    }


def _redis(url: str) -> str:
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("it must begin with redis://, rediss:// or unix://")
    try:
        parse_url(url)  # type: ignore[no-untyped-call] # redis-py has no types for it
    except ValueError:
        raise ValueError("it is not a valid Redis URL") from None
    return url


# --- Where things are ------------------------------------------------------------------------------

MAILHOST_DATA = env.read("MAILHOST_DATA", "var", lambda text: Path(text).expanduser().absolute())
# Commands that need a database set both before settings are read, if the environment does not (manage.py).
DATABASES = {"default": env.read("DATABASE_URL", "", _database, secret=True)}
REDIS_URL = env.read("REDIS_URL", "redis://127.0.0.1:6379/0", _redis, secret=True)
try:
    SECRET_KEY = os.environ.get("MAILHOST_SECRET_KEY") or _secret_key(MAILHOST_DATA)
except OSError as error:
    raise ImproperlyConfigured(f"MAILHOST_DATA is {MAILHOST_DATA}, which cannot be used: {error.strerror}.") from None

MAILHOST_HOSTNAME = env.read("MAILHOST_HOSTNAME", socket.gethostname(), str)
MAILHOST_HTTP = env.read("MAILHOST_HTTP", "127.0.0.1:8000", env.address)
MAILHOST_POP3 = env.read("MAILHOST_POP3", "127.0.0.1:1110", env.address)
MAILHOST_POP3S = env.read("MAILHOST_POP3S", "127.0.0.1:1995", partial(env.address, implicit_tls=True))
MAILHOST_LMTP = env.read("MAILHOST_LMTP", "127.0.0.1:2424", partial(env.address, or_path=True))
MAILHOST_WORKERS = env.read("MAILHOST_WORKERS", str(os.cpu_count() or 1), env.positive)
MAILHOST_PROXY_NETWORKS = env.read("MAILHOST_PROXY_NETWORKS", "", env.networks)
# Whether webhooks and imports may reach hosts of our own networks (accounts/outside.py).
MAILHOST_PRIVATE_TARGETS = env.read("MAILHOST_PRIVATE_TARGETS", "off", env.switch)
# Imports that run at once in the background: each has a thread of Celery to itself meanwhile.
MAILHOST_IMPORTS = env.read("MAILHOST_IMPORTS", "2", env.positive)
MAILHOST_HTTP_PROXIES = env.read("MAILHOST_HTTP_PROXIES", "", env.networks)

# --- What people outside are told: where the web is, and what mail programs are to connect to ------

# Such as https://mail.example.com, if that is not what requests say: behind a proxy that does TLS.
MAILHOST_PUBLIC_URL = env.read("MAILHOST_PUBLIC_URL", "", env.optional(env.web_address))
MAILHOST_PUBLIC_NAME = env.read("MAILHOST_PUBLIC_NAME", MAILHOST_HOSTNAME, str)
MAILHOST_PUBLIC_POP3S = env.read("MAILHOST_PUBLIC_POP3S", str(MAILHOST_POP3S.port), env.port)
MAILHOST_PUBLIC_POP3 = env.read("MAILHOST_PUBLIC_POP3", str(MAILHOST_POP3.port), env.port)
# The server that others run for sending, with TLS from the start; without it nobody is told of one.
MAILHOST_PUBLIC_SMTP = env.read("MAILHOST_PUBLIC_SMTP", "", env.optional(env.address))
# What the domains' DNS is to name: the MTAs that take their mail, and whose SPF record those have who send it.
MAILHOST_PUBLIC_MX = env.read("MAILHOST_PUBLIC_MX", "", env.exchangers)
MAILHOST_SPF_INCLUDE = env.read("MAILHOST_SPF_INCLUDE", "", env.optional(env.host_name))

# The role of the database that this process works as (accounts.database_roles). Commands are the tables' owner.
MAILHOST_DATABASE_ROLE = env.read(
    "MAILHOST_DATABASE_ROLE", "", env.one_of("", "mailhost_web", "mailhost_listener", "mailhost_worker")
)
if MAILHOST_DATABASE_ROLE and "OPTIONS" in DATABASES["default"]:
    _options = DATABASES["default"]["OPTIONS"]
    _options["options"] = f"{_options.get('options', '')} -c role={MAILHOST_DATABASE_ROLE}".strip()

# --- TLS: a pair that is given, or the one made in the data directory (mailhost/tls.py) ------------

if bool(os.environ.get("MAILHOST_TLS_CERT")) != bool(os.environ.get("MAILHOST_TLS_KEY")):
    raise ImproperlyConfigured("MAILHOST_TLS_CERT and MAILHOST_TLS_KEY must be set together.")
MAILHOST_TLS_GIVEN = bool(os.environ.get("MAILHOST_TLS_CERT") or os.environ.get("MAILHOST_TLS_KEY"))
_pem = env.file if MAILHOST_TLS_GIVEN else Path
MAILHOST_TLS_CERT = env.read("MAILHOST_TLS_CERT", str(MAILHOST_DATA / "tls" / "cert.pem"), _pem)
MAILHOST_TLS_KEY = env.read("MAILHOST_TLS_KEY", str(MAILHOST_DATA / "tls" / "key.pem"), _pem)

# --- Signing in ------------------------------------------------------------------------------------

MAILHOST_PLAINTEXT_AUTH: Literal["never", "loopback", "always"] = env.read(
    "MAILHOST_PLAINTEXT_AUTH", "never", env.one_of("never", "loopback", "always")
)
MAILHOST_DEFAULT_DOMAIN = env.read("MAILHOST_DEFAULT_DOMAIN", "example.test", addresses.domain)
MAILHOST_THROTTLE = env.read("MAILHOST_THROTTLE", "on", env.switch)
# Who must have a second step for the admin; all others may (accounts/two_factor).
MAILHOST_TWO_FACTOR: Literal["optional", "required-operators", "required"] = env.read(
    "MAILHOST_TWO_FACTOR", "optional", env.one_of("optional", "required-operators", "required")
)
# Who may read what is in messages, where a tenant does not say otherwise (accounts/permissions.py).
_content_roles = env.some_of("operator", "reseller", "tenant-admin", "domain-admin", "support")
MAILHOST_CONTENT_ROLES = env.read("MAILHOST_CONTENT_ROLES", "tenant-admin", _content_roles)
MAILHOST_POP3_IDLE = env.read("MAILHOST_POP3_IDLE", "10m", env.interval)

# --- Mail ------------------------------------------------------------------------------------------

# A file of mail that is sent to the API to be brought into a mailbox.
MAILHOST_MAX_UPLOAD = env.read("MAILHOST_MAX_UPLOAD", "2G", env.size)
MAILHOST_MAX_MESSAGE = env.read("MAILHOST_MAX_MESSAGE", "64M", env.size)
MAILHOST_DEFAULT_QUOTA = env.read("MAILHOST_DEFAULT_QUOTA", "1G", env.size)
MAILHOST_SUBADDRESS = env.read("MAILHOST_SUBADDRESS", "+", env.one_of("+", "-", "none"))
MAILHOST_SMTPUTF8_MAILBOXES = env.read("MAILHOST_SMTPUTF8_MAILBOXES", "off", env.switch)
MAILHOST_SUSPENDED_REPLY = env.read("MAILHOST_SUSPENDED_REPLY", "450", env.one_of("450", "550"))
MAILHOST_FORWARD_SMTP = env.read("MAILHOST_FORWARD_SMTP", "", env.optional(env.address))
MAILHOST_OVER_QUOTA_REPLY = env.read("MAILHOST_OVER_QUOTA_REPLY", "552", env.one_of("552", "452"))

# --- Whose a domain is (accounts/verification.py) --------------------------------------------------

# What becomes of mail to a domain that nobody has shown to be his: taken, deferred or refused.
MAILHOST_UNVERIFIED_DOMAINS: Literal["receive", "defer", "refuse"] = env.read(
    "MAILHOST_UNVERIFIED_DOMAINS", "refuse", env.one_of("receive", "defer", "refuse")
)
MAILHOST_DOMAIN_GRACE = env.read("MAILHOST_DOMAIN_GRACE", "7d", env.duration)
MAILHOST_DNS_SERVERS = env.read("MAILHOST_DNS_SERVERS", "", env.name_servers)

# --- How long things are kept ----------------------------------------------------------------------

MAILHOST_RETENTION = env.read("MAILHOST_RETENTION", "14d", env.duration)
MAILHOST_SESSION_HISTORY = env.read("MAILHOST_SESSION_HISTORY", "400d", env.duration)
MAILHOST_LEDGER_LIFE = env.read("MAILHOST_LEDGER_LIFE", "8d", env.duration)
MAILHOST_PURGE_INTERVAL = env.read("MAILHOST_PURGE_INTERVAL", "5m", env.interval)
# A listener that has not renewed its heartbeat for this long has lost its maildrops (mailstore/presence.py).
MAILHOST_LISTENER_TTL = env.read("MAILHOST_LISTENER_TTL", "90s", env.interval)

# --- How people are spoken to who have not chosen themselves (accounts/languages.py) ---------------

MAILHOST_LANGUAGE = env.read("MAILHOST_LANGUAGE", "en", env.one_of(*dict(languages.NAMES)))
MAILHOST_TIME_ZONE = env.read("MAILHOST_TIME_ZONE", "UTC", lambda name: languages.zone(name).key)

# --- Django ----------------------------------------------------------------------------------------

# Of a body that is read into memory: as much as the API takes of JSON, where it says itself how much each may have.
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 2**20

DEBUG = False
ALLOWED_HOSTS = [
    *env.read("MAILHOST_ALLOWED_HOSTS", "", env.words),
    "localhost",
    "127.0.0.1",
    "[::1]",
    MAILHOST_HOSTNAME,
    *([urlsplit(MAILHOST_PUBLIC_URL).hostname or ""] if MAILHOST_PUBLIC_URL else []),
]
INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",  # before the admin, whose templates it replaces
    "mailhost.apps.Admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "drf_spectacular_sidecar",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "mailhost",
    "accounts",
    "mailstore",
    "lmtp",
    "pop3",
]
MIDDLEWARE = [
    "mailhost.health.Probes",
    "accounts.headers.Headers",
    "accounts.autoconfig.Autoconfig",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "accounts.languages.SpokenTo",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "accounts.middleware.WithinScope",
]
ROOT_URLCONF = "mailhost.urls"
WSGI_APPLICATION = "mailhost.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["accounts.backends.Backend"]
PASSWORD_HASHERS = [
    "accounts.passwords.PasswordHasher",
    # Of other servers: verified, and replaced by ours at the first login.
    "accounts.hashes.MD5",
    "accounts.hashes.SHA1",
    "accounts.hashes.SHA256",
    "accounts.hashes.SHA512",
    "accounts.hashes.MD5Crypt",
    "accounts.hashes.SHA256Crypt",
    "accounts.hashes.SHA512Crypt",
    "accounts.hashes.BCrypt",
    "accounts.hashes.BCryptSHA256",
    "accounts.hashes.PBKDF2SHA256",
    "accounts.hashes.PBKDF2SHA1",
    "accounts.hashes.Scrypt",
    "accounts.hashes.Argon2",
]
AUTH_PASSWORD_VALIDATORS = [{"NAME": "accounts.passwords.Validator"}]
# Of commands, logs and the API. In what language people read stands in the database (accounts/languages.py).
LANGUAGE_CODE = "en"
LANGUAGES = languages.NAMES
LOCALE_PATHS = [BASE_DIR / "locale"]
FORMAT_MODULE_PATH = ["mailhost.formats"]
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = MAILHOST_DATA / "static"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
SESSION_COOKIE_HTTPONLY = LANGUAGE_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = LANGUAGE_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = (MAILHOST_PUBLIC_URL or "").startswith("https://")
LANGUAGE_COOKIE_SECURE = SESSION_COOKIE_SECURE
LANGUAGE_COOKIE_AGE = 400 * 24 * 3600
CSRF_TRUSTED_ORIGINS = [MAILHOST_PUBLIC_URL] if MAILHOST_PUBLIC_URL else []
REST_FRAMEWORK = {
    "DEFAULT_SCHEMA_CLASS": "accounts.api.schema.Schema",
    "EXCEPTION_HANDLER": "accounts.api.problems.handler",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["accounts.api.parsers.Json"],
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],  # a view that is no `Resource` is closed
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Mailhost",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "TokenScope": "accounts.api.tokens.SCOPES",
        "AppPasswordScope": "accounts.models.AppPassword.Scope",
        "DomainState": "accounts.models.Domain.State",
        "MailboxState": "accounts.models.Mailbox.State",
        "WebhookDeliveryState": "accounts.models.WebhookDelivery.State",
        "Role": "accounts.models.Role",
    },
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "accounts.api.schema.complete"],
}
LOGIN_REDIRECT_URL = "admin:index"
X_FRAME_OPTIONS = "DENY"
UNFOLD = {  # the side bar stands in mailhost/adminsite.py
    "SITE_TITLE": "Mailhost",
    "SITE_HEADER": "Mailhost",
    "SITE_SYMBOL": "mail",
    "SITE_URL": None,
    "SHOW_VIEW_ON_SITE": False,
    "SIDEBAR": {"show_search": True, "command_search": True},
    "DASHBOARD_CALLBACK": "mailstore.dashboard.today",
}

# --- Celery: small, repeatable tasks, driven from the database (docs/architecture.md) --------------

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_TASK_ACKS_LATE = CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_IGNORE_RESULT = True
# The last resort, of prefork workers only (`make run` has threads): the purge ends by itself before.
CELERY_TASK_TIME_LIMIT, CELERY_TASK_SOFT_TIME_LIMIT = 600, 540
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 1800,
    "unacked_restore_throttle": 1,
    "global_keyprefix": "mailhost:",
    # Whoever sends a task does not wait for Redis (else six seconds): what is to be done stands in the database.
    "max_retries": 0,
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 20
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "announce refusals": {"task": "mailstore.tasks.announce_refusals", "schedule": 60, "options": {"expires": 60}},
    "imports": {"task": "mailstore.tasks.imports", "schedule": 10, "options": {"expires": 10}},
    "purge": {
        "task": "mailstore.tasks.purge",
        "schedule": MAILHOST_PURGE_INTERVAL,
        "options": {"expires": MAILHOST_PURGE_INTERVAL.total_seconds()},
    },
    "quotas": {"task": "mailstore.tasks.tell_of_quotas", "schedule": 300.0, "options": {"expires": 300}},
    "statistics": {"task": "mailstore.tasks.roll_up_statistics", "schedule": 60.0, "options": {"expires": 60}},
    # New events are sent at once; this is for second attempts, and for what the queue lost.
    "webhooks": {"task": "accounts.tasks.send_webhooks", "schedule": 30.0, "options": {"expires": 30}},
    "domains": {"task": "accounts.tasks.check_domains", "schedule": 60.0, "options": {"expires": 60}},
    "tidy": {"task": "accounts.tasks.tidy", "schedule": 3600.0, "options": {"expires": 3600}},
}

if MAILHOST_FORWARD_SMTP:
    # Every few seconds, a look at an index: what goes on outside should be as prompt as what stays here.
    CELERY_BEAT_SCHEDULE["forward"] = {"task": "mailstore.tasks.forward", "schedule": 5, "options": {"expires": 5}}


def _what_to_tell(record: logging.LogRecord) -> bool:
    """A request that is refused (4xx) is one line, and none in the API; one that failed (5xx) says where."""
    if record.levelno >= logging.ERROR:
        return True
    record.exc_info = None
    request = getattr(record, "request", None)
    return request is None or not request.path.startswith("/api/")


LOG_LEVEL = env.read("MAILHOST_LOG_LEVEL", "INFO", env.one_of("DEBUG", "INFO", "WARNING", "ERROR"))
# Of what is told every few seconds, and tells nothing, only the exceptions.
EXCEPTIONS_ONLY = {"level": "WARNING" if LOG_LEVEL == "INFO" else LOG_LEVEL}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "filters": {"refusals": {"()": "django.utils.log.CallbackFilter", "callback": _what_to_tell}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        # Anybody can send any Host header: the refusal is the whole answer.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        # So with a list of the admin that is asked for what it does not tell.
        "django.security.DisallowedModelAdminLookup": {"level": "CRITICAL"},
        "django.request": {"filters": ["refusals"]},
        # Each passkey that is made or used, by its id. What matters of it stands in the audit.
        "fido2": {"level": "WARNING"},
        # Connections that are lost are logged by those who use them, once.
        "psycopg": {"level": "ERROR"},
        # Each task that was due, received, and succeeded. One that failed is an error.
        "celery.beat": EXCEPTIONS_ONLY,
        "celery.worker.strategy": EXCEPTIONS_ONLY,
        "celery.app.trace": EXCEPTIONS_ONLY,
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
}
