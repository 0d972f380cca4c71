"""What is wrong by what the databases and this machine say: looked at every minute."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db.models import F

from . import anchors, conf, log, verifications
from .alarms import Finding, Kind, Look
from .format.keys import KeyringError
from .models import ArchiveRun, Checkpoint, CheckpointRefusal, LogState, VerificationRun
from .routers import hot_alias
from .wording import count

PUBLISHED_WITHIN = timedelta(hours=2)
ALARMING = (ArchiveRun.Outcome.FAILED, ArchiveRun.Outcome.REFUSED)
# What stopped a run, where that is worth an alarm of its own and not just of a failed run.
GRAVE = {Kind.TAMPERING, Kind.GAP, Kind.KEY_MISSING, Kind.APPEND_REFUSED, Kind.FULL, Kind.CLOCK}
OF_VERDICT = {
    VerificationRun.Outcome.TAMPERED: Kind.TAMPERING,
    VerificationRun.Outcome.GAP: Kind.GAP,
}


def last_run() -> Iterator[Finding]:
    """Find that the last run that has ended has failed."""
    ended = ArchiveRun.objects.exclude(outcome=ArchiveRun.Outcome.RUNNING)
    # What was stopped, or died and was taken over, or was asked for what cannot be, neither failed
    # nor put anything right.
    ended = ended.exclude(outcome=ArchiveRun.Outcome.INTERRUPTED)
    row = ended.exclude(outcome__in=ALARMING, failure="").first()
    if row is None or row.outcome not in ALARMING:
        return
    kind = Kind(row.failure) if row.failure in set(GRAVE) else Kind.RUN_FAILED
    yield Finding(kind, f"Run {row.pk} ({row.get_outcome_display()}): {row.error}")


def verdicts() -> Iterator[Finding]:
    """Find what verifications have found and no later one has taken back."""
    for row in verifications.bad_news():
        if "problems" not in row.report:
            continue  # it died, and says nothing about the log
        yield Finding(
            OF_VERDICT.get(VerificationRun.Outcome(row.outcome), Kind.UNVERIFIABLE),
            f"Verification {row.pk} ({row.outcome}, {row.level}): "
            f"{verifications.first_problem(row)}",
        )


def refused_checkpoint() -> Iterator[Finding]:
    """Find that no checkpoint is made any more."""
    for row in CheckpointRefusal.objects.all():
        yield Finding(
            Kind(row.failure or Kind.TAMPERING),
            f"No checkpoint is made since {row.since:%Y-%m-%d %H:%M:%S} UTC: {row.error}",
        )


def waiting_checkpoints() -> Iterator[Finding]:
    """Find checkpoints that wait for the bucket for too long."""
    since = datetime.now(UTC) - PUBLISHED_WITHIN
    waiting = Checkpoint.objects.filter(state=Checkpoint.State.PENDING, at__lt=since)
    if number := waiting.count():
        yield Finding(
            Kind.BUCKET,
            f"{count(number, 'checkpoint')} not published for more than two hours: run "
            "checkpoint_now, which publishes what waits for the bucket, or says why it cannot.",
        )


def keys() -> Iterator[Finding]:
    """Find that nothing can be signed, or that the newest checkpoint's key is not known."""
    today = datetime.now(UTC).date()
    try:
        keyring = conf.keyring()
    except KeyringError as error:
        yield Finding(Kind.KEY_MISSING, str(error))
        return
    signers = keyring.signers
    ended = [key.key_id for key in signers if key.until and key.until < today]
    if not signers or ended:
        yield Finding(
            Kind.KEY_MISSING,
            (f"The signing key {ended[0]} has come to its end" if ended else "No key signs")
            + ": nothing is archived and no checkpoint is made. Set AUDIT_SIGNING_KEYS; "
            "docs/operate.md has the steps, under 'Rotate keys'.",
        )
    if row := Checkpoint.objects.first():
        anchors.signed(row)  # raises, which is a finding, too


def room() -> Iterator[Finding]:
    """Find that a disk that is written to has too little room."""
    folders = {Path(tempfile.gettempdir()): "batches are encoded before they are sent"}
    for config in settings.DATABASES.values():
        if config["ENGINE"] == "django.db.backends.sqlite3":
            folders[Path(config["NAME"]).parent] = "the database is"
    said = set()
    for folder, what in folders.items():
        free, device = shutil.disk_usage(folder).free, os.stat(folder).st_dev  # noqa: PTH116
        if free < conf.min_free_bytes() and device not in said:
            said.add(device)
            yield Finding(
                Kind.FULL,
                f"{folder}, where {what}, has {free / 1024**2:,.0f} MB left, less than "
                f"AUDIT_MIN_FREE_MB ({conf.min_free_bytes() / 1024**2:,.0f}): make room, before "
                "no event can be taken any more.",
            )


def hot() -> Iterator[Finding]:
    """Find that hot takes nothing, where it is another database than the one that has our rows."""
    if hot_alias() != "default":
        with log.write_transaction():
            LogState.objects.update(fence=F("fence"))
    yield from ()


LOOKS = (
    Look("run", last_run),
    Look("verification", verdicts),
    Look("checkpoint", refused_checkpoint),
    Look("checkpoints", waiting_checkpoints),
    Look("keys", keys),
    Look("room", room),
    Look("hot", hot),
)
