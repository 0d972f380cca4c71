"""All settings, read from the environment (and from `.env` beside manage.py, if there is one).

A variable of the real environment wins over `.env`. Each secret may come from the file that
`NAME_FILE` names. The table in the README says what each variable means.
"""

import os
from datetime import timedelta
from pathlib import Path

from dezky import logging
from dezky.env import BASE_DIR, Reader
from dezky.proxies import Trusted

env = Reader()
env_file = os.environ.get("DEZKY_ENV_FILE", str(BASE_DIR / ".env"))
if env_file and Path(env_file).is_file():
    Reader.read_env(env_file)

# Django ------------------------------------------------------------------------------------

DEBUG = env.switch("DEBUG")
SECRET_KEY = env.secret("SECRET_KEY") or ("only-for-debug-" * 5 if DEBUG else "")
LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
ALLOWED_HOSTS = [
    host.strip() for host in env.list("ALLOWED_HOSTS", default=sorted(LOOPBACK) if DEBUG else [])
]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "csp",
    "django_prometheus",
    "rest_framework",
    "knox",
    "tenants",
    "audit",
    "audit.api",
]
MIDDLEWARE = [
    "dezky.proxies.Proxies",  # before all that asks who the client is
    "dezky.request_id.RequestId",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "audit.monitoring.middleware.AfterMiddleware",
]
ROOT_URLCONF = "dezky.urls"
WSGI_APPLICATION = "dezky.wsgi.application"
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
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "var" / "static"

# Cookies are secure and HTTPS is insisted on wherever a name other than loopback is served:
# there is no switch that could be forgotten.
LOOPBACK_ONLY = bool(ALLOWED_HOSTS) and LOOPBACK.issuperset(ALLOWED_HOSTS)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not LOOPBACK_ONLY
SECURE_SSL_REDIRECT = not LOOPBACK_ONLY
# Machines ask these from within, where there is no TLS.
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]
SECURE_HSTS_SECONDS = 0 if LOOPBACK_ONLY else 365 * 24 * 3600
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = not LOOPBACK_ONLY
# The header says what it says only where the peer is a trusted proxy: dezky/proxies.py takes it
# away everywhere else.
TRUSTED_PROXIES = Trusted.parse(env.str("TRUSTED_PROXIES", default=""))
if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    },
}

# The HTTP interface: JSON alone, closed unless a view opens itself ------------------------------

REST_FRAMEWORK = {
    # The first one names itself in a 401's WWW-Authenticate.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "audit.api.access.BearerAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["audit.api.access.MayRunArchive"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["audit.api.parsers.SmallJsonParser"],
    "EXCEPTION_HANDLER": "audit.api.errors.answer",
    "URL_FORMAT_OVERRIDE": None,
}
REST_KNOX = {
    "AUTH_HEADER_PREFIX": "Bearer",
    "TOKEN_PREFIX": "dezky_",  # so that whoever searches a disk for secrets finds it
    "TOKEN_TTL": timedelta(days=90),
}
KNOX_TOKEN_MODEL = "audit_api.Token"  # noqa: S105  # the name of a table
# knox's own table would stay empty beside ours.
MIGRATION_MODULES = {"knox": None}

# Databases: `hot` is a second alias only where it is another database ------------------------

DATABASES = {
    "default": env.database("DATABASE_URL", f"sqlite:///{BASE_DIR}/var/dezky.sqlite3"),
}
if hot := env.database("HOT_DATABASE_URL"):
    DATABASES["hot"] = hot
DATABASE_ROUTERS = ["audit.routers.HotRouter"]

# Scheduled work: dezky/celery.py says what is done when ------------------------------------------

REDIS_URL = env.secret("REDIS_URL")
SCHEDULE_CLOCK = "audit.daily.utc_now"  # who tells the schedule's guards what time it is

# Alarms: e-mail by Django, and a webhook --------------------------------------------------------

vars().update(env.email("EMAIL_URL"))
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.str("EMAIL_FROM", default="dezky-audit@localhost")
AUDIT_ALARM_EMAILS = [
    address.strip() for address in env.list("AUDIT_ALARM_EMAILS", default=[]) if address.strip()
]
AUDIT_ALARM_WEBHOOK_URL = env.secret("AUDIT_ALARM_WEBHOOK_URL")
AUDIT_ALARM_WEBHOOK_SECRET = env.secret("AUDIT_ALARM_WEBHOOK_SECRET")

# What may ask for figures
METRICS_TOKEN = env.secret("METRICS_TOKEN")

# Cold storage -------------------------------------------------------------------------------

AUDIT_COLD_ENDPOINT = env.str("AUDIT_COLD_ENDPOINT", default="")
AUDIT_COLD_REGION = env.str("AUDIT_COLD_REGION", default="us-east-1")
AUDIT_COLD_BUCKET = env.str("AUDIT_COLD_BUCKET", default="")
AUDIT_COLD_ACCESS_KEY = env.secret("AUDIT_COLD_ACCESS_KEY")
AUDIT_COLD_SECRET_KEY = env.secret("AUDIT_COLD_SECRET_KEY")
AUDIT_COLD_SSE = env.switch("AUDIT_COLD_SSE")
AUDIT_COLD_PREFIX = env.str("AUDIT_COLD_PREFIX", default="audit/v1")
AUDIT_COLD_TIMEOUT_SECONDS = env.number("AUDIT_COLD_TIMEOUT_SECONDS", default=60)
AUDIT_COLD_ATTEMPTS = env.number("AUDIT_COLD_ATTEMPTS", default=4)

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
    "cold": {
        "BACKEND": "audit.storage.ColdStorage",
        "OPTIONS": {
            "endpoint_url": AUDIT_COLD_ENDPOINT or None,
            "region_name": AUDIT_COLD_REGION,
            "bucket_name": AUDIT_COLD_BUCKET,
            "access_key": AUDIT_COLD_ACCESS_KEY or None,
            "secret_key": AUDIT_COLD_SECRET_KEY or None,
        },
    },
}

# The log and its archive --------------------------------------------------------------------

AUDIT_ORIGIN = env.str("AUDIT_ORIGIN", default="")
AUDIT_SIGNING_KEY = env.secret("AUDIT_SIGNING_KEY")
AUDIT_SIGNING_KEYS = env.secret("AUDIT_SIGNING_KEYS")
AUDIT_CHECKPOINT_MINUTES = env.number("AUDIT_CHECKPOINT_MINUTES", default=60)
AUDIT_HOT_RETENTION_DAYS = env.number("AUDIT_HOT_RETENTION_DAYS", default=90)
AUDIT_DEDUP_DAYS = env.number("AUDIT_DEDUP_DAYS", default=AUDIT_HOT_RETENTION_DAYS + 30)
AUDIT_BATCH_MAX_EVENTS = env.number("AUDIT_BATCH_MAX_EVENTS", default=102_400)
AUDIT_BATCH_MAX_BYTES = env.number("AUDIT_BATCH_MAX_BYTES", default=256 * 1024 * 1024)
AUDIT_CONFIRM = env.str("AUDIT_CONFIRM", default="head")
AUDIT_LEASE_SECONDS = env.number("AUDIT_LEASE_SECONDS", default=60)
ARCHIVE_ENABLED = env.switch("ARCHIVE_ENABLED")
ARCHIVE_RUN_HOUR_UTC = env.number("ARCHIVE_RUN_HOUR_UTC", default=3)
AUDIT_GRACE_DAYS = env.number("AUDIT_GRACE_DAYS", default=2)
AUDIT_MIN_FREE_MB = env.number("AUDIT_MIN_FREE_MB", default=1024)

# Logging: to standard error, one line an entry. Last, for it must know every secret above -------

LOGGING = logging.configuration(
    env.str("LOG_FORMAT", default=logging.JSON), env.str("LOG_LEVEL", default=""), vars()
)
