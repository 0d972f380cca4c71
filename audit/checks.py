"""Misconfiguration, found before the first request: each with an id and what to do.

Outside DEBUG a missing or weak secret is an error. docs/operate.md lists the ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections

from dezky.env import SQLITE_PRAGMAS

from . import conf, notices
from .format.errors import RecordError
from .format.keys import KeyringError
from .format.record import check

MIN_SECRET_KEY = 50
MIN_DIFFERENT_CHARACTERS = 5
MAX_BATCH_EVENTS = 10_000_000
MAX_BATCH_BYTES = 4 * 1024**3  # one PUT takes 5 GiB at most
SYNCHRONOUS_FULL = 2
MIN_LEASE_SECONDS = 3
MAX_COLD_SECONDS = 600
MAX_COLD_ATTEMPTS = 10
MIN_WEBHOOK_KEY = 16
MIN_TOKEN = 20
MAX_GRACE_DAYS = 3650
ENDS_SOON = timedelta(days=30)


@register(Tags.security)
def check_secrets(**kwargs: Any) -> list[CheckMessage]:
    """E001, E002, E018, W019: the Django secret and the signing keys."""
    return [*_secrets(), *_ends()]


def _secrets() -> Iterator[CheckMessage]:
    level = checks.Warning if settings.DEBUG else Error
    try:
        secret = settings.SECRET_KEY
    except ImproperlyConfigured:
        secret = ""
    if len(secret) < MIN_SECRET_KEY or len(set(secret)) < MIN_DIFFERENT_CHARACTERS:
        yield level(
            "SECRET_KEY is missing or weak.",
            hint=f"Set SECRET_KEY (or SECRET_KEY_FILE) to at least {MIN_SECRET_KEY} random "
            "characters.",
            id="audit.E001",
        )
    try:
        signers = conf.keyring().signers
        weak = not signers or any(key.weak for key in signers)
        reason = "AUDIT_SIGNING_KEY is missing, and so is AUDIT_SIGNING_KEYS."
        if signers:
            reason = "A signing key is weak: it hardly varies."
    except KeyringError as error:
        weak, reason = True, str(error)
    if weak:
        yield level(
            reason,
            hint="For a log that has batches, put its own keys back. For a new one set "
            "AUDIT_SIGNING_KEY (or AUDIT_SIGNING_KEY_FILE) to the output of "
            "'openssl rand -base64 32', or AUDIT_SIGNING_KEYS in its place to that of "
            "'manage.py audit_keys generate', and keep a copy elsewhere.",
            id="audit.E002",
        )


def _ends() -> Iterator[CheckMessage]:
    try:
        signers = conf.keyring().signers
    except KeyringError:
        return  # E002 says why
    today = datetime.now(UTC).date()
    hint = (
        "Put a new key before it in AUDIT_SIGNING_KEYS, take its + away and leave it there: "
        "'manage.py audit_keys generate' makes one, docs/operate.md has the steps."
    )
    for key in signers:
        if key.until and key.until < today:
            yield Error(
                f"The signing key {key.key_id} has come to its end, {key.until}: nothing can be "
                "signed, so nothing is archived.",
                hint=hint,
                id="audit.E018",
            )
        elif key.until and key.until <= today + ENDS_SOON:
            yield checks.Warning(
                f"The signing key {key.key_id} comes to its end on {key.until}: after that day "
                "nothing can be signed, so nothing is archived.",
                hint=hint,
                id="audit.W019",
            )


@register()
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """E003 to E012, E017: what must be named, and what must lie within its limits."""
    return list(_settings())


def _settings() -> Iterator[CheckMessage]:
    if not _is_name(conf.origin()):
        yield Error(
            "AUDIT_ORIGIN is missing, longer than 200 characters, or not printable.",
            hint="Name this log, such as 'dezky.example.eu'. The name is hashed into the chain "
            "and can never be changed afterwards.",
            id="audit.E003",
        )
    missing = [
        name
        for name, value in (
            ("AUDIT_COLD_ENDPOINT", conf.cold_endpoint()),
            ("AUDIT_COLD_BUCKET", conf.cold_bucket()),
            ("AUDIT_COLD_ACCESS_KEY", conf.cold_keys()[0]),
            ("AUDIT_COLD_SECRET_KEY", conf.cold_keys()[1]),
        )
        if not value
    ]
    if missing:
        yield Error(
            f"The cold store is not configured: {', '.join(missing)} missing.",
            hint="Set the endpoint, the bucket and its keys; scripts/bootstrap.sh does it for a "
            "local server.",
            id="audit.E004",
        )
    elif not conf.cold_endpoint().startswith(("http://", "https://")):
        yield Error(
            "AUDIT_COLD_ENDPOINT is not a URL.",
            hint="Begin it with https://, such as https://fsn1.your-objectstorage.com.",
            id="audit.E004",
        )
    if conf.cold_endpoint_has_user():
        yield Error(
            "AUDIT_COLD_ENDPOINT has a user or a password in it.",
            hint="Leave out all up to the @: the keys are AUDIT_COLD_ACCESS_KEY and "
            "AUDIT_COLD_SECRET_KEY. Change the password, since it may have been shown.",
            id="audit.E004",
        )
    prefix = conf.cold_prefix()
    if not prefix or any(part in {"", ".", ".."} for part in prefix.split("/")):
        yield Error(
            f"AUDIT_COLD_PREFIX '{prefix}' is empty or has an empty part, '.' or '..' in it.",
            hint="Use plain names and slashes, such as 'audit/v1'.",
            id="audit.E005",
        )
    if conf.retention_days() < 0:
        yield Error(
            "AUDIT_HOT_RETENTION_DAYS is below zero.",
            hint="Use 0 to archive all that was recorded before a run begins.",
            id="audit.E006",
        )
    if not 0 <= conf.run_hour_utc() <= 23:
        yield Error(
            "ARCHIVE_RUN_HOUR_UTC is not an hour of the day.",
            hint="Use 0 to 23; the default is 3.",
            id="audit.E007",
        )
    if not 1 <= conf.batch_max_events() <= MAX_BATCH_EVENTS:
        yield Error(
            f"AUDIT_BATCH_MAX_EVENTS is not between 1 and {MAX_BATCH_EVENTS}.",
            hint="The default is 102400.",
            id="audit.E008",
        )
    if not 1 <= conf.batch_max_bytes() <= MAX_BATCH_BYTES:
        yield Error(
            f"AUDIT_BATCH_MAX_BYTES is not between 1 and {MAX_BATCH_BYTES}.",
            hint="The default is 268435456.",
            id="audit.E009",
        )
    if conf.confirm_mode() not in {"head", "read"}:
        yield Error(
            f"AUDIT_CONFIRM is '{conf.confirm_mode()}'.",
            hint="Use 'head', or 'read' to read every object back before hot rows are deleted.",
            id="audit.E010",
        )
    patience = settings.DATABASES["default"].get("OPTIONS", {}).get("timeout", 0)
    shortest = max(MIN_LEASE_SECONDS, 2 * patience)
    if conf.lease_seconds() < shortest:
        yield Error(
            f"AUDIT_LEASE_SECONDS is below {shortest}.",
            hint="A run renews its lease three times in that span, and may have to wait "
            f"{patience} s for the database; the default is 60.",
            id="audit.E011",
        )
    if conf.dedup_days() < conf.retention_days():
        yield Error(
            "AUDIT_DEDUP_DAYS is shorter than AUDIT_HOT_RETENTION_DAYS.",
            hint="A replay could be taken for news; leave it unset for retention + 30 days.",
            id="audit.E012",
        )
    yield from _cold_limits()


def _cold_limits() -> Iterator[CheckMessage]:
    for name, value, most, default in (
        ("AUDIT_COLD_TIMEOUT_SECONDS", conf.cold_timeout_seconds(), MAX_COLD_SECONDS, 60),
        ("AUDIT_COLD_ATTEMPTS", conf.cold_attempts(), MAX_COLD_ATTEMPTS, 4),
    ):
        if not 1 <= value <= most:
            yield Error(
                f"{name} is {value}, which is not between 1 and {most}.",
                hint=f"Leave it unset for {default}.",
                id="audit.E017",
            )


@register()
def check_operations(**kwargs: Any) -> list[CheckMessage]:
    """E020 to E025, W026, E027: what runs unattended, and who hears of it."""
    return list(_operations())


def _operations() -> Iterator[CheckMessage]:
    for number, name, value in (
        ("E020", "AUDIT_GRACE_DAYS", conf.grace_days() - 1),
        ("E021", "AUDIT_MIN_FREE_MB", conf.min_free_bytes()),
        ("E022", "AUDIT_CHECKPOINT_MINUTES", conf.checkpoint_minutes() - 1),
    ):
        if value < 0:
            yield Error(
                f"{name} is too small.",
                hint="Leave it unset for the default, which .env.example names.",
                id=f"audit.{number}",
            )
    if conf.grace_days() > MAX_GRACE_DAYS:
        yield Error(
            f"AUDIT_GRACE_DAYS is more than {MAX_GRACE_DAYS}.",
            hint="Leave it unset for the default, which .env.example names.",
            id="audit.E020",
        )
    if conf.alarm_emails() and settings.EMAIL_BACKEND.endswith(".dummy.EmailBackend"):
        yield Error(
            "AUDIT_ALARM_EMAILS is set and EMAIL_URL is not: no message would be sent.",
            hint="Set EMAIL_URL to smtp+tls://USER:PASSWORD@HOST:587, or leave both away.",
            id="audit.E027",
        )
    url, _ = conf.alarm_webhook()
    if url and not url.startswith(("http://", "https://")):
        yield Error(
            "AUDIT_ALARM_WEBHOOK_URL is not a URL.",
            hint="Begin it with https://.",
            id="audit.E023",
        )
    if url and len(notices.webhook_key()) < MIN_WEBHOOK_KEY:
        yield Error(
            "AUDIT_ALARM_WEBHOOK_SECRET is missing, is no base64, or has less than "
            f"{MIN_WEBHOOK_KEY} bytes in it.",
            hint="Set it to the output of 'openssl rand -base64 32', and give the receiver the "
            "same.",
            id="audit.E024",
        )
    if settings.METRICS_TOKEN and len(settings.METRICS_TOKEN) < MIN_TOKEN:
        yield Error(
            f"METRICS_TOKEN has less than {MIN_TOKEN} characters.",
            hint="Set it to the output of 'openssl rand -hex 32'.",
            id="audit.E025",
        )
    if not conf.broker_url():
        yield checks.Warning(
            "REDIS_URL is not set: nothing runs by itself, and neither console nor HTTP can have "
            "a run.",
            hint="Set it to redis://:PASSWORD@HOST:6379/0, and start worker and beat.",
            id="audit.W026",
        )


def _is_name(text: str) -> bool:
    try:
        check(text)
    except RecordError:
        return False
    return 0 < len(text) <= 200 and text.isprintable()


@register()
def check_engines(**kwargs: Any) -> list[CheckMessage]:
    """E013, E014: engines that cannot hold the log."""
    found: list[CheckMessage] = []
    for alias, config in settings.DATABASES.items():
        name = str(config.get("UNSUPPORTED", config["ENGINE"]))
        variable = "DATABASE_URL" if alias == "default" else "HOT_DATABASE_URL"
        if "djongo" in name:
            found.append(
                Error(
                    f"{variable} names djongo, which cannot hold the log: it leaves out unique "
                    "constraints without a word, so that a chain could fork.",
                    hint="MongoDB as the hot store goes by a mongodb:// URL in HOT_DATABASE_URL "
                    "and MongoDB's own backend; until a version serves it, use sqlite://.",
                    id="audit.E013",
                )
            )
        elif "UNSUPPORTED" in config:
            found.append(
                Error(
                    f"{variable} has the scheme '{name}', which this version does not serve.",
                    hint=f"Use sqlite:///path/to/file, or leave {variable} unset.",
                    id="audit.E014",
                )
            )
    return found


@register()
def check_sqlite_options(**kwargs: Any) -> list[CheckMessage]:
    """E015: the SQLite options without which an acknowledged event could be lost."""
    found: list[CheckMessage] = []
    for alias, config in settings.DATABASES.items():
        if config["ENGINE"] != "django.db.backends.sqlite3":
            continue
        options = config.get("OPTIONS", {})
        pragmas = dict(
            part.lower().removeprefix("pragma ").split("=", 1)
            for part in options.get("init_command", "").split(";")
            if "=" in part
        )
        wrong = sorted(
            name
            for name in ("journal_mode", "synchronous")
            if pragmas.get(name) != SQLITE_PRAGMAS[name].lower()
        )
        if options.get("transaction_mode") != "IMMEDIATE":
            wrong.append("transaction_mode")
        if wrong:
            found.append(_sqlite_error("E015", alias, wrong))
    return found


@register(Tags.database)
def check_sqlite_pragmas(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E016: the same, asked of the open database; runs with migrate and check --database."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if connection.vendor != "sqlite":
            continue
        try:
            wrong = list(_pragmas_not_in_force(connection))
        except DatabaseError as error:
            wrong = [str(error)]
        if wrong:
            found.append(_sqlite_error("E016", alias, wrong))
    return found


def _sqlite_error(number: str, alias: str, wrong: list[str]) -> Error:
    return Error(
        f"SQLite database '{alias}' does not run as it must: {', '.join(wrong)}.",
        hint="It needs journal_mode=WAL, synchronous=FULL and transaction_mode=IMMEDIATE: remove "
        "what overrides them, and keep the file in a folder of a local disk that can be written.",
        id=f"audit.{number}",
    )


def _pragmas_not_in_force(connection: Any) -> Iterator[str]:
    expected = {
        "journal_mode": SQLITE_PRAGMAS["journal_mode"].lower(),
        "synchronous": SYNCHRONOUS_FULL,
    }
    with connection.cursor() as cursor:
        for name, value in expected.items():
            actual = cursor.execute(f"PRAGMA {name}").fetchone()[0]
            if actual != value:
                yield f"{name} is {actual}"
