"""The one reader of this app's settings; nothing else reads `settings.AUDIT_*`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from .format.signing import Keyring

OURS = ("AUDIT_", "ARCHIVE_")
SECRETS = frozenset(
    [
        "AUDIT_COLD_ACCESS_KEY",
        "AUDIT_COLD_SECRET_KEY",
        "AUDIT_SIGNING_KEY",
        "AUDIT_SIGNING_KEYS",
        "AUDIT_ALARM_WEBHOOK_SECRET",
        "AUDIT_ALARM_WEBHOOK_URL",  # who has it can post there
    ]
)
DIGEST_DIGITS = 16
ARCHIVE_MINUTE, VERIFY_MINUTE = 0, 30  # of each hour, when it is seen whether it is time
LONGEST_TASK = timedelta(hours=12)  # then its worker ends it by force
ASKED_TO_STOP = timedelta(hours=11)  # a run is, so that it ends by itself between two steps
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def origin() -> str:
    """Return the name of this log, which is hashed into link 0."""
    return str(settings.AUDIT_ORIGIN)


def keyring() -> Keyring:
    """Return the signing keys; raises KeyringError where a key is none."""
    return _keyring(settings.AUDIT_SIGNING_KEY, settings.AUDIT_SIGNING_KEYS)


@lru_cache(maxsize=4)
def _keyring(key: str, keys: str) -> Keyring:
    return Keyring.of(key, keys)


def fingerprint() -> dict[str, Any]:
    """Return every setting of this app by its name; of a secret the start of its SHA-256."""
    found = {}
    for name in sorted(dir(settings)):
        if name.startswith(OURS):
            value = getattr(settings, name)
            if name in SECRETS:
                # An environment may hold bytes that are no UTF-8.
                raw = str(value or "").encode("utf-8", "surrogatepass")
                value = sha256(raw).hexdigest()[:DIGEST_DIGITS] if raw else ""
            found[name] = value
    found["AUDIT_COLD_ENDPOINT"] = cold_endpoint()
    return found


def retention_days() -> int:
    """Return how many days an event stays in hot; 0 means until the next run."""
    return int(settings.AUDIT_HOT_RETENTION_DAYS)


def batch_max_events() -> int:
    """Return how many events a batch holds at most."""
    return int(settings.AUDIT_BATCH_MAX_EVENTS)


def batch_max_bytes() -> int:
    """Return how many uncompressed bytes (newlines counted) a batch holds at most."""
    return int(settings.AUDIT_BATCH_MAX_BYTES)


def archive_enabled() -> bool:
    """Say whether the archive may run without an operator's override."""
    return bool(settings.ARCHIVE_ENABLED)


def run_hour_utc() -> int:
    """Return the hour of the nightly run."""
    return int(settings.ARCHIVE_RUN_HOUR_UTC)


def verify_hour_utc() -> int:
    """Return the hour of the nightly verification: an hour after the run, on the same day."""
    return min(run_hour_utc() + 1, 23)


def lease_seconds() -> int:
    """Return how long a lease lives without being renewed."""
    return int(settings.AUDIT_LEASE_SECONDS)


def confirm_reads_everything() -> bool:
    """Say whether confirmation reads every object back instead of trusting HEAD."""
    return bool(settings.AUDIT_CONFIRM == "read")


def confirm_mode() -> str:
    """Return `AUDIT_CONFIRM` as it was given: `head` or `read`."""
    return str(settings.AUDIT_CONFIRM)


def cold_prefix() -> str:
    """Return the prefix of every key in the bucket, without a slash at either end."""
    return str(settings.AUDIT_COLD_PREFIX).strip("/")


def cold_bucket() -> str:
    """Return the bucket's name."""
    return str(settings.AUDIT_COLD_BUCKET)


def cold_endpoint() -> str:
    """Return the URL of the object store, to be shown: never with a user or a password."""
    url = str(settings.AUDIT_COLD_ENDPOINT or "")
    scheme = SCHEME.match(url)
    _, at, rest = url.rpartition("@")
    return (scheme[0] if scheme and at else "") + rest


def cold_endpoint_has_user() -> bool:
    """Say whether the URL of the object store names a user, which no URL that is shown may."""
    return "@" in str(settings.AUDIT_COLD_ENDPOINT or "")


def cold_keys() -> tuple[str, str]:
    """Return the access key and the secret key of the object store."""
    return str(settings.AUDIT_COLD_ACCESS_KEY), str(settings.AUDIT_COLD_SECRET_KEY)


def cold_sse() -> bool:
    """Say whether every object must be stored encrypted by the server (AES256)."""
    return bool(settings.AUDIT_COLD_SSE)


def cold_timeout_seconds() -> int:
    """Return for how long the object store may be silent in one try of a request."""
    return int(settings.AUDIT_COLD_TIMEOUT_SECONDS)


def cold_attempts() -> int:
    """Return how often a request to the object store is tried at most."""
    return int(settings.AUDIT_COLD_ATTEMPTS)


def dedup_days() -> int:
    """Return for how many days what was seen is remembered."""
    return int(settings.AUDIT_DEDUP_DAYS)


def grace_days() -> int:
    """Return for how long an event may be due before the archive is called behind."""
    return int(settings.AUDIT_GRACE_DAYS)


def min_free_bytes() -> int:
    """Return how much room a disk that is written to must have."""
    return int(settings.AUDIT_MIN_FREE_MB) * 1024 * 1024


def checkpoint_minutes() -> int:
    """Return how old the newest checkpoint may become."""
    return int(settings.AUDIT_CHECKPOINT_MINUTES)


def broker_url() -> str:
    """Return the URL of the broker, which may hold a password; empty where there is none."""
    return str(settings.REDIS_URL)


def alarm_emails() -> list[str]:
    """Return the addresses that hear of alarms."""
    return list(settings.AUDIT_ALARM_EMAILS)


def alarm_webhook() -> tuple[str, str]:
    """Return the URL that hears of alarms, and the secret that signs; empty where none is set."""
    return str(settings.AUDIT_ALARM_WEBHOOK_URL), str(settings.AUDIT_ALARM_WEBHOOK_SECRET)


def schedule_clock() -> Callable[[], datetime]:
    """Return what tells the schedule's guards the time."""
    clock: Callable[[], datetime] = import_string(settings.SCHEDULE_CLOCK)
    return clock
