"""What must work for the product to work; each check says in a sentence why it does not.

Each runs in a thread of its own (see `looks`), bounds its own waits where it can, and raises what
its subject raises: `looks` turns that into a reason. No reason holds a password.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import redis
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable
from redis.backoff import NoBackoff
from redis.retry import Retry

from audit import anchors, conf, log, storage
from audit.models import Checkpoint, Heartbeat
from audit.routers import hot_alias

LOCK_SECONDS = 2  # to wait for a turn, and again for the lock
BROKER_SECONDS = 2
BUCKET_SECONDS = 4
BEAT_SECONDS = 180
START = (
    "start beat (celery -A dezky beat --pidfile=) and a worker for it (celery -A dezky worker -Q "
    "short -c 1 -n short@%h), or see their logs"
)


@dataclass
class Check(HealthCheck):  # type: ignore[misc]  # django-health-check is not marked as typed
    """A check that is no coroutine, which django-health-check allows: it runs in a thread."""

    @abstractmethod
    def run(self) -> None:
        """Raise where it is not so."""


@dataclass
class Database(Check):
    """The database is as this release needs it, and takes what is written."""

    def run(self) -> None:
        """Look for migrations, and take the lock of those who write."""
        _look_at(DEFAULT_DB_ALIAS, "manage.py migrate")


@dataclass
class Hot(Check):
    """The log can be read, and reaches as far as is known elsewhere."""

    def run(self) -> None:
        """Look as `Database` does where it is another database, and read where the log ends."""
        if (alias := hot_alias()) != DEFAULT_DB_ALIAS:
            _look_at(alias, f"manage.py migrate --database {alias}")
        log.current_state()


@dataclass
class Broker(Check):
    """Redis answers."""

    def run(self) -> None:
        """Send it a PING."""
        if not (url := conf.broker_url()):
            raise ServiceUnavailable("REDIS_URL is not set: scheduled work needs a broker.")
        try:
            client = redis.Redis.from_url(
                url,
                socket_connect_timeout=BROKER_SECONDS,
                socket_timeout=BROKER_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:
            raise ServiceUnavailable(
                "REDIS_URL is no URL of a Redis: use redis://:PASSWORD@HOST:6379/0."
            ) from None
        with client:
            try:
                client.ping()
            except redis.AuthenticationError:
                raise ServiceUnavailable(
                    "The broker refuses the password: correct the one in REDIS_URL."
                ) from None
            except redis.RedisError as error:
                raise ServiceUnavailable(
                    f"The broker does not answer ({type(error).__name__}): see that REDIS_URL is "
                    "right and Redis is up."
                ) from None


@dataclass
class Bucket(Check):
    """The bucket answers, and lets itself be listed."""

    def run(self) -> None:
        """List one name."""
        if not conf.cold_bucket():
            raise ServiceUnavailable("AUDIT_COLD_BUCKET is not set: name the bucket.")
        try:
            storage.probe(BUCKET_SECONDS)
        except (ValueError, ImproperlyConfigured) as error:
            # The libraries refuse an address or a name before anything is asked.
            raise ServiceUnavailable(
                f"The bucket cannot be asked ({type(error).__name__}): correct "
                "AUDIT_COLD_ENDPOINT and AUDIT_COLD_BUCKET."
            ) from None


@dataclass
class Keys(Check):
    """A key signs today, and one that is known has signed the newest checkpoint."""

    def run(self) -> None:
        """Sign something that is no document, and verify the newest checkpoint's."""
        conf.keyring().sign("dezky-audit/readiness", b"", datetime.now(UTC).date())
        if row := Checkpoint.objects.first():
            anchors.signed(row)


@dataclass
class Worker(Check):
    """Beat, broker and worker do together what they do every minute."""

    def run(self) -> None:
        """Look when they did so last."""
        beat = Heartbeat.objects.filter(name=Heartbeat.SCHEDULE).first()
        if beat is None:
            raise ServiceUnavailable(f"No heartbeat of the schedule ever came: {START}.")
        age = datetime.now(UTC) - beat.at
        if abs(age) <= timedelta(seconds=BEAT_SECONDS):
            return
        said = f"{beat.at:%Y-%m-%d %H:%M:%S} UTC"
        if age < timedelta():
            raise ServiceUnavailable(
                f"The last heartbeat of the schedule is of {said}, which is yet to come: a clock "
                "was wrong, set it by NTP."
            )
        raise ServiceUnavailable(f"No heartbeat of the schedule since {said}: {START}.")


def checks() -> dict[str, Check]:
    """Return all checks by the names under which they are told."""
    return {
        "database": Database(),
        "hot": Hot(),
        "broker": Broker(),
        "bucket": Bucket(),
        "keys": Keys(),
        "worker": Worker(),
    }


def _look_at(alias: str, migrate: str) -> None:
    """Raise where a database lacks migrations, or takes nothing that is written."""
    _impatient(alias)
    applied = MigrationRecorder(connections[alias]).applied_migrations()
    if missing := sorted(_migrations().difference(applied)):
        number, (app, name) = len(missing), missing[0]
        raise ServiceUnavailable(
            f"The database is not up to date: {number:,} migration{'s' * (number > 1)} to come, "
            f"the first {app}.{name}. Run {migrate}."
        )
    with log.write_transaction(alias):
        pass


@cache
def _migrations() -> frozenset[tuple[str, str]]:
    """Return the migrations that this release has."""
    return frozenset(MigrationLoader(None).disk_migrations)


def _impatient(alias: str) -> None:
    """Let this thread's connection wait for a lock no longer than a probe may (SQLite alone)."""
    if connections[alias].vendor == "sqlite":
        own = connections[alias].copy()
        own.settings_dict["OPTIONS"] = {**own.settings_dict["OPTIONS"], "timeout": LOCK_SECONDS}
        connections[alias] = own
